"""One imputation on the workers of a Dask cluster, file to file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, as_completed, get_worker

from fastimpute.distributed.share import Done, Share
from fastimpute.progress import progress
from fastimpute.stream.job import Job, Log, OpenSink, Report, Watch
from fastimpute.stream.run import OpenSource, run
from fastimpute.stream.summary import Summary
from fastimpute.stream.wish import Wish

RETRIES = 2  # of a piece of work that fails; where its worker dies, Dask gives it to another by itself


def run_on_cluster(
    open_source: OpenSource,
    wish: Wish,
    targets: list[Path],
    open_sink: OpenSink,
    *,
    client: Client,
    open_on_worker: OpenSource,
    report: Report,
    watch: Watch,
    log: Log,
    verbose: bool,
) -> Summary | None:
    """Impute a table of any size on a cluster; see `fastimpute.stream.run.run` for the arguments not told of here.

    The client looks at the table and writes the result; in between the workers fit a group of sensors or fill a band
    of rows at a time. The folder of unfinished work beside the output is where all of them meet.

    Args:
        open_source: opens the input for the client; given a folder to lay things aside in.
        wish: what is asked for; its memory is that of the client, and of each piece of work on a worker.
        targets: the output, and those of the ends of its intervals where the wish has a level.
        open_sink: makes a new table at a path.
        client: of the cluster.
        open_on_worker: as open_source, for the workers: can be pickled, and works on any of their machines.
        report: told what the user should know.
        watch: sees every cell.
        log: told of every event.
        verbose: show progress on a terminal.

    Raises:
        ValueError: as `run`; or a piece of work that ends every worker it is given to.
    """
    work = partial(_work, client, open_on_worker)
    return run(open_source, wish, targets, open_sink, report=report, watch=watch, log=log, verbose=verbose, work=work)


class _Crew(WorkerPlugin):
    """Keeps the table open on a worker for the length of a job."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def teardown(self, worker: Worker) -> None:
        self.share.close()


def _work(client: Client, open_on_worker: OpenSource, job: Job, verbose: bool) -> None:
    share = Share(open_on_worker, job.wish, job.folder.path.absolute())
    name = f"fastimpute-{uuid4().hex}"
    cells = job.source.header.rows * job.source.header.sensors
    client.register_plugin(_Crew(share), name=name)
    try:
        with progress("fitting", job.tiles.groups, verbose=verbose) as advance:
            for _ in _results(client, job, _fit, name, range(job.tiles.groups)):
                advance()
        with progress("imputing", cells, cells=cells, verbose=verbose) as advance:
            for done in _results(client, job, _fill, name, range(job.tiles.bands)):
                advance(done.cells)
    finally:
        client.unregister_worker_plugin(name)


def _results(client: Client, job: Job, task: Callable[[int, str], Done], name: str, numbers: range) -> Iterator[Done]:
    """What the workers have done, as it comes in; when one fails, the others are called off."""
    futures: list[Future[Any]] = client.map(task, numbers, crew=name, pure=False, retries=RETRIES)
    try:
        for future in as_completed(futures, loop=client.loop):
            done: Done = future.result()
            for event in done.events:
                job.log(event)
            for kind, seconds in done.seconds.items():
                job.clock.seconds[kind] += seconds
            yield done
    except KilledWorker as error:
        raise ValueError(
            f"a piece of work ended {error.allowed_failures + 1} workers one after the other; the last was "
            f"{error.last_worker.address}: does their memory suffice? Finished tiles are kept"
        ) from None
    finally:
        client.cancel(futures)


def _share(name: str) -> Share:
    crew: Any = get_worker().plugins[name]
    share: Share = crew.share
    return share


def _fit(group: int, crew: str) -> Done:
    return _share(crew).fit(group)


def _fill(band: int, crew: str) -> Done:
    return _share(crew).fill(band)

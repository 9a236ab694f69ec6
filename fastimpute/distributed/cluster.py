"""One imputation on the workers of a Dask cluster, file to file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, as_completed, get_worker

from fastimpute.distributed.share import Done, Share
from fastimpute.progress import progress
from fastimpute.stream.clock import Log
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import Job, Report
from fastimpute.stream.lots import LOTS_OF_A_WORKER, lots
from fastimpute.stream.output import OpenSink, Output
from fastimpute.stream.run import OpenSource, run
from fastimpute.stream.summary import Summary
from fastimpute.stream.survey import Survey
from fastimpute.stream.table import Rows, Source
from fastimpute.stream.wish import Wish
from fastimpute.stream.workers import Workers

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
    log: Log,
    verbose: bool,
) -> Summary | None:
    """Impute a table of any size on a cluster; see `fastimpute.stream.run.run` for the arguments not told of here.

    The workers look at a lot of tiles, fit a group of sensors, fill a lot or write some rows at a time; the client puts
    together what they saw, and writes formats that take their rows in order only. The folder of unfinished work
    beside the output is where all of them meet.

    Args:
        open_source: opens the input for the client; given a folder to lay things aside in.
        wish: what is asked for; its memory is that of the client, and of each piece of work on a worker.
        targets: the output, and those of the ends of its intervals where the wish has a level.
        open_sink: makes a new table at a path.
        client: of the cluster.
        open_on_worker: as open_source, for the workers: can be pickled, and works on any of their machines.
        report: told what the user should know.
        log: told of every event.
        verbose: show progress on a terminal.

    Raises:
        ValueError: as `run`; or a piece of work that ends every worker it is given to.
    """
    folder = WorkFolder.beside(targets[0]).path.absolute()
    with contextlib.closing(ClusterWorkers(client, open_on_worker, wish, folder)) as workers:
        return run(open_source, wish, targets, open_sink, report=report, log=log, verbose=verbose, workers=workers)


class _Crew(WorkerPlugin):
    """Keeps the table open on a worker for the length of a run."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def teardown(self, worker: Worker) -> None:
        self.share.close()


class ClusterWorkers(Workers):
    """Those of a cluster, led by its client."""

    def __init__(self, client: Client, open_on_worker: OpenSource, wish: Wish, folder: Path) -> None:
        self.count = max(1, sum(client.nthreads().values()))
        self._client, self._given = client, (open_on_worker, wish, folder)
        self._name = f"fastimpute-{uuid4().hex}"
        self._ready = False

    def close(self) -> None:
        """Let the workers go."""
        if self._ready:
            self._client.unregister_worker_plugin(self._name)

    def look(self, survey: Survey, verbose: bool) -> None:
        """See `Workers.look`."""
        with progress("scanning", survey.cells, cells=survey.cells, verbose=verbose) as advance:
            for done in self._results(survey, _look, range(len(survey.lots))):
                advance(done.cells)

    def fit(self, job: Job, verbose: bool) -> None:
        """See `Workers.fit`."""
        with progress("fitting", job.tiles.groups, verbose=verbose) as advance:
            for _ in self._results(job, _fit, range(job.tiles.groups)):
                advance()

    def fill(self, job: Job, verbose: bool) -> None:
        """See `Workers.fill`."""
        cells = job.tiles.rows * job.tiles.sensors
        with progress("imputing", cells, done=job.finished_cells, cells=cells, verbose=verbose) as advance:
            for done in self._results(job, _fill, range(len(lots(job.tiles, self.count)))):
                advance(done.cells)

    def write(self, output: Output, verbose: bool) -> None:
        """See `Workers.write`."""
        cells = output.job.tiles.rows * output.job.tiles.sensors
        shares = [pieces for pieces in output.shares(self.count * LOTS_OF_A_WORKER) if pieces]
        task = partial(_write, output.target, output.tables)
        with progress("writing", cells, cells=cells, verbose=verbose) as advance:
            for done in self._results(output.job, task, shares):
                advance(done.cells)

    def _results(self, at: Survey | Job, task: Callable[[Any, str], Done], pieces: Sequence[Any]) -> Iterator[Done]:
        """What the workers have done, as it comes in; when one fails, the others are called off."""
        self._prepare(at.source)
        futures: list[Future[Any]] = self._client.map(task, pieces, crew=self._name, pure=False, retries=RETRIES)
        try:
            for future in as_completed(futures, loop=self._client.loop):
                done: Done = future.result()
                for event in done.events:
                    at.log(event)
                for kind, seconds in done.seconds.items():
                    at.clock.seconds[kind] += seconds
                yield done
        except KilledWorker as error:
            raise ValueError(
                f"a piece of work ended {error.allowed_failures + 1} workers one after the other; the last was "
                f"{error.last_worker.address}: does their memory suffice? Finished tiles are kept"
            ) from None
        finally:
            self._client.cancel(futures)

    def _prepare(self, source: Source) -> None:
        """Give every worker its share, which opens the table, or what was laid aside of it, once."""
        if not self._ready:
            open_source, wish, folder = self._given
            elsewhere = source.elsewhere()
            if elsewhere is not None:
                open_source = partial(_laid_aside, elsewhere)
            self._client.register_plugin(_Crew(Share(open_source, wish, folder, self.count)), name=self._name)
            self._ready = True


def _laid_aside(elsewhere: Callable[[], Source], spool: Path) -> Source:
    return elsewhere()


def _share(name: str) -> Share:
    crew: Any = get_worker().plugins[name]
    share: Share = crew.share
    return share


def _look(lot: int, crew: str) -> Done:
    return _share(crew).look(lot)


def _fit(group: int, crew: str) -> Done:
    return _share(crew).fit(group)


def _fill(lot: int, crew: str) -> Done:
    return _share(crew).fill(lot)


def _write(target: Path, tables: tuple[Rows, ...], pieces: list[slice], crew: str) -> Done:
    return _share(crew).write(target, tables, pieces)

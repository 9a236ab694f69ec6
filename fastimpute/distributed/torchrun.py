"""One imputation shared by the processes that torchrun starts: `torchrun --nproc-per-node 8 -m fastimpute impute ...`.

Rank 0 looks at the table, and writes the result; in between every rank fits and fills its share, groups of sensors and
bands of rows dealt out in turn. What is done lies in the folder of unfinished work beside the output, which all ranks
have to see. A group that torchrun restarts (`--max-restarts`) therefore goes on where the last one was lost, and the
result is the bits of a single process.

Source: torchrun's contract with its workers, https://docs.pytorch.org/docs/stable/elastic/run.html.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from fastimpute.distributed.ranks import Ranks, joined
from fastimpute.progress import progress
from fastimpute.stream.clock import Clock
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import Job, Log, OpenSink, Report, Watch, fill_bands, fit_models, resume
from fastimpute.stream.run import OpenSource, run
from fastimpute.stream.summary import Summary
from fastimpute.stream.wish import Wish

__all__ = ["Ranks", "joined", "launched", "run_ranked"]


def launched() -> bool:
    """Whether this process is one of several that were started together."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def run_ranked(
    open_source: OpenSource,
    wish: Wish,
    targets: list[Path],
    open_sink: OpenSink,
    *,
    ranks: Ranks,
    report: Report,
    watch: Watch,
    log: Log,
    verbose: bool,
) -> Summary | None:
    """Impute a table of any size together with the other ranks; see `fastimpute.stream.run.run` for the arguments.

    Args:
        open_source: opens the input, in every rank; given a folder to lay things aside in.
        wish: what is asked for; its memory is that of each process.
        targets: the output, and those of the ends of its intervals where the wish has a level.
        open_sink: makes a new table at a path.
        ranks: this process among the others, from `joined`: the call has to be in its block.
        report: told what the user should know, by rank 0.
        watch: sees every cell, in rank 0.
        log: told of every event of its own rank, under "rank".
        verbose: show progress on a terminal; rank 0 shows that of its own share.

    Returns:
        What was done, to rank 0; None to the others, and where an earlier run had all but put its output in place.

    Raises:
        ValueError: as `run`.
        FailedElsewhere, LostRank: another rank has failed or is gone; `joined` makes them one message.
    """

    def tell(event: dict[str, Any]) -> None:
        log({**event, "rank": ranks.rank})

    if ranks.rank == 0:
        lead = partial(_lead, ranks)
        summary = run(
            open_source, wish, targets, open_sink, report=report, watch=watch, log=tell, verbose=verbose, work=lead
        )
        if summary is None:
            ranks.meet()
        return summary
    ranks.meet()
    if ranks.knows("begun"):
        folder = WorkFolder.beside(targets[0])
        with open_source(folder.spool(str(ranks.rank))) as source:
            _do_share(ranks, resume(source, wish, folder, clock=Clock(), log=tell), verbose=False)
    return None


def _lead(ranks: Ranks, job: Job, verbose: bool) -> None:
    ranks.announce("begun")
    ranks.meet()
    _do_share(ranks, job, verbose)


def _do_share(ranks: Ranks, job: Job, verbose: bool) -> None:
    groups, bands = ranks.share(job.tiles.groups), ranks.share(job.tiles.bands)
    with progress("fitting", len(groups), verbose=verbose) as advance:

        def fitted() -> None:
            advance()
            ranks.check()

        fit_models(job, groups, fitted)
    ranks.meet()
    tiles = [tile for band in bands for tile in job.tiles.of_band(band)]
    cells = sum(tile.cells for tile in tiles)
    done = sum(tile.cells for tile in tiles if job.folder.finished(tile))
    with progress("imputing", cells, done=done, cells=cells, verbose=verbose) as advance:

        def filled(cells: int) -> None:
            advance(cells)
            ranks.check()

        fill_bands(job, bands, filled)
    ranks.meet()

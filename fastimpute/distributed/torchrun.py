"""One imputation shared by the processes that torchrun starts: `torchrun --nproc-per-node 8 -m fastimpute impute ...`.

Rank 0 leads: it says what is next, and every rank does its share of it. Lots of tiles are looked at, imputers are
fitted to groups of sensors, lots are filled, and rows of the output are written, where its format lets several
processes do that. What is done lies in the folder of unfinished work beside the output, which all ranks have to see. A
group that torchrun restarts (`--max-restarts`) therefore goes on where the last one was lost, and the result is the
bits of a single process.

Source: torchrun's contract with its workers, https://docs.pytorch.org/docs/stable/elastic/run.html.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastimpute.distributed.ranks import Ranks, joined
from fastimpute.progress import progress
from fastimpute.stream.arrange import ArrangedSource
from fastimpute.stream.clock import Clock, Log
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import Job, Report, fill_lots, fit_models, resume
from fastimpute.stream.lots import Lot, lots
from fastimpute.stream.output import OpenSink, Output
from fastimpute.stream.run import OpenSource, run
from fastimpute.stream.summary import Summary
from fastimpute.stream.survey import Survey
from fastimpute.stream.table import Source
from fastimpute.stream.wish import Wish
from fastimpute.stream.workers import Workers

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
    log: Log,
    verbose: bool,
) -> Summary | None:
    """Impute a table of any size together with the other ranks; see `fastimpute.stream.run.run` for the arguments.

    Args:
        open_source: opens the input, in every rank, or in rank 0 alone where it has to be laid aside; given a folder
            to do that in.
        wish: what is asked for; its memory is that of each process.
        targets: the output, and those of the ends of its intervals where the wish has a level.
        open_sink: makes a new table at a path.
        ranks: this process among the others, from `joined`: the call has to be in its block.
        report: told what the user should know, by rank 0.
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
        workers = RankedWorkers(ranks)
        summary = run(open_source, wish, targets, open_sink, report=report, log=tell, verbose=verbose, workers=workers)
        ranks.meet()  # nothing more to do
        return summary
    _follow(ranks, open_source, wish, WorkFolder.beside(targets[0]), tell)
    return None


class RankedWorkers(Workers):
    """All ranks; this is rank 0, which leads."""

    def __init__(self, ranks: Ranks) -> None:
        self.count = ranks.world
        self._ranks = ranks
        self._said = 0

    def look(self, survey: Survey, verbose: bool) -> None:
        """See `Workers.look`."""
        self._say("look", survey.source)
        with progress("scanning", survey.cells, cells=survey.cells, verbose=verbose) as advance:
            _look(self._ranks, survey, advance)
        self._ranks.meet()

    def fit(self, job: Job, verbose: bool) -> None:
        """See `Workers.fit`."""
        self._say("fit", job.source)
        with progress("fitting", len(self._ranks.share(job.tiles.groups)), verbose=verbose) as advance:
            _fit(self._ranks, job, advance)
        self._ranks.meet()

    def fill(self, job: Job, verbose: bool) -> None:
        """See `Workers.fill`."""
        self._say("fill", job.source)
        tiles = [tile for lot in _own_lots(self._ranks, job) for tile in lot]
        cells = sum(tile.cells for tile in tiles)
        done = sum(tile.cells for tile in tiles if job.folder.finished(tile))
        with progress("imputing", cells, done=done, cells=cells, verbose=verbose) as advance:
            _fill(self._ranks, job, advance)
        self._ranks.meet()

    def write(self, output: Output, verbose: bool) -> None:
        """See `Workers.write`."""
        self._say("write", output.job.source, (output.target, output.tables))
        cells = output.job.tiles.sensors * sum(piece.stop - piece.start for piece in output.shares(self.count)[0])
        with progress("writing", cells, cells=cells, verbose=verbose) as advance:
            _write(self._ranks, output, advance)
        self._ranks.meet()

    def _say(self, task: str, source: Source, more: Any = None) -> None:
        """Have all ranks begin a task."""
        if not self._said:
            self._ranks.announce("table", source.elsewhere())
        self._ranks.announce(f"task/{self._said}", (task, more))
        self._said += 1
        self._ranks.meet()


def _follow(ranks: Ranks, open_source: OpenSource, wish: Wish, folder: WorkFolder, log: Log) -> None:
    """Do a share of all that rank 0 says."""
    with contextlib.ExitStack() as opened:
        source: ArrangedSource | None = None
        for number in itertools.count():
            ranks.meet()
            if not ranks.knows(f"task/{number}"):
                return
            task, more = ranks.told(f"task/{number}")
            if source is None:
                elsewhere = ranks.told("table")
                table = elsewhere() if elsewhere else open_source(folder.spool(str(ranks.rank)))
                source = ArrangedSource.kept(opened.enter_context(table), folder)
            if task == "look":
                _look(ranks, Survey.of(source, wish, folder, ranks.world, Clock(), log), _unseen)
            else:
                job = resume(source, wish, folder, clock=Clock(), log=log)
                if task == "fit":
                    _fit(ranks, job, _unseen)
                elif task == "fill":
                    _fill(ranks, job, _unseen)
                else:
                    _write(ranks, Output(job, *more), _unseen)
            ranks.meet()


def _unseen(units: float = 1.0) -> None:
    """The progress of a rank that shows none."""


def _watched(ranks: Ranks, advance: Callable[..., None]) -> Callable[..., None]:
    """Tells of progress, and stops where another rank has failed."""

    def told(*units: int) -> None:
        advance(*units)
        ranks.check()

    return told


def _look(ranks: Ranks, survey: Survey, advance: Callable[..., None]) -> None:
    survey.look(ranks.share(len(survey.lots)), _watched(ranks, advance))


def _fit(ranks: Ranks, job: Job, advance: Callable[..., None]) -> None:
    fit_models(job, ranks.share(job.tiles.groups), _watched(ranks, advance))


def _fill(ranks: Ranks, job: Job, advance: Callable[..., None]) -> None:
    fill_lots(job, _own_lots(ranks, job), _watched(ranks, advance))


def _write(ranks: Ranks, output: Output, advance: Callable[..., None]) -> None:
    output.write(output.shares(ranks.world)[ranks.rank], _watched(ranks, advance))


def _own_lots(ranks: Ranks, job: Job) -> list[Lot]:
    dealt = lots(job.tiles, ranks.world)
    return [dealt[number] for number in ranks.share(len(dealt))]

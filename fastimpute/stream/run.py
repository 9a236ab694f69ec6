"""A large table, from its first look to the finished files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from fastimpute.stream.arrange import ArrangedSource
from fastimpute.stream.clock import Clock, Log
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import Report, begin
from fastimpute.stream.lots import LostWorker
from fastimpute.stream.output import OpenSink, complete, put_in_place
from fastimpute.stream.scan import Scan
from fastimpute.stream.summary import Summary
from fastimpute.stream.survey import Survey
from fastimpute.stream.table import Source
from fastimpute.stream.tiles import Tiles
from fastimpute.stream.wish import Wish, check_settings
from fastimpute.stream.workers import Workers

OpenSource = Callable[[Path], Source]


def run(
    open_source: OpenSource,
    wish: Wish,
    targets: list[Path],
    open_sink: OpenSink,
    *,
    report: Report,
    log: Log,
    verbose: bool,
    workers: Workers | None = None,
) -> Summary | None:
    """Impute a table of any size into files that appear when they are complete.

    Whatever ends the process, the same call goes on where it stopped, and the files come out the same bits.

    Args:
        open_source: opens the input; given a folder to lay things aside in.
        wish: what is asked for.
        targets: the output, and those of the ends of its intervals where the wish has a level.
        open_sink: makes a new table at a path.
        report: told what the user should know.
        log: told of every event.
        verbose: show progress on a terminal.
        workers: do the work; by default this process, alone.

    Returns:
        What was done; None where an earlier run had all but put its output in place.

    Raises:
        ValueError: bad input, an output that cannot be written, not enough memory, or an unfinished run that was asked
            for something else or is still at work. Finished tiles are kept.
    """
    begun, clock, workers = time.perf_counter(), Clock(), workers or Workers()
    folder = WorkFolder.beside(targets[0])
    with contextlib.ExitStack() as held:
        held.enter_context(folder.locked())
        if folder.assembled.exists():
            earlier = folder.read_order()
            if earlier is not None:
                order = wish.order(Tiles(**earlier.tiles))
                check_settings(earlier, order, folder)
                if order.source["stamp"] != earlier.source["stamp"]:
                    report(f"{wish.name} has changed since: {targets[0]} is made from it as it was")
            put_in_place(folder, targets)
            return None
        try:
            table = held.enter_context(open_source(folder.spool()))

            def look(source: ArrangedSource) -> Scan:
                survey = Survey.of(source, wish, folder, workers.count, clock, log)
                workers.look(survey, verbose)
                return survey.result()

            job = begin(table, wish, folder, report=report, look=look, clock=clock, log=log)
        except LostWorker:
            raise
        except BaseException:
            if folder.is_new():
                folder.remove()
            raise
        workers.fit(job, verbose)
        workers.fill(job, verbose)
        complete(job, targets, open_sink, lambda output: workers.write(output, verbose), verbose)
    summary = Summary.of(job, time.perf_counter() - begun)
    log(summary.facts())
    return summary

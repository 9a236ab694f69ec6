"""A large table, from its first look to the finished files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from fastimpute.progress import progress
from fastimpute.stream.clock import Clock
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import (
    Job,
    Log,
    OpenSink,
    Report,
    Watch,
    begin,
    complete,
    fill_bands,
    fit_models,
    put_in_place,
)
from fastimpute.stream.summary import Summary
from fastimpute.stream.table import Source
from fastimpute.stream.tiles import Tiles
from fastimpute.stream.wish import Wish, check_settings

OpenSource = Callable[[Path], Source]
Work = Callable[[Job, bool], None]


def fit_and_fill(job: Job, verbose: bool) -> None:
    """Fit all models of a job and fill all its tiles."""
    cells = job.source.header.rows * job.source.header.sensors
    with progress("fitting", job.tiles.groups, verbose=verbose) as advance:
        fit_models(job, range(job.tiles.groups), advance)
    with progress("imputing", cells, done=job.finished_cells, cells=cells, verbose=verbose) as advance:
        fill_bands(job, range(job.tiles.bands), advance)


def run(
    open_source: OpenSource,
    wish: Wish,
    targets: list[Path],
    open_sink: OpenSink,
    *,
    report: Report,
    watch: Watch,
    log: Log,
    verbose: bool,
    work: Work = fit_and_fill,
) -> Summary | None:
    """Impute a table of any size into files that appear when they are complete.

    Whatever ends the process, the same call goes on where it stopped, and the files come out the same bits.

    Args:
        open_source: opens the input; given a folder to lay things aside in.
        wish: what is asked for.
        targets: the output, and those of the ends of its intervals where the wish has a level.
        open_sink: makes a new table at a path.
        report: told what the user should know.
        watch: sees every cell, see `fastimpute.stream.scan.scan`.
        log: told of every event.
        verbose: show progress on a terminal.
        work: does what is between the beginning and the end of a job; by default this process, alone.

    Returns:
        What was done; None where an earlier run had all but put its output in place.

    Raises:
        ValueError: bad input, an output that cannot be written, not enough memory, or an unfinished run that was asked
            for something else or is still at work. Finished tiles are kept.
    """
    begun, clock = time.perf_counter(), Clock()
    folder = WorkFolder.beside(targets[0])
    with contextlib.ExitStack() as held:
        held.enter_context(folder.locked())
        if folder.assembled.exists():
            earlier = folder.read_order()
            if earlier is not None:
                check_settings(earlier, wish.order(Tiles(**earlier.tiles)), folder)
            put_in_place(folder, targets)
            return None
        try:
            source = held.enter_context(open_source(folder.spool()))
            job = begin(source, wish, folder, report=report, watch=watch, clock=clock, log=log)
        except BaseException:
            if folder.is_new():
                folder.remove()
            raise
        cells = source.header.rows * source.header.sensors
        work(job, verbose)
        with progress("writing", cells, cells=cells, verbose=verbose) as advance:
            complete(job, targets, open_sink, advance)
    summary = Summary.of(job, time.perf_counter() - begun)
    log(summary.facts())
    return summary

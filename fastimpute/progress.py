"""One progress bar for all long work: share done, cells per second, time left; quiet when nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Report work done: so many units more, and a note to show beside the bar."""

    def __call__(self, units: float = 1.0, *, note: str | None = None) -> None: ...


@contextmanager
def progress(
    description: str, total: float, *, done: int = 0, cells: float = 0.0, verbose: bool = True
) -> Iterator[Advance]:
    """Show a bar on stderr for the length of the block.

    Args:
        description: what is being done.
        total: units of work in all.
        done: those of them that lie behind already; they do not count in the rate.
        cells: table cells those units fill in all, for the rate in cells/s; 0 shows no rate.
        verbose: False shows nothing; True shows the bar where stderr is a terminal.

    Example:
        >>> with progress("training", total=2) as advance:
        ...     advance()
        ...     advance(note="held-out MAE 0.12")
    """
    if not (verbose and sys.stderr.isatty()):
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: TaskID = bar.add_task(description, total=total, completed=done, rate="", note="")

        def advance(units: float = 1.0, *, note: str | None = None) -> None:
            bar.advance(task, units)
            state = bar.tasks[0]
            elapsed = state.elapsed or 0.0
            if cells and elapsed > 0:
                bar.update(task, rate=f"{cells_per_second(cells * (state.completed - done) / total, elapsed)}")
            if note is not None:
                bar.update(task, note=note)

        yield advance


def _silent(units: float = 1.0, *, note: str | None = None) -> None:
    return None


def cells_per_second(cells: float, seconds: float) -> str:
    """A rate for people: "1.2 M cells/s".

    Example:
        >>> cells_per_second(3_000_000, 2.0)
        '1.5 M cells/s'
    """
    rate = cells / max(seconds, 1e-9)
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.1f}{letter} cells/s"
    return f"{rate:.0f} cells/s"

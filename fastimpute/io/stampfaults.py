"""What is wrong with the time stamps of a table, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FREQUENT = 0.1  # share of the steps
HOUR = pd.Timedelta(hours=1)
SKIPPED = "the hour that summer time skips"
DOUBLED = "the hour that the end of summer time doubles"


def ticks(index: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Time stamps as integers in the unit of the index, universal time where it has a zone."""
    return np.asarray(index.asi8, dtype=np.int64)


def usual_step(stamps: NDArray[np.int64]) -> int:
    """The most frequent step between the time stamps when sorted, the median where no step is frequent; 0 for one.

    Example:
        >>> usual_step(np.array([0, 5, 10, 15, 25, 0]))
        5
    """
    steps, counts = np.unique(np.diff(np.unique(stamps)), return_counts=True)
    if not steps.size:
        return 0
    if counts.max() >= FREQUENT * counts.sum():
        return int(steps[counts.argmax()])
    return int(steps[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])


def first_fault(index: pd.DatetimeIndex) -> str:
    """The first row that breaks the grid, and how; of several faults the worst is named.

    Example:
        >>> first_fault(pd.DatetimeIndex(["2026-01-05 00:00", "2026-01-05 00:05", "2026-01-05 00:05"]))
        'duplicate time stamps: row 2 is 2026-01-05 00:05:00, after 2026-01-05 00:05:00'
    """
    absent = np.flatnonzero(index.isna())
    if absent.size:
        return f"time stamp of row {absent[0]} is missing (NaT)"
    steps = np.diff(ticks(index))
    usual = usual_step(ticks(index))
    for rows, fault in ((steps == 0, "duplicate"), (steps < 0, "unsorted"), (steps != usual, "irregular")):
        if rows.any():
            row = int(rows.argmax()) + 1
            said = f"{fault} time stamps: row {row} is {index[row]}, after {index[row - 1]}"
            hour = _hour_named(index, row, usual)
            return said + (f" ({hour})" if hour else "")
    return "the time stamps are regular"


def describe_faults(index: pd.DatetimeIndex) -> tuple[str, ...]:
    """One line for each kind of fault, none for a regular index.

    Example:
        >>> describe_faults(pd.DatetimeIndex(["2026-01-05 00:00", "2026-01-05 00:05", "2026-01-05 00:05"]))
        ('1 time stamp is a duplicate, the first in row 2 (2026-01-05 00:05:00)',)
    """
    return tuple(_faults(index))


def _faults(index: pd.DatetimeIndex) -> Iterator[str]:
    absent = np.flatnonzero(index.isna())
    if absent.size:
        yield f"{_count(absent.size)} missing (NaT), the first in row {absent[0]}: left out"
    known = index[index.notna()]
    if len(known) < 2:
        return
    rows = np.flatnonzero(index.notna())
    usual = usual_step(ticks(known))
    back = np.flatnonzero(np.diff(ticks(known)) < 0) + 1
    if back.size:
        named = _hours_named(known, back, usual)
        yield f"{_count(back.size)} unsorted, the first in row {rows[back[0]]} ({known[back[0]]}){named}"
    repeated = np.flatnonzero(known.duplicated())
    if repeated.size:
        article = "a duplicate" if repeated.size == 1 else "duplicates"
        named = _hours_named(known, repeated, usual)
        yield f"{_count(repeated.size)} {article}, the first in row {rows[repeated[0]]} ({known[repeated[0]]}){named}"
    yield from _irregularities(known.unique().sort_values(), usual)


def _irregularities(index: pd.DatetimeIndex, usual: int) -> Iterator[str]:
    """Holes in, and stamps off, the grid of a sorted index."""
    steps = np.diff(ticks(index))
    if usual == 0:
        return
    holes = np.flatnonzero(steps > usual + usual // 2) + 1
    if holes.size:
        absent = int(np.maximum(np.round(steps[holes - 1] / usual) - 1, 1).sum())
        named = _hours_named(index, holes, usual)
        plural = "hole" if holes.size == 1 else "holes"
        yield f"{holes.size} {plural} of {absent} steps in all, the first before {index[holes[0]]}{named}"
    off = (ticks(index) - _phase(index, usual)) % usual
    moved = int((off != 0).sum())
    if moved:
        furthest = pd.Timedelta(int(np.minimum(off, usual - off).max()), unit=index.unit)
        yield f"{_count(moved)} off the grid, by at most {furthest}"


def _phase(index: pd.DatetimeIndex, usual: int) -> int:
    phases, counts = np.unique(ticks(index) % usual, return_counts=True)
    return int(phases[np.argmax(counts)])


def _count(number: int) -> str:
    return "1 time stamp is" if number == 1 else f"{number} time stamps are"


def _hours_named(index: pd.DatetimeIndex, rows: NDArray[np.intp], usual: int) -> str:
    """How many of the first thousand faulty rows a clock on the wall explains."""
    hours = [_hour_named(index, int(row), usual) for row in rows[:1000]]
    named = next((hour for hour in hours if hour is not None), None)
    return "" if named is None else f", {hours.count(named)} of them {named}"


def _hour_named(index: pd.DatetimeIndex, row: int, usual: int) -> str | None:
    """Whether the step to a row is what a clock on the wall does when summer time begins or ends.

    Clocks change by an hour, in the night to a Sunday (03 to 05 and 09 to 11 on both halves of the earth).
    """
    if index.tz is not None or row == 0:
        return None
    before, after = index[row - 1], index[row]
    extra = (after - before) - pd.Timedelta(usual, unit=index.unit)
    nightly = after.hour <= 4 and after.day_of_week == 6
    if nightly and extra == HOUR and after.month in (3, 4, 9, 10):
        return SKIPPED
    return DOUBLED if nightly and extra == -HOUR and after.month in (3, 4, 10, 11) else None

"""Time stamps that are no regular grid: refused by their first row, or brought onto one.

A repaired table has a row for every step between its first and its last time stamp. Rows are sorted; stamps off the
grid go to its nearest point; of rows that meet in one point each sensor's first observed value counts; points that no
row belongs to are missing. The source is not copied: a map tells which of its rows each row of the grid comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.pieces.long import LongTable
from fastimpute.io.pieces.table import (
    bounds,
)
from fastimpute.io.sizes import check_claim
from fastimpute.io.stampfaults import describe_faults, first_fault, ticks, usual_step
from fastimpute.stream.table import Header, Source
from fastimpute.timestamps import check_timestamps

MOST_EMPTY = 1000  # grid rows for each row of the table
MOST_REPEATED = 1000  # rows at one point of the grid
LONGEST_STEP = pd.Timedelta(days=28)
NEAR = 8  # rows that are read along rather than left out


def regular(source: Source, repair: bool) -> Source:
    """The source itself where its time stamps are regular or absent, otherwise repaired.

    Raises:
        ValueError: the time stamps are faulty and `repair` is False, or they make no grid.
    """
    index = source.header.index
    if index is None:
        return source
    try:
        check_regular(index)
    except ValueError:
        if not repair:
            raise
        return Regridded(source)
    return source


def check_regular(index: pd.DatetimeIndex) -> None:
    """Refuse time stamps that are no regular grid, and name the remedy of the command line.

    Raises:
        ValueError: they are not.
    """
    try:
        check_timestamps(index)
    except ValueError:
        raise ValueError(
            f"{first_fault(index)}; bring the rows onto a regular grid with --repair of fastimpute impute"
        ) from None


@dataclass(frozen=True)
class Grid:
    """Which rows of a table each row of a regular grid comes from.

    Attributes:
        index: G regular time stamps.
        rows: rows of the table, sorted by grid row, then as they come in the table.
        starts: (G + 1,), where in `rows` those of each grid row begin.
    """

    index: pd.DatetimeIndex
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, index: pd.DatetimeIndex) -> Grid:
        """The grid of the usual step on which most of the time stamps lie.

        Raises:
            ValueError: no time stamps, steps of months, or a grid that would be almost empty.
        """
        known = np.flatnonzero(index.notna())
        if not known.size:
            raise ValueError("no row has a time stamp")
        stamps = ticks(index)[known]
        points, step, phase = _points(stamps, index.unit)
        lowest, highest = int(points.min()), int(points.max())
        size = highest - lowest + 1
        check_claim((size,))
        if size > MOST_EMPTY * len(index):
            raise ValueError(
                f"a regular grid with the usual step of {pd.Timedelta(step, unit=index.unit)} would have {size} rows "
                f"for the {len(index)} of the file"
            )
        order = np.argsort(points, kind="stable")
        starts = np.searchsorted(points[order], np.arange(lowest, highest + 2)).astype(np.int64)
        repeated = int(np.diff(starts).max())
        if repeated > MOST_REPEATED:
            raise ValueError(f"{repeated} rows have the same time stamp: a long table is read with layout='long'")
        grid = (np.arange(lowest, highest + 1, dtype=np.int64) * step + phase).view(f"M8[{index.unit}]")
        regular = pd.DatetimeIndex(grid, name=index.name)
        if index.tz is not None:
            regular = regular.tz_localize("UTC").tz_convert(index.tz)
        return cls(regular, known[order].astype(np.int64), starts)


def _points(stamps: NDArray[np.int64], unit: str) -> tuple[NDArray[np.int64], int, int]:
    """The point of the grid each stamp is nearest to, the step of the grid, and the phase most stamps have."""
    step = usual_step(stamps)
    if step == 0:
        return np.zeros(len(stamps), dtype=np.int64), 1, int(stamps[0])
    if pd.Timedelta(step, unit=unit) >= LONGEST_STEP:  # type: ignore[arg-type]
        raise ValueError("steps of months or more have no regular grid to repair the time stamps on")
    phases, counts = np.unique(stamps % step, return_counts=True)
    phase = int(phases[np.argmax(counts)])
    return (stamps - phase + step // 2) // step, step, phase


class Regridded:
    """A source whose rows are those of a regular grid."""

    def __init__(self, source: Source) -> None:
        index = source.header.index
        assert index is not None
        self._source = source
        self._grid = Grid.of(index)
        self.header = _header(source.header, index, self._grid)

    def read(self, rows: slice, columns: slice = slice(None)) -> NDArray[np.floating[Any]]:
        """See `Source.read`."""
        first, last = bounds("rows", rows, self.header.rows)
        left, right = bounds("columns", columns, len(self.header.names))
        starts = self._grid.starts[first : last + 1] if last > first else np.zeros(1, dtype=np.int64)
        cells = np.full((last - first, right - left), np.nan, dtype=self.header.floating)
        wanted = self._grid.rows[starts[0] : starts[-1]]
        targets = np.repeat(np.arange(last - first), np.diff(starts))
        rank = np.arange(len(wanted)) - np.repeat(starts[:-1] - starts[0], np.diff(starts))
        order = np.argsort(wanted, kind="stable")
        breaks = np.flatnonzero(np.diff(wanted[order]) > NEAR) + 1
        pieces = np.empty((len(wanted), right - left), dtype=cells.dtype)
        for part in np.split(order, breaks) if len(order) else []:
            begin, end = int(wanted[part[0]]), int(wanted[part[-1]]) + 1
            pieces[part] = self._source.read(slice(begin, end), slice(left, right))[wanted[part] - begin]
        for turn in range(int(rank.max()) + 1 if len(rank) else 0):
            chosen = rank == turn
            before = cells[targets[chosen]]
            cells[targets[chosen]] = np.where(np.isnan(before), pieces[chosen], before)
        return cells

    def elsewhere(self) -> Callable[[], Source] | None:
        """See `Source.elsewhere`."""
        original = self._source.elsewhere()
        return None if original is None else partial(_regridded, original)

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _regridded(original: Callable[[], Source]) -> Regridded:
    return Regridded(original())


def _header(header: Header, index: pd.DatetimeIndex, grid: Grid) -> Header:
    """The header of the repaired table: its rows are others than the file's, whose own columns do not fit them."""
    kept = header.origin if isinstance(header.origin, LongTable) else None
    dtype = np.dtype(np.float64) if header.dtype.kind in "iub" else header.dtype
    report = (*header.report, *describe_faults(index))
    return replace(header, rows=len(grid.index), index=grid.index, origin=kept, dtype=dtype, report=report)

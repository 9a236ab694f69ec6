"""Zeros that mean missing: usual in speed files, wrong for night-time flow. A choice of the user, with a diagnosis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.table import Data

ZEROS_WORTH_A_WORD = 0.01  # share of the cells from which on the user is told
LONG_RUN = 12  # steps: an hour at five minutes


def zeros_to_missing(data: Data) -> Data:
    """The data with NaN where there was a zero; integers become float64. The input is not changed."""
    if isinstance(data, pd.DataFrame):
        return data.mask(_zeros(data))
    floating = data if np.issubdtype(data.dtype, np.floating) else data.astype(np.float64)
    return np.where(floating == 0, np.asarray(np.nan, dtype=floating.dtype), floating)


def zero_share(data: Data) -> float:
    """Share of the cells that are exactly zero."""
    return float(_zeros(data).mean())


def describe_zeros(data: Data) -> str | None:
    """One line on the zeros of a table, None where there are none.

    Example:
        >>> describe_zeros(np.array([[0.0], [1.0]]))
        '50.00 % of the cells are zero, 0 % of those in runs of 12 or more, in 1 of 1 sensors'
    """
    zeros = _zeros(data)
    count = ZeroCount(zeros.shape[1])
    count.add_zeros(zeros)
    return count.describe()


class ZeroCount:
    """The same line for a table that comes in pieces of rows, in order.

    Example:
        >>> count = ZeroCount(1)
        >>> for piece in np.array([[[0.0]], [[1.0]]]):
        ...     count.add(piece)
        >>> count.describe()
        '50.00 % of the cells are zero, 0 % of those in runs of 12 or more, in 1 of 1 sensors'
    """

    def __init__(self, columns: int) -> None:
        self._cells = self._zeros = self._long = 0
        self._seen = np.zeros(columns, dtype=bool)
        self._open = np.zeros(columns, dtype=np.int64)  # lengths of the runs that reach the last row so far

    @property
    def share(self) -> float:
        """Share of the cells that are exactly zero."""
        return self._zeros / self._cells if self._cells else 0.0

    def add(self, cells: NDArray[Any], columns: slice | NDArray[np.int64] = slice(None)) -> None:
        """Count the next rows (r, n) of all or some columns."""
        self.add_zeros(np.asarray(cells == 0), columns)

    def add_zeros(self, zeros: NDArray[np.bool_], columns: slice | NDArray[np.int64] = slice(None)) -> None:
        """Count the next rows (r, n) of all or some columns, True where zero."""
        if not len(zeros):
            return
        self._cells += zeros.size
        self._zeros += int(zeros.sum())
        self._seen[columns] |= zeros.any(axis=0)
        where, starts, stops = _runs(zeros)
        lengths, before = stops - starts, self._open[columns]
        lengths[starts == 0] += before[where[starts == 0]]
        ended = before[~zeros[0]]
        self._long += int(ended[ended >= LONG_RUN].sum())
        going_on = stops == len(zeros)
        after = np.zeros_like(before)
        after[where[going_on]] = lengths[going_on]
        self._open[columns] = after
        over = lengths[~going_on]
        self._long += int(over[over >= LONG_RUN].sum())

    def describe(self) -> str | None:
        """One line on the zeros so far, None where there are none."""
        if self._zeros == 0:
            return None
        long = self._long + int(self._open[self._open >= LONG_RUN].sum())
        return (
            f"{self.share:.2%} of the cells are zero, {long / self._zeros:.0%} of those in runs of {LONG_RUN} or more, "
            f"in {int(self._seen.sum())} of {len(self._seen)} sensors"
        ).replace("%", " %")


def _zeros(data: Data) -> NDArray[np.bool_]:
    zeros = data == 0
    table: Any = zeros.to_numpy(dtype=bool, na_value=False) if isinstance(zeros, pd.DataFrame) else np.asarray(zeros)
    return np.asarray(table.reshape(-1, table.shape[-1]))


def _runs(zeros: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Column, first row and row after the last of every vertical run of True in (T, N)."""
    padded = np.zeros((zeros.shape[0] + 2, zeros.shape[1]), dtype=np.int8)
    padded[1:-1] = zeros
    change = np.diff(padded.T, axis=1)
    begin, end = np.argwhere(change == 1), np.argwhere(change == -1)
    return begin[:, 0], begin[:, 1], end[:, 1]

"""Vertical runs of True in a table of truth values; of some rows and of those below them they can be joined."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

LONG = 12  # rows from which on a run is long: an hour at five minutes

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """The runs of some rows of c columns.

    Attributes:
        rows: how many rows.
        count: (c,) cells that are True.
        head: (c,) rows of the run that begins with the first row.
        tail: (c,) rows of the run that ends with the last row.
        longest: (c,) rows of the longest run.
        inner: (c,) cells of the long runs that touch neither end.
    """

    rows: int
    count: Counts
    head: Counts
    tail: Counts
    longest: Counts
    inner: Counts

    @classmethod
    def of(cls, table: NDArray[np.bool_]) -> Self:
        """Of truth values (r, c).

        Example:
            >>> runs = Runs.of(np.array([[True], [False], [True], [True]]))
            >>> int(runs.count[0]), int(runs.head[0]), int(runs.tail[0])
            (3, 1, 2)
        """
        rows, columns = table.shape
        if not table.any():
            return cls.none(rows, columns)
        padded = np.zeros((columns, rows + 1), bool)  # a False between two columns
        padded[:, :rows] = table.T
        flat = padded.ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        changes = np.concatenate([[0], changes]) if flat[0] else changes
        column, begin = np.divmod(changes[::2], rows + 1)
        length = changes[1::2] - changes[::2]
        found = cls.none(rows, columns)
        np.add.at(found.count, column, length)
        np.maximum.at(found.longest, column, length)
        first, last = begin == 0, begin + length == rows
        found.head[column[first]] = length[first]
        found.tail[column[last]] = length[last]
        long = ~first & ~last & (length >= LONG)
        np.add.at(found.inner, column[long], length[long])
        return found

    @classmethod
    def none(cls, rows: int, columns: int) -> Self:
        """Of rows without a True."""
        return cls(rows, *(np.zeros(columns, np.int64) for _ in range(5)))

    def above(self, below: Runs) -> Runs:
        """Of these rows and of those below them.

        Example:
            >>> top, rest = (Runs.of(np.full((rows, 1), True)) for rows in (2, 3))
            >>> int(top.above(rest).longest[0])
            5
        """
        meeting, full, full_below = self.tail + below.head, self.head == self.rows, below.head == below.rows
        enclosed = np.where(full | full_below | (meeting < LONG), 0, meeting)
        return Runs(
            self.rows + below.rows,
            self.count + below.count,
            np.where(full, self.rows + below.head, self.head),
            np.where(full_below, self.tail + below.rows, below.tail),
            np.maximum(meeting, np.maximum(self.longest, below.longest)),
            self.inner + below.inner + enclosed,
        )

    @classmethod
    def beside(cls, parts: list[Runs]) -> Self:
        """Of the same rows of neighbouring columns."""
        names = [field.name for field in fields(cls)][1:]
        return cls(parts[0].rows, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def in_long(self) -> Counts:
        """(c,) cells of the long runs, those at the ends included."""
        tail = np.where(self.head == self.rows, 0, self.tail)  # one run from end to end counts once
        return self.inner + sum(np.where(end >= LONG, end, 0) for end in (self.head, tail))


@dataclass(frozen=True)
class Zeros:
    """Cells that are exactly zero.

    Attributes:
        cells: how many.
        in_long_runs: how many of those in runs of `LONG` or more.
        sensors: how many sensors have some.
    """

    cells: int = 0
    in_long_runs: int = 0
    sensors: int = 0

    @classmethod
    def of(cls, runs: Runs) -> Self:
        """Of the runs of zeros of a whole table."""
        return cls(int(runs.count.sum()), int(runs.in_long.sum()), int((runs.count > 0).sum()))

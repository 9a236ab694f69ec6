"""A table too large for memory: what is known of it, how its cells are read in pieces, how a new one is written."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Cells = NDArray[np.floating[Any]]
EVERYTHING = slice(None)


@dataclass(frozen=True)
class Header:
    """All there is to know of a table but its cells.

    Attributes:
        rows: number of rows, T.
        names: N sensor names, or the column numbers.
        named: whether the names came with the data.
        dtype: of the cells as they are stored; float64 where integers have to hold missing cells.
        index: time stamps of the rows, None without.
        suffix: the format it was read from.
        origin: what that format needs to write the data back the way they came.
        report: what was wrong with the time stamps and was repaired, one line each.
    """

    rows: int
    names: tuple[Hashable, ...]
    named: bool
    dtype: np.dtype[Any]
    index: pd.DatetimeIndex | None
    suffix: str
    origin: Any = None
    report: tuple[str, ...] = ()

    @property
    def sensors(self) -> int:
        """Number of columns, N."""
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.rows, len(self.names)

    @property
    def floating(self) -> np.dtype[Any]:
        """The dtype that the cells are read in."""
        return floating(self.dtype)

    def frame(self, cells: Cells, rows: slice, columns: slice = EVERYTHING) -> pd.DataFrame:
        """Some of the cells as a frame that knows its time stamps, or its row numbers, and its sensors."""
        index: pd.Index[Any] = pd.RangeIndex(rows.start, rows.stop) if self.index is None else self.index[rows]
        names = list(self.names[columns]) if self.named else None
        return pd.DataFrame(cells, index=index, columns=names, copy=False)


class Source(Protocol):
    """Cells that are read in pieces, in any order, by several threads."""

    header: Header

    def read(self, rows: slice, columns: slice = EVERYTHING) -> Cells:
        """Cells (r, c) in `header.floating`, NaN where missing, in memory of their own.

        Raises:
            ValueError: a step other than 1, or damaged content, named by file, rows and columns.
        """
        ...

    def elsewhere(self) -> Callable[[], Source] | None:
        """What opens the same table in another process, where it can be pickled to; None where that process does as
        well to open the file as this one did: nothing was laid aside."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Rows(Protocol):
    """Rows of a new table, written in any order by any number of processes, to which it can be pickled."""

    @property
    def unit(self) -> int:
        """How many rows have to be written at a time, or a multiple of them; fewer at the end of the table."""
        ...

    def write(self, first: int, cells: Cells) -> None:
        """Write the rows (r, N) that begin at `first`.

        Raises:
            ValueError: cells that the file's integers cannot hold.
            OSError: the file cannot be written.
        """
        ...


class Sink(Protocol):
    """A new table, written row by row from the top; what it writes does not depend on how the rows were cut."""

    def rows(self, most: int) -> Rows | None:
        """The rows of the table, all of which are now written through this instead of `append`, and then the sink is
        closed; None where the format takes them in order only, or in units of more rows than `most`."""
        ...

    def append(self, cells: Cells) -> None:
        """Take the next rows (r, N).

        Raises:
            ValueError: another width, more rows than the header has, cells that the file's integers cannot hold, or
                a file that cannot be written.
        """
        ...

    def close(self) -> None:
        """Complete the table.

        Raises:
            ValueError: fewer rows came than the header has; nothing is left of the table then.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The floating dtype that cells of a stored dtype are read in: small ones in float32, all others in float64."""
    small = dtype.kind == "f" and dtype.itemsize <= 4
    return np.dtype(np.float32 if small else np.float64)

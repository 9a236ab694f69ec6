"""A table too large for memory: what is known of it, how its cells are read in pieces, how a new one is written."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
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
        dtype: of the cells as they are stored.
        index: time stamps of the rows, None without.
        suffix: the format it was read from.
        origin: what that format needs to write the data back the way they came.
    """

    rows: int
    names: tuple[Hashable, ...]
    named: bool
    dtype: np.dtype[Any]
    index: pd.DatetimeIndex | None
    suffix: str
    origin: Any = None

    @property
    def sensors(self) -> int:
        """Number of columns, N."""
        return len(self.names)

    def frame(self, cells: Cells, rows: slice, columns: slice = EVERYTHING) -> pd.DataFrame:
        """Some of the cells as a frame that knows its time stamps, or its row numbers, and its sensors."""
        index: pd.Index[Any] = pd.RangeIndex(rows.start, rows.stop) if self.index is None else self.index[rows]
        names = list(self.names[columns]) if self.named else None
        return pd.DataFrame(cells, index=index, columns=names, copy=False)


class Source(Protocol):
    """Cells that are read in pieces, in any order, by several threads."""

    header: Header

    def read(self, rows: slice, columns: slice = EVERYTHING) -> Cells:
        """Cells (r, c) of their own memory: float32 as it is, everything else float64, NaN where missing.

        Raises:
            ValueError: the data cannot be read there; names the file, the rows and the columns.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...


class Sink(Protocol):
    """A new table, written row by row from the top; what it writes does not depend on how the rows were cut."""

    def append(self, cells: Cells) -> None:
        """The next rows (r, N).

        Raises:
            ValueError: they cannot be written.
        """
        ...

    def close(self) -> None:
        """Complete the table; nothing is pending afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...

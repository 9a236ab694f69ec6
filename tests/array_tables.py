"""Tables in memory that look like files too large for it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.stream.table import EVERYTHING, Header


class ArraySource:
    """An array, read in pieces; `reads` keeps which."""

    def __init__(self, cells: NDArray[Any], index: pd.DatetimeIndex | None = None) -> None:
        names = tuple(f"s{column}" for column in range(cells.shape[1]))
        self.cells, self.reads = cells, list[tuple[slice, slice]]()
        self.header = Header(len(cells), names, True, cells.dtype, index, ".npy")

    def read(self, rows: slice, columns: slice = EVERYTHING) -> NDArray[Any]:
        self.reads.append((rows, columns))
        return self.cells[rows, columns].copy()

    def elsewhere(self) -> None:
        return None

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        pass


class NpySink:
    """Rows gathered, and saved when closed."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.gathered = path, list[NDArray[Any]]()

    def rows(self, most: int) -> None:
        return None

    def append(self, cells: NDArray[Any]) -> None:
        self.gathered.append(cells.copy())

    def close(self) -> None:
        np.save(self.path, np.concatenate(self.gathered))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()

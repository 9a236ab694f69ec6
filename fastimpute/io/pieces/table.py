"""What all formats share: the facts of a table, a source that gives rectangles of it, a sink that takes its rows."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastimpute.io.table import Choice
from fastimpute.layouts import clip_to
from fastimpute.stream.table import Header, Rows, Source

Piece = TypeVar("Piece", bound=Sized)
PIECE_CELLS = 2**21  # cells converted at a time
EXACT_INTEGERS = 2**53


@dataclass(frozen=True)
class Request:
    """How to open a file.

    Attributes:
        choice: which array or frame, and which channel of it.
        spool: existing folder for what has to be laid aside.
        layout: "auto", "wide", "long" or "sensors-in-rows".
        zeros_as_missing: whether zeros mean missing.
        repair: whether cells that come more than once are merged.
    """

    choice: Choice
    spool: Path
    layout: str = "auto"
    zeros_as_missing: bool = False
    repair: bool = False

    def dtype_of(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of the header: integers whose zeros are missing have to become floating."""
        return np.dtype(np.float64) if self.zeros_as_missing and stored.kind in "iub" else stored


def check_exact(stored: NDArray[Any]) -> None:
    """Refuse integers that floating numbers would change.

    Raises:
        ValueError: one is beyond 2**53.
    """
    if stored.dtype.kind in "iu" and stored.dtype.itemsize == 8 and stored.size:
        largest = max(int(stored.max()), -int(stored.min()))
        if largest > EXACT_INTEGERS:
            raise ValueError(f"the integer {largest} has no exact floating value")


def piece_rows(columns: int, cells: int | None = None) -> int:
    """Rows of a piece of about so many cells, `PIECE_CELLS` by default."""
    return max(1, (PIECE_CELLS if cells is None else cells) // max(1, columns))


def first_line(error: BaseException) -> str:
    """An error of another library in one line."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def bounds(name: str, part: slice, size: int) -> tuple[int, int]:
    """Start and stop of a slice of step 1.

    Raises:
        ValueError: another step.
    """
    start, stop, step = part.indices(size)
    if step != 1:
        raise ValueError(f"{name} must be a slice of step 1, got {part}")
    return start, max(start, stop)


class StoredTable(ABC):
    """A source over one file: the formats give rectangles as stored, this makes them what `Source.read` promises."""

    _reads_anew: ClassVar[bool] = False  # whether `_stored` gives memory that nothing else refers to

    def __init__(self, path: Path, header: Header, zeros_as_missing: bool = False) -> None:
        self.path = path
        self.header = header
        self._zeros_as_missing = zeros_as_missing
        self._closed = False

    def read(self, rows: slice, columns: slice = slice(None)) -> NDArray[np.floating[Any]]:
        """See `Source.read`."""
        first, last = bounds("rows", rows, self.header.rows)
        left, right = bounds("columns", columns, len(self.header.names))
        if self._closed:
            raise ValueError(f"{self.path} is closed")
        try:
            stored = self._stored(first, last, left, right)
            if stored.shape != (last - first, right - left):
                raise ValueError(f"it gave an array of shape {stored.shape}")
            return self._cells(stored)
        except Exception as error:  # codecs raise whatever they like on damaged bytes
            where = f"rows {first} to {last}, columns {left} to {right}"
            raise ValueError(f"cannot read {self.path}, {where}: {first_line(error)}") from error

    def elsewhere(self) -> Callable[[], Source] | None:
        """See `Source.elsewhere`."""
        return None

    def close(self) -> None:
        """See `Source.close`."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _stored(self, first: int, last: int, left: int, right: int) -> NDArray[Any]:
        """Rows [first, last) and columns [left, right) as they are stored; may be a view."""

    def _cells(self, stored: NDArray[Any]) -> NDArray[np.floating[Any]]:
        check_exact(stored)
        own = self._reads_anew and stored.flags.writeable
        cells = (np.asarray if own else np.array)(stored, dtype=self.header.floating, order="C")
        if self._zeros_as_missing:
            cells[cells == 0] = np.nan
        return cells


class BlockSink(ABC):
    """A sink that hands its format blocks of a fixed number of rows, however the rows come in."""

    def __init__(self, path: Path, header: Header, block_rows: int) -> None:
        self.path = path
        self.header = header
        self._block = np.empty((min(block_rows, max(1, header.rows)), len(header.names)), dtype=header.floating)
        self._waiting = 0
        self._written = 0
        self._closed = False

    def rows(self, most: int) -> Rows | None:
        """See `Sink.rows`."""
        return None

    def append(self, cells: NDArray[Any]) -> None:
        """See `Sink.append`."""
        if self._closed:
            raise ValueError(f"{self.path} is closed")
        if cells.ndim != 2 or cells.shape[1] != self._block.shape[1]:
            raise ValueError(f"cells must have shape (rows, {self._block.shape[1]}), got {cells.shape}")
        if not np.issubdtype(cells.dtype, np.floating):
            raise TypeError(f"cells must be floating, got {cells.dtype}")
        if self._written + self._waiting + len(cells) > self.header.rows:
            raise ValueError(f"cells hold more rows than the {self.header.rows} of the header")
        taken = 0
        while taken < len(cells):
            rows = min(len(cells) - taken, len(self._block) - self._waiting)
            self._block[self._waiting : self._waiting + rows] = self._fitting(cells[taken : taken + rows])
            taken += rows
            self._waiting += rows
            if self._waiting == len(self._block):
                self._flush()

    def close(self) -> None:
        """See `Sink.close`."""
        if self._closed:
            return
        try:
            if self._written + self._waiting < self.header.rows:
                came = self._written + self._waiting
                raise ValueError(f"cannot write {self.path}: {came} rows came, the header has {self.header.rows}")
            if self._waiting:
                self._flush()
            self._finish()
            self._closed = True
        finally:
            if not self._closed:
                self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            self._discard()

    def _flush(self) -> None:
        self._write(self._written, self._block[: self._waiting])
        self._written += self._waiting
        self._waiting = 0

    def _discard(self) -> None:
        self._closed = True
        self._release()
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)

    def _fitting(self, cells: NDArray[Any]) -> NDArray[Any]:
        own = self._block.dtype
        return cells if cells.dtype == own else clip_to(own, cells.astype(np.float64, copy=False))

    @abstractmethod
    def _write(self, first: int, block: NDArray[Any]) -> None:
        """Write the rows that begin at `first`; the block is overwritten afterwards."""

    def _finish(self) -> None:
        """Write what comes after the cells, and close the file."""
        self._release()

    @abstractmethod
    def _release(self) -> None:
        """Close the file, complete or not."""


def as_stored(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A block in the dtype of the file.

    Raises:
        ValueError: the dtype holds integers and the block other numbers.
    """
    if dtype == block.dtype:
        return block
    if dtype.kind == "f":
        return clip_to(dtype, block.astype(np.float64, copy=False))
    with np.errstate(invalid="ignore"):
        stored = block.astype(dtype)
    if not np.array_equal(stored, block):
        raise ValueError(f"the file holds {dtype}, which cannot hold the cells: write to another format")
    return stored


def next_of(pieces: Iterator[Piece], path: Path, rows: int) -> Piece:
    """The next piece of the original of a file that is being written.

    Raises:
        ValueError: it has other rows than the block that is written.
    """
    piece = next(pieces, None)
    if piece is None or len(piece) != rows:
        raise ValueError(f"{path} has other rows than when it was opened")
    return piece

"""numpy arrays (T, N) in a file: any rectangle is read through a short-lived mapping of it.

Also where the formats without random access lay their cells aside.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastimpute.io.pieces.table import (
    BlockSink,
    Request,
    StoredTable,
    as_stored,
    piece_rows,
)
from fastimpute.io.sizes import check_claim, check_room
from fastimpute.stream.table import Header, Source

READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Stored:
    """Where in a file an array lies, and how."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_stored(file: IO[bytes], begin: int = 0) -> Stored:
    """Read the header of an array, whose first byte is byte `begin` of the file that is mapped later.

    Raises:
        ValueError: not an array, pickled objects, or more than 2**40 cells.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in READERS:
            raise ValueError(f"version {version} of the format is not known")
        shape, fortran, dtype = READERS[version](file)
        stored = Stored(shape, dtype, fortran, begin + file.tell())
    except Exception as error:  # the header is parsed as Python, whose parser raises whatever it likes
        raise ValueError(f"not a readable .npy file: {error}") from None
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    check_claim(shape, dtype.itemsize)
    return stored


def check_numbers(dtype: np.dtype[Any]) -> None:
    """Refuse arrays of anything but real numbers.

    Raises:
        ValueError: text, complex numbers, records.
    """
    if dtype.kind not in "fiub":
        raise ValueError(f"it holds {dtype}, not real numbers")


def check_held(stored: Stored, path: Path) -> None:
    """Refuse an array that is longer than its file.

    Raises:
        ValueError: it is.
    """
    check_claim(stored.shape, stored.dtype.itemsize, path.stat().st_size - stored.offset)


class MappedTable(StoredTable):
    """A (T, N) array in a file, or one channel of a (T, N, C) array; a file laid aside goes when it is closed."""

    def __init__(
        self,
        path: Path,
        header: Header,
        stored: Stored,
        channel: int | None = None,
        zeros_as_missing: bool = False,
        laid_aside: bool = False,
    ) -> None:
        super().__init__(path, header, zeros_as_missing)
        self._laid_aside = laid_aside
        self._array = stored
        self._channel = channel
        check_held(stored, path)
        self._file = path.open("rb")

    def elsewhere(self) -> Callable[[], Source] | None:
        """See `Source.elsewhere`: what was laid aside is not laid aside once more."""
        if not self._laid_aside:
            return None
        return partial(
            MappedTable, self.path.absolute(), self.header, self._array, self._channel, self._zeros_as_missing
        )

    def close(self) -> None:
        """See `Source.close`."""
        super().close()
        self._file.close()
        if self._laid_aside:
            self.path.unlink(missing_ok=True)

    def _stored(self, first: int, last: int, left: int, right: int) -> NDArray[Any]:
        if self._array.size == 0 or first == last or left == right:
            return np.empty((last - first, right - left), dtype=self._array.dtype)
        # A mapping of its own for each call: its pages stop counting as this process's memory as soon as it is dropped.
        pages = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        order: Literal["C", "F"] = "F" if self._array.fortran else "C"
        whole: NDArray[Any] = np.ndarray(
            self._array.shape, self._array.dtype, buffer=pages, offset=self._array.offset, order=order
        )
        table = whole if self._channel is None else whole[:, :, self._channel]
        return table[first:last, left:right]


def open_table(path: Path, request: Request) -> MappedTable:
    """Open an array; see `fastimpute.io.source.open_source`."""
    with path.open("rb") as file:
        stored = read_stored(file)
    check_numbers(stored.dtype)
    check_table(stored.shape)
    rows, columns = stored.shape
    dtype = request.dtype_of(stored.dtype.newbyteorder("="))
    header = Header(rows, tuple(range(columns)), False, dtype, None, ".npy")
    return MappedTable(path, header, stored, zeros_as_missing=request.zeros_as_missing)


def check_table(shape: tuple[int, ...]) -> None:
    """Refuse what is no table of at least one cell.

    Raises:
        ValueError: another number of dimensions, or nothing in it.
    """
    if len(shape) != 2:
        hint = "; samples (samples, steps, features) are read at once, not in pieces" if len(shape) == 3 else ""
        raise ValueError(f"it holds an array of shape {shape}, not a table (rows, sensors){hint}")
    if 0 in shape:
        raise ValueError(f"it is empty: shape {shape}")


class ArrayFile:
    """A C-ordered .npy file written row by row; how many rows there are may be known only at the end."""

    def __init__(self, path: Path, columns: int, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.rows = 0
        self._columns = columns
        self._dtype = dtype
        self._file = path.open("wb")
        self._offset = self._head(0)

    def append(self, cells: NDArray[Any]) -> None:
        """Write rows (r, N)."""
        self._file.write(np.ascontiguousarray(cells, dtype=self._dtype).data)
        self.rows += len(cells)

    def close(self) -> Stored:
        """Write the number of rows and close the file; where in it the array lies."""
        self._file.seek(0)
        if self._head(self.rows) != self._offset:  # numpy leaves room for the longest number of rows
            raise ValueError(f"the header of {self.path} outgrew its room")
        self._file.close()
        return Stored((self.rows, self._columns), self._dtype, False, self._offset)

    def release(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _head(self, rows: int) -> int:
        facts = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._file, {**facts, "shape": (rows, self._columns)})
        return self._file.tell()


def write_pieces(target: Path, pieces: Iterable[NDArray[Any]]) -> Stored:
    """Write an array that comes in pieces (r, N), however many there are.

    Raises:
        ValueError: there are none, or the disk is too small for them.
    """
    array: ArrayFile | None = None
    try:
        for piece in pieces:
            check_room(target.parent, piece.nbytes)
            array = array or ArrayFile(target, piece.shape[1], piece.dtype)
            array.append(piece)
        if array is None:
            raise ValueError("it holds no rows")
        return array.close()
    finally:
        if array is not None:
            array.release()


def reserve(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> Stored:
    """Begin an array of zeros whose cells are then written in any order, through `mapped`."""
    array = ArrayFile(path, shape[1], dtype)
    array.rows = shape[0]
    stored = array.close()
    os.truncate(path, stored.offset + stored.size)
    return stored


def mapped(path: Path, stored: Stored) -> NDArray[Any]:
    """The cells of an array in a file, to be written to; let go of it to have them on the disk."""
    return np.memmap(path, stored.dtype, "r+", stored.offset, stored.shape)


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array in a file, see `fastimpute.stream.table.Rows`."""

    path: Path
    stored: Stored
    unit: int = 1

    def write(self, first: int, cells: NDArray[Any]) -> None:
        """See `Rows.write`."""
        content = np.ascontiguousarray(as_stored(cells, self.stored.dtype))
        with self.path.open("r+b", buffering=0) as file:
            file.seek(self.stored.offset + first * content.strides[0])
            rest = content.data.cast("B")
            while rest:
                rest = rest[file.write(rest) :]


class ArraySink(BlockSink):
    """A sink of one C-ordered array in the dtype of the header."""

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path, header, piece_rows(len(header.names)))
        self._array = ArrayFile(path, len(header.names), header.dtype)
        self._reserved = False

    def rows(self, most: int) -> ArrayRows:
        """See `Sink.rows`."""
        self._array.release()
        stored = reserve(self.path, self.header.shape, self.header.dtype)
        self._written, self._reserved = self.header.rows, True
        return ArrayRows(self.path.absolute(), stored)

    def _write(self, first: int, block: NDArray[Any]) -> None:
        self._array.append(as_stored(block, self.header.dtype))

    def _finish(self) -> None:
        if not self._reserved:
            self._array.close()

    def _release(self) -> None:
        self._array.release()


def create(path: Path, header: Header) -> ArraySink:
    """Begin an array; index and names have no place in it."""
    return ArraySink(path, header)


@contextlib.contextmanager
def laid_aside(folder: Path, path: Path) -> Iterator[Path]:
    """A new file in the folder for what is converted from `path`; gone again where the conversion breaks off."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=".npy", dir=folder)
    os.close(descriptor)
    target = Path(name)
    try:
        yield target
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def check_spool(folder: Path, rows: int, columns: int, itemsize: int = 8) -> None:
    """Refuse what is too large to be laid aside in the folder.

    Raises:
        ValueError: more than 2**40 cells, or more bytes than are free.
    """
    check_claim((rows, columns), itemsize)
    check_room(folder, rows * columns * itemsize)

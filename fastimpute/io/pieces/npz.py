"""Archives of numpy arrays: a stored member is read where it lies, a compressed one is laid aside first.

The other members and channels are copied from the original when the table is written.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.io.npz import CUSTOMARY, stored_members
from fastimpute.io.pieces.npy import ArrayFile, MappedTable, Stored, check_numbers, check_spool, check_table, laid_aside
from fastimpute.io.pieces.table import (
    BlockSink,
    Request,
    as_stored,
    next_of,
    piece_rows,
)
from fastimpute.io.table import choose_key
from fastimpute.stream.table import Header

COPIED = 2**20  # bytes at a time


@dataclass(frozen=True)
class ArchiveTable:
    """Where in which archive the table was.

    Attributes:
        path: the archive.
        member: name of its member.
        array: how the member is stored, offset from its own first byte.
        channel: which channel of an array (T, N, C), None of (T, N).
    """

    path: Path
    member: str
    array: Stored
    channel: int | None


def open_table(path: Path, request: Request) -> MappedTable:
    """Open a table; see `fastimpute.io.source.open_source`."""
    with zipfile.ZipFile(path) as archive:
        members = stored_members(archive)
        tables = [name for name, array in members.items() if len(array.shape) in (2, 3)]
        key = choose_key(tables, request.choice.key, CUSTOMARY)
        array = members[key]
        check_numbers(array.dtype)
        channel = _channel(key, array.shape, request.choice.channel)
        check_table(array.shape if channel is None else array.shape[:2])
        entry = archive.getinfo(_entry_name(archive, key))
        rows, columns = array.shape[:2]
        origin = ArchiveTable(path, entry.filename, array, channel)
        dtype = request.dtype_of(array.dtype.newbyteorder("="))
        header = Header(rows, tuple(range(columns)), False, dtype, None, ".npz", origin)
        if entry.compress_type == zipfile.ZIP_STORED and not array.fortran:
            begin = _first_byte(path, entry) + array.offset
            placed = Stored(array.shape, array.dtype, array.fortran, begin)
            return MappedTable(path, header, placed, channel, request.zeros_as_missing)
        with laid_aside(request.spool, path) as target:
            laid = _lay_aside(archive, origin, target)
            return MappedTable(target, header, laid, zeros_as_missing=request.zeros_as_missing, laid_aside=True)


def create(path: Path, header: Header) -> ArchiveSink:
    """Begin an archive; a new one holds the key "data"."""
    return ArchiveSink(path, header)


def _entry_name(archive: zipfile.ZipFile, key: str) -> str:
    return f"{key}.npy" if f"{key}.npy" in archive.namelist() else key


def _channel(key: str, shape: tuple[int, ...], channel: int) -> int | None:
    if key != "data" or len(shape) != 3:
        return None
    if not 0 <= channel < shape[2]:
        raise ValueError(f"there is no channel {channel}: {key!r} has shape {shape}")
    return channel


def _first_byte(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: after its local header, whose two last fields are lengths."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise ValueError(f"its member {entry.filename!r} is not where the directory says")
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return entry.header_offset + 30 + lengths


def _lay_aside(archive: zipfile.ZipFile, origin: ArchiveTable, target: Path) -> Stored:
    """Unpack one member, or one channel of it; a Fortran-ordered one is turned around."""
    rows, columns = origin.array.shape[:2]
    check_spool(target.parent, rows, columns, origin.array.dtype.itemsize)
    if origin.array.fortran:
        return _turn_around(archive, origin, target)
    array = ArrayFile(target, columns, origin.array.dtype.newbyteorder("="))
    try:
        for piece in _pieces(archive, origin):
            array.append(piece if origin.channel is None else piece[:, :, origin.channel])
        return array.close()
    finally:
        array.release()


def _turn_around(archive: zipfile.ZipFile, origin: ArchiveTable, target: Path) -> Stored:
    """Unpack the bytes of one Fortran-ordered array as they are; its rows are read from them through a mapping."""
    if origin.channel is not None:
        raise ValueError(
            f"{origin.member!r} is a Fortran-ordered array of channels: save it with numpy.ascontiguousarray"
        )
    with archive.open(origin.member) as member, target.open("wb") as out:
        shutil.copyfileobj(member, out, COPIED)
    return origin.array


def _pieces(archive: zipfile.ZipFile, origin: ArchiveTable, rows: int | None = None) -> Iterator[NDArray[Any]]:
    """The array of one member, some rows at a time."""
    shape, dtype = origin.array.shape, origin.array.dtype
    width = int(np.prod(shape[1:]))
    rows = piece_rows(width) if rows is None else rows
    with archive.open(origin.member) as member:
        member.read(origin.array.offset)
        for first in range(0, shape[0], rows):
            count = min(rows, shape[0] - first)
            content = member.read(count * width * dtype.itemsize)
            if len(content) < count * width * dtype.itemsize:
                raise ValueError(f"its member {origin.member!r} ends within row {first} to {first + count}")
            yield np.frombuffer(content, dtype).reshape(count, *shape[1:])
        member.read(1)  # so that the checksum is compared


class ArchiveSink(BlockSink):
    """A sink of one member of an archive, whose others are copied around it."""

    def __init__(self, path: Path, header: Header) -> None:
        origin = header.origin if isinstance(header.origin, ArchiveTable) else None
        channels = 1 if origin is None or origin.channel is None else origin.array.shape[2]
        super().__init__(path, header, piece_rows(len(header.names) * channels))
        self._origin = origin
        self._before = None if origin is None else zipfile.ZipFile(origin.path)
        self._archive = zipfile.ZipFile(path, "w")
        self._rest: list[zipfile.ZipInfo] = []
        self._method = zipfile.ZIP_DEFLATED
        if origin is not None and self._before is not None:
            entries = self._before.infolist()
            place = [entry.filename for entry in entries].index(origin.member)
            self._method = entries[place].compress_type
            self._copy(entries[:place])
            self._rest = entries[place + 1 :]
        channelled = origin is not None and origin.channel is not None
        self._others = self._other_channels(len(self._block)) if channelled else iter(())
        self._member = self._open_member()

    def _open_member(self) -> IO[bytes]:
        origin = self._origin
        name = "data.npy" if origin is None else origin.member
        stored = self.header.dtype
        shape: tuple[int, ...] = self.header.shape
        if origin is not None and origin.channel is not None:
            stored = np.result_type(origin.array.dtype, stored)
            shape = origin.array.shape
        member = self._archive.open(self._entry(name, self._method), "w", force_zip64=True)
        facts = {"descr": np.lib.format.dtype_to_descr(stored), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, facts)
        self._stored = stored
        return member

    def _write(self, first: int, block: NDArray[Any]) -> None:
        cells = as_stored(block, self.header.dtype)
        if self._origin is not None and self._origin.channel is not None:
            whole = next_of(self._others, self._origin.path, len(block)).astype(self._stored)
            whole[:, :, self._origin.channel] = cells
            cells = whole
        self._member.write(np.ascontiguousarray(cells, dtype=self._stored).data)

    def _other_channels(self, rows: int) -> Iterator[NDArray[Any]]:
        assert self._before is not None
        assert self._origin is not None
        return _pieces(self._before, self._origin, rows)

    def _finish(self) -> None:
        self._member.close()
        self._copy(self._rest)
        self._release()

    def _copy(self, entries: list[zipfile.ZipInfo]) -> None:
        assert self._before is not None or not entries
        for entry in entries:
            with (
                self._before.open(entry) as member,  # type: ignore[union-attr]
                self._archive.open(self._entry(entry.filename, entry.compress_type), "w", force_zip64=True) as out,
            ):
                shutil.copyfileobj(member, out, COPIED)

    @staticmethod
    def _entry(name: str, method: int) -> zipfile.ZipInfo:
        """A member without the time of day, which would make every archive another."""
        entry = zipfile.ZipInfo(name)
        entry.compress_type = method
        entry.external_attr = 0o600 << 16
        return entry

    def _release(self) -> None:
        with suppress(ValueError):  # an archive does not close within a member that broke off
            self._member.close()
        self._archive.close()
        if self._before is not None:
            self._before.close()

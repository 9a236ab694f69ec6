"""Archives of numpy arrays. Pickled objects are never loaded.

PEMS data come as one array (T, N, C) under the key "data": one channel is filled, the others and all other keys are
kept. Under any other key a 3-D array means (samples, steps, features).
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.io.pieces.npy import Stored, read_stored
from fastimpute.io.sizes import check_claim, check_memory
from fastimpute.io.table import Choice, Table, as_array, choose_key

CUSTOMARY = ("data", "X")
MOST_DEFLATED = 1032  # bytes that one byte can unpack to


def check_member(entry: zipfile.ZipInfo, shape: tuple[int, ...], size: int) -> None:
    """Refuse a member that is not as long as its array needs (bytes, with its header), or cannot be.

    Raises:
        ValueError: the sizes contradict one another.
    """
    check_claim(shape)
    most = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_DEFLATED}.get(entry.compress_type)
    if size != entry.file_size or (most is not None and size > entry.compress_size * most + MOST_DEFLATED):
        raise ValueError(
            f"its member {entry.filename!r} claims an array of shape {shape}, {size} bytes with its header, "
            f"but is {entry.file_size} bytes long, {entry.compress_size} of them stored"
        )


@dataclass(frozen=True)
class Archive:
    """All arrays of the file, which one is being filled, and which channel of it (None: the array has none)."""

    arrays: dict[str, NDArray[Any]]
    key: str
    channel: int | None
    compressed: bool


def read(path: Path, choice: Choice) -> Table:
    """Read one array; see `fastimpute.io.table.Format`."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            stored_members(archive)
            check_memory(sum(entry.file_size for entry in archive.infolist()))
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"not a readable .npz file (truncated?): {error}") from None
    tables = [name for name, array in arrays.items() if array.ndim in (2, 3)]
    key = choose_key(tables, choice.key, CUSTOMARY)
    array = arrays[key]
    if key != "data" or array.ndim != 3:
        return Table(array, ".npz", Archive(arrays, key, None, compressed))
    if not 0 <= choice.channel < array.shape[2]:
        raise ValueError(f"there is no channel {choice.channel}: {key!r} has shape {array.shape}")
    return Table(array[:, :, choice.channel], ".npz", Archive(arrays, key, choice.channel, compressed))


def stored_members(archive: zipfile.ZipFile) -> dict[str, Stored]:
    """How the array of each member is stored; none is larger than the archive says, or could hold.

    Raises:
        ValueError: one is, or holds anything but numbers.
    """
    found: dict[str, Stored] = {}
    for entry in archive.infolist():
        if entry.filename.endswith(".npy"):
            with archive.open(entry) as member:
                try:
                    stored = read_stored(member)
                except ValueError as error:
                    raise ValueError(f"member {entry.filename!r}: {error}") from None
            check_member(entry, stored.shape, stored.offset + stored.size)
            found[entry.filename.removesuffix(".npy")] = stored
    return found


def write(path: Path, table: Table) -> None:
    """Write the archive back with the filled array in its place; a new one has the key "data" ("X" for samples)."""
    filled = as_array(table.data)
    origin = table.origin
    if not isinstance(origin, Archive):
        _save(path, {"data" if filled.ndim == 2 else "X": filled}, compressed=True)
        return
    whole = filled
    if origin.channel is not None:
        before = origin.arrays[origin.key]
        whole = before.astype(np.result_type(before, filled))
        whole[:, :, origin.channel] = filled
    _save(path, {**origin.arrays, origin.key: whole}, origin.compressed)


def _save(path: Path, arrays: dict[str, NDArray[Any]], compressed: bool) -> None:
    """numpy.savez for any key: a file may well hold an array called "file", which savez takes for its own argument."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

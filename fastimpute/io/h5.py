"""HDF5: a pandas frame (METR-LA and PEMS-BAY ship one, key "df" or "speed") or a plain array written by h5py.

pandas keeps small facts such as the frequency of the index as pickles in attributes, and PyTables loads those
unasked: a file is opened only after every pickle in it was found to name nothing but pandas offsets.
"""

from __future__ import annotations

import math
import pickletools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd

from fastimpute.io import timecolumn
from fastimpute.io.sizes import check_claim, check_memory
from fastimpute.io.table import Choice, Table, as_array, choose_key

CUSTOMARY = ("df", "speed", "data", "X", "t")
LARGEST_CHUNK = 2**27  # cells: a chunk is decoded whole
SAFE_MODULES = ("pandas._libs.tslibs.offsets", "pandas.tseries.offsets", "pandas.core.indexes.frozen")
SAFE_GLOBALS = (
    "copy_reg _reconstructor",
    "copyreg _reconstructor",
    "__builtin__ object",
    "builtins object",
    "datetime timedelta",
    "datetime timezone",
)


@dataclass(frozen=True)
class Stored:
    """Where in which file the data were, and how; a frame's column of times and its columns' types."""

    source: Path
    key: str
    pandas_format: Literal["fixed", "table"] | None
    channel: int | None = None
    times: timecolumn.TimeColumn | None = None
    dtypes: tuple[Any, ...] = ()


def read(path: Path, choice: Choice) -> Table:
    """Read one frame or array; see `fastimpute.io.table.Format`."""
    try:
        with h5py.File(path) as file:
            check_sizes(file)
            frames = frames_of(file)
            key = choose_key([*frames, *arrays_of(file, frames)], choice.key, CUSTOMARY)
            if key not in frames:
                return _read_array(path, file, key, choice.channel)
            refuse_pickled_code(file)
            check_memory(_size(file[key]))
        frame = pd.read_hdf(path, key=key)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"not a readable .h5 file: {error}") from None
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"key {key!r} holds a {type(frame).__name__}, not a frame")
    frame, times = timecolumn.split(frame)
    return Table(frame, ".h5", Stored(path, key, frames[key], times=times, dtypes=tuple(frame.dtypes)))


def write(path: Path, table: Table) -> None:
    """Write the file back with the filled data in their place; a new one holds a frame "df" or an array "data"."""
    stored = table.origin
    if not isinstance(stored, Stored):
        if isinstance(table.data, pd.DataFrame):
            table.data.to_hdf(path, key="df", mode="w")
        else:
            with h5py.File(path, "w") as file:
                file["data" if table.data.ndim == 2 else "X"] = table.data
        return
    shutil.copyfile(stored.source, path)
    if stored.pandas_format is not None and isinstance(table.data, pd.DataFrame):
        if _fits(stored, table.data):
            _overwrite_frame(path, stored, table.data)
            return
        frame = table.data if stored.times is None else stored.times.put_back(table.data)
        frame.to_hdf(path, key=stored.key, mode="a", format=stored.pandas_format)
        return
    with h5py.File(path, "a") as file:
        _write_array(file, stored, as_array(table.data))


def _read_array(path: Path, file: h5py.File, key: str, channel: int) -> Table:
    check_memory(file[key].size * file[key].dtype.itemsize)
    array = file[key][()]
    # (T, N, C) where the key says PEMS, else (samples, steps, features), as in .npz.
    if key.split("/")[-1] != "data" or array.ndim != 3:
        return Table(array, ".h5", Stored(path, key, None))
    if not 0 <= channel < array.shape[2]:
        raise ValueError(f"there is no channel {channel}: {key!r} has shape {array.shape}")
    return Table(array[:, :, channel], ".h5", Stored(path, key, None, channel))


def _fits(stored: Stored, frame: pd.DataFrame) -> bool:
    """Whether the cells of a frame, floating numbers all, fit where those that were read lie."""
    plain = stored.times is None and not isinstance(frame.index, pd.MultiIndex)
    floats = all(isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize <= 8 for dtype in stored.dtypes)
    return plain and floats and stored.dtypes == tuple(frame.dtypes)


def _overwrite_frame(path: Path, stored: Stored, frame: pd.DataFrame) -> None:
    """Put cells into the blocks of a frame where they lie: its notes, compression and indices stay."""
    from fastimpute.io.pieces import h5 as pieces
    from fastimpute.io.pieces.table import Request

    with pieces.open_table(path, Request(Choice(stored.key), path.parent)) as source:
        header = source.header
    with pieces.FrameSink(path, header, header.origin) as sink:
        sink.append(frame.to_numpy(dtype=header.floating))


def _write_array(file: h5py.File, stored: Stored, filled: np.ndarray[Any, Any]) -> None:
    dataset = file[stored.key]
    if dataset.dtype != filled.dtype:  # integers that had to become floating
        whole = dataset[()] if stored.channel is not None else None
        dataset = recreated(file, stored.key, filled.dtype)
        if whole is not None:
            dataset[...] = whole
    place = (slice(None),) * 2 + (stored.channel,) if stored.channel is not None else ()
    dataset[place] = filled


def recreated(file: h5py.File, key: str, dtype: np.dtype[Any]) -> h5py.Dataset:
    """An empty array of another dtype in the place of one, stored like it and with its attributes."""
    before = file[key]
    attributes = dict(before.attrs)
    del file[key]
    dataset = file.create_dataset_like(key, before, dtype=dtype, scaleoffset=None, track_times=False)
    dataset.attrs.update(attributes)
    return dataset


def _size(group: h5py.Group) -> int:
    """Bytes of all arrays in a group."""
    sizes: list[int] = []
    group.visititems(lambda _, node: sizes.append(node.nbytes) if isinstance(node, h5py.Dataset) else None)
    return sum(sizes)


def frames_of(file: h5py.File) -> dict[str, Literal["fixed", "table"]]:
    """Keys of pandas frames -> "fixed" or "table"."""
    found: dict[str, Literal["fixed", "table"]] = {}

    def visit(name: str, node: Any) -> None:
        kind = bytes(node.attrs.get("pandas_type", b"")) if isinstance(node, h5py.Group) else b""
        if kind in (b"frame", b"frame_table"):
            found[name] = "table" if kind.endswith(b"table") else "fixed"

    file.visititems(visit)
    return found


def arrays_of(file: h5py.File, frames: dict[str, Literal["fixed", "table"]]) -> list[str]:
    """Keys of numeric 2-D and 3-D arrays that are not part of a frame."""
    found: list[str] = []

    def visit(name: str, node: Any) -> None:
        inside = any(name.startswith(f"{frame}/") for frame in frames)
        if isinstance(node, h5py.Dataset) and not inside and node.ndim in (2, 3) and node.dtype.kind in "fiu":
            found.append(name)

    file.visititems(visit)
    return found


def check_sizes(file: h5py.File) -> None:
    """Refuse arrays of more cells than any file has, or that are in chunks too large to be read one at a time.

    Raises:
        ValueError: it claims such an array.
    """

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None:
            check_claim(node.shape, node.dtype.itemsize)
            if node.ndim == 1:
                check_memory(node.shape[0] * node.dtype.itemsize)  # an index is read at once
            if node.id.get_offset() is not None:  # in one piece, and written
                check_claim(node.shape, node.dtype.itemsize, file.id.get_filesize() - node.id.get_offset())
            if node.chunks is not None and math.prod(node.chunks) > LARGEST_CHUNK:
                raise ValueError(f"{name} has chunks of shape {node.chunks}, more than 2**27 cells")

    file.visititems(visit)


def refuse_pickled_code(file: h5py.File) -> None:
    """Refuse a file in which pandas would find a pickle that names anything but the constructors of offsets.

    Raises:
        ValueError: there is one.
    """

    def visit(name: str, node: Any) -> None:
        for attribute, value in node.attrs.items():
            if isinstance(attribute, bytes):  # PyTables crashes on names that are no text
                raise ValueError(f"{name} has an attribute whose name {attribute!r} is no text")
            # PyTables calls pickled objects what is stored as rows of bytes under this mark.
            if attribute == "PSEUDOATOM" and bytes(value) == b"object":
                raise ValueError(f"{name} holds pickled objects (text columns?), which are never loaded")
            if isinstance(value, (bytes, str, np.bytes_)):
                _check_pickle(name, value.encode() if isinstance(value, str) else bytes(value))

    visit("/", file)
    file.visititems(visit)


def _check_pickle(name: str, value: bytes) -> None:
    """Refuse bytes that, loaded as a pickle, would name anything but the constructors of offsets."""
    for named in _names_in_pickle(value):
        if named not in SAFE_GLOBALS and named.split(" ")[0] not in SAFE_MODULES:
            raise ValueError(f"{name} holds a pickle that names {named!r}, which is never loaded")


def _names_in_pickle(value: bytes) -> Iterator[str]:
    """What a pickle looks up, as "module name", up to the place where the bytes stop being a pickle."""
    operations = pickletools.genops(value)
    while True:
        try:
            operation, argument, _ = next(operations)
        except (StopIteration, ValueError, UnicodeDecodeError, IndexError):
            return
        if operation.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):  # never written by PyTables
            yield operation.name

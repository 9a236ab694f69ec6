"""HDF5: rectangles of a plain array, or of the blocks of columns that a pandas frame is stored as."""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import h5py
import numpy as np
import pandas as pd
import tables
from numpy.typing import NDArray

from fastimpute.io.h5 import CUSTOMARY, arrays_of, check_sizes, frames_of, recreated, refuse_pickled_code
from fastimpute.io.pieces.npy import check_numbers, check_table
from fastimpute.io.pieces.table import (
    BlockSink,
    Request,
    StoredTable,
    as_stored,
    piece_rows,
)
from fastimpute.io.stampforms import is_time_name
from fastimpute.io.table import choose_key
from fastimpute.stream.table import Header, Sink, floating

PYTABLES = threading.RLock()  # PyTables keeps one state for all files


@dataclass(frozen=True)
class Block:
    """Some columns of a frame, stored together.

    Attributes:
        node: path of the array or table in the file.
        field: column of a table, None in an array.
        places: which columns of the frame they are.
    """

    node: str
    field: str | None
    places: NDArray[np.intp]


@dataclass(frozen=True)
class H5Table:
    """Where in which file the table was, and how.

    Attributes:
        path: the file.
        key: name of the array or frame.
        channel: which channel of an array (T, N, C), None of (T, N).
        blocks: of a frame, empty for an array.
        floating: whether integers have to become floating, because some of them mean missing.
    """

    path: Path
    key: str
    channel: int | None = None
    blocks: tuple[Block, ...] = ()
    floating: bool = False


def open_table(path: Path, request: Request) -> StoredTable:
    """Open a table; see `fastimpute.io.source.open_source`."""
    try:
        with h5py.File(path) as file:
            check_sizes(file)
            frames = frames_of(file)
            key = choose_key([*frames, *arrays_of(file, frames)], request.choice.key, CUSTOMARY)
            if key not in frames:
                return _open_array(path, file[key], key, request)
            refuse_pickled_code(file)
        return _open_frame(path, key, frames[key], request)
    except (OSError, KeyError, TypeError, tables.HDF5ExtError) as error:
        raise ValueError(f"not a readable .h5 file: {error}") from None


def create(path: Path, header: Header) -> Sink:
    """Begin a file, with a frame "df" where there are names or time stamps, else with an array "data"."""
    origin = header.origin if isinstance(header.origin, H5Table) else None
    if origin is not None:
        shutil.copyfile(origin.path, path)
        return FrameSink(path, header, origin) if origin.blocks else ArraySink(path, header, origin)
    if header.named or header.index is not None:
        return FrameSink(path, header, _new_frame(path, header))
    with h5py.File(path, "w") as file:
        file.create_dataset("data", header.shape, header.dtype, track_times=False)
    return ArraySink(path, header, H5Table(path, "data"))


def _open_array(path: Path, dataset: h5py.Dataset, key: str, request: Request) -> ArrayTable:
    channel = request.choice.channel if key.split("/")[-1] == "data" and dataset.ndim == 3 else None
    if channel is not None and not 0 <= channel < dataset.shape[2]:
        raise ValueError(f"there is no channel {channel}: {key!r} has shape {dataset.shape}")
    check_table(dataset.shape if channel is None else dataset.shape[:2])
    rows, columns = dataset.shape[:2]
    dtype = request.dtype_of(dataset.dtype.newbyteorder("="))
    header = Header(rows, tuple(range(columns)), False, dtype, None, ".h5", H5Table(path, key, channel))
    return ArrayTable(path, header, request.zeros_as_missing)


class ArrayTable(StoredTable):
    """A plain array."""

    def __init__(self, path: Path, header: Header, zeros_as_missing: bool) -> None:
        super().__init__(path, header, zeros_as_missing)
        self._file = h5py.File(path)
        self._dataset = self._file[header.origin.key]

    def close(self) -> None:
        """See `Source.close`."""
        super().close()
        self._file.close()

    def _stored(self, first: int, last: int, left: int, right: int) -> NDArray[Any]:
        channel = self.header.origin.channel
        part = (slice(first, last), slice(left, right))
        cells: NDArray[Any] = self._dataset[part if channel is None else (*part, channel)]
        return cells


def _open_frame(path: Path, key: str, kind: Literal["fixed", "table"], request: Request) -> FrameTable:
    with PYTABLES, cast(Any, pd.HDFStore(path, mode="r")) as store:
        storer = store.get_storer(key)
        names, index, blocks = _fixed(storer, key) if kind == "fixed" else _appendable(store, storer, key)
        dtypes = {_dtype(store.root._v_file, block) for block in blocks}
    if not blocks:
        raise ValueError("the frame is empty")
    check_table((len(index), len(names)))
    repeated = names[names.duplicated()]
    if len(repeated):
        raise ValueError(f"column {repeated[0]!r} appears more than once: give every sensor its own name")
    if is_time_name(names[0]) and not isinstance(index, pd.DatetimeIndex):
        raise ValueError(f"column {names[0]!r} holds time stamps or row numbers: make them the index")
    for dtype in dtypes:
        check_numbers(dtype)
    shared = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float64)
    times = index if isinstance(index, pd.DatetimeIndex) else None
    header = Header(
        rows=len(index),
        names=tuple(names),
        named=not isinstance(names, pd.RangeIndex),
        dtype=request.dtype_of(shared),
        index=times,
        suffix=".h5",
        origin=H5Table(path, key, None, blocks, request.zeros_as_missing),
    )
    return FrameTable(path, header, request.zeros_as_missing)


def _fixed(storer: Any, key: str) -> tuple[pd.Index[Any], pd.Index[Any], tuple[Block, ...]]:
    """Column names, index and blocks of a frame stored once and for all."""
    names, index = storer.read_index("axis0"), storer.read_index("axis1")
    blocks = []
    for number in range(int(storer.group._v_attrs.nblocks)):
        places = names.get_indexer(storer.read_index(f"block{number}_items"))
        blocks.append(Block(f"/{key}/block{number}_values", None, places))
    _check_places(blocks, len(names))
    for block in blocks:
        shape = storer.group._v_file.get_node(block.node).shape
        if shape != (len(index), len(block.places)):
            raise ValueError(f"{block.node} has shape {shape}, not {(len(index), len(block.places))}")
    return names, index, tuple(blocks)


def _appendable(store: Any, storer: Any, key: str) -> tuple[pd.Index[Any], pd.Index[Any], tuple[Block, ...]]:
    """Column names, index and blocks of a frame stored as a table of records."""
    empty = store.select(key, start=0, stop=0)
    names = empty.columns
    storer.infer_axes()
    index = pd.Index(store.select_column(key, "index"), name=empty.index.name)
    blocks = [Block(f"/{key}/table", axis.cname, names.get_indexer(axis.values)) for axis in storer.values_axes]
    _check_places(blocks, len(names))
    return names, index, tuple(blocks)


def _check_places(blocks: list[Block], columns: int) -> None:
    places = np.concatenate([block.places for block in blocks]) if blocks else np.empty(0)
    if not np.array_equal(np.sort(places), np.arange(columns)):
        raise ValueError("the blocks of the frame do not make up its columns")


def _dtype(file: Any, block: Block) -> np.dtype[Any]:
    node = file.get_node(block.node)
    if not isinstance(node, tables.Array if block.field is None else tables.Table):
        raise ValueError(f"{block.node} is a {type(node).__name__}, not what the frame says")
    if node._v_attrs._f_list().count("value_type"):
        raise ValueError(f"{block.node} holds time stamps: make them the index")
    dtype: np.dtype[Any] = node.dtype if block.field is None else node.coldtypes[block.field].base
    return dtype


class FrameTable(StoredTable):
    """A pandas frame."""

    def __init__(self, path: Path, header: Header, zeros_as_missing: bool) -> None:
        super().__init__(path, header, zeros_as_missing)
        with PYTABLES:
            self._file = tables.open_file(path, "r")

    def close(self) -> None:
        """See `Source.close`."""
        super().close()
        with PYTABLES:
            self._file.close()

    def _stored(self, first: int, last: int, left: int, right: int) -> NDArray[Any]:
        out = np.empty((last - first, right - left), dtype=floating(self.header.dtype))
        if not out.size:
            return out
        for block in self.header.origin.blocks:
            chosen = np.flatnonzero((block.places >= left) & (block.places < right))
            if chosen.size:
                out[:, block.places[chosen] - left] = self._block(block, first, last, chosen)
        return out

    def _block(self, block: Block, first: int, last: int, chosen: NDArray[np.intp]) -> NDArray[Any]:
        begin, end = int(chosen[0]), int(chosen[-1]) + 1
        with PYTABLES:
            node = self._file.get_node(block.node)
            if block.field is None:
                cells = node[first:last, begin:end]
            else:
                cells = node.read(first, last, field=block.field).reshape(last - first, -1)[:, begin:end]
        picked: NDArray[Any] = self._cells(cells)[:, chosen - begin]
        return picked


class ArraySink(BlockSink):
    """A sink into an array that is in its place already."""

    def __init__(self, path: Path, header: Header, origin: H5Table) -> None:
        super().__init__(path, header, piece_rows(len(header.names)))
        self._file = h5py.File(path, "r+")
        self._channel = origin.channel
        self._dataset = self._file[origin.key]
        if self._dataset.dtype.newbyteorder("=") != header.dtype and origin.channel is None:
            self._dataset = recreated(self._file, origin.key, header.dtype)
        elif self._dataset.dtype.kind in "iub" and header.dtype.kind == "f":
            self._dataset = recreated(self._file, origin.key, header.dtype)
            self._copy_channels(origin)

    def _copy_channels(self, origin: H5Table) -> None:
        """All channels as they were in the original, in an array of another dtype."""
        with h5py.File(origin.path) as file:
            before = file[origin.key]
            rows = piece_rows(math.prod(before.shape[1:]))
            for first in range(0, len(before), rows):
                self._dataset[first : first + rows] = before[first : first + rows]

    def _write(self, first: int, block: NDArray[Any]) -> None:
        part = (slice(first, first + len(block)), slice(None))
        stored = as_stored(block, self.header.dtype)
        self._dataset[part if self._channel is None else (*part, self._channel)] = stored

    def _release(self) -> None:
        self._file.close()


class FrameSink(BlockSink):
    """A sink into the blocks of a frame that is in its place already."""

    def __init__(self, path: Path, header: Header, origin: H5Table) -> None:
        super().__init__(path, header, piece_rows(len(header.names)))
        self._blocks = origin.blocks
        with PYTABLES:
            self._file = tables.open_file(path, "a")
            self._dtypes = [self._prepared(block, origin.floating) for block in origin.blocks]

    def _prepared(self, block: Block, floating: bool) -> np.dtype[Any]:
        """The dtype of a block, made floating where its integers may be missing."""
        dtype = _dtype(self._file, block)
        if dtype.kind not in "iub" or not floating:
            return dtype
        if block.field is not None:
            raise ValueError(f"{block.node} holds records of {dtype}, which cannot be missing: write to another format")
        before = self._file.get_node(block.node)
        group, name, shape = before._v_parent, before._v_name, before.shape
        attributes = {key: before._v_attrs[key] for key in before._v_attrs._f_list("user")}
        before.remove()
        atom = tables.Float64Atom()
        node = self._file.create_array(group, name, atom=atom, shape=shape, track_times=False)
        for key, value in attributes.items():
            node._v_attrs[key] = value
        return np.dtype(np.float64)

    def _write(self, first: int, block: NDArray[Any]) -> None:
        last = first + len(block)
        with PYTABLES:
            for part, dtype in zip(self._blocks, self._dtypes, strict=True):
                cells = as_stored(np.ascontiguousarray(block[:, part.places]), dtype)
                node = self._file.get_node(part.node)
                if part.field is None:
                    node[first:last, :] = cells
                elif node.coldtypes[part.field].shape == (1,):
                    _modify_single(node, first, last, part.field, cells)
                else:
                    shaped = cells.reshape(len(cells), *node.coldtypes[part.field].shape)
                    node.modify_column(first, last, column=shaped, colname=part.field)

    def _finish(self) -> None:
        with PYTABLES:
            for place in {block.node for block in self._blocks if block.field is not None}:
                node = self._file.get_node(place)
                if not node.autoindex:
                    node.autoindex = True
                    node.reindex_dirty()
        super()._finish()

    def _release(self) -> None:
        with PYTABLES:
            self._file.close()


def _modify_single(node: Any, first: int, last: int, field: str, cells: NDArray[Any]) -> None:
    """Write a field of arrays of one number, a dimension that `modify_column` drops and then misses.

    All indices of the table count as stale after this: they are made anew once, when it is complete.
    """
    records = node.read(first, last)
    records[field] = cells
    node.autoindex = False
    node.modify_rows(first, last, rows=records)


def _new_frame(path: Path, header: Header) -> H5Table:
    """An empty frame "df" of the header's size: pandas writes one of a single row, whose arrays are then made long."""
    names = header.names if header.named else tuple(str(name) for name in header.names)
    if len({type(name) for name in names}) > 1:
        names = tuple(str(name) for name in names)
    index = header.index if header.index is not None else pd.RangeIndex(header.rows)
    row = pd.DataFrame(np.zeros((1, len(names)), header.dtype), index=index[:1], columns=list(names))
    with _skeleton(path, row) as small, h5py.File(path, "w") as file:
        _copy_attributes(small, file)
        small.visititems(lambda name, node: _copy_node(file, name, node, header.rows, index))
    return H5Table(path, "df", None, (Block("/df/block0_values", None, np.arange(len(names))),))


@contextlib.contextmanager
def _skeleton(path: Path, row: pd.DataFrame) -> Iterator[h5py.File]:
    aside = path.with_name(f"{path.name}.skeleton.h5")
    try:
        with PYTABLES:
            row.to_hdf(aside, key="df", mode="w")
        with h5py.File(aside) as file:
            yield file
    finally:
        aside.unlink(missing_ok=True)


def _copy_node(file: h5py.File, name: str, node: Any, rows: int, index: pd.Index[Any]) -> None:
    if isinstance(node, h5py.Group):
        copy = file.create_group(name)
    elif name == "df/axis1":
        stamps = index.asi8 if isinstance(index, pd.DatetimeIndex) else np.arange(rows)
        copy = file.create_dataset(name, data=stamps.astype(node.dtype), track_times=False)
    elif name == "df/block0_values":
        copy = file.create_dataset(name, (rows, node.shape[1]), node.dtype, track_times=False)
    else:
        copy = file.create_dataset(name, data=node[()], dtype=node.dtype, track_times=False)
    _copy_attributes(node, copy)


def _copy_attributes(node: Any, copy: Any) -> None:
    for name, value in node.attrs.items():
        if isinstance(value, h5py.Empty):
            copy.attrs[name] = value
        else:
            copy.attrs.create(name, value, dtype=node.attrs.get_id(name).dtype)

"""Zarr: an array (T, N), or a table in a group as xarray keeps it. Version 2 is read too, version 3 is written."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.pieces.npy import check_numbers, check_table
from fastimpute.io.pieces.table import (
    BlockSink,
    Request,
    StoredTable,
    as_stored,
    piece_rows,
)
from fastimpute.io.sizes import check_claim, check_memory
from fastimpute.io.table import choose_key
from fastimpute.stream.table import Header

CUSTOMARY = ("data", "speed", "flow", "X")
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
ENCODED = ("scale_factor", "add_offset", "_FillValue", "missing_value")
LARGEST_CHUNK = 2**27  # cells: a chunk is decoded whole
BLOCK_CELLS = 2**23
CHUNK_ROWS, CHUNK_COLUMNS = 512, 256


@dataclass(frozen=True)
class ZarrTable:
    """Where in which folder the table was, and how.

    Attributes:
        path: the folder.
        key: name of the array in the group, None where the folder is the array itself.
        transposed: whether sensors come first.
        encoded: whether the stored numbers stand for others (scaled, or one of them means missing).
    """

    path: Path
    key: str | None
    transposed: bool
    encoded: bool


def open_table(path: Path, request: Request) -> StoredTable:
    """Open a table; see `fastimpute.io.source.open_source`."""
    zarr = _zarr()
    try:
        node = zarr.open(_store(path, read_only=True), mode="r")
    except Exception as error:  # codecs and parsers of metadata raise whatever they like
        raise ValueError(f"not a readable .zarr folder: {error}") from None
    if isinstance(node, zarr.Array):
        _check_array(node)
        check_table(node.shape)
        return _plain(path, node, None, request)
    arrays = dict(node.arrays())
    for array in arrays.values():
        _check_size(array)
    key = choose_key(_tables(arrays), request.choice.key, CUSTOMARY)
    _check_array(arrays[key])
    if not _has_dimensions(arrays[key]):
        return _plain(path, arrays[key], key, request)
    return _labelled(path, key, request)


def create(path: Path, header: Header) -> ZarrSink:
    """Begin a folder: an array, or a group with "data" (time, sensor) and its coordinates where there are any."""
    origin = header.origin if isinstance(header.origin, ZarrTable) else None
    array = _new(path, header) if origin is None else _copied(path, header, origin)
    return ZarrSink(path, header, array, origin is not None and origin.transposed)


class ZarrSource(StoredTable):
    """A table over anything that is indexed like an array."""

    _reads_anew = True

    def __init__(self, path: Path, header: Header, array: Any, zeros_as_missing: bool) -> None:
        super().__init__(path, header, zeros_as_missing)
        self._array = array

    def _stored(self, first: int, last: int, left: int, right: int) -> NDArray[Any]:
        if self.header.origin.transposed:
            return np.asarray(self._array[left:right, first:last]).T
        return np.asarray(self._array[first:last, left:right])


@dataclass(frozen=True)
class ZarrRows:
    """Rows of an array in whole shards, see `fastimpute.stream.table.Rows`."""

    array: Any
    transposed: bool
    unit: int

    def write(self, first: int, cells: NDArray[Any]) -> None:
        """See `Rows.write`."""
        stored = as_stored(cells, self.array.dtype)
        if self.transposed:
            self.array[:, first : first + len(cells)] = stored.T
        else:
            self.array[first : first + len(cells)] = stored


class ZarrSink(BlockSink):
    """A sink of whole shards where they are not larger than a block."""

    def __init__(self, path: Path, header: Header, array: Any, transposed: bool) -> None:
        unit = (array.shards or array.chunks)[1 if transposed else 0]
        rows = max(1, BLOCK_CELLS // max(1, unit * len(header.names))) * unit
        self._fits = unit * len(header.names) <= 4 * BLOCK_CELLS
        super().__init__(path, header, rows if self._fits else piece_rows(len(header.names)))
        self._rows = ZarrRows(array, transposed, unit)

    def rows(self, most: int) -> ZarrRows | None:
        """See `Sink.rows`."""
        if not self._fits or self._rows.unit > most:
            return None
        self._written = self.header.rows
        return self._rows

    def _write(self, first: int, block: NDArray[Any]) -> None:
        self._rows.write(first, block)

    def _release(self) -> None:
        """Every block is on the disk as soon as it is written."""


def _zarr() -> Any:
    try:
        import xarray  # noqa: F401
        import zarr

        from fastimpute.io.pieces import blosc
    except ImportError:
        raise ValueError(".zarr needs zarr and xarray: pip install 'fastimpute[io]'") from None
    blosc.register()
    return zarr


def _store(path: Path, read_only: bool = False) -> Any:
    return _zarr().storage.LocalStore(path.absolute(), read_only=read_only)  # also for other processes


def _tables(arrays: dict[str, Any]) -> list[str]:
    return sorted(name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiub")


def _check_array(array: Any) -> None:
    check_numbers(array.dtype)
    _check_size(array)


def _check_size(array: Any) -> None:
    check_claim(array.shape, array.dtype.itemsize)
    if array.ndim == 1:
        check_memory(16 * array.shape[0])  # an index is held whole
    if int(np.prod(np.minimum(array.chunks, np.maximum(array.shape, 1)), dtype=object)) > LARGEST_CHUNK:
        raise ValueError(f"it has chunks of shape {array.chunks}, more than 2**27 cells: give it smaller ones")


def _has_dimensions(array: Any) -> bool:
    return bool(getattr(array.metadata, "dimension_names", None) or "_ARRAY_DIMENSIONS" in array.attrs)


def _plain(path: Path, array: Any, key: str | None, request: Request) -> ZarrSource:
    """An array without names and time stamps."""
    check_table(array.shape)
    rows, columns = array.shape
    origin = ZarrTable(path, key, transposed=False, encoded=False)
    dtype = request.dtype_of(array.dtype.newbyteorder("="))
    header = Header(rows, tuple(range(columns)), False, dtype, None, ".zarr", origin)
    return ZarrSource(path, header, array, request.zeros_as_missing)


def _labelled(path: Path, key: str, request: Request) -> ZarrSource:
    """A variable of an xarray data set."""
    import xarray

    try:
        dataset = xarray.open_dataset(
            _store(path, read_only=True), engine="zarr", chunks=None, cache=False, consolidated=False
        )
        variable = dataset[key]
    except Exception as error:  # as above
        raise ValueError(f"not a readable .zarr folder: {error}") from None
    check_table(variable.shape)
    time = _time_dimension(variable)
    sensor = next(dimension for dimension in variable.dims if dimension != time)
    names: tuple[Hashable, ...] | None = tuple(variable.indexes[sensor]) if sensor in variable.indexes else None
    rows, columns = variable.sizes[time], variable.sizes[sensor]
    fill = variable.encoding.get("_FillValue")
    scaled = any(variable.encoding.get(name) is not None for name in ENCODED if name != "_FillValue")
    masked = fill is not None and not np.isnan(fill)
    origin = ZarrTable(path, key, transposed=variable.dims[0] == sensor, encoded=scaled or masked)
    header = Header(
        rows,
        tuple(range(columns)) if names is None else names,
        names is not None,
        request.dtype_of(variable.dtype.newbyteorder("=")),
        _index(variable, time),
        ".zarr",
        origin,
    )
    return ZarrSource(path, header, _Lazily(variable.variable), request.zeros_as_missing)


class _Lazily:
    """A variable that decodes only what is asked of it."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable

    def __getitem__(self, part: tuple[slice, slice]) -> NDArray[Any]:
        values: NDArray[Any] = self._variable[part].values
        return values


def _time_dimension(variable: Any) -> str:
    """The dimension with time stamps, else the one called "time", else the first."""
    for dimension in variable.dims:
        if isinstance(variable.indexes.get(dimension), pd.DatetimeIndex):
            return str(dimension)
    return "time" if "time" in variable.dims else str(variable.dims[0])


def _index(variable: Any, time: str) -> pd.DatetimeIndex | None:
    index = variable.indexes.get(time)
    if not isinstance(index, pd.DatetimeIndex):
        return None
    zone = variable[time].attrs.get("timezone")
    return index if zone is None else index.tz_localize("UTC").tz_convert(str(zone))


def _new(path: Path, header: Header) -> Any:
    zarr = _zarr()
    rows, columns = header.shape
    chunks = (min(CHUNK_ROWS, rows), min(CHUNK_COLUMNS, columns))
    wide = -(-columns // chunks[1]) * chunks[1]
    deep = max(1, min(BLOCK_CELLS // (chunks[0] * wide), -(-rows // chunks[0])))
    labelled = header.index is not None or header.named
    store = _store(path)
    if labelled:
        _write_coordinates(store, header)
    return zarr.create_array(
        store,
        name="data" if labelled else None,
        shape=header.shape,
        dtype=header.dtype,
        chunks=chunks,
        shards=(chunks[0] * deep, wide),
        fill_value=np.nan if header.dtype.kind == "f" else 0,
        dimension_names=("time", "sensor") if labelled else None,
        overwrite=not labelled,
        zarr_format=3,
    )


def _write_coordinates(store: Any, header: Header) -> None:
    import xarray

    coordinates: dict[str, Any] = {}
    if header.named:
        coordinates["sensor"] = ("sensor", _labels(header.names))
    if header.index is not None:
        zone = header.index.tz
        stamps = header.index if zone is None else header.index.tz_convert("UTC").tz_localize(None)
        coordinates["time"] = ("time", stamps, {} if zone is None else {"timezone": str(zone)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names are text, whose place in version 3 is still being settled
        xarray.Dataset(coords=coordinates).to_zarr(store, mode="w", zarr_format=3, consolidated=False)


def _labels(names: tuple[Hashable, ...]) -> NDArray[Any]:
    if all(isinstance(name, (int, np.integer)) for name in names):
        return np.array(names, dtype=np.int64)
    return np.array([str(name) for name in names], dtype=object)


def _copied(path: Path, header: Header, origin: ZarrTable) -> Any:
    """A copy of the folder without the cells; the array is made anew where it cannot hold floating numbers as such."""
    zarr = _zarr()
    folder = origin.path if origin.key is None else origin.path / origin.key

    def cells(place: str, names: list[str]) -> list[str]:
        return [name for name in names if name not in METADATA] if Path(place) == folder else []

    shutil.copytree(origin.path, path, ignore=cells, dirs_exist_ok=True)
    array = zarr.open_array(_store(path), path=origin.key or "", mode="r+")
    if not origin.encoded and array.dtype == header.dtype:
        return array
    attributes = {name: value for name, value in array.attrs.items() if name not in ENCODED}
    second = array.metadata.zarr_format == 2
    array = zarr.create_array(
        _store(path),
        name=origin.key,
        shape=array.shape,
        dtype=header.dtype,
        chunks=array.chunks,
        shards=array.shards,
        fill_value=np.nan if header.dtype.kind == "f" else 0,
        attributes=attributes,
        dimension_names=None if second else array.metadata.dimension_names,
        zarr_format=array.metadata.zarr_format,
        overwrite=True,
    )
    if (path / ".zmetadata").exists() or _is_consolidated(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(_store(path))
    return array


def _is_consolidated(path: Path) -> bool:
    zarr = _zarr()
    node = zarr.open(_store(path, read_only=True), mode="r")
    return isinstance(node, zarr.Group) and node.metadata.consolidated_metadata is not None

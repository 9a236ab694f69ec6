"""Zarr folders read and written whole: a frame where there are names or time stamps, else an array."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.pieces import zarr as pieces
from fastimpute.io.pieces.table import (
    Request,
)
from fastimpute.io.sizes import check_memory
from fastimpute.io.table import Choice, Data, Table
from fastimpute.stream.table import Header


def read(path: Path, choice: Choice) -> Table:
    """Read one table; see `fastimpute.io.table.Format`."""
    with pieces.open_table(path, Request(choice, path.parent)) as source:
        header = source.header
        check_memory(header.rows * len(header.names) * header.floating.itemsize)
        cells = source.read(slice(None)).astype(header.dtype, copy=False)
    if not header.named and header.index is None:
        return Table(cells, ".zarr", header)
    names = pd.Index(header.names) if header.named else None
    return Table(pd.DataFrame(cells, header.index, names, copy=False), ".zarr", header)


def write(path: Path, table: Table) -> None:
    """Write the folder back with the filled data in their place; a new one holds "data"."""
    cells, header = _described(table.data)
    if isinstance(table.origin, Header):
        header = replace(table.origin, dtype=cells.dtype)
    with pieces.create(path, header) as sink:
        sink.append(cells.astype(header.floating, copy=False))


def is_store(folder: Path) -> bool:
    """Whether a folder is empty or holds Zarr: one that may be replaced."""
    return not any(folder.iterdir()) or any((folder / name).is_file() for name in pieces.METADATA)


def _described(data: Data) -> tuple[NDArray[np.generic], Header]:
    if data.ndim != 2:
        raise ValueError(
            f"an array of shape {data.shape} does not fit into a .zarr table: write it to .npz, .npy or .h5"
        )
    cells: NDArray[np.generic] = data.to_numpy() if isinstance(data, pd.DataFrame) else data
    rows, columns = cells.shape
    if not isinstance(data, pd.DataFrame):
        return cells, Header(rows, tuple(range(columns)), False, cells.dtype, None, ".zarr")
    index = data.index if isinstance(data.index, pd.DatetimeIndex) else None
    named = not isinstance(data.columns, pd.RangeIndex)
    return cells, Header(rows, tuple(data.columns), named, cells.dtype, index, ".zarr")

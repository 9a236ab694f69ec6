"""The shapes users hold their data in: how to read each as a (T, N) table, and how to give the same type back.

Every layout reads without copying where it can, never writes to what it was given, and puts filled values into a copy,
so that observed cells come back bit for bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatTable = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Restore = Callable[[NDArray[np.float64], Mask], Any]
ColumnValues = NDArray[Any] | pd.api.extensions.ExtensionArray


@dataclass(frozen=True)
class Layout:
    """A (T, N) view of what the user gave, and the way back.

    Attributes:
        raw: (T, N) floating values in the user's units, NaN where missing. May be a view: never write to it.
        names: N sensor names, or the column numbers.
        named: whether the names are the user's own.
        index: time index of the T rows, None where there is none.
        segments: (S, 2) int64 row ranges (start, stop) of independent series; one for 2-D input.
        restore: (filled (T, N) in the user's units, cells (T, N) to take from it) -> same type as the input.
        first_row: where the rows begin in a longer table that they were cut from: the start of a frame's RangeIndex.
    """

    raw: FloatTable
    names: tuple[Hashable, ...]
    named: bool
    index: pd.DatetimeIndex | None
    segments: NDArray[np.int64]
    restore: Restore
    first_row: int = 0


def read_layout(X: Any) -> Layout:
    """Read a 2-D or 3-D ndarray, tensor, wide DataFrame, xarray DataArray or dictionary `{"X": ...}`.

    3-D input is (samples, steps, features): the samples are independent series, stacked along the rows.

    Raises:
        TypeError: X is of another type.
        ValueError: wrong number of dimensions, nothing in it, a column that is not numeric or not unique.
    """
    torch = sys.modules.get("torch")
    if isinstance(X, dict):
        return _read_dict(X)
    if isinstance(X, pd.DataFrame):
        return _read_frame(X)
    if torch is not None and isinstance(X, torch.Tensor):
        return _read_tensor(X)
    if type(X).__module__.split(".")[0] == "xarray" and hasattr(X, "dims"):
        return _read_dataarray(X)
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError("X is a masked array: mark its missing cells as NaN with X.filled(numpy.nan)")
    if isinstance(X, np.ndarray):
        return _read_array(X)
    raise TypeError(
        f"X must be a numpy array, torch tensor, wide pandas DataFrame, xarray DataArray or a dictionary with key 'X', "
        f"got {type(X).__module__}.{type(X).__qualname__}"
    )


def clip_to(dtype: np.dtype[Any], values: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Cast to a floating dtype; what is beyond its range becomes its largest number instead of infinity."""
    limits = np.finfo(dtype)
    clipped: NDArray[Any] = np.clip(values, float(limits.min), float(limits.max)).astype(dtype)
    return clipped


def _read_array(X: NDArray[Any], names: tuple[Hashable, ...] | None = None) -> Layout:
    shape = X.shape
    if X.ndim not in (2, 3):
        hint = ": reshape one sensor with X.reshape(-1, 1)" if X.ndim == 1 else ""
        raise ValueError(f"X must be 2-D (rows, sensors) or 3-D (samples, steps, features), got shape {shape}{hint}")
    if 0 in shape:
        raise ValueError(f"X is empty: shape {shape}")
    table = X.reshape(-1, shape[-1])
    raw = _numeric(table)

    def restore(filled: NDArray[np.float64], cells: Mask) -> NDArray[Any]:
        out = X.copy(order="K")
        if cells.any():  # never for integers: they cannot hold NaN
            out[cells.reshape(shape)] = clip_to(X.dtype, filled[cells])
        return out

    return Layout(
        raw=raw,
        names=tuple(range(shape[-1])) if names is None else names,
        named=names is not None,
        index=None,
        segments=_segments(shape),
        restore=restore,
    )


def _segments(shape: tuple[int, ...]) -> NDArray[np.int64]:
    samples, steps = (shape[0], shape[1]) if len(shape) == 3 else (1, shape[0])
    starts = np.arange(samples, dtype=np.int64) * steps
    return np.stack([starts, starts + steps], axis=1)


def _numeric(table: NDArray[Any]) -> FloatTable:
    """The table as floats; integers and booleans become float64."""
    if np.issubdtype(table.dtype, np.floating):
        return table
    if np.issubdtype(table.dtype, np.integer) or table.dtype == np.bool_:
        return table.astype(np.float64)
    for column in range(table.shape[1]) if table.dtype.kind in "OSU" else ():
        for row in range(table.shape[0]):
            cell = table.item(row, column)
            if not isinstance(cell, (int, float)):
                raise ValueError(
                    f"column {column} is not numeric: row {row} holds {cell!r}; "
                    "convert X to a floating dtype, NaN where missing"
                )
    raise ValueError(f"X has dtype {table.dtype}: convert it to a floating dtype, NaN where missing")


def _read_tensor(X: Any) -> Layout:
    import torch

    detached: torch.Tensor = X.detach()
    if detached.is_complex():
        raise ValueError(f"X has dtype {X.dtype}: imputation needs real numbers")
    host = detached.cpu()
    layout = _read_array((host.float() if host.dtype == torch.bfloat16 else host).numpy())

    def restore(filled: NDArray[np.float64], cells: Mask) -> torch.Tensor:
        out = detached.clone()
        if cells.any():
            limits = torch.finfo(out.dtype)
            values = torch.from_numpy(np.clip(filled[cells], limits.min, limits.max))
            where = torch.from_numpy(cells.reshape(tuple(out.shape))).to(out.device)
            out[where] = values.to(device=out.device, dtype=out.dtype)
        return out

    return replace(layout, restore=restore)


def _read_dict(X: dict[Any, Any]) -> Layout:
    if "X" not in X:
        raise ValueError(f"a dictionary must hold the series under the key 'X', got keys {sorted(map(str, X))}")
    layout = read_layout(X["X"])

    def restore(filled: NDArray[np.float64], cells: Mask) -> dict[Any, Any]:
        return {**X, "X": layout.restore(filled, cells)}

    return replace(layout, restore=restore)


def _read_dataarray(X: Any) -> Layout:
    if X.ndim == 2:
        time = time_dimension(X)
        ordered = X.transpose(time, ...)
        sensor = ordered.dims[1]
        names = tuple(ordered.indexes[sensor]) if sensor in ordered.indexes else None
        index = ordered.indexes.get(time)
    else:
        ordered, names, index = X, None, None
    layout = _read_array(ordered.values, names)

    def restore(filled: NDArray[np.float64], cells: Mask) -> Any:
        return ordered.copy(data=layout.restore(filled, cells)).transpose(*X.dims)

    times = index if isinstance(index, pd.DatetimeIndex) else None
    return replace(layout, index=times, restore=restore)


def time_dimension(X: Any) -> Hashable:
    """The dimension with time stamps, else the one called "time", else the first."""
    for dimension in X.dims:
        if isinstance(X.indexes.get(dimension), pd.DatetimeIndex):
            return str(dimension)
    return "time" if "time" in X.dims else str(X.dims[0])


def _read_frame(X: pd.DataFrame) -> Layout:
    if 0 in X.shape:
        raise ValueError(f"X is empty: {X.shape[0]} rows, {X.shape[1]} columns")
    repeated = np.flatnonzero(X.columns.duplicated())
    if repeated.size:
        raise ValueError(f"column {X.columns[repeated[0]]!r} appears more than once: give every sensor its own name")
    for name, dtype in zip(X.columns, X.dtypes, strict=True):
        _check_column(name, dtype)
    floats = {dtype for dtype in X.dtypes if isinstance(dtype, np.dtype) and np.issubdtype(dtype, np.floating)}
    uniform = len(floats) == 1 and all(dtype in floats for dtype in X.dtypes)
    raw: FloatTable = X.to_numpy() if uniform else _stack_columns(X)
    index = X.index.to_timestamp() if isinstance(X.index, pd.PeriodIndex) else X.index

    def restore(filled: NDArray[np.float64], cells: Mask) -> pd.DataFrame:
        out = X.copy()
        if uniform:
            table = raw.copy()
            if cells.any():
                table[cells] = clip_to(raw.dtype, filled[cells])
            out = pd.DataFrame(table, index=X.index, columns=X.columns, copy=False)
            out.attrs = dict(X.attrs)
            return out
        for column in map(int, np.flatnonzero(cells.any(axis=0))):
            out.isetitem(column, _fill_column(X.iloc[:, column], filled[:, column], cells[:, column]))
        return out

    return Layout(
        raw=raw,
        names=tuple(X.columns),
        named=not isinstance(X.columns, pd.RangeIndex),
        index=index if isinstance(index, pd.DatetimeIndex) else None,
        segments=_segments(X.shape),
        restore=restore,
        first_row=_first_row(X.index),
    )


def _first_row(index: pd.Index[Any]) -> int:
    """A slice of a frame without time stamps still knows its row numbers, and so where it stands in a cycle."""
    if isinstance(index, pd.RangeIndex) and index.step == 1:
        return max(0, index.start)
    return 0


def _check_column(name: Hashable, dtype: Any) -> None:
    if pd.api.types.is_datetime64_any_dtype(dtype):
        raise ValueError(f"column {name!r} holds time stamps: make it the index with X.set_index({name!r})")
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        raise ValueError(
            f"column {name!r} is not numeric (dtype {dtype}): drop it, or convert it with pandas.to_numeric"
        )


def _stack_columns(X: pd.DataFrame) -> NDArray[np.float64]:
    table = np.empty(X.shape, dtype=np.float64)
    for column in range(X.shape[1]):
        table[:, column] = X.iloc[:, column].to_numpy(dtype=np.float64, na_value=np.nan)
    return table


def _fill_column(column: pd.Series[Any], filled: NDArray[np.float64], cells: Mask) -> ColumnValues:
    """One filled column in its own dtype; nullable integers become floating, as they cannot hold what is filled in."""
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype):
        values = column.to_numpy(copy=True)
        values[cells] = clip_to(dtype, filled[cells])
        return values
    if not pd.api.types.is_float_dtype(dtype):
        dtype = "float64[pyarrow]" if isinstance(dtype, pd.ArrowDtype) else "Float64"
    values = column.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    values[cells] = filled[cells]
    filled_column: ColumnValues = pd.array(values, dtype=dtype)
    return filled_column

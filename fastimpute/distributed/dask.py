"""Imputation under Dask: arrays and xarray, lazily, and files on the workers of a cluster; as `fastimpute.dask`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fastimpute.conformal import needed
from fastimpute.files import Reading, impute_file
from fastimpute.imputer import BaseImputer
from fastimpute.intervals import IntervalImputer
from fastimpute.layouts import time_dimension
from fastimpute.stream.summary import Summary
from fastimpute.stream.table import Header
from fastimpute.stream.wish import Wish
from fastimpute.timestamps import check_timestamps

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30


def impute(
    array: Any,
    imputer: BaseImputer[Any] | None = None,
    *,
    index: pd.DatetimeIndex | None = None,
    level: float | None = None,
    seed: int = 0,
) -> Any:
    """Fill the gaps of a Dask array, or of an xarray DataArray that holds one; nothing is computed yet.

    The array is cut into tiles as a file is by `fastimpute.impute_file`: one imputer is fitted to each group of sensors
    that move together, and each tile is one task. The result is the same bits as a file's, whatever the chunks, the
    scheduler and the number of workers, and whichever of them die. The array is read three times (scanned, learned
    from, filled), and a few bands of it once more before: persist it where it is dear to compute and fits the memory of
    the workers.

    Args:
        array: (T, N) dask.array.Array or xarray.DataArray, missing cells NaN.
        imputer: settings to fit by, or an imputer that was fitted to all sensors; `SPIRITImputer(random_state=seed)`
            by default. With a random_state of None the bits are those of one computation only.
        index: time stamps of the T rows; a DataArray brings its own.
        level: also give intervals of this level.
        seed: of the rows that are learned from.

    Returns:
        What came in, in its chunks and dtype, observed cells bit for bit; with a level (filled, lower, upper). Integers
        are returned as they are, as they cannot be missing. Computing it raises ValueError for infinite cells and for
        sensors without any observation (with all_missing="raise").

    Raises:
        TypeError: neither of these types, or a dtype that is not of real numbers.
        ValueError: not two-dimensional, empty, of unknown shape, an imputer without intervals, or time stamps that do
            not fit the rows or are repeated, unsorted or irregular; or Dask is not installed.

    Example:
        >>> import dask.array as da, fastimpute as fi, numpy as np
        >>> table = da.from_array(np.array([[1.0], [np.nan], [3.0]]), chunks=1)
        >>> fi.dask.impute(table, fi.LinearImputer()).compute().ravel().tolist()
        [1.0, 2.0, 3.0]
    """
    _require("dask.array")
    import dask.array as da

    if isinstance(array, da.Array):
        return _alone_or_all(_impute(array, None, imputer, index, level, seed))
    if type(array).__module__.split(".")[0] == "xarray" and isinstance(getattr(array, "data", None), da.Array):
        ordered = array.transpose(time_dimension(array), ...)
        times, names = (ordered.indexes.get(dimension) for dimension in ordered.dims[:2])
        index = times if index is None and isinstance(times, pd.DatetimeIndex) else index
        filled = _impute(ordered.data, names, imputer, index, level, seed)
        return _alone_or_all([ordered.copy(data=table).transpose(*array.dims) for table in filled])
    raise TypeError(
        "array must be a dask.array.Array or an xarray.DataArray that holds one (X.chunk() makes one), "
        f"got {type(array).__module__}.{type(array).__qualname__}"
    )


def impute_files(
    client: Client,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    imputer: BaseImputer[Any] | str | os.PathLike[str],
    *,
    level: float | None = None,
    memory: int | str | None = None,
    reading: Reading | None = None,
    log_json: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    verbose: bool = True,
) -> Summary | None:
    """Impute a file of any size on the workers of a cluster: `fastimpute.impute_file`, with their help.

    The workers look at the table, fit, fill and write; formats that take their rows in order only (all but .npy and
    .zarr) are written by the client. Source and target have to lie on a
    file system that all of them see under the same names. A worker that dies is replaced by Dask; whatever ends the
    client, the same call goes on. The result is the bits of a single process.

    Args:
        client: of the cluster, see `connected`.
        source, target, imputer, level, reading, log_json, report, verbose: see `impute_file`.
        memory: of the client, and of each piece of work on a worker.

    Raises:
        ValueError: as `impute_file`; or a piece of work that ends every worker it is given to.

    Example:
        >>> with fi.dask.connected("tcp://head:8786") as client:  # doctest: +SKIP
        ...     fi.dask.impute_files(client, "year.zarr", "filled.zarr", fi.SPIRITImputer(random_state=0))
    """
    from fastimpute.distributed.cluster import run_on_cluster

    wanted = reading or Reading()
    runner = partial(run_on_cluster, client=client, open_on_worker=partial(wanted.open, Path(source).absolute()))
    return impute_file(
        source,
        target,
        imputer,
        level=level,
        memory=memory,
        reading=wanted,
        log_json=log_json,
        report=report,
        verbose=verbose,
        runner=runner,
    )


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of a Dask scheduler, for the length of the block.

    Raises:
        ValueError: no scheduler answers there, it has no workers, or Dask is not installed.
    """
    _require("distributed")
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise ValueError(f"the Dask scheduler at {scheduler} has no workers: start some with `dask worker`")
        yield client


def _impute(
    cells: Any,
    names: pd.Index[Any] | None,
    imputer: BaseImputer[Any] | None,
    index: pd.DatetimeIndex | None,
    level: float | None,
    seed: int,
) -> list[Any]:
    from fastimpute.distributed.graph import imputed

    _check_cells(cells)
    if imputer is None:
        from fastimpute.spirit import SPIRITImputer

        imputer = SPIRITImputer(random_state=seed)
    if level is not None:
        needed(level)
        if not isinstance(imputer, IntervalImputer):
            raise ValueError(f"level: {type(imputer).__name__} has no intervals")
    rows, sensors = cells.shape
    if index is not None:
        if len(index) != rows:
            raise ValueError(f"index must have a time stamp for each of the {rows} rows, got {len(index)}")
        check_timestamps(index)
    if cells.dtype.kind in "biu":
        return [cells] * (1 if level is None else 3)
    known = tuple(range(sensors)) if names is None else tuple(names)
    header = Header(rows, known, names is not None, cells.dtype, index, suffix="")
    fitted = "as given" if imputer.__sklearn_is_fitted__() else None
    wish = Wish("array", {}, {}, _undisturbed(imputer), fitted, level, memory=0, seed=seed)
    return imputed(cells, header, wish)


def _check_cells(cells: Any) -> None:
    if cells.dtype.kind not in "fbiu":
        raise TypeError(f"array has dtype {cells.dtype}: convert it to a floating dtype, NaN where missing")
    if cells.ndim != 2:
        raise ValueError(f"array must be 2-D (rows, sensors), got {cells.ndim} dimensions")
    if any(np.isnan(length) for length in cells.shape):
        raise ValueError("array has chunks of unknown size: call compute_chunk_sizes() first")
    if 0 in cells.shape:
        raise ValueError(f"array is empty: shape {cells.shape}")


def _undisturbed(imputer: BaseImputer[Any]) -> BaseImputer[Any]:
    """The imputer as it is now, whatever the user does to it later; silent, and without a training laid aside."""
    from copy import deepcopy

    settings = {"verbose": False, "checkpoint": None}
    return deepcopy(imputer).set_params(
        **{key: value for key, value in settings.items() if key in imputer.get_params()}
    )


def _alone_or_all(tables: list[Any]) -> Any:
    return tables[0] if len(tables) == 1 else tuple(tables)


def _require(module: str) -> None:
    from importlib import import_module

    try:
        import_module(module)
    except ImportError:
        raise ValueError(f"{module} is not installed: pip install 'fastimpute[distributed]'") from None

"""Zeros that mean missing: usual in speed files, wrong for night-time flow. A choice of the user, with a diagnosis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.table import Data
from fastimpute.stream.runs import LONG, Runs, Zeros

ZEROS_WORTH_A_WORD = 0.01  # share of the cells from which on the user is told


def zeros_to_missing(data: Data) -> Data:
    """The data with NaN where there was a zero; integers become float64. The input is not changed."""
    if isinstance(data, pd.DataFrame):
        return data.mask(_zeros(data))
    floating = data if np.issubdtype(data.dtype, np.floating) else data.astype(np.float64)
    return np.where(floating == 0, np.asarray(np.nan, dtype=floating.dtype), floating)


def zero_share(data: Data) -> float:
    """Share of the cells that are exactly zero."""
    return float(_zeros(data).mean())


def describe_zeros(data: Data) -> str | None:
    """One line on the zeros of a table, None where there are none.

    Example:
        >>> describe_zeros(np.array([[0.0], [1.0]]))
        '50.00 % of the cells are zero, 0 % of those in runs of 12 or more, in 1 of 1 sensors'
    """
    zeros = _zeros(data)
    return describe(Zeros.of(Runs.of(zeros)), *zeros.shape)


def describe(zeros: Zeros, rows: int, sensors: int) -> str | None:
    """The same line for a table of any size whose zeros were counted.

    Example:
        >>> describe(Zeros(cells=1, in_long_runs=0, sensors=1), rows=2, sensors=1)
        '50.00 % of the cells are zero, 0 % of those in runs of 12 or more, in 1 of 1 sensors'
    """
    if not zeros.cells:
        return None
    return (
        f"{zeros.cells / (rows * sensors):.2%} of the cells are zero, {zeros.in_long_runs / zeros.cells:.0%} of those "
        f"in runs of {LONG} or more, in {zeros.sensors} of {sensors} sensors"
    ).replace("%", " %")


def _zeros(data: Data) -> NDArray[np.bool_]:
    zeros = data == 0
    table: Any = zeros.to_numpy(dtype=bool, na_value=False) if isinstance(zeros, pd.DataFrame) else np.asarray(zeros)
    return np.asarray(table.reshape(-1, table.shape[-1]))

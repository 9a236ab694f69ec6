"""Zeros that mean missing: usual in speed files, wrong for night-time flow. A choice of the user, with a diagnosis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.table import Data

LONG_RUN = 12  # steps: an hour at five minutes


def zeros_to_missing(data: Data) -> Data:
    """The data with NaN where there was a zero; integers become float64. The input is not changed."""
    if isinstance(data, pd.DataFrame):
        return data.mask(data == 0)
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
    count = int(zeros.sum())
    if count == 0:
        return None
    long = _in_long_runs(zeros) / count
    sensors = int(zeros.any(axis=0).sum())
    return (
        f"{count / zeros.size:.2%} of the cells are zero, {long:.0%} of those in runs of {LONG_RUN} or more, "
        f"in {sensors} of {zeros.shape[1]} sensors"
    ).replace("%", " %")


def _zeros(data: Data) -> NDArray[np.bool_]:
    table: Any = (data == 0).to_numpy(dtype=bool) if isinstance(data, pd.DataFrame) else np.asarray(data == 0)
    return np.asarray(table.reshape(-1, table.shape[-1]))


def _in_long_runs(zeros: NDArray[np.bool_]) -> int:
    """Number of zero cells (T, N) that belong to a vertical run of at least LONG_RUN."""
    padded = np.zeros((zeros.shape[0] + 2, zeros.shape[1]), dtype=np.int8)
    padded[1:-1] = zeros
    change = np.diff(padded.T, axis=1)
    starts, stops = np.argwhere(change == 1)[:, 1], np.argwhere(change == -1)[:, 1]
    lengths = stops - starts
    return int(lengths[lengths >= LONG_RUN].sum())

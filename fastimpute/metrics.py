"""Errors over chosen cells, in the formulas of the imputation literature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mae(filled: ArrayLike, truth: ArrayLike, cells: ArrayLike) -> float:
    """Mean absolute error over the cells (same shape, True = scored).

    Raises:
        ValueError: shapes differ, no cell is scored, or a scored cell is NaN.

    Example:
        >>> mae([1.0, 5.0], [2.0, 0.0], [True, False])
        1.0
    """
    return float(np.abs(_errors(filled, truth, cells)[0]).mean())


def mse(filled: ArrayLike, truth: ArrayLike, cells: ArrayLike) -> float:
    """Mean squared error over the cells; see `mae`."""
    return float(np.square(_errors(filled, truth, cells)[0]).mean())


def rmse(filled: ArrayLike, truth: ArrayLike, cells: ArrayLike) -> float:
    """Root of the mean squared error over the cells; see `mae`."""
    return float(np.sqrt(mse(filled, truth, cells)))


def mre(filled: ArrayLike, truth: ArrayLike, cells: ArrayLike) -> float:
    """Mean relative error: sum of absolute errors over sum of absolute true values; see `mae`."""
    errors, values = _errors(filled, truth, cells)
    size = np.abs(values).sum()
    return float(np.abs(errors).sum() / size) if size > 0 else float("nan")


def _errors(filled: ArrayLike, truth: ArrayLike, cells: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    chosen = np.asarray(cells, dtype=bool)
    ours, values = np.asarray(filled, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if not ours.shape == values.shape == chosen.shape:
        raise ValueError(
            f"filled, truth and cells must agree in shape, got {ours.shape}, {values.shape}, {chosen.shape}"
        )
    if not chosen.any():
        raise ValueError("no cell to score: cells is False everywhere")
    errors = ours[chosen] - values[chosen]
    if np.isnan(errors).any():
        raise ValueError(f"{int(np.isnan(errors).sum())} of {errors.size} scored cells are NaN in filled or truth")
    return errors, values[chosen]

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


def crps_gaussian(mean: ArrayLike, deviation: ArrayLike, truth: ArrayLike, cells: ArrayLike) -> float:
    """Mean continuous ranked probability score of normal predictions over the cells: MAE's equal for distributions.

    ``sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))`` with ``z = (truth - mean) / sigma``; |truth - mean| where the
    deviation is 0.

    Args:
        mean: predicted means.
        deviation: predicted standard deviations, of the same shape, at least 0.
        truth: true values.
        cells: True = scored.

    Raises:
        ValueError: as in `mae`; or a scored deviation is negative or NaN.

    Example:
        >>> crps_gaussian([0.0], [0.0], [2.0], [True])
        2.0
    """
    from scipy.special import ndtr

    errors, _ = _errors(mean, truth, cells)
    spread = np.broadcast_to(np.asarray(deviation, dtype=np.float64), np.shape(cells))[np.asarray(cells, dtype=bool)]
    if not (spread >= 0).all():
        raise ValueError(f"deviation must be at least 0 at scored cells, got {spread.min()}")
    size = np.abs(errors)
    z = size / np.where(spread > 0, spread, 1.0)
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    closed = spread * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return float(np.where(spread > 0, closed, size).mean())


def crps_samples(samples: ArrayLike, truth: ArrayLike, cells: ArrayLike) -> float:
    """Mean continuous ranked probability score of drawn predictions over the cells.

    The fair estimate ``mean_z |x_z - truth| - sum_{z<z'} |x_z - x_z'| / (Z (Z - 1))``, unbiased for any Z.

    Args:
        samples: (Z, ...) draws, Z at least 2.
        truth: (...) true values.
        cells: (...) True = scored.

    Raises:
        ValueError: as in `mae`; or fewer than two draws.

    Example:
        >>> crps_samples([[1.0], [1.0]], [3.0], [True])
        2.0
    """
    draws = np.asarray(samples, dtype=np.float64)
    if draws.ndim < 1 or len(draws) < 2:
        raise ValueError(f"samples must hold at least two draws, got shape {draws.shape}")
    distance = np.stack([np.abs(_errors(draw, truth, cells)[0]) for draw in draws]).mean(0)
    ordered = np.sort(draws[:, np.asarray(cells, dtype=bool)], axis=0)
    count = len(draws)
    rank = np.arange(1, count + 1, dtype=np.float64)[:, None]
    between = ((2 * rank - count - 1) * ordered).sum(0) / (count * (count - 1))
    return float((distance - between).mean())


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

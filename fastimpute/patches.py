"""Patches: windows of L steps over sets of sensors, as index tables into the series.

A patch is ``x[l * k + j] = series[starts[s] + l, columns[g, j]]``; patch ``i = s * G + g`` (start-major), so that
S starts and G column sets give S * G patches of dimension D = L * k without copying the series.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def window_starts(steps: int, window: int, stride: int) -> Indices:
    """First rows of overlapping windows, ascending; the last window ends with the series.

    Args:
        steps: rows of the series, T.
        window: rows of one window, L <= T.
        stride: rows between neighbouring windows, >= 1.

    Raises:
        ValueError: window outside 1..steps, or stride below 1.

    Example:
        >>> window_starts(10, 4, 3).tolist()
        [0, 3, 6]
        >>> window_starts(11, 4, 3).tolist()
        [0, 3, 6, 7]
    """
    if not 1 <= window <= steps:
        raise ValueError(f"window: expected 1 <= window <= steps ({steps}), got {window}")
    if stride < 1:
        raise ValueError(f"stride: expected at least 1, got {stride}")
    last = steps - window
    starts = np.arange(0, last + 1, stride, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, np.int64(last))


def all_columns(sensors: int) -> Indices:
    """One column set with every sensor: shape (1, N)."""
    return np.arange(sensors, dtype=np.int64)[None, :]


def correlation(values: Floats, missing: Mask, minimum: int = 8) -> npt.NDArray[np.float32]:
    """Correlation of each pair of sensors over the steps where both are observed, shape (N, N).

    Pairs with fewer than `minimum` common steps, and constant sensors, count as unrelated (0).
    """
    seen = (~missing).astype(np.float32)
    count = seen.sum(0)
    total = np.where(missing, 0.0, values).sum(0, dtype=np.float64)
    centred = np.where(missing, 0.0, values - (total / np.maximum(count, 1.0)).astype(np.float32)).astype(np.float32)
    pairs = seen.T @ seen
    cross = centred.T @ centred
    power = (centred * centred).T @ seen  # sum of x_i^2 over the steps where j is observed too
    scale = np.sqrt(np.maximum(power * power.T, 0.0))
    usable = (pairs >= minimum) & (scale > 1e-6 * np.maximum(pairs, 1.0))
    return np.where(usable, cross / np.where(usable, scale, 1.0), 0.0).astype(np.float32)


def neighbours(values: Floats, missing: Mask, count: int) -> Indices:
    """Each sensor itself, then its `count` most correlated sensors, shape (N, 1 + min(count, N - 1)).

    Correlation is signed and pairwise over common observed steps; ties go to the lower sensor number.

    Raises:
        ValueError: count below 0.

    Example:
        >>> t = np.linspace(0.0, 9.0, 50, dtype=np.float32)
        >>> series = np.stack([np.sin(t), np.cos(t), np.sin(t + 0.1)], 1)
        >>> neighbours(series, np.zeros(series.shape, bool), 1).tolist()
        [[0, 2], [1, 2], [2, 0]]
    """
    if count < 0:
        raise ValueError(f"count: expected at least 0 neighbours, got {count}")
    related = correlation(values, missing)
    np.fill_diagonal(related, np.inf)
    order = np.argsort(-related, axis=1, kind="stable")
    return np.ascontiguousarray(order[:, : count + 1]).astype(np.int64)


def cell_table(columns: Indices, window: int, sensors: int) -> Indices:
    """Offsets of a patch's cells from the flat index of its first row, shape (G, L * k)."""
    rows = np.arange(window, dtype=np.int64)[:, None] * sensors
    return (rows[None] + columns[:, None, :]).reshape(len(columns), -1)

"""Monotone maps of each sensor's values to normal scores and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from fastimpute.gaps import Floats, Mask

KNOTS = 64
HERMITE = ((-1.7320508, 1 / 6), (0.0, 2 / 3), (1.7320508, 1 / 6))  # three-point Gauss-Hermite rule


class NormalScores:
    """Piecewise linear map through the quantiles of the observed values, straight lines beyond them.

    Sensors without spread keep their values.
    """

    def __init__(self, values: Floats, missing: Mask) -> None:
        self.maps: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None] = []
        for sensor in range(values.shape[1]):
            seen = values[~missing[:, sensor], sensor].astype(np.float64)
            self.maps.append(_knots(seen))

    def forward(self, values: Floats) -> Floats:
        """(T, N) values to scores."""
        return self._map(values, 0)

    def backward(self, scores: Floats) -> Floats:
        """(T, N) scores to values: the median of a Gaussian forecast."""
        return self._map(scores, 1)

    def backward_mean(self, scores: Floats, spread: Floats) -> Floats:
        """Mean of the values whose scores are Gaussian with the given mean and standard deviation (T, N)."""
        total = np.zeros(scores.shape, np.float64)
        for node, weight in HERMITE:
            total += weight * self.backward((scores + np.float32(node) * spread).astype(np.float32))
        return total.astype(np.float32)

    def _map(self, table: Floats, source: int) -> Floats:
        out = np.array(table, dtype=np.float32)
        for sensor, knots in enumerate(self.maps):
            if knots is not None:
                out[:, sensor] = _extended(table[:, sensor], knots[source], knots[1 - source])
        return out


def _knots(seen: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    count = min(KNOTS, max(8, len(seen) // 8))
    if len(seen) < 16 or seen.std() < 1e-6:
        return None
    level = (np.arange(count) + 0.5) / count
    # a small slope keeps the map one to one where many values are equal
    return np.quantile(seen, level) + np.arange(count) * 1e-4 * seen.std(), ndtri(level)


def _extended(
    x: npt.NDArray[np.float32], source: npt.NDArray[np.float64], goal: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    low = (goal[2] - goal[0]) / (source[2] - source[0])
    high = (goal[-1] - goal[-3]) / (source[-1] - source[-3])
    y = np.interp(x, source, goal)
    y = np.where(x < source[0], goal[0] + (x - source[0]) * low, y)
    return np.where(x > source[-1], goal[-1] + (x - source[-1]) * high, y)

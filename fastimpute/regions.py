"""Confidence regions: balls around the mean of draws, one per window, scaled on held-out cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastimpute.gaps import Mask
from fastimpute.series import Series

Table = NDArray[np.floating]


@dataclass(frozen=True)
class ConfidenceRegion:
    """One ball per window: distances are over its missing cells, each in units of its sensor's deviation.

    Attributes:
        rows: (W, 2), first row of each window and the row after its last.
        centre: (T, N) in the units of the data: the mean of the draws, observed cells themselves.
        radius: (W,), in units of the sensors' deviations; 0 where nothing is missing.
        missing: (T, N) bool.
        scale: (N,), the sensors' deviations in the units of the data.
    """

    rows: NDArray[np.int64]
    centre: NDArray[np.float64]
    radius: NDArray[np.float64]
    missing: Mask
    scale: NDArray[np.float64]

    def holds(self, truth: Table) -> NDArray[np.bool_]:
        """Which regions (W,) hold the truth (T, N), in the units of the data.

        Raises:
            ValueError: truth of another shape.
        """
        if truth.shape != self.centre.shape:
            raise ValueError(f"truth: expected shape {self.centre.shape}, got {truth.shape}")
        scale = np.where(self.scale > 0, self.scale, 1.0)
        return np.asarray(distances((truth - self.centre) / scale, self.missing, self.rows) <= self.radius)


def tiles(series: Series, window: int) -> NDArray[np.int64]:
    """Row ranges (W, 2) of windows side by side; the last of a segment may be shorter."""
    ranges = [
        (first, min(first + window, int(stop)))
        for start, stop in series.segments
        for first in range(int(start), int(stop), window)
    ]
    return np.array(ranges, np.int64).reshape(-1, 2)


def distances(error: Table, cells: Mask, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Euclidean norms (W,) of an error (T, N) over the cells of each window."""
    square = np.where(cells, np.asarray(error, np.float64), 0.0) ** 2
    return np.sqrt(np.add.reduceat(square.sum(1), rows[:, 0]))


def region_scores(
    centre: Table, deviation: Table, truth: Table, cells: Mask, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Distance of the truth (T, N) from the mean of draws over their typical one, of windows with any of the cells.

    The typical distance is the root mean square one, that is, of the draws' deviation (T, N).
    """
    typical, away = distances(deviation, cells, rows), distances(truth - centre, cells, rows)
    asked = typical > 0
    return np.asarray(away[asked] / typical[asked], np.float32)

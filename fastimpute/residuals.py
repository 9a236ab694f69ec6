"""Intervals for methods that only give a point: the residuals of held-out cells, by where they lie in their gaps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastimpute.blend import Blend, Trial
from fastimpute.conformal import FARTHEST, Calibration, cell_scores, distance_class
from fastimpute.gaps import Floats, Mask
from fastimpute.series import Series

SENSOR_PRIOR = 30.0  # held-out cells that all sensors' spread counts for beside a sensor's own
CLASS_PRIOR = 30.0
LEAST_SPREAD = 1e-6


class HeldOut(NamedTuple):
    """A filling (T, N) without the hidden cells, and those of them whose truth is known: the held ones."""

    filled: Floats
    held: Mask
    hidden: Mask


@dataclass(frozen=True)
class ResidualIntervals:
    """Spread by distance to the nearest observation and by sensor, and its calibration.

    Attributes:
        by_distance: (C,) float64, root mean square residual of each `distance_class`, standardised.
        by_sensor: (N,) float64, factor of each sensor.
        calibration: |residual| / spread of the held-out cells, the spread taken from others than these.
    """

    by_distance: NDArray[np.float64]
    by_sensor: NDArray[np.float64]
    calibration: Calibration

    @classmethod
    def fit(cls, values: Floats, trials: Iterable[HeldOut]) -> Self:
        """Learn from held-out cells: two halves (of rows in runs), each scored by the spread of the other.

        Args:
            values: (T, N), standardised, the truth at held cells.
            trials: fillings made without them.
        """
        known = list(trials)
        first = (np.arange(len(values)) // max(1, len(values) // 16)) % 2 == 0
        scores: list[NDArray[Any]] = []
        classes: list[NDArray[Any]] = []
        for half in (first, ~first):
            table = _spread(values, known, half[:, None])
            for filled, held, hidden in known:
                cells = held & ~half[:, None]
                scores.append(cell_scores(filled, _laid_out(*table, hidden), values, cells))
                classes.append(distance_class(hidden)[cells])
        calibration = Calibration.fit(np.concatenate(scores), np.concatenate(classes))
        return cls(*_spread(values, known, np.ones((len(values), 1), bool)), calibration)

    def half_width(self, missing: Mask, level: float) -> Floats:
        """(T, N): what to add to and take off a missing cell's filling.

        Raises:
            ValueError: a level outside (0, 1), or too few held-out cells for it.
        """
        factor = self.calibration.radius(distance_class(missing), level)
        return (factor * _laid_out(self.by_distance, self.by_sensor, missing)).astype(np.float32)

    def pack(self) -> dict[str, NDArray[Any]]:
        """As arrays."""
        return {"by_distance": self.by_distance, "by_sensor": self.by_sensor, **self.calibration.pack()}

    @classmethod
    def unpack(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Inverse of `pack`."""
        return cls(arrays["by_distance"], arrays["by_sensor"], Calibration.unpack(arrays))


def residual_intervals(blend: Blend, trials: list[Trial], series: Series) -> ResidualIntervals:
    """Of a blend, from the trials it was fitted on."""
    filled = (blend.apply(trial.candidates, trial.hidden, series.values) for trial in trials)
    held = (HeldOut(table, trial.held, trial.hidden) for table, trial in zip(filled, trials, strict=True))
    return ResidualIntervals.fit(series.values, held)


def _spread(values: Floats, trials: list[HeldOut], rows: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Root mean squares by class of distance, and the factors by sensor, over held cells in some rows."""
    sensors, kinds = values.shape[1], FARTHEST + 1
    total, count = np.zeros(kinds), np.zeros(kinds)
    cells = [held & rows for _, held, _ in trials]
    squares = [np.square(values - filled, dtype=np.float64) for filled, _, _ in trials]
    ranks = [distance_class(hidden) for _, _, hidden in trials]
    for square, rank, chosen in zip(squares, ranks, cells, strict=True):
        total += np.bincount(rank[chosen], square[chosen], kinds)
        count += np.bincount(rank[chosen], minlength=kinds)
    overall = total.sum() / count.sum() if count.sum() else 1.0
    mean = (total + CLASS_PRIOR * overall) / (count + CLASS_PRIOR)
    mean = np.maximum(np.maximum.accumulate(mean), LEAST_SPREAD**2)
    share, seen = np.full(sensors, SENSOR_PRIOR), np.full(sensors, SENSOR_PRIOR)
    for square, rank, chosen in zip(squares, ranks, cells, strict=True):
        share += np.where(chosen, square / mean[rank], 0).sum(0)
        seen += chosen.sum(0)
    return np.sqrt(mean), np.sqrt(share / seen)


def _laid_out(by_distance: NDArray[np.float64], by_sensor: NDArray[np.float64], missing: Mask) -> NDArray[np.float64]:
    spread: NDArray[np.float64] = by_distance[distance_class(missing)] * by_sensor
    return spread

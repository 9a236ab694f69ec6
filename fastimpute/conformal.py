"""Split-conformal calibration: how wide an interval, or how large a ball, has to be to cover as often as it says.

Scores are taken on observed cells that were hidden: |x - mean| / spread per cell, |x - mean|_2 per window. If they are
exchangeable with those of the cells that are really missing, the interval ``mean +- q spread`` with q the
ceil((m + 1) level)-th smallest of m scores covers with probability at least ``level``, whatever the model behind it.
Calibration is kept per class of cell (how far the nearest observation is), as gaps of other kinds are missed otherwise.

Gaps come in runs whose scores depend on each other: for blocks, pool the scores of several fresh masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastimpute import metrics
from fastimpute.gaps import Mask, gap_distance

Scores = NDArray[np.floating[Any]]
Classes = NDArray[np.int64]

LEAST_SCORES = 200  # of a class that is to be calibrated by itself
MOST_SCORES = 20_000  # kept of a class
SCALES = (0.2, 5.0, 129)  # least, largest, how many: factors that `sharpest` tries
FEWEST_SIZES = 20
FARTHEST = 6  # last class of `distance_class`: more than 32 rows


def needed(level: float) -> int:
    """Scores needed before a quantile of that level exists.

    Raises:
        TypeError: a level that is no number.
        ValueError: a level outside (0, 1).

    Example:
        >>> needed(0.95), needed(0.5)
        (19, 1)
    """
    _check_level(level)
    return max(1, math.ceil(level / (1 - level) - 1e-9))


def quantile(scores: NDArray[Any], level: float) -> float:
    """The ceil((m + 1) level)-th smallest of m scores.

    Args:
        scores: (m,), none NaN.
        level: in (0, 1).

    Raises:
        TypeError: a level that is no number.
        ValueError: a level outside (0, 1), or fewer scores than `needed`.

    Example:
        >>> quantile(np.arange(1, 20), 0.95)
        19.0
    """
    least = needed(level)
    if len(scores) < least:
        raise ValueError(
            f"a level of {level!r} needs at least {least} scores, got {len(scores)}: ask for a lower level"
        )
    rank = min(len(scores), math.ceil((len(scores) + 1) * level - 1e-9))
    return float(np.partition(np.asarray(scores), rank - 1)[rank - 1])


def _check_level(level: float) -> None:
    if not isinstance(level, (int, float, np.number)):
        raise TypeError(f"level: expected a number between 0 and 1, got {level!r}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")


def cell_scores(mean: NDArray[Any], spread: NDArray[Any], truth: NDArray[Any], cells: Mask) -> Scores:
    """|truth - mean| / spread (m,) at the cells, in their order; `spread` is positive there."""
    return np.asarray(np.abs(truth[cells] - mean[cells]) / np.maximum(spread[cells], 1e-12), np.float32)


def ball_scores(mean: NDArray[Any], truth: NDArray[Any], cells: Mask) -> Scores:
    """|truth - mean|_2 (n,) over the cells (n, D) of every window."""
    error = np.where(cells, truth - mean, 0.0).astype(np.float64)
    return np.asarray(np.linalg.norm(error, axis=1), np.float32)


def distance_class(missing: Mask) -> Classes:
    """Class (T, N) of every cell by its rows to the nearest observation: 0 up to one, then 2, 4, ... 32, beyond.

    Example:
        >>> distance_class(np.array([[False], [True], [True], [True], [False]])).ravel().tolist()
        [0, 0, 1, 0, 0]
    """
    rank = np.ceil(np.log2(np.maximum(gap_distance(missing), 1))).astype(np.int64)
    return np.minimum(rank, FARTHEST)


def sharpest(size: NDArray[Any]) -> float:
    """The deviation c of a Gaussian around 0 that has the least mean CRPS at values of these sizes (m,).

    What overstates its precision has c above 1. The CRPS is robust: a few far values do not decide.

    Example:
        >>> round(sharpest(np.abs(np.random.default_rng(0).normal(scale=2, size=4000))))
        2
    """
    size = np.asarray(size, np.float64)
    scales = np.geomspace(*SCALES)
    everywhere = np.ones(size.shape, bool)
    return float(min(scales, key=lambda scale: metrics.crps_gaussian(size, scale, np.zeros_like(size), everywhere)))


def sharpest_by_class(size: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float32]:
    """`sharpest` of every class (FARTHEST + 1,); a class with fewer than `LEAST_SCORES` takes that of all, or 1."""
    size, classes = np.asarray(size), np.asarray(classes)
    factors = np.full(FARTHEST + 1, sharpest(size) if size.size >= FEWEST_SIZES else 1.0, np.float32)
    for number in range(FARTHEST + 1):
        own = size[classes == number]
        if own.size >= LEAST_SCORES:
            factors[number] = sharpest(own[:MOST_SCORES])
    return factors


@dataclass(frozen=True)
class Report:
    """How often intervals cover, and how wide they are on average (in the units of the data)."""

    coverage: float
    width: float


def coverage_report(lower: NDArray[Any], upper: NDArray[Any], truth: NDArray[Any], cells: Mask) -> Report:
    """Coverage and mean width over the cells (same shape, True = counted).

    Raises:
        ValueError: no cell is counted.
    """
    if not cells.any():
        raise ValueError("no cell to count: cells is False everywhere")
    inside = (truth[cells] >= lower[cells]) & (truth[cells] <= upper[cells])
    return Report(float(inside.mean()), float((upper[cells] - lower[cells]).mean()))


@dataclass(frozen=True)
class Calibration:
    """Scores of held-out cells or windows, class by class.

    Attributes:
        scores: (m,) float32, sorted within each class.
        classes: (m,) int64, ascending.
    """

    scores: Scores
    classes: Classes

    @classmethod
    def fit(cls, scores: NDArray[Any], classes: NDArray[Any], seed: int = 0) -> Self:
        """Keep the scores (m,) of classes (m,); of a class with too many, a random part.

        Raises:
            ValueError: scores and classes differ in length, or a score is NaN.
        """
        scores, classes = np.asarray(scores, np.float32), np.asarray(classes, np.int64)
        if scores.ndim != 1 or scores.shape != classes.shape:
            raise ValueError(f"scores and classes must be (m,) both, got {scores.shape} and {classes.shape}")
        if np.isnan(scores).any():
            raise ValueError(f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN")
        rng = np.random.default_rng(seed)
        kept = [np.flatnonzero(classes == number) for number in np.unique(classes)]
        kept = [part if part.size <= MOST_SCORES else rng.choice(part, MOST_SCORES, replace=False) for part in kept]
        chosen = np.concatenate(kept) if kept else np.zeros(0, np.int64)
        order = chosen[np.lexsort((scores[chosen], classes[chosen]))]
        return cls(scores[order], classes[order])

    def radius(self, classes: NDArray[Any], level: float) -> NDArray[np.float32]:
        """The factor (same shape as `classes`) that makes intervals cover at `level`.

        Classes with fewer than `LEAST_SCORES` scores, or too few for the level, share the quantile of all scores.

        Raises:
            ValueError: a level outside (0, 1), or too few scores for it in all.
        """
        pooled = quantile(self.scores, level)
        least = max(LEAST_SCORES, needed(level))
        out = np.full(np.shape(classes), pooled, np.float32)
        for number in np.unique(self.classes):
            own = self.scores[self.classes == number]
            if own.size >= least:
                out[np.asarray(classes) == number] = quantile(own, level)
        return out

    def pack(self) -> dict[str, NDArray[Any]]:
        """As arrays."""
        return {"scores": self.scores, "classes": self.classes}

    @classmethod
    def unpack(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Inverse of `pack`."""
        return cls(np.asarray(arrays["scores"], np.float32), np.asarray(arrays["classes"], np.int64))

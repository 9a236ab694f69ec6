"""Patterns of missing cells for experiments; True = missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def point(shape: tuple[int, ...], rate: float, seed: int) -> Mask:
    """Cells missing completely at random, each with probability `rate`.

    Args:
        shape: (T, N), or (samples, T, N).
        rate: expected share of missing cells, in [0, 1).
        seed: same seed, same mask.

    Raises:
        ValueError: a rate outside [0, 1) or a shape that is not 2-D or 3-D.

    Example:
        >>> point((1000, 10), 0.3, seed=0).shape
        (1000, 10)
    """
    _check(shape, rate)
    return np.asarray(np.random.default_rng(seed).random(shape) < rate)


def block(shape: tuple[int, ...], rate: float, seed: int, min_len: int = 12, max_len: int = 48) -> Mask:
    """Outages: runs of steps missing from one sensor, until a share `rate` of all cells is missing.

    Sensor, start and length of every outage are uniform; outages may overlap and are cut off at the end of the series.

    Args:
        shape: (T, N), or (samples, T, N), where no outage crosses from one sample to the next.
        rate: share of missing cells to reach, in [0, 1); exceeded by less than one outage.
        seed: same seed, same mask.
        min_len, max_len: shortest and longest outage, in steps.

    Raises:
        ValueError: a rate outside [0, 1), lengths that are not 1 <= min_len <= max_len, or a wrong shape.

    Example:
        >>> float(block((1000, 10), 0.3, seed=0).mean().round(2))
        0.3
    """
    _check(shape, rate)
    if not 1 <= min_len <= max_len:
        raise ValueError(f"lengths must satisfy 1 <= min_len <= max_len, got min_len={min_len}, max_len={max_len}")
    steps, sensors = shape[-2], shape[-1]
    rng = np.random.default_rng(seed)
    mask: Mask = np.zeros((int(np.prod(shape[:-2])), sensors, steps), dtype=bool)
    wanted, missing = rate * mask.size, 0
    while missing < wanted:
        run = mask[rng.integers(mask.shape[0]), rng.integers(sensors)]
        start = int(rng.integers(steps))
        stop = start + int(rng.integers(min_len, max_len + 1))
        missing += run[start:stop].size - int(np.count_nonzero(run[start:stop]))
        run[start:stop] = True
    return np.ascontiguousarray(mask.swapaxes(1, 2)).reshape(shape)


Pattern = Callable[[tuple[int, ...], float, int], Mask]  # (shape, rate, seed)
PATTERNS: dict[str, Pattern] = {"point": point, "block": block}


def by_name(pattern: str) -> Pattern:
    """The pattern called "point" or "block".

    Raises:
        ValueError: there is no such pattern.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, got {pattern!r}")
    return PATTERNS[pattern]


def _check(shape: tuple[int, ...], rate: float) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"shape must be (T, N) or (samples, T, N) and not empty, got {shape}")
    if not 0 <= rate < 1:
        raise ValueError(f"rate must lie in [0, 1), got {rate}")

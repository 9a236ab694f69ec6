"""Gaps of a series: how far each missing cell is from an observation, straight lines across, and hidden look-alikes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
SHARE_WITHOUT_GAPS = 0.1  # of the cells of a stretch, hidden in data that has no gaps to copy
SHORT_ON_AVERAGE, SHORT_FOR_A_CELL = 4.0, 8.0  # rows of gaps that cells scattered at random make


def gap_distance(missing: Mask) -> npt.NDArray[np.int32]:
    """Steps to the nearest observed cell of the same sensor, (T, N): 0 where observed, T where the sensor has none.

    Example:
        >>> gap_distance(np.array([[False], [True], [True], [True], [False]])).ravel().tolist()
        [0, 1, 2, 1, 0]
    """
    steps = len(missing)
    row = np.arange(steps, dtype=np.int32)[:, None]
    before = np.maximum.accumulate(np.where(missing, np.int32(-steps), row), axis=0)
    after = np.minimum.accumulate(np.where(missing, np.int32(2 * steps), row)[::-1], axis=0)[::-1]
    return np.minimum(np.minimum(row - before, after - row), np.int32(steps)).astype(np.int32)


def linear(values: Floats, missing: Mask) -> Floats:
    """Straight lines across the gaps, the nearest observation at both ends; zero for a sensor without observations.

    Args:
        values: (T, N); numbers at missing cells are ignored.
        missing: (T, N), True where missing.

    Example:
        >>> linear(np.float32([[0], [9], [2]]), np.array([[False], [True], [False]])).ravel().tolist()
        [0.0, 1.0, 2.0]
    """
    filled = np.where(missing, 0, values).astype(np.float32)
    rows = np.arange(len(values))
    for sensor in np.flatnonzero(missing.any(0) & ~missing.all(0)):
        gone = missing[:, sensor]
        filled[gone, sensor] = np.interp(rows[gone], rows[~gone], values[~gone, sensor])
    return filled


def gap_lengths(missing: Mask) -> npt.NDArray[np.int64]:
    """Length of every run of missing cells, sensor by sensor.

    Example:
        >>> gap_lengths(np.array([[True], [True], [False], [True]])).tolist()
        [2, 1]
    """
    steps, sensors = missing.shape
    edge = np.zeros((sensors, steps + 2), np.int8)
    edge[:, 1:-1] = missing.T
    change = np.diff(edge, axis=1).ravel()
    return np.flatnonzero(change < 0) - np.flatnonzero(change > 0)


def hold_out(missing: Mask, fraction: float | None = None, seed: int = 0) -> Mask:
    """Observed cells to hide for a trial, in runs as long as the gaps found in the data.

    Args:
        missing: (T, N), True where missing.
        fraction: share of the observed cells; None takes 5 %, up to 12 % in small data.
        seed: of the draw.

    Returns:
        (T, N) bool, a subset of the observed cells; no sensor loses more than half of its observations.
    """
    seen = ~missing
    total = int(seen.sum())
    share = float(np.clip(1500 / max(total, 1), 0.05, 0.12)) if fraction is None else fraction
    goal = int(share * total)
    lengths = gap_lengths(missing)
    lengths = np.minimum(lengths, max(1, len(missing) // 4)) if len(lengths) else np.ones(1, np.int64)
    rng = np.random.default_rng(seed)
    # Single cells and outages together: most gaps are short, and most of the missing cells lie in long ones.
    of_a_cell = float(np.square(lengths).sum() / lengths.sum())
    if lengths.mean() < SHORT_ON_AVERAGE and of_a_cell < SHORT_FOR_A_CELL:
        return _hold_points(seen, goal, rng)
    return _hold_runs(seen, lengths, goal, rng)


def hold_out_stretches(missing: Mask, rows: npt.NDArray[np.int64], stretches: int, seed: int = 0) -> Mask:
    """Observed cells to hide in a few stretches, as densely as gaps are: each is given the gaps of another one, or, in
    data without gaps, a tenth of its cells.

    `hold_out` spreads its cells thinly over everything; what concerns all gaps of a window together needs a window that
    lacks as much as those of the data do.

    Args:
        missing: (T, N), True where missing.
        rows: (W, 2), first row of each stretch and the row after its last; those shorter than the first are left alone.
        stretches: how many to take, at most.
        seed: of the draw.

    Returns:
        (T, N) bool, a subset of the observed cells.
    """
    rng = np.random.default_rng(seed)
    length = int(rows[0, 1] - rows[0, 0]) if len(rows) else 0
    whole = np.flatnonzero(rows[:, 1] - rows[:, 0] == length)
    chosen = np.sort(rng.permutation(whole)[:stretches])
    gaps = missing if missing.any() else rng.random(missing.shape) < SHARE_WITHOUT_GAPS
    held = np.zeros_like(missing)
    for stretch, other in zip(chosen, rng.permutation(whole)[: len(chosen)], strict=True):
        first, donor = rows[stretch, 0], rows[other, 0]
        own = missing[first : first + length]
        held[first : first + length] = gaps[donor : donor + length] & ~own
    return held


def _hold_points(seen: Mask, goal: int, rng: np.random.Generator) -> Mask:
    held = np.zeros(seen.shape, bool)  # C-contiguous, whatever `seen` is: its ravel has to be a view
    usable = np.flatnonzero(seen.ravel())
    held.ravel()[rng.choice(usable, goal, replace=False)] = True
    held &= seen.sum(0) > 2 * held.sum(0)
    return held


def _hold_runs(seen: Mask, lengths: npt.NDArray[np.int64], goal: int, rng: np.random.Generator) -> Mask:
    steps, sensors = seen.shape
    held = np.zeros_like(seen)
    left = seen.sum(0) // 2
    hidden = 0
    for _ in range(50 * max(1, goal)):
        if hidden >= goal:
            break
        sensor, length = int(rng.integers(sensors)), int(rng.choice(lengths))
        first = int(rng.integers(max(1, steps - length + 1)))
        fresh = seen[first : first + length, sensor] & ~held[first : first + length, sensor]
        count = int(fresh.sum())
        if count == 0 or count > left[sensor]:
            continue
        held[first : first + length, sensor] |= fresh
        left[sensor] -= count
        hidden += count
    return held

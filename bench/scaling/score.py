"""Is the result right, and how good: samples of it against the truth, simulated anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastimpute.linear import LinearImputer
from fastimpute.sensor_faults import HOURS, STEPS_PER_DAY
from scaling.archive import open_speeds, read_setting

SAMPLE_DAYS = 5


@dataclass(frozen=True)
class Score:
    """Of samples of a result.

    Attributes:
        cells: compared with the truth: filled ones in gaps of at most twelve hours, as single outages leave them.
        mae: their mean absolute error, mph.
        mae_linear: the same of straight lines.
        from_linear: largest distance of one of them from straight lines.
        unfilled: cells left without a value, of sensors that have any.
        changed: observed cells that are not what they were, bit for bit.
    """

    cells: int
    mae: float
    mae_linear: float
    from_linear: float
    unfilled: int
    changed: int


def score(source: Path, target: Path, samples: int = 4) -> Score:
    """Compare pieces of a result, spread evenly over its rows, with what they should be.

    Raises:
        ValueError: the result has not the shape of the source.
    """
    traffic, rows = read_setting(source)
    result = open_speeds(target)
    if result.shape != (rows, traffic.sensors):
        raise ValueError(f"{target} has shape {result.shape}, expected {(rows, traffic.sensors)}")
    length = min(SAMPLE_DAYS * STEPS_PER_DAY, rows)
    never = traffic.faults.never
    errors, errors_linear, apart, unfilled, changed = [], [], [0.0], 0, 0
    for start in np.unique(np.linspace(0, rows - length, samples).astype(int)).tolist():
        filled, truth = result[start : start + length], traffic.truth(start, start + length)
        lost = traffic.lost(start, start + length)
        changed += int((filled[~lost].view(np.uint32) != truth[~lost].view(np.uint32)).sum())
        unfilled += int(np.isnan(np.delete(filled, never, axis=1)).sum())
        between = lost & _in_short_gaps(~lost)
        lines = LinearImputer(all_missing="keep").fit_transform(np.where(lost, np.float32(np.nan), truth))
        errors.append(np.abs(filled[between] - truth[between]))
        errors_linear.append(np.abs(lines[between] - truth[between]))
        apart.append(float(np.abs(filled[between] - lines[between]).max(initial=0.0)))
    return Score(
        cells=sum(map(len, errors)),
        mae=float(np.concatenate(errors).mean()),
        mae_linear=float(np.concatenate(errors_linear).mean()),
        from_linear=max(apart),
        unfilled=unfilled,
        changed=changed,
    )


def _in_short_gaps(observed: np.ndarray) -> np.ndarray:
    """True where the observations before and after, both within the rows, are at most the longest outage apart."""
    rows, far = np.arange(len(observed), dtype=np.int32)[:, None], np.int32(2 * len(observed) + HOURS.longest)
    before = np.maximum.accumulate(np.where(observed, rows, -far), axis=0)
    after = np.minimum.accumulate(np.where(observed, rows, far)[::-1], axis=0)[::-1]
    return after - before <= HOURS.longest + 1

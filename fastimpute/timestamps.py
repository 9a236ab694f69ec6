"""What a time index says about the rows of a series: their step, and where each stands in day, week and year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Calendar:
    """Position of each of T rows in the recurring cycles of traffic, as phases in [0, 1).

    Local time is used where the index carries a time zone, because people drive by the clock on the wall.

    Attributes:
        day_phase: (T,) float64, seconds since midnight / 86400.
        week_phase: (T,) float64, days since Monday 00:00 / 7.
        year_phase: (T,) float64, days since 1 January / length of the year.
        step_seconds: seconds between two rows (the median where months or business days make it vary), 0 for one row.
    """

    day_phase: NDArray[np.float64]
    week_phase: NDArray[np.float64]
    year_phase: NDArray[np.float64]
    step_seconds: float

    @classmethod
    def from_index(cls, index: pd.DatetimeIndex) -> Calendar:
        """Read the phases off a time index, after `check_timestamps`.

        Raises:
            ValueError: a time stamp is missing, repeated, out of order or off the regular step.

        Example:
            >>> import pandas as pd
            >>> Calendar.from_index(pd.date_range("2026-01-05", periods=3, freq="6h")).day_phase.tolist()
            [0.0, 0.25, 0.5]
        """
        step = check_timestamps(index)
        local = index.tz_localize(None)
        midnight = local.normalize()
        day = (local - midnight).total_seconds().to_numpy(dtype=np.float64) / SECONDS_PER_DAY
        week = (local.day_of_week.to_numpy(dtype=np.float64) + day) / 7.0
        year_length = np.where(local.is_leap_year, 366.0, 365.0)
        year = (local.day_of_year.to_numpy(dtype=np.float64) - 1.0 + day) / year_length
        return cls(day, week, year, step)


def check_timestamps(index: pd.DatetimeIndex) -> float:
    """Return the step in seconds of a regular time index; name the first offending row of any other.

    Raises:
        ValueError: a time stamp is missing, repeated, out of order or off the regular step.
    """
    absent = np.flatnonzero(index.isna())
    if absent.size:
        raise ValueError(f"time stamp of row {absent[0]} is missing (NaT): drop the row or give it a time")
    if len(index) < 2:
        return 0.0
    steps = np.diff(index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index)
    steps = steps.astype("timedelta64[ns]").astype(np.int64)
    _raise_at(index, steps == 0, "duplicate time stamps", "drop one with X[~X.index.duplicated()]")
    _raise_at(index, steps < 0, "unsorted time stamps", "sort the rows with X.sort_index()")
    step = int(np.median(steps))
    # Months and business days differ in length and are regular all the same.
    if bool(np.any(steps != step)) and not _has_frequency(index):
        spacing = pd.Timedelta(step, unit="ns")
        _raise_at(
            index,
            steps != step,
            f"irregular time stamps (the usual step is {spacing})",
            "put the rows on a regular grid with X.asfreq(...), NaN in the new rows",
        )
    return step / 1e9


def _has_frequency(index: pd.DatetimeIndex) -> bool:
    with pd.option_context("future.infer_freq_returns_offset", True):
        return len(index) >= 3 and pd.infer_freq(index) is not None


def _raise_at(index: pd.DatetimeIndex, offending: NDArray[np.bool_], fault: str, remedy: str) -> None:
    rows = np.flatnonzero(offending)
    if rows.size:
        row = int(rows[0]) + 1
        raise ValueError(f"{fault}: row {row} is {index[row]}, after {index[row - 1]}; {remedy}")

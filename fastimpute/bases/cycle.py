"""The recurring mean of a series, learned once and laid over later series in the right phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from fastimpute.gaps import Floats, Mask
from fastimpute.profile import Period, calendar_mean
from fastimpute.series import Series

SECONDS_PER_WEEK = 7 * 86_400.0
NO_PERIOD = Period()


@dataclass(frozen=True)
class Cycle:
    """Mean of every sensor by phase of the day or week.

    Attributes:
        mean: (C, N) float32, standardised; one row of zeros without a cycle.
        origin: where in the week its first row stands, in [0, 1); None without time stamps: that of row number 0.
    """

    mean: Floats
    origin: float | None

    @classmethod
    def of(cls, series: Series, missing: Mask, period: Period) -> Self:
        """Learn it from the cells that are not missing; samples that do not follow on one another have none."""
        if period.day is None or len(series.segments) > 1:
            return cls.none(series.shape[1])
        mean = calendar_mean(series.values, missing, period)
        calendar = series.calendar
        timed = calendar is not None and calendar.step_seconds > 0
        once = mean[: period.week or period.day].copy()
        if calendar is not None and timed:
            return cls(once, float(calendar.week_phase[0]))
        return cls(np.roll(once, series.first_row, axis=0), None)

    @classmethod
    def none(cls, sensors: int) -> Self:
        """No cycle: zero everywhere."""
        return cls(np.zeros((1, sensors), np.float32), None)

    @property
    def length(self) -> int:
        """Rows until it recurs, C."""
        return len(self.mean)

    def over(self, series: Series) -> Floats:
        """(T, N): the mean of every row of a series. Without time stamps the row numbers say the phase.

        Raises:
            ValueError: the cycle was learned from data with time stamps, and the series has none.
        """
        return self.mean[(np.arange(series.shape[0]) + self._shift(series)) % self.length]

    def _shift(self, series: Series) -> int:
        if self.origin is None or self.length < 2:
            return series.first_row
        if series.calendar is None:
            raise ValueError(
                "X has no time stamps, and the imputer was fitted on data with them: give X a DatetimeIndex"
            )
        if series.calendar.step_seconds <= 0:
            return 0
        moved = (float(series.calendar.week_phase[0]) - self.origin) % 1.0
        return round(moved * SECONDS_PER_WEEK / series.calendar.step_seconds) % self.length

"""Faults of simulated sensors, day by day: lost readings, outages of hours, sensors dead for months or for ever."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastimpute.keyed_random import Purpose, keyed_random

STEPS_PER_DAY = 288  # of five minutes
STEPS_PER_HOUR = 12


@dataclass(frozen=True)
class Outages:
    """Sensors fall silent at any time, for any length between two.

    Attributes:
        purpose: whose random numbers.
        period: steps whose beginnings are drawn together.
        shortest, longest: length in steps, all equally likely.
    """

    purpose: Purpose
    period: int
    shortest: int
    longest: int

    def mark(self, lost: NDArray[np.bool_], day: int, share: float, seed: int) -> None:
        """Mark the steps (288, N) of a day; the expected share of steps lost is `share`."""
        begin, sensors = day * STEPS_PER_DAY, lost.shape[1]
        for number in range((begin - self.longest) // self.period, (begin + STEPS_PER_DAY - 1) // self.period + 1):
            rng = keyed_random(seed, self.purpose, number)
            # A Poisson process: the chance that none of it covers a step is exp(-its rate * its mean length).
            expected = -np.log1p(-share) * sensors * self.period * 2 / (self.shortest + self.longest)
            count = rng.poisson(expected)
            first = rng.integers(self.period, size=count) + (number * self.period - begin)
            stop = first + rng.integers(self.shortest, self.longest + 1, size=count)
            sensor = rng.integers(sensors, size=count)
            today = (first < STEPS_PER_DAY) & (stop > 0)
            first = first.clip(0)
            for where, row, end in zip(sensor[today], first[today], stop[today], strict=True):
                lost[row:end, where] = True


HOURS = Outages(Purpose.OUTAGES, STEPS_PER_DAY, STEPS_PER_HOUR, 12 * STEPS_PER_HOUR)
MONTHS = Outages(Purpose.DEATHS, 90 * STEPS_PER_DAY, 30 * STEPS_PER_DAY, 120 * STEPS_PER_DAY)


@dataclass(frozen=True)
class SensorFaults:
    """Which readings of a network get lost: single ones, outages of one to twelve hours, sensors dead for one to four
    months, a third of the losses each.

    Attributes:
        sensors: number N of sensors.
        missing: expected share of the readings lost, in [0, 1).
        never_alive: this many sensors, beside that share, never report.
        seed: same seed, same faults.

    Example:
        >>> SensorFaults(sensors=5, missing=0.5, never_alive=1, seed=0).day(3).all(axis=0).sum() >= 1
        np.True_
    """

    sensors: int
    missing: float
    never_alive: int
    seed: int

    def day(self, day: int) -> NDArray[np.bool_]:
        """(288, N) True = lost."""
        lost = np.zeros((STEPS_PER_DAY, self.sensors), dtype=bool)
        share = 1.0 - (1.0 - self.missing) ** (1 / 3)
        rng = keyed_random(self.seed, Purpose.SINGLE_READINGS, day)
        lost.reshape(-1)[rng.integers(lost.size, size=rng.poisson(-np.log1p(-share) * lost.size))] = True
        for outages in (HOURS, MONTHS):
            outages.mark(lost, day, share, self.seed)
        lost[:, self.never] = True
        return lost

    @cached_property
    def never(self) -> NDArray[np.int64]:
        """Columns of the sensors that never report."""
        return keyed_random(self.seed, Purpose.NEVER_ALIVE).permutation(self.sensors)[: self.never_alive]

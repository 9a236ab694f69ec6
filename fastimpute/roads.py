"""What every simulation of road traffic here shares: roads, rush hours, and queues that grow upstream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ROAD_LENGTH = 12  # sensors along one road
MINUTES_PER_DAY = 1440
INCIDENTS_PER_WEEK = 0.25  # at one sensor
INCIDENT_MINUTES = (30, 120)
INCIDENT_PRESSURE = (0.3, 1.0)
FREE_FLOW = (58.0, 70.0)  # mph
SLOWEST = 3.0  # mph
DAILY_SPREAD = 0.25  # deviation of the logarithm of a day's demand
NOISE_KEPT, NOISE_FRESH, NOISE_WHITE = 0.9, 0.5, 0.7  # of the slow part, a step later; new to it; beside it, in mph


def road_network(sensors: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Pairs (upstream, downstream): chains of sensors, the end of each flows into some sensor of an earlier road."""
    pairs = []
    for first in range(0, sensors, ROAD_LENGTH):
        last = min(first + ROAD_LENGTH, sensors) - 1
        pairs += [(sensor, sensor + 1) for sensor in range(first, last)]
        if first:
            pairs.append((last, int(rng.integers(first))))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class RushHours:
    """How hard the demand of a day presses on each sensor's stretch of road.

    Attributes:
        bottleneck: (N,) how narrow the road is there.
        morning_share: (N,) part of its rush that comes in the morning.
        hour_shift: (N,) hours by which its rush is late.
    """

    bottleneck: NDArray[np.float64]
    morning_share: NDArray[np.float64]
    hour_shift: NDArray[np.float64]

    @classmethod
    def draw(cls, sensors: int, rng: np.random.Generator) -> Self:
        """A third of the sensors are bottlenecks."""
        return cls(
            np.where(rng.random(sensors) < 0.35, rng.uniform(0.4, 1.0, sensors), 0.05),
            rng.uniform(0.1, 0.9, sensors),
            rng.normal(0.0, 0.4, sensors),
        )

    def pressure(self, clock: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pressure (T, N) of an ordinary workday at the given hours (T,)."""
        clock_of = clock[:, None] - self.hour_shift
        rush = self.morning_share * np.exp(-(((clock_of - 8.0) / 1.2) ** 2))
        rush += (1.0 - self.morning_share) * np.exp(-(((clock_of - 17.5) / 1.7) ** 2))
        rush += 0.12 * np.exp(-(((clock_of - 13.0) / 3.5) ** 2))
        return np.asarray(self.bottleneck * rush)


def workday_share(free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Demand of days, as a share of a workday's; True = weekend or holiday."""
    return np.where(free, 0.25, 1.0)


def spread_queues(pressure: NDArray[Any], roads: NDArray[np.int64], step_minutes: int) -> None:
    """Turn pressure (T, N) into the queues it leads to, in place.

    Queues grow with the pressure, move upstream along `roads`, (E, 2) pairs (upstream, downstream) in which every
    sensor is upstream of at most one other, and dissolve within about half an hour. Before the first
    row there are none.
    """
    keep = float(np.exp(-step_minutes / 30.0))
    handed_up = np.zeros_like(pressure[0])
    handed_up[roads[:, 0]] = 0.6 * (1.0 - keep)
    downstream = np.zeros(handed_up.size, dtype=np.intp)
    downstream[roads[:, 0]] = roads[:, 1]
    pressure *= 2.2 * (1.0 - keep)
    queue, kept, from_downstream = (np.zeros_like(handed_up) for _ in range(3))
    for row in pressure:
        np.take(queue, downstream, out=from_downstream, mode="clip")
        from_downstream *= handed_up
        np.multiply(queue, keep, out=kept)
        kept += from_downstream
        row += kept
        queue = row


def accumulate_noise(fresh: NDArray[Any]) -> None:
    """Turn fresh normal noise (T, N) into a slow part with a memory of about ten steps, in place."""
    fresh *= NOISE_FRESH
    kept = np.zeros_like(fresh[0])
    for row in fresh:
        kept *= NOISE_KEPT
        row += kept
        kept[:] = row

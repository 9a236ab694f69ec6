"""Simulated traffic of any length, any rows of it at any time: years of thousands of sensors in bounded memory.

The laws of `fastimpute.simulate`, plus seasons, holidays and sensors that die for months. Nothing is carried from row
to row: every day is computed by itself from random numbers of its own, beginning six hours before it so that queues
are what they would be. The true values need no file: the seed gives them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.holiday import USFederalHolidayCalendar

from fastimpute.keyed_random import LARGEST_SEED, Purpose, keyed_random
from fastimpute.roads import (
    DAILY_SPREAD,
    FREE_FLOW,
    INCIDENT_MINUTES,
    INCIDENT_PRESSURE,
    INCIDENTS_PER_WEEK,
    MINUTES_PER_DAY,
    NOISE_WHITE,
    ROAD_LENGTH,
    SLOWEST,
    RushHours,
    accumulate_noise,
    road_network,
    spread_queues,
    workday_share,
)
from fastimpute.sensor_faults import STEPS_PER_DAY, SensorFaults

STEP_MINUTES = MINUTES_PER_DAY // STEPS_PER_DAY
DAYS_PER_YEAR = 365.25
PARTS = 4  # of a day; the last one of the day before is the warm-up
WARM_UP = STEPS_PER_DAY // PARTS
SEASON = 0.12  # busiest in October
WINTER_SLOWER = 0.03
ROAD_SPREAD = 0.1  # deviation of the logarithm of one road's demand on a day


@dataclass(frozen=True)
class LargeTraffic:
    """Traffic speeds in mph of a network, every five minutes, from a first day on without an end.

    Attributes:
        sensors: number N of sensors, spread over roads of a dozen that flow into one another.
        missing: expected share of readings lost to faults, in [0, 1); see `SensorFaults`.
        never_alive: sensors that, beside that share, never report.
        seed: same seed, same traffic, however the rows are asked for.
        first_day: date of the first row.

    Raises:
        ValueError: fewer sensors than 1, more that never report than there are, a share or a seed out of range.

    Example:
        >>> traffic = LargeTraffic(sensors=3, seed=1)
        >>> bool((traffic.truth(0, 500)[288:300] == traffic.truth(288, 300)).all())
        True
        >>> traffic.index(288, 289)[0]
        Timestamp('2017-01-02 00:00:00')
    """

    sensors: int = 8600
    missing: float = 0.015
    never_alive: int = 0
    seed: int = 0
    first_day: str = "2017-01-01"

    def __post_init__(self) -> None:
        if self.sensors < 1:
            raise ValueError(f"sensors must be at least 1, got {self.sensors}")
        if not 0 <= self.missing < 1:
            raise ValueError(f"missing must lie in [0, 1), got {self.missing}")
        if not 0 <= self.never_alive <= self.sensors:
            raise ValueError(f"never_alive must lie in [0, {self.sensors}], got {self.never_alive}")
        if not 0 <= self.seed < LARGEST_SEED:
            raise ValueError(f"seed must lie in [0, 2**63), got {self.seed}")

    # ---- rows start to stop ------------------------------------------------------------------------------------

    def truth(self, start: int, stop: int) -> NDArray[np.float32]:
        """(stop - start, N) speeds as undisturbed sensors would report them."""
        rows = np.empty((_length(start, stop), self.sensors), dtype=np.float32)
        for day, of_rows, of_day in _days(start, stop):
            rows[of_rows] = self._speeds(day)[of_day]
        return rows

    def lost(self, start: int, stop: int) -> NDArray[np.bool_]:
        """(stop - start, N) True where a fault took the reading."""
        rows = np.empty((_length(start, stop), self.sensors), dtype=bool)
        for day, of_rows, of_day in _days(start, stop):
            rows[of_rows] = self.faults.day(day)[of_day]
        return rows

    def observed(self, start: int, stop: int) -> NDArray[np.float32]:
        """`truth` with NaN where `lost`."""
        rows = self.truth(start, stop)
        rows[self.lost(start, stop)] = np.nan
        return rows

    def index(self, start: int, stop: int) -> pd.DatetimeIndex:
        """Time stamps of the rows."""
        begin = self._date(0) + pd.Timedelta(minutes=start * STEP_MINUTES)
        return pd.date_range(begin, periods=_length(start, stop), freq=f"{STEP_MINUTES}min", name="time")

    @property
    def roads(self) -> NDArray[np.int64]:
        """(E, 2) pairs of sensors (upstream, downstream)."""
        return self._network.roads

    # ---- a day -------------------------------------------------------------------------------------------------

    def _speeds(self, day: int) -> NDArray[np.float32]:
        """(288, N) speeds of a day."""
        queues = self._pressure(day)
        spread_queues(queues, self.roads, STEP_MINUTES)
        speed = queues[WARM_UP:]
        speed += np.float32(1.0)
        np.divide(self._free_flow(day), speed, out=speed)
        speed += self._noise(day)
        return np.maximum(speed, np.float32(SLOWEST), out=speed)

    def _pressure(self, day: int) -> NDArray[np.float32]:
        """Pressure (72 + 288, N) of demand and incidents on a day and on the last quarter of the day before."""
        rush = self._network.rush
        pressure = np.empty((WARM_UP + STEPS_PER_DAY, self.sensors), dtype=np.float32)
        np.multiply(rush[-WARM_UP:], self._strength(day - 1), out=pressure[:WARM_UP])
        np.multiply(rush, self._strength(day), out=pressure[WARM_UP:])
        for begun, midnight in ((day - 1, WARM_UP - STEPS_PER_DAY), (day, WARM_UP)):
            self._add_incidents(pressure, begun, midnight)
        return pressure

    def _strength(self, day: int) -> NDArray[np.float32]:
        """(N,) demand of a day, that of an ordinary workday being 1."""
        date = self._date(day)
        rng = keyed_random(self.seed, Purpose.DEMAND, day)
        free = np.array([date.day_of_week >= 5 or date in _holidays(date.year)])
        of_network = rng.lognormal(0.0, DAILY_SPREAD) * workday_share(free) * (1 + SEASON * _season(date, busiest=283))
        of_roads = rng.lognormal(0.0, ROAD_SPREAD, -(-self.sensors // ROAD_LENGTH))
        return np.repeat(of_network * of_roads, ROAD_LENGTH)[: self.sensors].astype(np.float32)

    def _add_incidents(self, pressure: NDArray[np.float32], day: int, midnight: int) -> None:
        """Add the accidents that begin on a day, whose midnight lies in that row of the pressure."""
        rng = keyed_random(self.seed, Purpose.INCIDENTS, day)
        count = rng.poisson(INCIDENTS_PER_WEEK / 7 * self.sensors)
        begin = rng.integers(STEPS_PER_DAY, size=count) + midnight
        shortest, longest = (minutes // STEP_MINUTES for minutes in INCIDENT_MINUTES)
        stop = begin + rng.integers(shortest, longest + 1, size=count)
        sensor, strength = rng.integers(self.sensors, size=count), rng.uniform(*INCIDENT_PRESSURE, count)
        for row in np.flatnonzero(stop > 0):
            pressure[max(begin[row], 0) : stop[row], sensor[row]] += strength[row]

    def _free_flow(self, day: int) -> NDArray[np.float32]:
        slower = np.float32(1 - WINTER_SLOWER * _season(self._date(day), busiest=15))
        return self._network.free_flow * slower

    def _noise(self, day: int) -> NDArray[np.float32]:
        """(288, N) mph."""
        noise = np.empty((WARM_UP + STEPS_PER_DAY, self.sensors), dtype=np.float32)
        for part in range(PARTS + 1):
            rng = keyed_random(self.seed, Purpose.NOISE, day * PARTS + part - 1)
            rng.standard_normal(dtype=np.float32, out=noise[part * WARM_UP : (part + 1) * WARM_UP])
        accumulate_noise(noise)
        white = keyed_random(self.seed, Purpose.WHITE_NOISE, day).random((STEPS_PER_DAY, self.sensors), np.float32)
        white -= np.float32(0.5)
        white *= np.float32(NOISE_WHITE * np.sqrt(12))  # uniform: as wide as the normal one, and three times as fast
        white += noise[WARM_UP:]
        return white

    def _date(self, day: int) -> pd.Timestamp:
        return pd.Timestamp(self.first_day) + pd.Timedelta(days=day)

    @cached_property
    def _network(self) -> _Network:
        return _Network.draw(self.sensors, self.seed)

    @cached_property
    def faults(self) -> SensorFaults:
        """Which readings get lost, day by day."""
        return SensorFaults(self.sensors, self.missing, self.never_alive, self.seed)


@dataclass(frozen=True)
class _Network:
    """What stays the same: roads (E, 2), speed without traffic (N,), pressure (288, N) of an ordinary workday."""

    roads: NDArray[np.int64]
    free_flow: NDArray[np.float32]
    rush: NDArray[np.float32]

    @classmethod
    def draw(cls, sensors: int, seed: int) -> _Network:
        rng = keyed_random(seed, Purpose.NETWORK)
        roads, hours = road_network(sensors, rng), RushHours.draw(sensors, rng)
        rush = np.empty((STEPS_PER_DAY, sensors), dtype=np.float32)
        for step in range(STEPS_PER_DAY):  # row by row: the formula works in float64 and in several copies
            rush[step] = hours.pressure(np.array([step * STEP_MINUTES / 60.0]))
        return cls(roads, rng.uniform(*FREE_FLOW, sensors).astype(np.float32), rush)


def _length(start: int, stop: int) -> int:
    if not 0 <= start <= stop:
        raise ValueError(f"rows must satisfy 0 <= start <= stop, got start={start}, stop={stop}")
    return stop - start


def _days(start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
    """Every day the rows touch, with where it lies in the rows and they in it."""
    for day in range(start // STEPS_PER_DAY, -(-stop // STEPS_PER_DAY)):
        midnight = day * STEPS_PER_DAY
        first, last = max(start, midnight), min(stop, midnight + STEPS_PER_DAY)
        yield day, slice(first - start, last - start), slice(first - midnight, last - midnight)


def _season(date: pd.Timestamp, busiest: int) -> float:
    """1 on that day of the year, -1 half a year later."""
    return float(np.cos(2 * np.pi * (date.day_of_year - busiest) / DAYS_PER_YEAR))


@lru_cache(maxsize=4)
def _holidays(year: int) -> pd.DatetimeIndex:
    return USFederalHolidayCalendar().holidays(f"{year}-01-01", f"{year}-12-31")

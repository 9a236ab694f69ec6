"""Simulated road traffic whose true values are known: for demonstrations, tests and machines without data.

Speeds of sensors along a road network: demand that follows day and week, congestion that starts at bottlenecks and
incidents and spreads upstream, measurement noise, and sensors that fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.roads import (
    DAILY_SPREAD,
    FREE_FLOW,
    INCIDENT_MINUTES,
    INCIDENT_PRESSURE,
    INCIDENTS_PER_WEEK,
    MINUTES_PER_DAY,
    NOISE_WHITE,
    SLOWEST,
    RushHours,
    accumulate_noise,
    road_network,
    spread_queues,
    workday_share,
)


@dataclass(frozen=True)
class Traffic:
    """A simulated week, or more, of a road network.

    Attributes:
        truth: (T, N) speeds in mph as undisturbed sensors would report them; DatetimeIndex.
        observed: the same with NaN where a sensor failed.
        roads: (E, 2) pairs of sensors (upstream, downstream), by column number.
    """

    truth: pd.DataFrame
    observed: pd.DataFrame
    roads: NDArray[np.int64]


def traffic(
    days: int = 7, sensors: int = 48, step_minutes: int = 5, fault_rate: float = 0.25, seed: int = 0
) -> Traffic:
    """Simulate traffic speeds.

    Args:
        days: length; the series starts on a Monday at midnight.
        sensors: number of sensors N, spread over roads of a dozen that flow into one another.
        step_minutes: minutes between rows; has to divide a day.
        fault_rate: share of readings lost, half of them one by one and half in outages of one to four hours.
        seed: same seed, same traffic.

    Raises:
        ValueError: a length that is not positive, a step that does not divide a day, a rate outside [0, 1).

    Example:
        >>> week = traffic(days=1, sensors=4)
        >>> week.truth.shape, bool(week.truth.isna().any().any())
        ((288, 4), False)
    """
    if days < 1 or sensors < 1:
        raise ValueError(f"days and sensors must be at least 1, got days={days}, sensors={sensors}")
    if step_minutes < 1 or MINUTES_PER_DAY % step_minutes:
        raise ValueError(f"step_minutes must divide a day of {MINUTES_PER_DAY} minutes, got {step_minutes}")
    if not 0 <= fault_rate < 1:
        raise ValueError(f"fault_rate must lie in [0, 1), got {fault_rate}")
    rng = np.random.default_rng(seed)
    roads = road_network(sensors, rng)
    steps = days * MINUTES_PER_DAY // step_minutes
    minutes = np.arange(steps) * step_minutes
    congestion = _demand(minutes, days, sensors, rng) + _incidents(minutes, sensors, rng)
    spread_queues(congestion, roads, step_minutes)
    free_flow = rng.uniform(*FREE_FLOW, sensors)
    speed = free_flow / (1.0 + congestion) + _noise(steps, sensors, rng)
    index = pd.date_range("2026-01-05", periods=steps, freq=f"{step_minutes}min", name="time")
    names = [f"s{sensor:03d}" for sensor in range(sensors)]
    truth = pd.DataFrame(np.clip(speed, SLOWEST, None).round(3), index=index, columns=names)
    return Traffic(truth, truth.mask(_faults(truth.shape, fault_rate, step_minutes, rng)), roads)


def _demand(minutes: NDArray[np.int64], days: int, sensors: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Pressure (T, N) on the bottlenecks: two rush hours, weaker on the weekend, another strength every day."""
    rush = RushHours.draw(sensors, rng).pressure((minutes % MINUTES_PER_DAY) / 60.0)
    strength = rng.lognormal(0.0, DAILY_SPREAD, days) * workday_share(np.arange(days) % 7 >= 5)
    return np.asarray(rush * strength[minutes // MINUTES_PER_DAY][:, None])


def _incidents(minutes: NDArray[np.int64], sensors: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Accidents: now and then a sensor's road narrows for half an hour to two hours."""
    inflow = np.zeros((minutes.size, sensors))
    span = int(minutes[-1]) + 1
    for _ in range(rng.poisson(INCIDENTS_PER_WEEK * sensors * span / (7 * MINUTES_PER_DAY))):
        begin, sensor = rng.uniform(0, span), rng.integers(sensors)
        active = (minutes >= begin) & (minutes < begin + rng.uniform(*INCIDENT_MINUTES))
        inflow[active, sensor] += rng.uniform(*INCIDENT_PRESSURE)
    return inflow


def _noise(steps: int, sensors: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """What is left of single cars and of the detector: a slow part and a fresh one at every step, in mph."""
    slow = rng.normal(0.0, 1.0, (steps, sensors))
    accumulate_noise(slow)
    return np.asarray(slow + rng.normal(0.0, NOISE_WHITE, (steps, sensors)))


def _faults(shape: tuple[int, int], rate: float, step_minutes: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Single lost readings and outages, half of the rate each."""
    lost = np.asarray(rng.random(shape) < rate / 2)
    steps, sensors = shape
    shortest, longest = max(1, 60 // step_minutes), max(1, 240 // step_minutes)
    while lost.mean() < rate:
        start, sensor = rng.integers(steps), rng.integers(sensors)
        lost[start : start + rng.integers(shortest, longest + 1), sensor] = True
    alone = lost.all(axis=0)
    lost[0, alone] = False
    return lost

"""Simulated road traffic whose true values are known: for demonstrations, tests and machines without data.

Speeds of sensors along a road network: demand that follows day and week, congestion that starts at bottlenecks and
incidents and spreads upstream, measurement noise, and sensors that fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROAD_LENGTH = 12  # sensors along one road
MINUTES_PER_DAY = 1440


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
    roads = _roads(sensors, rng)
    steps = days * MINUTES_PER_DAY // step_minutes
    minutes = np.arange(steps) * step_minutes
    inflow = _demand(minutes, days, sensors, rng) + _incidents(minutes, sensors, rng)
    congestion = _spread(inflow, roads, step_minutes)
    free_flow = rng.uniform(58.0, 70.0, sensors)
    speed = free_flow / (1.0 + congestion) + _noise(steps, sensors, rng)
    index = pd.date_range("2026-01-05", periods=steps, freq=f"{step_minutes}min", name="time")
    truth = pd.DataFrame(np.clip(speed, 3.0, None).round(3), index=index, columns=[f"s{i:03d}" for i in range(sensors)])
    return Traffic(truth, truth.mask(_faults(truth.shape, fault_rate, step_minutes, rng)), roads)


def _roads(sensors: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Chains of sensors; the end of each flows into some sensor of an earlier road."""
    pairs = []
    for first in range(0, sensors, ROAD_LENGTH):
        last = min(first + ROAD_LENGTH, sensors) - 1
        pairs += [(sensor, sensor + 1) for sensor in range(first, last)]
        if first:
            pairs.append((last, int(rng.integers(first))))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _demand(minutes: NDArray[np.int64], days: int, sensors: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Pressure (T, N) on the bottlenecks: two rush hours, weaker on the weekend, another strength every day."""
    clock = (minutes % MINUTES_PER_DAY) / 60.0
    day = minutes // MINUTES_PER_DAY
    bottleneck = np.where(rng.random(sensors) < 0.35, rng.uniform(0.4, 1.0, sensors), 0.05)
    morning_share = rng.uniform(0.1, 0.9, sensors)
    hour_shift = rng.normal(0.0, 0.4, sensors)
    strength = rng.lognormal(0.0, 0.25, days) * np.where(np.arange(days) % 7 >= 5, 0.25, 1.0)
    clock_of = clock[:, None] - hour_shift
    rush = morning_share * np.exp(-(((clock_of - 8.0) / 1.2) ** 2))
    rush += (1.0 - morning_share) * np.exp(-(((clock_of - 17.5) / 1.7) ** 2))
    rush += 0.12 * np.exp(-(((clock_of - 13.0) / 3.5) ** 2))
    return np.asarray(bottleneck * rush * strength[day][:, None])


def _incidents(minutes: NDArray[np.int64], sensors: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Accidents: now and then a sensor's road narrows for half an hour to two hours."""
    inflow = np.zeros((minutes.size, sensors))
    span = int(minutes[-1]) + 1
    for _ in range(rng.poisson(0.25 * sensors * span / (7 * MINUTES_PER_DAY))):
        begin, sensor = rng.uniform(0, span), rng.integers(sensors)
        active = (minutes >= begin) & (minutes < begin + rng.uniform(30, 120))
        inflow[active, sensor] += rng.uniform(0.3, 1.0)
    return inflow


def _spread(inflow: NDArray[np.float64], roads: NDArray[np.int64], step_minutes: int) -> NDArray[np.float64]:
    """Queues grow with the inflow, move upstream and dissolve within about half an hour."""
    keep = np.exp(-step_minutes / 30.0)
    handed_up = 0.6 * (1.0 - keep)
    grow = 2.2 * (1.0 - keep)
    congestion = np.zeros_like(inflow)
    queue = np.zeros(inflow.shape[1])
    for step, pressure in enumerate(inflow):
        upstream = np.zeros_like(queue)
        np.add.at(upstream, roads[:, 0], queue[roads[:, 1]])
        queue = keep * queue + handed_up * upstream + grow * pressure
        congestion[step] = queue
    return congestion


def _noise(steps: int, sensors: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """What is left of single cars and of the detector: a slow part and a fresh one at every step, in mph."""
    fresh = rng.normal(0.0, 1.0, (steps, sensors))
    slow = np.empty_like(fresh)
    level = np.zeros(sensors)
    for step in range(steps):
        level = 0.9 * level + 0.5 * fresh[step]
        slow[step] = level
    return np.asarray(slow + rng.normal(0.0, 0.7, (steps, sensors)))


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

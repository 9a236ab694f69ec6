"""What recurs with the day and the week: the period found in the data, and means and spreads by phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastimpute.gaps import Floats, Mask, gap_distance, linear

COMMON_CYCLES = (7, 12, 24, 48, 52, 72, 96, 144, 288, 365, 720, 1440)
WEAKEST_PEAK = 0.2
LEAST_PROMINENCE = 0.15


@dataclass(frozen=True)
class Period:
    """Steps per day (or whatever the shortest cycle is) and per week; None where there is none."""

    day: int | None = None
    week: int | None = None


def autocorrelation(values: Floats, missing: Mask, lags: int) -> npt.NDArray[np.float64]:
    """Mean autocorrelation of all sensors over pairs of observed cells, lags 0..lags, 1 at lag 0."""
    size = 1 << int(np.ceil(np.log2(len(values) + lags + 1)))
    power, pairs = np.zeros(size // 2 + 1), np.zeros(size // 2 + 1)
    for sensor in range(values.shape[1]):
        seen = ~missing[:, sensor]
        if not seen.any():
            continue
        series = np.where(seen, values[:, sensor], 0.0) - seen * values[seen, sensor].mean()
        power += np.abs(np.fft.rfft(series, size)) ** 2
        pairs += np.abs(np.fft.rfft(seen.astype(np.float64), size)) ** 2
    covariance = np.fft.irfft(power, size)[: lags + 1] / np.maximum(np.fft.irfft(pairs, size)[: lags + 1], 1.0)
    return covariance / max(float(covariance[0]), 1e-12)


def detect_period(values: Floats, missing: Mask) -> Period:
    """Day and week from the autocorrelation of the observed cells; at least two cycles must be seen.

    The day is the first peak at least half as high as the highest one, moved to a common number of steps within 2 %;
    the week is seven days where their autocorrelation stands above that of six and eight days.
    """
    steps = len(values)
    lags = min(steps // 2, 4000)
    if lags < 8:
        return Period()
    acf = autocorrelation(values, missing, lags)
    peaks = _peaks(acf)
    if not peaks:
        return Period()
    highest = max(acf[lag] for lag in peaks)
    day = _snap(next(lag for lag in peaks if acf[lag] >= 0.5 * highest))
    six, seven, eight = 6 * day, 7 * day, 8 * day
    if day >= 12 and steps >= 16 * day and eight <= lags and acf[seven] > (acf[six] + acf[eight]) / 2:
        return Period(day, seven)
    return Period(day)


def _peaks(acf: npt.NDArray[np.float64]) -> list[int]:
    lowest = np.minimum.accumulate(acf)
    found = []
    for lag in range(4, len(acf) - 1):
        if acf[lag] < WEAKEST_PEAK or acf[lag] - lowest[lag] < LEAST_PROMINENCE:
            continue
        reach = max(2, lag // 8)
        if acf[lag] >= acf[max(1, lag - reach) : lag + reach + 1].max():
            found.append(lag)
    return found


def _snap(lag: int) -> int:
    nearest = min(COMMON_CYCLES, key=lambda cycle: abs(cycle - lag))
    return nearest if abs(nearest - lag) <= 0.02 * lag else lag


def _by_phase(
    table: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], cycle: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums of table * weight and of weight by phase, each (cycle, N)."""
    steps, sensors = table.shape
    whole = -(-steps // cycle) * cycle
    padded = np.zeros((2, whole, sensors))
    padded[0, :steps], padded[1, :steps] = table * weight, weight
    sums = padded.reshape(2, -1, cycle, sensors).sum(1)
    return sums[0], sums[1]


def _phase_mean(
    table: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], cycle: int, reach: int, prior: float
) -> npt.NDArray[np.float64]:
    """Mean by phase, drawn towards the mean of the phases around it: (T, N)."""
    total, count = _by_phase(table, weight, cycle)
    near_total, near_count = total.copy(), count.copy()
    for shift in range(1, reach + 1):
        share = float(np.exp(-0.5 * shift * shift))
        near_total += share * (np.roll(total, shift, 0) + np.roll(total, -shift, 0))
        near_count += share * (np.roll(count, shift, 0) + np.roll(count, -shift, 0))
    mean: npt.NDArray[np.float64] = (total + prior * near_total / (near_count + 1e-3)) / (count + prior)
    return mean[np.arange(len(table)) % cycle]


def calendar_mean(values: Floats, missing: Mask, period: Period, rounds: int = 3) -> Floats:
    """Mean by time of day (and week) per sensor, (T, N); zero without a day.

    The means are taken over the filled series (profile + damped residual), a few times over: the mean of the observed
    cells alone is rough from phase to phase, as each phase misses other days.
    """
    if period.day is None:
        return np.zeros(values.shape, np.float32)
    table = np.where(missing, 0, values).astype(np.float64)
    mean = _calendar_mean(table, (~missing).astype(np.float64), period)
    damping = np.exp(-(gap_distance(missing) - 1) / 12.0)
    everywhere = np.ones(values.shape)
    for _ in range(rounds):
        residual = linear((table - mean).astype(np.float32), missing)
        filled = mean + np.where(missing, residual * damping, residual)
        mean = _calendar_mean(filled, everywhere, period)
    return mean.astype(np.float32)


def _calendar_mean(
    table: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], period: Period
) -> npt.NDArray[np.float64]:
    assert period.day is not None
    mean = _phase_mean(table, weight, period.day, reach=3, prior=3.0)
    if period.week is None:
        return mean
    total, count = _by_phase(table - mean, weight, period.week)
    # empirical Bayes: the spread of the weekly means beyond that of their own noise says how far to believe them
    noise = np.square(weight * (table - mean)).sum(0) / np.maximum(weight.sum(0), 1)
    weekly = total / np.maximum(count, 1)
    signal = np.maximum(np.square(weekly).mean(0) - noise / np.maximum(count.mean(0), 1), 1e-6)
    weekly = total / (count + np.maximum(noise / signal, 1))
    together: npt.NDArray[np.float64] = mean + weekly[np.arange(len(table)) % period.week]
    return together


def calendar_scale(residual: Floats, missing: Mask, period: Period) -> Floats:
    """Mean absolute residual by phase per sensor, at least 15 % of the sensor's own; one without a day. (T, N)."""
    if period.day is None:
        return np.ones(residual.shape, np.float32)
    size = np.where(missing, 0, np.abs(residual)).astype(np.float64)
    weight = (~missing).astype(np.float64)
    typical = size.sum(0) / np.maximum(weight.sum(0), 1)
    typical = np.where(typical > 0, typical, 1.0)
    scale = _phase_mean(size / typical, weight, period.day, reach=2, prior=3.0)
    if period.week is not None:
        total, count = _by_phase(size / typical / np.maximum(scale, 1e-3), weight, period.week)
        scale = scale * ((total + 20) / (count + 20))[np.arange(len(size)) % period.week]
    return (np.maximum(scale, 0.15) * typical).astype(np.float32)


def profile(values: Floats, missing: Mask, period: Period, tau: float = 6.0) -> Floats:
    """Calendar mean + interpolated residual, damped by exp(-(distance to the nearest observation - 1) / tau).

    Without a day this is linear interpolation. Observed cells come back bit-identical.
    """
    if period.day is None:
        return linear(values, missing)
    mean = calendar_mean(values, missing, period)
    residual = linear(np.where(missing, 0, values - mean).astype(np.float32), missing)
    damping = np.exp(-(gap_distance(missing) - 1) / tau).astype(np.float32)
    return np.where(missing, mean + residual * damping, values).astype(np.float32)

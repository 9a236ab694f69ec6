from pathlib import Path

import numpy as np
import pytest

from fastimpute.profile import Period, autocorrelation, calendar_mean, calendar_scale, detect_period, profile

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RNG = np.random.default_rng(0)


def cyclic(steps: int, day: int, weekly: bool = False, noise: float = 0.5) -> np.ndarray:
    t = np.arange(steps)[:, None]
    series = np.sin(2 * np.pi * t / day) + 0.6 * np.cos(4 * np.pi * t / day)
    if weekly:
        series = series * np.where((t // day) % 7 < 5, 1.0, 0.3)
    return np.asarray(series + noise * RNG.normal(size=(steps, 3)), np.float32)


def masked(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).random(shape) < 0.3


@pytest.mark.parametrize("day", [24, 96, 144])
def test_a_day_is_found_under_gaps(day: int) -> None:
    series = cyclic(12 * day, day)
    assert detect_period(series, masked(series.shape)).day == day


def test_a_week_is_found_where_weekends_differ() -> None:
    series = cyclic(24 * 70, 24, weekly=True)
    assert detect_period(series, masked(series.shape)) == Period(24, 168)


def test_random_walks_and_noise_have_no_period() -> None:
    walk = np.cumsum(RNG.normal(size=(3000, 5)), axis=0).astype(np.float32)
    assert detect_period(walk / walk.std(0), masked(walk.shape)) == Period()
    noise = RNG.normal(size=(3000, 5)).astype(np.float32)
    assert detect_period(noise, masked(noise.shape)) == Period()


def test_short_series_have_no_period() -> None:
    assert detect_period(np.zeros((9, 2), np.float32), np.zeros((9, 2), bool)) == Period()


@pytest.mark.parametrize(
    ("file", "day"), [("metr_la_week", 288), ("guangzhou", 144), ("traffic20", 24), ("etth1", 24), ("exchange", None)]
)
def test_periods_of_real_data(file: str, day: int | None) -> None:
    path = DATA / f"{file}.csv"
    series = np.genfromtxt(path, delimiter=",", skip_header=1) if path.exists() else cyclic(20 * 24, day or 24)
    if not path.exists():
        day = day and 24
        series = series if day else RNG.normal(size=series.shape)
    series = series[:, ~np.isnan(series).all(0)]
    series = ((series - series.mean(0)) / series.std(0)).astype(np.float32)
    assert detect_period(series, masked(series.shape)).day == day


def test_autocorrelation_of_a_cycle_is_a_cosine() -> None:
    series = np.sqrt(2) * np.sin(2 * np.pi * np.arange(5000) / 50)[:, None].astype(np.float32)
    found = autocorrelation(series, masked(series.shape), 100)
    np.testing.assert_allclose(found, np.cos(2 * np.pi * np.arange(101) / 50), atol=0.05)


def test_the_calendar_mean_recovers_a_weekly_pattern() -> None:
    t = np.arange(24 * 7 * 20)
    truth = np.tile(np.sin(np.arange(168) / 5.0), 20)[:, None].astype(np.float32)
    series = truth + 0.1 * RNG.normal(size=(len(t), 2)).astype(np.float32)
    found = calendar_mean(series, masked(series.shape), Period(24, 168))
    assert np.abs(found - truth).mean() < 0.06


def test_without_a_day_the_mean_is_zero_and_the_scale_one() -> None:
    series, missing = cyclic(100, 24), masked((100, 3))
    assert not calendar_mean(series, missing, Period()).any()
    assert (calendar_scale(series, missing, Period()) == 1).all()


def test_the_calendar_scale_follows_the_noise_of_each_phase() -> None:
    size = np.where(np.arange(24 * 60) % 24 < 12, 0.2, 1.0)[:, None]
    residual = (size * RNG.normal(size=(24 * 60, 2))).astype(np.float32)
    found = calendar_scale(residual, masked(residual.shape), Period(24))
    assert found[3].max() < 0.5 * found[18].min()


def test_the_profile_keeps_observations_and_beats_lines_across_long_gaps() -> None:
    series = cyclic(24 * 30, 24, noise=0.05)
    missing = np.zeros(series.shape, bool)
    missing[200:236] = True
    filled = profile(series, missing, Period(24))
    np.testing.assert_array_equal(filled[~missing], series[~missing])
    assert np.abs(filled - series)[missing].mean() < 0.2

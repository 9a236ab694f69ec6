"""Simulated traffic of any length: the same rows however they are asked for, and what the rows are like."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastimpute.sensor_faults import HOURS, MONTHS, STEPS_PER_DAY, Outages, SensorFaults
from fastimpute.simulate_large import LargeTraffic

DAY = STEPS_PER_DAY
FORTNIGHT = 14 * DAY


@pytest.fixture(scope="module")
def traffic() -> LargeTraffic:
    return LargeTraffic(sensors=60, missing=0.1, seed=3)


@pytest.fixture(scope="module")
def speeds(traffic: LargeTraffic) -> pd.DataFrame:
    return pd.DataFrame(traffic.truth(0, FORTNIGHT), index=traffic.index(0, FORTNIGHT))


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 3 * DAY), max_size=5))
def test_rows_do_not_depend_on_how_they_are_cut(traffic: LargeTraffic, cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), 3 * DAY]
    pieces = [traffic.observed(start, stop) for start, stop in itertools.pairwise(ends)]
    np.testing.assert_array_equal(np.concatenate(pieces), traffic.observed(0, 3 * DAY))


def test_a_day_needs_nothing_but_the_seed(traffic: LargeTraffic) -> None:
    fresh = LargeTraffic(sensors=60, missing=0.1, seed=3)
    np.testing.assert_array_equal(fresh.observed(900 * DAY, 901 * DAY), traffic.observed(900 * DAY, 901 * DAY))


def test_another_seed_is_another_traffic(traffic: LargeTraffic) -> None:
    other = LargeTraffic(sensors=60, missing=0.1, seed=4)
    assert not np.array_equal(traffic.truth(0, 5), other.truth(0, 5))
    assert not np.array_equal(traffic.lost(0, DAY), other.lost(0, DAY))


def test_observations_are_the_truth_where_nothing_is_lost(traffic: LargeTraffic) -> None:
    expected = np.where(traffic.lost(0, DAY), np.float32(np.nan), traffic.truth(0, DAY))
    np.testing.assert_array_equal(traffic.observed(0, DAY), expected)


def test_truth_is_complete_and_made_of_speeds(speeds: pd.DataFrame) -> None:
    assert speeds.to_numpy().dtype == np.float32
    assert speeds.min(axis=None) >= 3
    assert speeds.max(axis=None) < 90


@pytest.mark.parametrize("missing", [0.0, 0.015, 0.3])
def test_the_missing_share_is_the_one_asked_for(missing: float) -> None:
    faults = SensorFaults(sensors=3000, missing=missing, never_alive=0, seed=0)
    share = np.mean([faults.day(day).mean() for day in range(0, 1000, 100)])
    assert share == pytest.approx(missing, rel=0.1)


@pytest.mark.parametrize("outages", [HOURS, MONTHS], ids=["hours", "months"])
def test_outages_are_there_from_the_first_reading_on(outages: Outages) -> None:
    lost = np.zeros((DAY, 20_000), dtype=bool)
    outages.mark(lost, day=0, share=0.2, seed=0)
    assert lost[0].mean() == pytest.approx(0.2, abs=0.02)


def test_some_sensors_die_for_months_and_come_back() -> None:
    faults = SensorFaults(sensors=400, missing=0.1, never_alive=0, seed=0)
    dead = np.stack([faults.day(day).all(axis=0) for day in range(0, 400, 5)])
    months = dead.sum(axis=0) * 5 / 30
    assert months.max() >= 1
    assert not dead.all(axis=0).any()


def test_sensors_that_never_report_are_as_many_as_asked_for() -> None:
    faults = SensorFaults(sensors=50, missing=0.0, never_alive=4, seed=0)
    for day in (0, 700):
        assert faults.day(day).all(axis=0).sum() == faults.day(day).any(axis=0).sum() == 4


def mean_at(speeds: pd.DataFrame, hour: int, days: NDArray[np.bool_]) -> float:
    return float(speeds[(speeds.index.hour == hour) & days].mean(axis=None))


def test_rush_hours_are_slower_than_nights_weekends_and_holidays(speeds: pd.DataFrame) -> None:
    holiday = np.asarray(speeds.index.day == 2)  # the first of January 2017 is a Sunday, the second its holiday
    weekend = speeds.index.day_of_week >= 5
    rush = mean_at(speeds, 8, ~weekend & ~holiday)
    assert rush < mean_at(speeds, 3, ~weekend & ~holiday) - 3
    assert rush < mean_at(speeds, 8, weekend) - 2
    assert rush < mean_at(speeds, 8, holiday) - 2


def test_nights_are_faster_in_summer_than_in_winter(traffic: LargeTraffic) -> None:
    night = slice(2 * 12, 4 * 12)
    january, july = (traffic.truth(day * DAY, (day + 1) * DAY)[night].mean() for day in (14, 196))
    assert july > january + 2


def test_congestion_spreads_upstream(traffic: LargeTraffic, speeds: pd.DataFrame) -> None:
    change = (speeds - speeds.groupby(speeds.index.time).transform("mean")).to_numpy()
    upstream, downstream = traffic.roads.T
    later = 3  # a quarter of an hour

    def follows(leader: NDArray[np.int64], follower: NDArray[np.int64]) -> float:
        pairs = zip(change[:-later, leader].T, change[later:, follower].T, strict=True)
        return float(np.mean([np.corrcoef(first, then)[0, 1] for first, then in pairs]))

    strangers = np.roll(upstream, 30)
    assert follows(downstream, upstream) > follows(upstream, downstream) + 0.01
    assert follows(downstream, upstream) > follows(downstream, strangers) + 0.05


def test_midnight_is_no_seam(traffic: LargeTraffic) -> None:
    """Queues and noise of a day begin the evening before: no larger a step over midnight than before it."""
    steps = np.abs(np.diff(traffic.truth(0, 40 * DAY), axis=0))
    over_midnight = steps[DAY - 1 :: DAY].mean()
    just_before = steps[DAY - 2 :: DAY].mean()
    assert over_midnight == pytest.approx(just_before, rel=0.1)


def test_rows_have_their_dates() -> None:
    index = LargeTraffic(sensors=1, first_day="2019-03-31").index(DAY - 1, DAY + 1)
    assert [str(stamp) for stamp in index] == ["2019-03-31 23:55:00", "2019-04-01 00:00:00"]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"sensors": 0}, "sensors must be at least 1"),
        ({"missing": 1.0}, r"missing must lie in \[0, 1\)"),
        ({"sensors": 3, "never_alive": 4}, r"never_alive must lie in \[0, 3\]"),
        ({"seed": -1}, "seed must lie in"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LargeTraffic(**setting)  # type: ignore[arg-type]


def test_rows_that_run_backwards_are_refused(traffic: LargeTraffic) -> None:
    with pytest.raises(ValueError, match="start=5, stop=4"):
        traffic.truth(5, 4)

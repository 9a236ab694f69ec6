"""Simulated traffic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fastimpute import simulate


@pytest.fixture(scope="module")
def week() -> simulate.Traffic:
    return simulate.traffic(days=7, sensors=40, seed=0)


def test_truth_is_complete_and_observations_agree_with_it(week: simulate.Traffic) -> None:
    assert week.truth.notna().all(axis=None)
    pd.testing.assert_frame_equal(week.observed, week.truth.where(week.observed.notna()))


def test_faults_have_the_rate_asked_for(week: simulate.Traffic) -> None:
    assert week.observed.isna().to_numpy().mean() == pytest.approx(0.25, abs=0.01)


def test_speeds_are_speeds(week: simulate.Traffic) -> None:
    assert week.truth.min(axis=None) >= 3
    assert week.truth.max(axis=None) < 90


def test_rush_hours_are_slower_than_nights_and_weekends(week: simulate.Traffic) -> None:
    speed = week.truth.mean(axis=1)
    hour, workday = week.truth.index.hour, week.truth.index.day_of_week
    rush = speed[(hour == 8) & (workday < 5)].mean()
    assert rush < speed[hour == 3].mean() - 3
    assert rush < speed[(hour == 8) & (workday >= 5)].mean() - 2


def test_neighbours_on_a_road_are_more_alike_than_strangers(week: simulate.Traffic) -> None:
    deviation = week.truth - week.truth.groupby(week.truth.index.time).transform("mean")
    likeness = np.corrcoef(deviation.to_numpy().T)
    near = likeness[week.roads[:, 0], week.roads[:, 1]].mean()
    assert near > np.median(likeness[np.triu_indices(40, 1)]) + 0.05


def test_same_seed_same_traffic() -> None:
    first, second, other = (simulate.traffic(days=1, sensors=5, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.observed, second.observed)
    assert not first.truth.equals(other.truth)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"days": 0}, "days and sensors must be at least 1"),
        ({"sensors": 0}, "days and sensors must be at least 1"),
        ({"step_minutes": 7}, "must divide a day"),
        ({"fault_rate": 1.0}, r"fault_rate must lie in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        simulate.traffic(**settings)  # type: ignore[arg-type]

"""Split-conformal calibration: exchangeable scores are covered as often as asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastimpute.conformal import (
    FARTHEST,
    LEAST_SCORES,
    Calibration,
    ball_scores,
    cell_scores,
    coverage_report,
    distance_class,
    needed,
    quantile,
    sharpest,
    sharpest_by_class,
)

levels = st.floats(0.05, 0.99)
seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), levels, seeds)
def test_quantile_is_the_finite_sample_order_statistic(count: int, level: float, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=count)
    if count < needed(level):
        with pytest.raises(ValueError, match=f"needs at least {needed(level)} scores, got {count}"):
            quantile(scores, level)
        return
    rank = min(count, math.ceil((count + 1) * level - 1e-9))
    assert quantile(scores, level) == np.sort(scores)[rank - 1]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("count", [19, 40, 133])
def test_exchangeable_scores_are_covered_at_least_as_often_as_asked(count: int, level: float) -> None:
    rng = np.random.default_rng(count)
    draws = rng.standard_cauchy(size=(4000, count + 1))
    covered = np.mean([row[-1] <= quantile(row[:-1], level) for row in draws])
    exact = math.ceil((count + 1) * level - 1e-9) / (count + 1)
    error = 4 * math.sqrt(exact * (1 - exact) / len(draws))
    assert exact >= level
    assert abs(covered - exact) < error


@settings(deadline=None, max_examples=40)
@given(st.integers(100, 500), st.lists(levels, min_size=2, max_size=2), seeds)
def test_a_higher_level_is_never_narrower(count: int, pair: list[float], seed: int) -> None:
    low, high = sorted(pair)
    rng = np.random.default_rng(seed)
    calibration = Calibration.fit(rng.exponential(size=count), rng.integers(0, 3, count))
    asked = np.arange(4)
    assert (calibration.radius(asked, low) <= calibration.radius(asked, high)).all()


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.1, 10))
def test_intervals_scale_with_the_scores(seed: int, scale: float) -> None:
    scores, classes = np.random.default_rng(seed).exponential(size=300), np.zeros(300, np.int64)
    plain = Calibration.fit(scores, classes).radius(np.zeros(1), 0.9)
    np.testing.assert_allclose(Calibration.fit(scale * scores, classes).radius(np.zeros(1), 0.9), scale * plain, 1e-5)


def test_every_class_is_covered_by_its_own_quantile() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 6000)
    scores = np.abs(rng.normal(size=6000)) * (1 + classes)
    fresh = rng.integers(0, 3, 6000)
    inside = np.abs(rng.normal(size=6000)) * (1 + fresh) <= Calibration.fit(scores, classes).radius(fresh, 0.9)
    for number in range(3):
        assert inside[fresh == number].mean() == pytest.approx(0.9, abs=0.03)


def test_a_class_with_few_scores_or_none_takes_the_quantile_of_all() -> None:
    scores = np.arange(LEAST_SCORES + 10, dtype=np.float64)
    classes = np.where(np.arange(scores.size) < LEAST_SCORES, 0, 1)
    radius = Calibration.fit(scores, classes).radius(np.array([0, 1, 5]), 0.9)
    assert radius[1] == radius[2] == quantile(scores, 0.9)
    assert radius[0] == quantile(scores[:LEAST_SCORES], 0.9)


def test_too_few_scores_in_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a level of 0.95 needs at least 19 scores, got 18: ask for a lower level"):
        Calibration.fit(np.ones(18), np.zeros(18)).radius(np.zeros(3), 0.95)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, math.nan])
def test_a_level_outside_zero_and_one_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        quantile(np.ones(100), level)


@pytest.mark.parametrize("level", ["0.9", None, [0.9]])
def test_a_level_that_is_no_number_is_refused(level: Any) -> None:
    with pytest.raises(TypeError, match="level: expected a number between 0 and 1, got"):
        needed(level)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        Calibration.fit(np.array([1.0, np.nan]), np.zeros(2))


def test_pack_and_unpack() -> None:
    rng = np.random.default_rng(0)
    calibration = Calibration.fit(rng.exponential(size=900), rng.integers(0, 4, 900))
    again = Calibration.unpack(calibration.pack())
    np.testing.assert_array_equal(again.radius(np.arange(5), 0.8), calibration.radius(np.arange(5), 0.8))


def test_classes_are_powers_of_two_of_the_distance() -> None:
    missing = np.ones((200, 1), bool)
    missing[0] = False
    ranks = distance_class(missing)[:, 0]
    assert [int(ranks[row]) for row in (0, 1, 2, 3, 4, 5, 8, 9, 16, 32, 33, 199)] == [
        0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 6, FARTHEST,
    ]  # fmt: skip


def test_cell_scores_are_errors_in_units_of_the_spread() -> None:
    mean, spread, truth = np.zeros((1, 3)), np.array([[1.0, 2.0, 4.0]]), np.array([[3.0, -3.0, 2.0]])
    cells = np.array([[True, True, False]])
    np.testing.assert_allclose(cell_scores(mean, spread, truth, cells), [3.0, 1.5])


def test_ball_scores_are_distances_over_the_missing_cells_of_a_window() -> None:
    mean, truth = np.zeros((2, 3)), np.array([[3.0, 4.0, 100.0], [0.0, 1.0, 1.0]])
    cells = np.array([[True, True, False], [False, False, False]])
    np.testing.assert_allclose(ball_scores(mean, truth, cells), [5.0, 0.0])


def test_balls_calibrated_on_windows_cover_as_often_as_asked() -> None:
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(12, 12))
    windows, cells = rng.normal(size=(4000, 12)) @ factor, np.ones((4000, 12), bool)
    scores = ball_scores(np.zeros_like(windows), windows, cells)
    radius = Calibration.fit(scores[:2000], np.zeros(2000)).radius(np.zeros(2000), 0.95)
    assert (scores[2000:] <= radius).mean() == pytest.approx(0.95, abs=0.02)


def test_report_counts_coverage_and_width() -> None:
    report = coverage_report(
        np.zeros(4), np.array([1.0, 2.0, 3.0, 9.0]), np.array([0.5, 5.0, 3.0, 0.0]), np.arange(4) < 3
    )
    assert report.coverage == pytest.approx(2 / 3)
    assert report.width == 2.0
    with pytest.raises(ValueError, match="no cell to count"):
        coverage_report(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1, bool))


@settings(deadline=None, max_examples=20)
@given(st.floats(0.3, 4), seeds)
def test_the_sharpest_deviation_of_gaussian_errors_is_theirs(deviation: float, seed: int) -> None:
    errors = np.random.default_rng(seed).normal(scale=deviation, size=3000)
    assert sharpest(np.abs(errors)) == pytest.approx(deviation, rel=0.1)


def test_a_few_far_errors_do_not_decide_the_deviation() -> None:
    errors = np.abs(np.random.default_rng(0).normal(size=3000))
    errors[:3] = 1e3
    assert sharpest(errors) == pytest.approx(1, rel=0.15)


def test_classes_with_few_errors_take_the_deviation_of_all() -> None:
    rng = np.random.default_rng(0)
    sizes = np.abs(np.concatenate([rng.normal(size=3000), rng.normal(scale=3, size=LEAST_SCORES - 1)]))
    classes = np.repeat([0, 2], [3000, LEAST_SCORES - 1])
    factors = sharpest_by_class(sizes, classes)
    assert factors.shape == (FARTHEST + 1,)
    assert factors[2] == factors[1] == np.float32(sharpest(sizes)) != factors[0]


def test_without_errors_no_deviation_is_changed() -> None:
    assert (sharpest_by_class(np.zeros(0), np.zeros(0, np.int64)) == 1).all()

"""Errors over chosen cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtr

from fastimpute import metrics

TRUTH = np.array([[1.0, 2.0], [3.0, np.nan]])
FILLED = np.array([[1.0, 4.0], [2.0, 9.0]])
CELLS = np.array([[False, True], [True, False]])


def test_formulas() -> None:
    assert metrics.mae(FILLED, TRUTH, CELLS) == 1.5
    assert metrics.mse(FILLED, TRUTH, CELLS) == 2.5
    assert metrics.rmse(FILLED, TRUTH, CELLS) == np.sqrt(2.5)
    assert metrics.mre(FILLED, TRUTH, CELLS) == 3 / 5


@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(-1e3, 1e3)))
def test_what_is_not_chosen_does_not_count(noise: np.ndarray) -> None:
    cells = np.zeros((4, 3), dtype=bool)
    cells[1, 2] = True
    truth = np.where(cells, 5.0, noise)
    assert metrics.mae(np.full((4, 3), 7.0), truth, cells) == 2.0


def test_no_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="no cell to score"):
        metrics.mae(FILLED, TRUTH, np.zeros((2, 2), dtype=bool))


def test_unknown_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 4 scored cells are NaN"):
        metrics.mse(FILLED, TRUTH, np.ones((2, 2), dtype=bool))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="must agree in shape"):
        metrics.mae(FILLED[:1], TRUTH, CELLS)


def test_relative_error_of_zeros_is_undefined() -> None:
    assert np.isnan(metrics.mre(np.ones(2), np.zeros(2), np.ones(2, dtype=bool)))


def test_crps_of_a_normal_is_that_of_its_draws() -> None:
    rng = np.random.default_rng(0)
    mean, deviation, truth = rng.normal(size=20), rng.uniform(0.2, 2, 20), rng.normal(size=20)
    cells = np.ones(20, dtype=bool)
    draws = mean + deviation * rng.normal(size=(4000, 20))
    closed = metrics.crps_gaussian(mean, deviation, truth, cells)
    assert metrics.crps_samples(draws, truth, cells) == pytest.approx(closed, rel=0.02)


@given(st.floats(-5, 5), st.floats(0.1, 3))
def test_crps_of_a_normal_by_numerical_integration(error: float, deviation: float) -> None:
    grid = np.linspace(-40, 40, 80001)
    below = ndtr(grid / deviation)
    expected = float(np.square(below - (grid >= error)).sum() * (grid[1] - grid[0]))
    ours = metrics.crps_gaussian(np.zeros(1), np.full(1, deviation), np.full(1, error), np.ones(1, dtype=bool))
    assert ours == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_crps_prefers_the_true_spread(factor: float) -> None:
    truth = np.random.default_rng(0).normal(size=5000)
    zeros, cells = np.zeros(5000), np.ones(5000, dtype=bool)
    right = metrics.crps_gaussian(zeros, np.ones(5000), truth, cells)
    assert right < metrics.crps_gaussian(zeros, np.full(5000, factor), truth, cells)


def test_crps_of_a_certain_prediction_is_its_absolute_error() -> None:
    assert metrics.crps_gaussian(FILLED, np.zeros((2, 2)), TRUTH, CELLS) == metrics.mae(FILLED, TRUTH, CELLS)
    draws = np.stack([FILLED, FILLED, FILLED])
    assert metrics.crps_samples(draws, TRUTH, CELLS) == metrics.mae(FILLED, TRUTH, CELLS)


def test_crps_of_two_draws_by_hand() -> None:
    assert metrics.crps_samples([[0.0], [2.0]], [1.0], [True]) == 1.0 - 1.0


def test_crps_refuses_what_is_no_distribution() -> None:
    with pytest.raises(ValueError, match="deviation must be at least 0"):
        metrics.crps_gaussian(FILLED, -np.ones((2, 2)), TRUTH, CELLS)
    with pytest.raises(ValueError, match="samples must hold at least two draws"):
        metrics.crps_samples(FILLED[None], TRUTH, CELLS)

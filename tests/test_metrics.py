"""Errors over chosen cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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

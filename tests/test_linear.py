"""Linear interpolation in time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from imputers import gappy

from fastimpute import LinearImputer

NAN = float("nan")


def fill(*values: float) -> list[float]:
    return LinearImputer().fit_transform(np.array(values)[:, None])[:, 0].round(5).tolist()


def test_gap_is_a_straight_line() -> None:
    assert fill(1, NAN, NAN, 4) == [1, 2, 3, 4]


def test_ends_take_the_nearest_observation() -> None:
    assert fill(NAN, NAN, 2, 5, NAN) == [2, 2, 2, 5, 5]


def test_a_single_observation_fills_all() -> None:
    assert fill(NAN, 7, NAN) == [7, 7, 7]


def test_equals_what_pandas_computes() -> None:
    X = gappy(rows=300, sensors=7, rate=0.5)
    expected = pd.DataFrame(X).interpolate(limit_direction="both").to_numpy()
    np.testing.assert_allclose(LinearImputer().fit_transform(X), expected, rtol=1e-5)


def test_samples_do_not_see_one_another() -> None:
    X = np.array([[[0.0], [NAN]], [[NAN], [10.0]]])
    assert LinearImputer().fit_transform(X)[:, :, 0].tolist() == [[0, 0], [10, 10]]


def test_a_sample_without_observation_gets_the_mean() -> None:
    X = np.array([[[0.0], [10.0]], [[NAN], [NAN]]])
    assert LinearImputer().fit_transform(X)[1, :, 0].tolist() == [5, 5]

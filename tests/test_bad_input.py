"""Input nobody can impute: every refusal names what is wrong and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from imputers import FACTORIES, Factory, gappy, gappy_frame
from scipy import sparse


@pytest.fixture(params=list(FACTORIES))
def imputer(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 4, 2), (2, 0, 2)])
def test_empty_array(imputer: Factory, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="X is empty: shape"):
        imputer().fit(np.empty(shape))


def test_empty_frame(imputer: Factory) -> None:
    with pytest.raises(ValueError, match="X is empty: 0 rows, 2 columns"):
        imputer().fit(pd.DataFrame({"a": [], "b": []}))


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2, 2), ()])
def test_wrong_number_of_dimensions(imputer: Factory, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be 2-D .* or 3-D"):
        imputer().fit(np.ones(shape))


def test_one_dimension_says_how_to_reshape(imputer: Factory) -> None:
    with pytest.raises(ValueError, match=r"X\.reshape\(-1, 1\)"):
        imputer().fit(np.ones(3))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_in_an_array(imputer: Factory, value: float) -> None:
    X = gappy()
    X[7, 2] = value
    with pytest.raises(ValueError, match="column 2 holds an infinity at row 7"):
        imputer().fit(X)


def test_infinity_in_a_frame_is_named(imputer: Factory) -> None:
    X = gappy_frame()
    X.iloc[7, 2] = np.inf
    with pytest.raises(ValueError, match=r"column 's2' holds an infinity at row 7 \(1 in all\)"):
        imputer().fit(X)
    with pytest.raises(ValueError, match="column 's2'"):
        imputer().fit(gappy_frame()).transform(X)


def test_text_column(imputer: Factory) -> None:
    with pytest.raises(ValueError, match=r"column 'road' is not numeric .*to_numeric"):
        imputer().fit(gappy_frame().assign(road="I5"))


def test_column_of_objects(imputer: Factory) -> None:
    with pytest.raises(ValueError, match="column 's1' is not numeric"):
        imputer().fit(gappy_frame().astype({"s1": object}))


def test_time_stamps_in_a_column(imputer: Factory) -> None:
    with pytest.raises(ValueError, match=r"column 'time' holds time stamps: make it the index with X.set_index"):
        imputer().fit(gappy_frame().reset_index())


@pytest.mark.parametrize("array", [np.array([["a", "b"]]), np.array([[1.0, "b"]], dtype=object)])
def test_text_in_an_array(imputer: Factory, array: Any) -> None:
    with pytest.raises(ValueError, match=r"column \d is not numeric: row 0 holds '"):
        imputer().fit(array)


@pytest.mark.parametrize("array", [np.ones((2, 2), complex), torch.ones((2, 2), dtype=torch.complex64)])
def test_complex_numbers(imputer: Factory, array: Any) -> None:
    with pytest.raises(ValueError, match="complex"):
        imputer().fit(array)


def test_column_that_appears_twice(imputer: Factory) -> None:
    with pytest.raises(ValueError, match="column 's1' appears more than once"):
        imputer().fit(gappy_frame().set_axis(["s0", "s1", "s1", "s3"], axis=1))


@pytest.mark.parametrize("X", [[[1.0, 2.0]], "table.csv", None, sparse.eye(3), pd.Series([1.0])])
def test_unknown_type(imputer: Factory, X: Any) -> None:
    with pytest.raises(TypeError, match="X must be a numpy array"):
        imputer().fit(X)


def test_masked_array_says_how_to_mark_missing_cells(imputer: Factory) -> None:
    with pytest.raises(TypeError, match=r"X\.filled\(numpy\.nan\)"):
        imputer().fit(np.ma.masked_invalid(gappy()))


def test_dictionary_without_x(imputer: Factory) -> None:
    with pytest.raises(ValueError, match=r"under the key 'X', got keys \['x'\]"):
        imputer().fit({"x": gappy()})


# ---- time stamps ---------------------------------------------------------------------------------------------------


def test_duplicate_time_stamps(imputer: Factory) -> None:
    X = gappy_frame()
    X.index = X.index.where(np.arange(len(X)) != 5, X.index[4])
    with pytest.raises(ValueError, match=r"duplicate time stamps: row 5 is 2026-01-05 00:20:00.*duplicated"):
        imputer().fit(X)


def test_unsorted_time_stamps(imputer: Factory) -> None:
    with pytest.raises(ValueError, match=r"unsorted time stamps: row 1 .*sort_index"):
        imputer().fit(gappy_frame().iloc[::-1])


def test_irregular_time_stamps(imputer: Factory) -> None:
    with pytest.raises(ValueError, match=r"irregular time stamps .*0 days 00:05:00.*: row 9 .*asfreq"):
        imputer().fit(gappy_frame().drop(gappy_frame().index[9]))


def test_missing_time_stamp(imputer: Factory) -> None:
    X = gappy_frame()
    X.index = X.index.where(np.arange(len(X)) != 3)
    with pytest.raises(ValueError, match="time stamp of row 3 is missing"):
        imputer().fit(X)


def test_bad_time_stamps_of_a_dataarray(imputer: Factory) -> None:
    X = xr.DataArray(gappy_frame().iloc[::-1], dims=("time", "sensor"))
    with pytest.raises(ValueError, match="unsorted time stamps"):
        imputer().fit(X)


def test_clock_change_in_local_time_is_named(imputer: Factory) -> None:
    index = pd.date_range("2026-03-08", periods=60, freq="5min", tz="America/Los_Angeles").tz_localize(None)
    with pytest.raises(ValueError, match=r"irregular time stamps .* row 24 is 2026-03-08 03:00:00"):
        imputer().fit(gappy_frame().set_axis(index, axis=0))


def test_clock_change_with_a_time_zone_is_regular(imputer: Factory) -> None:
    index = pd.date_range("2026-03-08", periods=60, freq="5min", tz="America/Los_Angeles")
    assert imputer().fit_transform(gappy_frame().set_axis(index, axis=0)).index.equals(index)

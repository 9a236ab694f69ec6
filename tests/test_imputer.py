"""What every imputer does, whatever its method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from imputers import FACTORIES, Factory, gappy, gappy_frame
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastimpute import LinearImputer
from fastimpute.imputer import NotFittedError


@pytest.fixture(params=list(FACTORIES))
def imputer(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


def same_bits(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> bool:
    return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


# ---- the type that comes in comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f8"])
def test_array_keeps_dtype_and_observed_bits(imputer: Factory, dtype: Any) -> None:
    X = gappy().astype(dtype)
    filled = imputer().fit_transform(X)
    seen = ~np.isnan(X)
    assert type(filled) is np.ndarray
    assert filled.dtype == X.dtype
    assert filled[seen].tobytes() == X[seen].tobytes()
    assert np.isfinite(filled).all()


def test_input_is_not_changed(imputer: Factory) -> None:
    X = gappy()
    before = X.copy()
    imputer().fit_transform(X)
    assert same_bits(X, before)


def test_read_only_input_works(imputer: Factory) -> None:
    X = gappy()
    X.setflags(write=False)
    filled = imputer().fit_transform(X)
    assert filled.flags.writeable
    assert np.isfinite(filled).all()


def test_fortran_order_gives_the_same_and_stays(imputer: Factory) -> None:
    X = gappy()
    filled = imputer().fit_transform(np.asfortranarray(X))
    assert filled.flags.f_contiguous
    np.testing.assert_array_equal(filled, imputer().fit_transform(X))


def test_strided_view_works(imputer: Factory) -> None:
    X = gappy(rows=120, sensors=8)
    np.testing.assert_array_equal(imputer().fit_transform(X[::2, ::2]), imputer().fit_transform(X[::2, ::2].copy()))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_integers_lack_nothing_and_come_back_as_they_were(imputer: Factory, dtype: Any) -> None:
    X = (np.arange(40).reshape(20, 2) % 2).astype(dtype)
    assert same_bits(imputer().fit_transform(X), X)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensor_comes_back_as_tensor(imputer: Factory, dtype: torch.dtype) -> None:
    X = torch.from_numpy(gappy()).to(dtype)
    filled = imputer().fit_transform(X)
    seen = ~torch.isnan(X)
    assert filled.dtype == dtype
    assert torch.equal(filled[seen], X[seen])
    assert torch.isfinite(filled).all()


def test_tensor_that_requires_grad_comes_back_without(imputer: Factory) -> None:
    X = torch.from_numpy(gappy()).requires_grad_()
    assert not imputer().fit_transform(X).requires_grad


def test_frame_keeps_index_columns_and_attributes(imputer: Factory) -> None:
    X = gappy_frame()
    X.attrs["unit"] = "mph"
    filled = imputer().fit_transform(X)
    assert filled.index.equals(X.index)
    assert filled.index.freq == X.index.freq
    assert filled.columns.equals(X.columns)
    assert (filled.dtypes == X.dtypes).all()
    assert filled.attrs == X.attrs
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(filled.where(X.notna()), X)


def test_frame_of_mixed_types_keeps_each(imputer: Factory) -> None:
    X = gappy_frame()
    X["single"] = X["s0"].astype(np.float32)
    X["count"] = np.arange(len(X))
    X["nullable"] = X["s1"].astype("Float64")
    filled = imputer().fit_transform(X)
    assert (filled.dtypes == X.dtypes).all()
    assert filled["count"].equals(X["count"])
    assert not filled.isna().any(axis=None)


@pytest.mark.filterwarnings("ignore:.*window.*")
def test_nullable_integers_become_floating_where_filled(imputer: Factory) -> None:
    X = pd.DataFrame({"a": pd.array([1, None, 3, 5], dtype="Int64"), "b": pd.array([1, 2, 3, 4], dtype="Int64")})
    filled = imputer().fit_transform(X)
    assert str(filled["a"].dtype) == "Float64"
    assert str(filled["b"].dtype) == "Int64"
    assert filled["a"].notna().all()


def test_arrow_columns_stay_arrow(imputer: Factory) -> None:
    X = gappy_frame().astype("float32[pyarrow]")
    filled = imputer().fit_transform(X)
    assert (filled.dtypes == X.dtypes).all()
    assert not filled.isna().any(axis=None)


def test_integer_and_tuple_column_names_stay(imputer: Factory) -> None:
    X = gappy_frame().set_axis(pd.MultiIndex.from_product([["I5", "I10"], [1, 2]]), axis=1)
    assert imputer().fit_transform(X).columns.equals(X.columns)
    assert imputer().fit_transform(X.set_axis([773869, 1, 2, 3], axis=1)).columns.tolist() == [773869, 1, 2, 3]


def test_dataarray_keeps_dims_coords_and_order(imputer: Factory) -> None:
    frame = gappy_frame()
    X = xr.DataArray(frame.to_numpy().T, dims=("sensor", "time"), coords={"time": frame.index, "sensor": frame.columns})
    filled = imputer().fit_transform(X)
    assert filled.dims == X.dims
    assert filled.coords.equals(X.coords)
    np.testing.assert_array_equal(filled.values.T, imputer().fit_transform(frame).to_numpy())


def test_samples_keep_their_shape(imputer: Factory) -> None:
    X = gappy(rows=60).reshape(5, 12, 4)
    filled = imputer().fit_transform(X)
    assert filled.shape == X.shape
    assert np.isfinite(filled).all()
    assert same_bits(filled[~np.isnan(X)], X[~np.isnan(X)])


def test_dictionary_keeps_its_other_entries(imputer: Factory) -> None:
    X = {"X": gappy(rows=60).reshape(5, 12, 4), "y": "label"}
    filled = imputer().fit_transform(X)
    assert set(filled) == {"X", "y"}
    assert filled["y"] == "label"
    assert np.isfinite(filled["X"]).all()
    assert np.isnan(X["X"]).any()


SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
NUMBERS = st.floats(-1e100, 1e100) | st.sampled_from([0.0, -0.0, 5e-324, 1e-300])


@given(data=st.data(), shape=SHAPES, dtype=st.sampled_from([np.float16, np.float32, np.float64]))
@settings(max_examples=60, deadline=None)
def test_observed_bits_survive_any_values(data: st.DataObject, shape: tuple[int, int], dtype: type) -> None:
    with np.errstate(over="ignore"):
        limit = float(np.finfo(dtype).max)
        X = np.clip(data.draw(hnp.arrays(np.float64, shape, elements=NUMBERS)), -limit, limit).astype(dtype)
    X[data.draw(hnp.arrays(bool, shape))] = np.nan
    X[0] = np.where(np.isnan(X[0]), 1, X[0])
    filled = LinearImputer().fit_transform(X)
    seen = ~np.isnan(X)
    assert filled[seen].tobytes() == X[seen].tobytes()
    assert np.isfinite(filled).all()


# ---- what is filled in ---------------------------------------------------------------------------------------------


def test_all_observed_returns_the_input(imputer: Factory) -> None:
    X = gappy(rate=0.0)
    fitted = imputer().fit(X)
    assert same_bits(imputer().fit_transform(X), X)
    assert same_bits(fitted.transform(X), X)


def test_a_frame_without_gaps_comes_back_as_it_was(imputer: Factory) -> None:
    complete = gappy_frame(rate=0.0)
    pd.testing.assert_frame_equal(imputer().fit(gappy_frame()).transform(complete), complete, check_exact=True)


def test_ninety_five_percent_missing_is_filled(imputer: Factory) -> None:
    X = gappy(rows=200, rate=0.95)
    assert np.isfinite(imputer().fit_transform(X)).all()


def test_a_window_without_any_observation_is_filled(imputer: Factory) -> None:
    X = gappy(rows=100)
    X[30:70] = np.nan
    assert np.isfinite(imputer().fit_transform(X)).all()


def test_constant_sensor_is_filled_with_its_constant(imputer: Factory) -> None:
    X = gappy()
    X[:, 1] = np.where(np.isnan(X[:, 1]), np.nan, 0.1)
    assert (imputer().fit_transform(X)[:, 1] == 0.1).all()


def test_one_sensor(imputer: Factory) -> None:
    assert np.isfinite(imputer().fit_transform(gappy(sensors=1))).all()


@pytest.mark.filterwarnings("ignore:.*window.*")
@pytest.mark.parametrize("rows", [2, 3, 5])
def test_fewer_rows_than_a_window(imputer: Factory, rows: int) -> None:
    X = gappy(rows=max(rows, 3), rate=0.0)[:rows]
    X[-1, 0] = np.nan
    assert np.isfinite(imputer().fit_transform(X)).all()


@pytest.mark.filterwarnings("ignore:.*window.*")
def test_one_row(imputer: Factory) -> None:
    row = np.array([[1.0, 2.0, 3.0]])
    assert same_bits(imputer().fit_transform(row), row)
    fitted = imputer().fit(gappy(sensors=3))
    assert np.isfinite(fitted.transform(np.array([[1.0, np.nan, 3.0]]))).all()


@pytest.mark.parametrize("size", [1e-30, 1e30, 1e300])
def test_any_magnitude_works(imputer: Factory, size: float) -> None:
    small = imputer().fit_transform(gappy())
    np.testing.assert_allclose(imputer().fit_transform(gappy() * size) / size, small, rtol=1e-4)


def test_half_precision_never_overflows(imputer: Factory) -> None:
    X = np.full((20, 2), 65504.0, dtype=np.float16)
    X[::2] = -65504.0
    X[5:9, 0] = np.nan
    assert np.isfinite(imputer().fit_transform(X)).all()


def test_result_does_not_depend_on_the_dtype_beyond_rounding(imputer: Factory) -> None:
    X = gappy().astype(np.float32)
    wide = imputer().fit_transform(X.astype(np.float64))
    np.testing.assert_allclose(imputer().fit_transform(X), wide, rtol=1e-5)


def test_same_seed_same_bits(imputer: Factory) -> None:
    X = gappy()
    assert same_bits(imputer().fit_transform(X), imputer().fit_transform(X))


# ---- sensors without any observation -------------------------------------------------------------------------------


def test_sensor_without_observation_is_refused_by_name(imputer: Factory) -> None:
    X = gappy_frame()
    X["s2"] = np.nan
    with pytest.raises(ValueError, match=r"column 's2' has no observed value.*all_missing"):
        imputer().fit(X)


def test_sensor_without_observation_can_stay_missing(imputer: Factory) -> None:
    X = gappy_frame()
    X["s2"] = np.nan
    filled = imputer(all_missing="keep").fit_transform(X)
    assert filled["s2"].isna().all()
    assert filled.drop(columns="s2").notna().all(axis=None)


def test_sensor_without_observation_can_take_the_mean_of_the_others(imputer: Factory) -> None:
    X = gappy_frame()
    X["s2"] = np.nan
    filled = imputer(all_missing="mean_of_neighbors").fit_transform(X)
    np.testing.assert_allclose(filled["s2"], filled.drop(columns="s2").mean(axis=1))


def test_sensor_silent_only_in_new_data_is_filled(imputer: Factory) -> None:
    X = gappy_frame()
    later = X.set_axis(X.index + pd.Timedelta("7D"), axis=0)
    later["s2"] = np.nan
    assert imputer().fit(X).transform(later).notna().all(axis=None)


def test_nothing_observed_at_all_is_refused(imputer: Factory) -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 2\) has no observed cell"):
        imputer(all_missing="keep").fit(np.full((5, 2), np.nan))


def test_unknown_treatment_is_refused(imputer: Factory) -> None:
    with pytest.raises(ValueError, match="all_missing must be one of raise, mean_of_neighbors, keep, got 'drop'"):
        imputer(all_missing="drop").fit(gappy())


# ---- new data ------------------------------------------------------------------------------------------------------


def test_transform_before_fit_is_refused(imputer: Factory) -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        imputer().transform(gappy())


def test_transform_uses_the_scale_of_fit(imputer: Factory) -> None:
    fitted = imputer().fit(gappy())
    later = gappy(seed=1)
    assert np.isfinite(fitted.transform(later)).all()
    assert fitted.n_features_in_ == 4


def test_other_number_of_sensors_is_refused(imputer: Factory) -> None:
    with pytest.raises(ValueError, match="X has 3 sensors, but the imputer was fitted on 4"):
        imputer().fit(gappy()).transform(gappy(sensors=3))


def test_other_sensors_are_refused_by_name(imputer: Factory) -> None:
    X = gappy_frame()
    with pytest.raises(ValueError, match="'s3' is absent, 'new' is new"):
        imputer().fit(X).transform(X.rename(columns={"s3": "new"}))


def test_sensors_in_another_order_are_refused(imputer: Factory) -> None:
    X = gappy_frame()
    with pytest.raises(ValueError, match="another order"):
        imputer().fit(X).transform(X[["s1", "s0", "s2", "s3"]])


# ---- scikit-learn --------------------------------------------------------------------------------------------------


def test_clone_has_the_settings_and_no_fit(imputer: Factory) -> None:
    original = imputer(all_missing="keep").fit(gappy())
    for copy in (clone(original), original.clone()):
        assert copy.get_params() == original.get_params()
        with pytest.raises(NotFittedError):
            copy.transform(gappy())


def test_set_params_refuses_unknown_names(imputer: Factory) -> None:
    assert imputer().set_params(all_missing="keep").get_params()["all_missing"] == "keep"
    with pytest.raises(ValueError, match="has no parameter 'colour'"):
        imputer().set_params(colour="red")


def test_works_in_a_pipeline(imputer: Factory) -> None:
    pipeline = make_pipeline(imputer(), StandardScaler())
    out = pipeline.fit(gappy()).transform(gappy(seed=1))
    assert np.isfinite(out).all()
    assert "Pipeline" in repr(pipeline)


def test_names_go_through(imputer: Factory) -> None:
    assert imputer().fit(gappy_frame()).get_feature_names_out().tolist() == ["s0", "s1", "s2", "s3"]
    assert imputer().fit(gappy(sensors=2)).get_feature_names_out().tolist() == ["x0", "x1"]


def test_repr_shows_what_was_changed(imputer: Factory) -> None:
    assert "all_missing='keep'" in repr(imputer(all_missing="keep"))


# ---- interrupts ----------------------------------------------------------------------------------------------------


def test_interrupted_fit_leaves_the_imputer_as_it_was(imputer: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    X, later = gappy(), gappy(seed=1)
    fresh, fitted = imputer(), imputer().fit(X)
    before = fitted.transform(later)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(fitted), "_fit_series", interrupt)
    monkeypatch.setattr(type(fitted), "_fit_impute_series", interrupt)
    for broken in (fresh, fitted):
        with pytest.raises(KeyboardInterrupt):
            broken.fit(gappy(sensors=2))
        with pytest.raises(KeyboardInterrupt):
            broken.fit_transform(gappy(sensors=2))
    with pytest.raises(NotFittedError):
        fresh.transform(X)
    assert same_bits(fitted.transform(later), before)
    assert same_bits(X, gappy())

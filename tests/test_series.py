"""Series: standardised values, what is missing, and what the time index says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from imputers import gappy, gappy_frame

from fastimpute.series import Scaler, Series
from fastimpute.timestamps import Calendar

TABLES = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10),
    elements=st.floats(-1e6, 1e6) | st.just(float("nan")),
)


@given(raw=TABLES)
@settings(max_examples=60, deadline=None)
def test_standardised_values_have_mean_zero_and_deviation_one_or_zero(raw: np.ndarray) -> None:
    series = Series.read(raw)
    for column in np.flatnonzero(~series.missing.all(axis=0)):
        seen = series.values[~series.missing[:, column], column].astype(np.float64)
        spread = np.ptp(raw[~series.missing[:, column], column])
        if spread > max(1e-300, 1e-3 * np.nanmax(np.abs(raw[:, column]))):
            assert abs(seen.mean()) < 1e-4
            assert abs(seen.std() - 1) < 1e-4


@given(raw=TABLES)
@settings(max_examples=60, deadline=None)
def test_unscaling_inverts_standardising(raw: np.ndarray) -> None:
    series = Series.read(raw)
    back = series.scaler.unscale(series.values)
    seen = ~series.missing
    spread = np.nan_to_num(series.scaler.std)[None].repeat(len(raw), axis=0)
    # Below 1e-300 numbers have no digits left to scale.
    assert (np.abs(back - raw)[seen] <= 1e-5 * spread[seen] + 1e-12 * np.abs(raw[seen]) + 1e-300).all()


def test_values_are_float32_contiguous_and_zero_where_missing() -> None:
    series = Series.read(np.asfortranarray(gappy()))
    assert series.values.dtype == np.float32
    assert series.values.flags.c_contiguous
    assert series.missing.flags.c_contiguous
    assert (series.values[series.missing] == 0).all()


def test_scaler_sees_observed_cells_only() -> None:
    raw = np.array([[1.0], [3.0], [999.0]])
    scaler = Scaler.fit(raw, np.array([[False], [False], [True]]))
    assert (scaler.mean[0], scaler.std[0]) == (2.0, 1.0)


def test_scaler_of_a_constant_is_exact_and_of_nothing_is_nan() -> None:
    scaler = Scaler.fit(np.array([[0.1, np.nan]] * 7), np.array([[False, True]] * 7))
    assert (scaler.mean[0], scaler.std[0]) == (0.1, 0.0)
    assert np.isnan([scaler.mean[1], scaler.std[1]]).all()


def test_many_columns_are_scaled_like_few() -> None:
    raw = gappy(rows=20, sensors=600)
    missing = np.isnan(raw)
    np.testing.assert_allclose(Scaler.fit(raw, missing).mean, np.nanmean(raw, axis=0))
    np.testing.assert_allclose(Scaler.fit(raw, missing).std, np.nanstd(raw, axis=0))


def test_samples_become_segments() -> None:
    series = Series.read(np.ones((3, 5, 2)))
    assert series.shape == (15, 2)
    assert series.segments.tolist() == [[0, 5], [5, 10], [10, 15]]
    assert Series.read(np.ones((4, 2))).segments.tolist() == [[0, 4]]


def test_select_keeps_what_belongs_to_the_sensors() -> None:
    series = Series.read(gappy_frame())
    part = series.select(np.array([2, 0]))
    assert part.names == ("s2", "s0")
    np.testing.assert_array_equal(part.values, series.values[:, [2, 0]])
    assert part.scaler.mean.tolist() == series.scaler.mean[[2, 0]].tolist()


def test_without_time_stamps_there_is_no_calendar() -> None:
    assert Series.read(gappy()).calendar is None
    assert Series.read(gappy_frame().reset_index(drop=True)).calendar is None


def test_calendar_knows_step_day_week_and_year() -> None:
    index = pd.DatetimeIndex(["2026-01-05 00:00", "2026-01-05 12:00", "2026-01-06 00:00", "2026-01-06 12:00"])
    calendar = Calendar.from_index(index)
    assert calendar.step_seconds == 43200
    assert calendar.day_phase.tolist() == [0.0, 0.5, 0.0, 0.5]
    np.testing.assert_allclose(calendar.week_phase, np.array([0, 0.5, 1, 1.5]) / 7)
    np.testing.assert_allclose(calendar.year_phase, np.array([4, 4.5, 5, 5.5]) / 365)


@given(st.integers(0, 3000), st.sampled_from(["1s", "5min", "1h", "1D", "7D"]), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_phases_lie_in_zero_to_one(day: int, step: str, rows: int) -> None:
    calendar = Calendar.from_index(pd.date_range(pd.Timestamp("2020-01-01") + pd.Timedelta(days=day), None, rows, step))
    for phase in (calendar.day_phase, calendar.week_phase, calendar.year_phase):
        assert phase.min() >= 0
        assert phase.max() < 1
    assert calendar.step_seconds == (pd.Timedelta(step).total_seconds() if rows > 1 else 0)


@pytest.mark.parametrize("frequency", ["MS", "ME", "B", "QS", "YS"])
def test_calendar_months_and_business_days_are_regular(frequency: str) -> None:
    assert Calendar.from_index(pd.date_range("2020-01-01", periods=30, freq=frequency)).step_seconds > 0


def test_period_index_is_a_time_index() -> None:
    X = gappy_frame().set_axis(pd.period_range("2026-01-05", periods=60, freq="5min"), axis=0)
    calendar = Series.read(X).calendar
    assert calendar is not None
    assert calendar.step_seconds == 300


def test_phase_follows_the_clock_on_the_wall() -> None:
    index = pd.date_range("2026-01-05", periods=2, freq="1h", tz="Asia/Tokyo")
    assert Calendar.from_index(index).day_phase.tolist() == [0.0, 1 / 24]

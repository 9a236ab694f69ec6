"""What SPIRIT chooses from the data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fastimpute.profile import Period
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, choose_stride, choose_window, patch_table, starts_of


def frame(rows: int, step: str) -> pd.DataFrame:
    table = np.random.default_rng(0).normal(size=(rows, 3))
    table[5, 1] = np.nan
    return pd.DataFrame(table, index=pd.date_range("2026-01-05", periods=rows, freq=step))


def test_windows_never_cross_the_border_of_a_segment() -> None:
    segments = np.array([[0, 10], [10, 23]])
    starts = starts_of(segments, window=4, stride=3)
    assert all(any(first <= start and start + 4 <= stop for first, stop in segments) for start in starts)
    assert {6, 19} <= set(starts.tolist())  # the last window of each segment is flush with its end


def test_window_is_at_most_half_of_the_shortest_segment() -> None:
    assert choose_window(np.ones((20, 3), bool), np.array([[0, 14], [14, 20]])) == 3


def test_stride_grows_with_the_number_of_patches_but_leaves_three_windows_to_a_cell() -> None:
    assert choose_stride(12, rows=1_000, groups=1) == 1
    assert choose_stride(48, rows=1_000, groups=1) == 4
    assert choose_stride(48, rows=10_000_000, groups=100) == 16


def test_calendar_cycles_are_those_seen_twice() -> None:
    assert Cycles.of(Series.read(frame(3 * 288, "5min")), Period()).calendar == ("day",)
    assert Cycles.of(Series.read(frame(24 * 20, "h")), Period()).calendar == ("day", "week")
    assert Cycles.of(Series.read(frame(30, "D")), Period()).calendar == ("week",)


def test_found_periods_serve_where_there_are_no_time_stamps() -> None:
    series = Series.read(frame(800, "h").to_numpy())
    cycles = Cycles.of(series, Period(24, 168))
    assert cycles.rows == (24, 168)
    assert cycles.phases(series)[0][25] == pytest.approx(1 / 24)


def test_cycles_of_time_stamps_cannot_be_read_off_bare_numbers() -> None:
    cycles = Cycles.of(Series.read(frame(24 * 20, "h")), Period())
    with pytest.raises(ValueError, match="X has no time stamps"):
        cycles.phases(Series.read(frame(24 * 20, "h").to_numpy()))


def test_series_shorter_than_a_window_names_both() -> None:
    series = Series.read(frame(10, "h"))
    with pytest.raises(ValueError, match=r"at least 12 rows .* got 10"):
        patch_table(Patches(12, 1, np.arange(3)[None]), series, Cycles())


def test_conditions_have_the_width_that_the_cycles_announce() -> None:
    series = Series.read(frame(24 * 20, "h"))
    cycles = Cycles.of(series, Period())
    table = patch_table(Patches(6, 2, np.arange(3)[None]), series, cycles)
    assert table.conditions.shape[1] == cycles.features
    assert table.condition_index.max() < len(table.conditions)

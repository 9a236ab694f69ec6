import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastimpute.patches import all_columns, cell_table, correlation, neighbours, window_starts


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 60))
def test_windows_cover_every_row_and_end_with_the_series(steps: int, window: int, stride: int) -> None:
    window = min(window, steps)
    starts = window_starts(steps, window, min(stride, window))
    covered = np.zeros(steps, bool)
    for start in starts:
        covered[start : start + window] = True
    assert covered.all()
    assert starts[-1] + window == steps
    assert (np.diff(starts) > 0).all()


@pytest.mark.parametrize(("steps", "window", "stride"), [(5, 6, 1), (5, 0, 1), (5, 3, 0)])
def test_impossible_windows_are_refused(steps: int, window: int, stride: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        window_starts(steps, window, stride)


def test_cells_of_a_patch_go_by_time_before_sensor() -> None:
    series = np.arange(40, dtype=np.float32).reshape(10, 4)
    starts, columns = np.array([0, 3]), np.array([[1, 0], [3, 2], [0, 3]])
    cells = cell_table(columns, window=5, sensors=4)
    for start in starts:
        for group, column in enumerate(columns):
            expected = series[start : start + 5][:, column].ravel()
            np.testing.assert_array_equal(series.ravel()[start * 4 + cells[group]], expected)


def test_correlation_uses_common_steps_only() -> None:
    rng = np.random.default_rng(0)
    series = rng.normal(size=(500, 3)).astype(np.float32)
    series[:, 1] = 2 * series[:, 0] + 1
    missing = rng.random(series.shape) < 0.4
    found = correlation(np.where(missing, np.float32(1e6), series), missing)
    assert found[0, 1] > 0.98
    assert abs(found[0, 2]) < 0.2


def test_constant_and_empty_sensors_are_related_to_nothing() -> None:
    series = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    series[:, 0] = 3
    missing = np.zeros(series.shape, bool)
    missing[:, 1] = True
    assert not correlation(series, missing)[:2].any()


def test_neighbours_begin_with_the_sensor_itself_and_follow_by_correlation() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=(300, 1))
    series = (base + np.array([0.0, 0.3, 1.0]) * rng.normal(size=(300, 3))).astype(np.float32)
    found = neighbours(series, np.zeros(series.shape, bool), 2)
    assert found[:, 0].tolist() == [0, 1, 2]
    assert found[0].tolist() == [0, 1, 2]


def test_asking_for_all_neighbours_gives_permutations() -> None:
    series = np.random.default_rng(2).normal(size=(60, 5)).astype(np.float32)
    found = neighbours(series, np.zeros(series.shape, bool), 99)
    assert (np.sort(found, axis=1) == all_columns(5)).all()


def test_a_negative_number_of_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        neighbours(np.zeros((5, 2), np.float32), np.zeros((5, 2), bool), -1)

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastimpute.gaps import gap_distance, gap_lengths, hold_out, hold_out_stretches, linear

masks = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 5)))


@given(masks)
def test_distance_is_the_least_number_of_steps_to_an_observation(missing: np.ndarray) -> None:
    found = gap_distance(missing)
    for sensor in range(missing.shape[1]):
        seen = np.flatnonzero(~missing[:, sensor])
        for row in range(len(missing)):
            expected = np.abs(seen - row).min() if len(seen) else len(missing)
            assert found[row, sensor] == expected


@given(masks)
def test_gap_lengths_add_up_to_the_missing_cells(missing: np.ndarray) -> None:
    assert gap_lengths(missing).sum() == missing.sum()


@given(masks)
def test_straight_lines_keep_observations_and_their_range(missing: np.ndarray) -> None:
    values = np.random.default_rng(0).normal(size=missing.shape).astype(np.float32)
    filled = linear(np.where(missing, np.float32(np.nan), values), missing)
    np.testing.assert_array_equal(filled[~missing], values[~missing])
    for sensor in np.flatnonzero(~missing.all(0)):
        seen = values[~missing[:, sensor], sensor]
        assert filled[:, sensor].min() >= seen.min()
        assert filled[:, sensor].max() <= seen.max()


def test_a_sensor_never_seen_becomes_zero() -> None:
    assert not linear(np.full((4, 1), np.nan, np.float32), np.ones((4, 1), bool)).any()


@given(masks, st.integers(0, 5))
def test_held_out_cells_are_observed_and_leave_half_of_each_sensor(missing: np.ndarray, seed: int) -> None:
    held = hold_out(missing, 0.3, seed)
    assert not (held & missing).any()
    assert (2 * held.sum(0) <= (~missing).sum(0)).all()


def test_held_out_runs_are_as_long_as_the_gaps() -> None:
    missing = np.zeros((2000, 4), bool)
    for start in range(20, 1900, 150):
        missing[start : start + 30] = True
    held = hold_out(missing, 0.1)
    assert held.sum() > 300
    assert np.median(gap_lengths(held)) > 15


def test_the_same_seed_holds_out_the_same_cells() -> None:
    missing = np.random.default_rng(0).random((300, 4)) < 0.3
    np.testing.assert_array_equal(hold_out(missing, seed=3), hold_out(missing, seed=3))
    assert (hold_out(missing, seed=3) != hold_out(missing, seed=4)).any()


def stretches(rows: int, length: int) -> np.ndarray:
    first = np.arange(0, rows, length)
    return np.stack([first, np.minimum(first + length, rows)], 1)


@given(masks, st.integers(1, 10), st.integers(0, 5), st.integers(0, 100))
def test_stretches_hide_observed_cells_of_so_many_windows_only(
    missing: np.ndarray, length: int, count: int, seed: int
) -> None:
    rows = stretches(len(missing), length)
    held = hold_out_stretches(missing, rows, count, seed)
    assert not (held & missing).any()
    assert sum(held[first:last].any() for first, last in rows) <= count


def test_stretches_are_hidden_as_densely_as_the_gaps_are() -> None:
    missing = np.random.default_rng(0).random((4000, 5)) < 0.3
    rows = stretches(len(missing), 20)
    held = hold_out_stretches(missing, rows, 50)
    taken = np.array([held[first:last].any() for first, last in rows])
    assert 45 <= taken.sum() <= 50
    seen = ~missing.reshape(200, 20, 5)[taken]
    assert abs(held.reshape(200, 20, 5)[taken][seen].mean() - 0.3) < 0.05


def test_stretches_of_data_without_gaps_lose_a_tenth() -> None:
    held = hold_out_stretches(np.zeros((400, 5), bool), stretches(400, 20), 20)
    assert abs(held.mean() - 0.1) < 0.03


def test_cells_held_out_lie_in_long_gaps_as_often_as_missing_ones_do() -> None:
    """Many single cells and a few outages: half of what is missing is far from any observation."""
    rng = np.random.default_rng(0)
    missing = rng.random((4000, 10)) < 0.04
    for start in range(100, 4000, 400):
        missing[start : start + 16, :] = True
    held = hold_out(missing, seed=0)
    far = [
        float((gap_distance(hidden)[cells] > 2).mean())
        for hidden, cells in ((missing, missing), (missing | held, held))
    ]
    assert far[0] > 0.3
    assert abs(far[1] - far[0]) < 0.1


def test_the_layout_of_the_mask_in_memory_changes_nothing() -> None:
    missing = np.random.default_rng(0).random((300, 4)) < 0.3
    held = hold_out(missing)
    assert held.any()
    np.testing.assert_array_equal(hold_out(np.asfortranarray(missing)), held)

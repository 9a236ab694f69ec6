import numpy as np
import pytest
import torch

from fastimpute.start import choose_start, linear


def traffic(steps: int = 24 * 40, sensors: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    t = np.arange(steps)[:, None]
    common = np.convolve(rng.normal(size=steps + 10), np.ones(11) / 3, "valid")[:, None]
    series = np.sin(2 * np.pi * t / 24) + 0.7 * common + 0.1 * rng.normal(size=(steps, sensors))
    return ((series - series.mean(0)) / series.std(0)).astype(np.float32)


def blocks(shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(1)
    missing = np.zeros(shape, bool)
    while missing.mean() < 0.3:
        row, sensor = rng.integers(shape[0]), rng.integers(shape[1])
        missing[row : row + rng.integers(12, 49), sensor] = True
    return missing


@pytest.mark.parametrize("kind", ["points", "blocks"])
def test_the_start_beats_lines_and_knows_it(kind: str) -> None:
    series = traffic()
    missing = np.random.default_rng(2).random(series.shape) < 0.3 if kind == "points" else blocks(series.shape)
    start = choose_start(series, missing)
    error = np.abs(start.filled - series)[missing].mean()
    assert error < 0.6 * np.abs(linear(series, missing) - series)[missing].mean()
    assert start.scores["blend"][0] < 0.6 * start.scores["linear"][0]
    assert start.scores["blend"][0] == pytest.approx(error, rel=0.5)


def test_observed_cells_are_bit_identical_and_held_out_ones_unseen_in_the_trial() -> None:
    series, missing = traffic(), blocks((24 * 40, 5))
    start = choose_start(np.where(missing, np.float32(np.nan), series), missing)
    np.testing.assert_array_equal(start.filled[~missing], series[~missing])
    assert not (start.holdout & missing).any()
    assert (start.trial[start.holdout] != series[start.holdout]).mean() > 0.99
    assert set(start.candidates) == set(start.finals)


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    series, missing = traffic(400), blocks((400, 5))
    threads = torch.get_num_threads()
    filled = []
    for count in (1, 2):
        torch.set_num_threads(count)
        filled.append(choose_start(series, missing).filled)
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(filled[0], filled[1])


def test_a_given_period_is_used() -> None:
    series, missing = traffic(400), blocks((400, 5))
    start = choose_start(series, missing, period=12, week=84)
    assert (start.period.day, start.period.week) == (12, 84)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 1), (30, 1), (30, 40), (100, 2)])
def test_small_series_are_filled(shape: tuple[int, int]) -> None:
    series = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    start = choose_start(series, np.random.default_rng(1).random(shape) < 0.3)
    assert np.isfinite(start.filled).all()


def test_dead_constant_and_equal_sensors_are_filled() -> None:
    rng = np.random.default_rng(0)
    series = rng.normal(size=(200, 6)).astype(np.float32)
    series[:, 1], series[:, 5] = 0, series[:, 4]
    missing = rng.random(series.shape) < 0.3
    missing[:, 0] = True
    filled = choose_start(series, missing).filled
    assert np.isfinite(filled).all()
    assert np.abs(filled).max() < 10


@pytest.mark.parametrize("share", [0.0, 0.95, 1.0])
def test_any_share_of_missing_cells_is_filled(share: float) -> None:
    series = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    missing = np.random.default_rng(1).random(series.shape) < share
    start = choose_start(series, missing)
    assert np.isfinite(start.filled).all()
    np.testing.assert_array_equal(start.filled[~missing], series[~missing])

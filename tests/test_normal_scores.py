import numpy as np

from fastimpute.normal_scores import NormalScores

RNG = np.random.default_rng(0)


def skewed() -> np.ndarray:
    return np.exp(RNG.normal(size=(2000, 3))).astype(np.float32)


def test_scores_of_skewed_values_are_nearly_normal() -> None:
    values = skewed()
    scores = NormalScores(values, np.zeros(values.shape, bool)).forward(values)
    assert np.abs(scores.mean(0)).max() < 0.05
    assert np.abs(scores.std(0) - 1).max() < 0.1
    assert np.abs(((scores - scores.mean(0)) ** 3).mean(0)).max() < 0.4


def test_the_way_back_undoes_the_way_there() -> None:
    values = skewed()
    maps = NormalScores(values, RNG.random(values.shape) < 0.3)
    np.testing.assert_allclose(maps.backward(maps.forward(values)), values, rtol=1e-3, atol=1e-3)


def test_missing_cells_do_not_enter() -> None:
    values = skewed()
    missing = RNG.random(values.shape) < 0.3
    spoiled = np.where(missing, np.float32(1e6), values)
    np.testing.assert_array_equal(
        NormalScores(values, missing).forward(values), NormalScores(spoiled, missing).forward(values)
    )


def test_the_mean_lies_above_the_median_of_a_right_skewed_forecast() -> None:
    values = skewed()
    maps = NormalScores(values, np.zeros(values.shape, bool))
    scores = np.zeros((10, 3), np.float32)
    assert (maps.backward_mean(scores, np.ones_like(scores)) > maps.backward(scores) + 0.2).all()
    np.testing.assert_allclose(maps.backward_mean(scores, 0 * scores), maps.backward(scores), rtol=1e-5)


def test_sensors_without_spread_keep_their_values() -> None:
    values = np.full((100, 1), 2.5, np.float32)
    maps = NormalScores(values, np.zeros(values.shape, bool))
    np.testing.assert_array_equal(maps.forward(values), values)

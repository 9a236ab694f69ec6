import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastimpute.blend import Blend, Trial, scores, simplex_fit


@given(st.integers(1, 6), st.integers(0, 1000))
def test_weights_lie_on_the_simplex(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = simplex_fit(rng.normal(size=(count, 80)), rng.normal(size=80))
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)


def test_a_perfect_candidate_takes_all_the_weight() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    weights = simplex_fit(np.stack([truth + rng.normal(size=200), truth]), truth)
    assert weights[1] > 0.999


def test_independent_errors_are_averaged() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    weights = simplex_fit(truth + rng.normal(size=(2, 4000)), truth)
    np.testing.assert_allclose(weights, 0.5, atol=0.05)


def make() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """One filling is right near observations, the other deep inside gaps."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(3000, 4)).astype(np.float32)
    hidden = np.zeros(truth.shape, bool)
    for start in range(10, 2900, 60):
        hidden[start : start + 40] = True
    depth = np.zeros(truth.shape, bool)
    for start in range(10, 2900, 60):
        depth[start + 10 : start + 30] = True
    noise = rng.normal(size=truth.shape)
    near = (truth + np.where(depth, noise, 0.1 * noise)).astype(np.float32)
    far = (truth + np.where(depth, 0.1, 1) * rng.normal(size=truth.shape)).astype(np.float32)
    return {"near": near, "far": far}, truth, hidden, hidden


def test_weights_depend_on_the_distance_to_an_observation() -> None:
    candidates, truth, held, hidden = make()
    blend = Blend.fit([Trial(candidates, held, hidden)], truth)
    assert blend.weights[0, 0] > 0.7
    assert blend.weights[-1, 1] > 0.7
    blended = blend.apply(candidates, hidden, truth)
    assert scores(blended, truth, held)[1] < min(scores(one, truth, held)[1] for one in candidates.values())


def test_observed_cells_are_not_touched() -> None:
    candidates, truth, held, hidden = make()
    blended = Blend.fit([Trial(candidates, held, hidden)], truth).apply(candidates, hidden, truth)
    np.testing.assert_array_equal(blended[~hidden], truth[~hidden])


def test_without_held_out_cells_weights_are_equal() -> None:
    candidates, truth, held, hidden = make()
    blend = Blend.fit([Trial(candidates, np.zeros_like(held), hidden)], truth)
    assert (blend.weights == 0.5).all()


def test_a_blend_survives_json() -> None:
    candidates, truth, held, hidden = make()
    blend = Blend.fit([Trial(candidates, held, hidden)], truth)
    again = Blend.from_facts(json.loads(json.dumps(blend.to_facts())))
    assert again.names == blend.names
    np.testing.assert_array_equal(again.weights, blend.weights)


def test_no_candidate_is_refused() -> None:
    _, truth, held, hidden = make()
    with pytest.raises(ValueError, match="trials: expected the same fillings, at least one"):
        Blend.fit([Trial({}, held, hidden)], truth)


def test_trials_that_offer_different_fillings_are_refused() -> None:
    candidates, truth, held, hidden = make()
    with pytest.raises(ValueError, match="trials: expected the same fillings"):
        Blend.fit([Trial(candidates, held, hidden), Trial({"near": truth}, held, hidden)], truth)


def test_a_trial_split_into_two_fits_the_same_blend() -> None:
    candidates, truth, held, hidden = make()
    early = held & (np.arange(len(held)) < 1000)[:, None]
    pooled = Blend.fit([Trial(candidates, early, hidden), Trial(candidates, held & ~early, hidden)], truth)
    np.testing.assert_allclose(pooled.weights, Blend.fit([Trial(candidates, held, hidden)], truth).weights, atol=1e-6)

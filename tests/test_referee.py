"""The referee: the loss is a mean over cells, the verdict knows chance, halves keep gaps whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastimpute.gaps import gap_lengths
from fastimpute.referee import Referee, halves


def random_mask(seed: int, rate: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).random((40, 5)) < rate


@given(st.integers(0, 10_000))
def test_halves_divide_the_held_out_cells_by_whole_gaps(seed: int) -> None:
    held = random_mask(seed)
    first, second = halves(held)
    assert not (first & second).any()
    assert ((first | second) == held).all()
    assert sorted([*gap_lengths(first), *gap_lengths(second)]) == sorted(gap_lengths(held))


def test_loss_counts_absolute_and_squared_error_alike() -> None:
    held = random_mask(0)
    truth = np.zeros((40, 5), np.float32)
    referee = Referee(truth, held, truth + 2)
    assert np.isclose(referee.loss(truth + 4).sum(), 0.5 * (2 + 4))


def test_a_difference_within_chance_is_no_verdict() -> None:
    rng = np.random.default_rng(0)
    held = random_mask(1)
    truth = np.zeros((40, 5), np.float32)
    one, other = (truth + rng.normal(size=truth.shape).astype(np.float32) for _ in range(2))
    referee = Referee(truth, held, one)
    better, worse = sorted((one, other), key=lambda filled: referee.loss(filled).sum())
    assert not referee.clearly_worse(better, worse)
    assert referee.clearly_worse(worse + 3, better)

"""Masks of training windows."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastimpute.train.masking import LookAlike, MixedBlocks, Mixture, RandomCells, hide
from fastimpute.train.windows import PatchSampler, PatchTable


def sampler(rows: int = 40, sensors: int = 2, window: int = 8) -> PatchSampler:
    starts = np.arange(rows - window + 1)
    index = np.zeros(len(starts), np.int64)
    table = PatchTable(starts, np.arange(sensors)[None], window, sensors, torch.zeros(1, 0), index)
    return PatchSampler(table, torch.Generator())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(6, 96), st.integers(1, 4), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_mixed_blocks_hide_at_most_a_sixth_of_each_sensor(window: int, sensors: int, seed: int) -> None:
    hidden = MixedBlocks.scaled(window, sensors).draw(50, generator(seed)).view(50, window, sensors)
    assert bool((hidden.sum(1) >= 1).all())
    assert bool((hidden.sum(1) <= window // 6).all())


def test_blocks_are_as_many_and_as_long_as_asked() -> None:
    hidden = MixedBlocks(40, 2, ((1, 12), (3, 2))).draw(200, generator()).view(200, 40, 2).sum(1)
    assert set(hidden.flatten().tolist()) <= {12, 2, 3, 4, 5, 6}
    assert 0.3 < float((hidden == 12).float().mean()) < 0.7


def test_mixed_blocks_hide_whole_frames_as_well_as_single_sensors() -> None:
    hidden = MixedBlocks.scaled(48, 3).draw(200, generator()).view(200, 48, 3)
    whole = (hidden.all(2) == hidden.any(2)).all(1)
    assert 50 < int(whole.sum()) < 150


def test_random_cells_vary_in_how_many_they_hide() -> None:
    share = RandomCells(400).draw(300, generator()).float().mean(1)
    assert 0 < float(share.min()) < 0.12
    assert 0.7 < float(share.max()) < 0.9


def test_look_alikes_are_patterns_of_the_data() -> None:
    windows = sampler()
    gone = torch.rand(40, 2, generator=generator()) < 0.4
    every = {tuple(row) for row in windows.gather(gone, torch.arange(windows.table.count)).tolist()}
    assert {tuple(row) for row in LookAlike(gone, windows).draw(60, generator(1)).tolist()} <= every


def test_a_mixture_draws_its_parts_by_their_shares() -> None:
    everything = LookAlike(torch.ones(40, 2, dtype=torch.bool), sampler())
    nothing = LookAlike(torch.zeros(40, 2, dtype=torch.bool), sampler())
    drawn = Mixture((everything, nothing), (3.0, 1.0)).draw(400, generator()).all(1)
    assert 270 < int(drawn.sum()) < 330


def test_own_gaps_are_never_judged_and_half_the_time_counted_as_observed() -> None:
    own = torch.rand(400, 16, generator=generator(2)) < 0.3
    missing, judged = hide(RandomCells(16), own, generator(3))
    assert not bool((judged & own).any())
    assert bool((judged <= missing).all())
    kept = (missing | ~own).all(1)
    assert 150 < int(kept.sum()) < 300


def test_an_adaptive_mixture_draws_more_of_what_is_learned_badly() -> None:
    mixture = Mixture([RandomCells(4), RandomCells(4)], [1.0, 1.0], adaptive=True)
    for _ in range(20):
        mixture.draw(32, generator())
        mixture.learn(torch.where(mixture._drawn == 0, 2.0, 0.5))
    assert mixture.shares[0] > 0.8
    assert float(mixture.shares.sum()) == 1.0


def test_a_mixture_that_is_not_adaptive_keeps_its_shares() -> None:
    mixture = Mixture([RandomCells(4), RandomCells(4)], [3.0, 1.0])
    mixture.draw(32, generator())
    mixture.learn(torch.full((32,), 9.0))
    assert mixture.shares.tolist() == [0.75, 0.25]

"""Training: patches are drawn as stated, and the score of a Gaussian is learned from its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastimpute.crew import crew
from fastimpute.nn import EnergyMLP, ScoreMLP
from fastimpute.train.adam import Adam
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.score_matching import ScoreMatching, ScoreNet, condition, train_score
from fastimpute.train.window_gaussian import conditional_covariance, conditional_mean
from fastimpute.train.windows import PatchSampler, PatchTable


def table(rows: int = 60, window: int = 4, sensors: int = 3, conditions: int = 5) -> PatchTable:
    starts = np.arange(0, rows - window + 1, dtype=np.int64)
    columns = np.array([[0, 1], [2, 0]], dtype=np.int64)
    return PatchTable(starts, columns, window, sensors, torch.randn(conditions, 2), starts % conditions)


def test_gathered_patches_are_windows_of_their_sensors() -> None:
    where, series = table(), torch.randn(60, 3)
    sampler = PatchSampler(where, torch.Generator().manual_seed(0))
    patch = sampler.gather(series, torch.tensor([7]))[0].view(4, 2)
    torch.testing.assert_close(patch, series[3:7, [2, 0]])  # patch 7 = start 3, column set 1


def test_patches_of_a_run_share_their_condition() -> None:
    where = table()
    patches, conditions = PatchSampler(where, torch.Generator().manual_seed(0)).indices(6, 8)
    index = torch.from_numpy(where.condition_index)[patches // 2]
    torch.testing.assert_close(where.conditions[index], conditions.repeat_interleave(8, 0))


def test_every_patch_is_as_likely_as_any_other() -> None:
    where = table(rows=13, conditions=3)  # ten starts: conditions of four, three and three
    patches, _ = PatchSampler(where, torch.Generator().manual_seed(0)).indices(4000, 4)
    share = torch.bincount(patches, minlength=where.count) / len(patches)
    assert (share * where.count - 1).abs().max() < 0.2


@pytest.mark.parametrize("net", [ScoreMLP(8, 3, 64), EnergyMLP(8, 3, 64)])
def test_score_of_correlated_noise_is_learned(net: ScoreNet) -> None:
    generator = torch.Generator().manual_seed(0)
    series = torch.randn(4000, 1, generator=generator).cumsum(0)
    series = series - torch.nn.functional.avg_pool1d(series.T, 101, 1, 50, count_include_pad=False).T
    series = torch.cat([series, 0.5 * series, -series], 1) / series.std()
    where = PatchTable(np.arange(0, 3990), np.array([[0, 1]]), 4, 3, torch.zeros(1, 2), np.zeros(3990, np.int64))
    sampler = PatchSampler(where, generator)
    optimiser = Adam(net.parameters(), 3e-3)
    how = ScoreMatching(200, batch=256, spread=1.0)
    with crew() as workers:
        losses = list(train_score(net, optimiser, series, sampler, 0.3, None, how, workers))
    exact = GaussianPart.fit(sampler.gather(series, torch.arange(3990)))
    floor = float((0.09 / (exact.eigenvalues + 0.09)).mean())  # E |sigma P x + z|^2 lacks what the signal explains
    assert np.mean(losses[:5]) > 0.9
    assert np.mean(losses[-20:]) < 1 - 0.8 * floor + 0.1
    assert np.mean(losses[-20:]) < 0.6


def test_gaussian_part_is_the_score_of_its_density() -> None:
    part = GaussianPart.fit(torch.randn(500, 6) @ torch.randn(6, 6))
    x, sigma = torch.randn(4, 6, requires_grad=True), 0.4
    centred = x - part.mean
    log_p = -0.5 * ((centred @ part.precision_matrix(sigma)) * centred).sum()
    (gradient,) = torch.autograd.grad(log_p, x)
    got = part.scaled_score(x.detach(), torch.full((4, 1), sigma)) / sigma
    torch.testing.assert_close(got, gradient, rtol=1e-3, atol=1e-3)


def test_weights_of_patches_enter_the_covariance() -> None:
    patches = torch.randn(300, 3)
    patches[150:] *= 10
    weights = torch.ones(300)
    weights[150:] = 0
    weighted, clean = GaussianPart.fit(patches, weights), GaussianPart.fit(patches[:150])
    torch.testing.assert_close(weighted.precision_matrix(0.1), clean.precision_matrix(0.1), rtol=1e-3, atol=1e-4)


def test_conditional_mean_minimises_over_the_free_cells() -> None:
    factor = torch.randn(6, 6, dtype=torch.float64)
    precision = factor @ factor.T + torch.eye(6, dtype=torch.float64)
    x, free = torch.randn(5, 6, dtype=torch.float64), (torch.rand(5, 6) < 0.5).double()
    solved = conditional_mean(precision, x, free, iterations=30)
    assert (((solved @ precision) * free).abs() < 1e-8).all()
    torch.testing.assert_close(solved * (1 - free), x * (1 - free))


def test_conditional_covariance_is_the_inverse_of_the_hidden_block() -> None:
    factor = torch.randn(5, 5)
    precision = factor @ factor.T + torch.eye(5)
    hidden = torch.tensor([[True, False, True, False, False]])
    expected = torch.zeros(5, 5)
    cells = torch.tensor([0, 2])
    expected[cells[:, None], cells] = torch.linalg.inv(precision[cells[:, None], cells])
    torch.testing.assert_close(conditional_covariance(precision, hidden), expected, rtol=1e-4, atol=1e-5)


def test_condition_is_log_sigma_then_calendar() -> None:
    assert condition(torch.tensor([[1.0]]), torch.tensor([[2.0, 3.0]])).tolist() == [[1.0, 2.0, 3.0]]

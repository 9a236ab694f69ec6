"""The alternation: observed cells stay, the ladder can be walked again, Tweedie's step denoises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastimpute.crew import crew
from fastimpute.nn import ScoreMLP
from fastimpute.recursion import Dynamics, Engine, Plan, Stage, alternate, descend, noise_levels, recur, warm_up
from fastimpute.referee import Referee
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.score_matching import ScoreMatching
from fastimpute.train.windows import PatchTable

WINDOW, SENSORS, ROWS = 6, 3, 240


def waves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, mask and the truth with a zero in every gap."""
    rng = np.random.default_rng(0)
    truth = np.sin(np.arange(ROWS)[:, None] / 4 + np.arange(SENSORS)) + 0.05 * rng.normal(size=(ROWS, SENSORS))
    missing = rng.random(truth.shape) < 0.3
    return truth.astype(np.float32), missing, np.where(missing, 0, truth).astype(np.float32)


def table() -> PatchTable:
    starts = np.arange(ROWS - WINDOW + 1)
    return PatchTable(starts, np.arange(SENSORS)[None], WINDOW, SENSORS, torch.zeros(1, 0), np.zeros_like(starts))


SIGMAS = (0.3, 0.2, 0.1)


def plan(rho: float = math.inf, head: str = "direct") -> Plan:
    return Plan(
        head=head,
        gaussian=True,
        hidden_dim=64,
        sigma=None,
        loops=3,
        training=ScoreMatching(30, batch=64),
        learning_rate=1e-3,
        dynamics=Dynamics(iterations=5, rho=rho, tau=0.2, bound=0.5),
        engine=Engine(),
        seed=0,
    )


def run(how: Plan) -> tuple[list[Stage], list[np.ndarray]]:
    _, missing, filled = waves()
    stages, fillings = [], []

    def watch(stage: Stage, filling: np.ndarray) -> None:
        stages.append(stage)
        fillings.append(filling)

    with crew() as workers:
        alternate(filled, missing, table(), how, SIGMAS, watch, workers)
    return stages, fillings


@pytest.mark.parametrize("rho", [math.inf, 1.0])
@pytest.mark.parametrize("head", ["direct", "energy"])
def test_alternation_fills_better_than_it_began_and_leaves_observed_cells(rho: float, head: str) -> None:
    truth, missing, filled = waves()
    _, fillings = run(plan(rho, head))
    for filling in fillings:
        assert (filling[~missing] == filled[~missing]).all()
    assert np.abs(fillings[-1] - truth)[missing].mean() < 0.3 * np.abs(filled - truth)[missing].mean()


def test_trained_ladder_walked_again_gives_the_same_bits() -> None:
    _, missing, filled = waves()
    stages, fillings = run(plan())
    with crew() as workers:
        again = descend(stages, filled, missing, table(), plan(), workers)
    assert all((one == other).all() for one, other in zip(fillings, again, strict=True))


def test_same_bits_on_one_thread_and_two() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(plan())[1][-1]
        torch.set_num_threads(2)
        two = run(plan())[1][-1]
    finally:
        torch.set_num_threads(threads)
    assert (one == two).all()


def test_untrained_score_with_a_gaussian_part_takes_tweedies_steps() -> None:
    _, missing, filled = waves()
    patches = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(filled, WINDOW, 0).transpose(0, 2, 1).copy())
    gaussian = GaussianPart.fit(patches.reshape(len(patches), -1))
    stage = Stage(0.2, ScoreMLP(WINDOW * SENSORS, 1, 64), gaussian)
    series, hidden = torch.from_numpy(filled), torch.from_numpy(missing)
    moved, log_w = recur(stage, series, hidden, table(), Dynamics(iterations=1), Engine(), 0, threads=1)
    # One window: a patch that alone covers row 0 moves by sigma^2 times the Gaussian's score.
    x = series[:WINDOW].reshape(-1)
    score = -(x - gaussian.mean) @ gaussian.precision_matrix(0.2)
    expected = torch.where(hidden[0], (x + 0.04 * score)[:SENSORS], series[0])
    torch.testing.assert_close(moved[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_w.exp().sum(), torch.tensor(len(log_w) / 128), rtol=0.5, atol=1.0)


def test_gaussian_em_over_the_windows_brings_waves_back() -> None:
    truth, missing, filled = waves()
    held = ~missing & (np.random.default_rng(3).random(missing.shape) < 0.1)
    trial = np.where(held, 0, filled).astype(np.float32)
    with crew() as workers:
        moved, stages = warm_up(trial, missing | held, table(), plan(), Referee(truth, held, trial), workers)
    assert len(stages) > 1
    assert np.abs(moved - truth)[missing].mean() < 0.2 * np.abs(filled - truth)[missing].mean()


def test_noise_levels_fall_geometrically_from_the_error() -> None:
    levels = noise_levels(plan(), 0.36)
    assert levels == pytest.approx((0.36, 0.36 / 6**0.5, 0.06))

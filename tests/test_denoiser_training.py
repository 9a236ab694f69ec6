"""Training of the denoiser in white coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastimpute.bases import GaussianBase, fill
from fastimpute.crew import crew
from fastimpute.nn import DiT
from fastimpute.nn.white_denoiser import FEATURES
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table
from fastimpute.train.diffusion import DiffusionTraining, Training, WindowData
from fastimpute.train.masking import LookAlike, Mixture
from fastimpute.train.windows import PatchSampler

WINDOW, SENSORS = 12, 2


def material(bent: bool = False) -> tuple[WindowData, GaussianBase, LookAlike]:
    """Gaussian data: two sensors that decay together."""
    rng = np.random.default_rng(0)
    x = np.zeros((500, SENSORS))
    for row in range(1, len(x)):
        x[row] = 0.8 * x[row - 1] + rng.normal(size=SENSORS) + rng.normal()
    if bent:
        x[:, 1] = x[:, 0] ** 2
    gone = rng.random(x.shape) < 0.2
    series = Series.read(np.where(gone, np.nan, x))
    table = patch_table(Patches(WINDOW, 1, np.arange(SENSORS)[None]), series, Cycles())
    base = GaussianBase.fit(series, series.missing, table)
    sampler = PatchSampler(table, torch.Generator())
    own = torch.from_numpy(series.missing)
    filled = fill(base, series, series.missing, table).mean
    return WindowData(torch.from_numpy(filled), own, sampler), base, LookAlike(own, sampler)


def train(
    steps: int, seed: int = 0, *, learning_rate: float = 1e-3, bent: bool = False
) -> tuple[list[float], dict[str, torch.Tensor]]:
    data, base, masking = material(bent)
    torch.manual_seed(0)
    net = DiT(SENSORS, WINDOW, hidden=32, encoder_layers=1, decoder_layers=1, feature_dim=FEATURES * SENSORS)
    how = DiffusionTraining(steps, windows=16, draws=2, learning_rate=learning_rate)
    with crew() as workers:
        training = Training(net, data, base.whiten, Mixture([masking], [1.0]), how, workers, seed=seed)
        losses = [training.step() for _ in range(steps)]
    training.finish()
    return losses, net.state_dict()


def test_an_untrained_network_is_the_denoiser_of_gaussian_data() -> None:
    """Its weighted error is then one at every noise level."""
    losses, _ = train(15, learning_rate=1e-12)
    assert np.mean(losses) == pytest.approx(1, abs=0.2)


def test_training_learns_what_the_base_does_not_know() -> None:
    """A base fitted to Gaussian data is right: only data of another law can be denoised better than it does.

    Here the second sensor is the square of the first, which no Gaussian can tell.
    """
    losses, _ = train(200, bent=True, learning_rate=3e-3)
    untrained, _ = train(200, bent=True, learning_rate=1e-12)
    assert np.sum(losses[-50:]) < 0.85 * np.sum(untrained[-50:])


def test_the_seed_decides() -> None:
    assert train(3, seed=1)[0] == train(3, seed=1)[0] != train(3, seed=2)[0]


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one() -> None:
    twice = train(4)
    torch.set_num_threads(1)
    once = train(4)
    assert once[0] == twice[0]
    assert all(torch.equal(once[1][name], twice[1][name]) for name in once[1])

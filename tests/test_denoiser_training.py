"""Training of the denoiser in white coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastimpute.bases import GaussianBase, fill
from fastimpute.crew import crew
from fastimpute.nn import DiT
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table
from fastimpute.train.diffusion import FEATURES, DiffusionTraining, WindowData, train_denoiser
from fastimpute.train.masking import LookAlike
from fastimpute.train.windows import PatchSampler

WINDOW, SENSORS = 12, 2


def material() -> tuple[WindowData, GaussianBase, LookAlike]:
    """Gaussian data: two sensors that decay together."""
    rng = np.random.default_rng(0)
    x = np.zeros((500, SENSORS))
    for row in range(1, len(x)):
        x[row] = 0.8 * x[row - 1] + rng.normal(size=SENSORS) + rng.normal()
    gone = rng.random(x.shape) < 0.2
    series = Series.read(np.where(gone, np.nan, x))
    table = patch_table(Patches(WINDOW, 1, np.arange(SENSORS)[None]), series, Cycles())
    base = GaussianBase.fit(series, series.missing, table)
    sampler = PatchSampler(table, torch.Generator())
    own = torch.from_numpy(series.missing)
    filled = fill(base, series, series.missing, table).mean
    return WindowData(torch.from_numpy(filled), own, sampler), base, LookAlike(own, sampler)


def train(steps: int, seed: int = 0, learning_rate: float = 1e-3) -> tuple[list[float], dict[str, torch.Tensor]]:
    data, base, masking = material()
    torch.manual_seed(0)
    net = DiT(SENSORS, WINDOW, hidden=32, encoder_layers=1, decoder_layers=1, feature_dim=FEATURES * SENSORS)
    how = DiffusionTraining(steps, windows=16, draws=2, learning_rate=learning_rate)
    with crew() as workers:
        losses = list(train_denoiser(net, data, base.whiten, masking, how, workers, seed=seed))
    return losses, net.state_dict()


def test_an_untrained_network_is_the_denoiser_of_gaussian_data() -> None:
    """Its weighted error is then one at every noise level."""
    losses, _ = train(15, learning_rate=1e-12)
    assert np.mean(losses) == pytest.approx(1, abs=0.2)


def test_the_seed_decides() -> None:
    assert train(3, seed=1)[0] == train(3, seed=1)[0] != train(3, seed=2)[0]


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one() -> None:
    twice = train(4)
    torch.set_num_threads(1)
    once = train(4)
    assert once[0] == twice[0]
    assert all(torch.equal(once[1][name], twice[1][name]) for name in once[1])

"""The denoiser in white coordinates, by a network that speaks of cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastimpute.bases import Whitening
from fastimpute.nn import DiT
from fastimpute.nn.white_denoiser import FEATURES, denoise, denoise_with_spread, encode

FRAMES, CHANNELS, WINDOWS = 10, 2, 3


def windows() -> tuple[DiT, Whitening, Tensor]:
    """An untrained network, and windows in the coordinates of a Gaussian whose cells depend on their neighbours."""
    generator = torch.Generator().manual_seed(0)
    at = torch.arange(FRAMES * CHANNELS, dtype=torch.float64)
    precision = torch.linalg.inv(torch.exp(-(at[:, None] - at).abs() / 5))
    missing = torch.rand(WINDOWS, FRAMES * CHANNELS, generator=generator) < 0.4
    values = torch.randn(WINDOWS, FRAMES * CHANNELS, generator=generator)
    net = DiT(CHANNELS, FRAMES, hidden=32, encoder_layers=1, decoder_layers=1, feature_dim=FEATURES * CHANNELS)
    return net.requires_grad_(False), Whitening.gaussian(values, missing, torch.zeros(20).double(), precision), values


def test_an_untrained_network_is_the_denoiser_of_a_white_gaussian() -> None:
    net, white, values = windows()
    v = torch.where(white.missing, torch.randn(WINDOWS, 20), 0.0)
    sigma = torch.tensor([0.1, 1.0, 7.0])
    denoised = denoise(net, white, encode(net, white, values), v, sigma)
    torch.testing.assert_close(denoised, v / (1 + sigma.square())[:, None])


def test_at_the_largest_noise_level_the_mean_moves_by_what_the_network_says() -> None:
    net, white, values = windows()
    net.write.bias.fill_(0.5)
    memory = encode(net, white, values)
    moved = white.outward(denoise(net, white, memory, torch.zeros(WINDOWS, 20), 1e4))
    torch.testing.assert_close(moved, 0.5 * white.deviation, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("draws", [1, 4])
def test_a_window_is_denoised_alike_whatever_stands_beside_it(draws: int) -> None:
    net, white, values = windows()
    torch.nn.init.normal_(net.write.weight)
    v = torch.where(white.missing.repeat(draws, 1), torch.randn(draws * WINDOWS, 20), 0.0)
    memory = encode(net, white, values)
    together, _ = denoise_with_spread(net, white, memory, v, 0.7)
    first, _ = denoise_with_spread(net, white, memory, v[:WINDOWS], 0.7)
    torch.testing.assert_close(together[:WINDOWS], first, atol=1e-5, rtol=1e-5)

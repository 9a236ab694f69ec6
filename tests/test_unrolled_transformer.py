"""UnrolledTransformer: it trains, starts as gradient descent, and its fused form is its plain one."""

from __future__ import annotations

import pytest
import torch
from closeness import error
from torch import Tensor

from fastimpute.nn import UnrolledTransformer
from fastimpute.ops.lag_heads import head_matrix

FRAMES, CHANNELS = 16, 2
pytestmark = pytest.mark.usefixtures("one_thread")


def sequences(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Complete sequences of a smooth process with dependent channels, masks, alpha, sigma and noise."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.exp(-torch.arange(FRAMES) / 30.0)
    table[0] += 0.01
    frames = torch.linalg.cholesky(head_matrix(table))
    mixing = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    y = frames @ torch.randn(n, FRAMES, CHANNELS, generator=generator) @ mixing.T
    start = torch.randint(0, FRAMES - 4, (n, 1), generator=generator)
    position = torch.arange(FRAMES)
    missing = (position >= start) & (position < start + 4)
    time = 0.05 + 2 * torch.rand(n, generator=generator)
    noise = torch.randn(y.shape, generator=generator)
    return y, missing, torch.exp(-time / 2), torch.sqrt(1 - torch.exp(-time)), noise


def test_training_lowers_the_loss_on_new_sequences() -> None:
    net = UnrolledTransformer(FRAMES, CHANNELS, iterations=4, inner_iterations=6)
    fresh = sequences(512, seed=1)
    before = net.loss(*fresh).item()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for step in range(60):
        optimizer.zero_grad()
        net.loss(*sequences(128, seed=100 + step)).backward()
        optimizer.step()
    assert net.loss(*fresh).item() < 0.8 * before


def test_every_parameter_gets_a_gradient() -> None:
    net = UnrolledTransformer(FRAMES, CHANNELS, iterations=4, inner_iterations=6)
    net.loss(*sequences(32, seed=2)).backward()
    assert all(bool(parameter.grad is not None and parameter.grad.any()) for parameter in net.parameters())


def test_untrained_it_moves_towards_the_score_of_its_kernel() -> None:
    def remaining(iterations: int, inner_iterations: int) -> float:
        net = UnrolledTransformer(
            FRAMES, CHANNELS, iterations=iterations, inner_iterations=inner_iterations, length=4.0
        )
        return net.loss(*sequences(256, seed=3)).item()

    assert remaining(12, 64) < remaining(4, 64) < remaining(1, 1)


def randomised(net: UnrolledTransformer) -> UnrolledTransformer:
    generator = torch.Generator().manual_seed(5)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


def test_fused_score_is_the_plain_one(isa: str) -> None:
    net = randomised(UnrolledTransformer(FRAMES, CHANNELS, iterations=4, inner_iterations=6))
    y, missing, alpha, sigma, noise = sequences(37, seed=4)
    v = alpha[:, None, None] * y + sigma[:, None, None] * noise
    with torch.no_grad():
        plain = net(v, y, missing, alpha, sigma)
    fused = net.score(v, y, missing, alpha, sigma, backend="cpu")
    for value, want in zip(fused, plain, strict=True):
        assert error(value, want) < 1e-4 * float(want.abs().max())


def test_noise_levels_may_be_numbers() -> None:
    net = UnrolledTransformer(FRAMES, CHANNELS)
    y, missing, *_ = sequences(5, seed=6)
    once = net.score(y, y, missing, 0.8, 0.6)
    each = net.score(y, y, missing, torch.full((5,), 0.8), torch.full((5,), 0.6))
    assert all(torch.equal(left, right) for left, right in zip(once, each, strict=True))


@pytest.mark.parametrize("size", ["frames", "channels", "iterations", "inner_iterations"])
def test_empty_sizes_are_refused(size: str) -> None:
    sizes = {"frames": 4, "channels": 2, "iterations": 2, "inner_iterations": 2, size: 0}
    with pytest.raises(ValueError, match=f"{size}: expected at least 1, got 0"):
        UnrolledTransformer(**sizes)

"""Nonlinear observations of the process, Y = phi(X) + eps, and their exact posterior mean (arXiv 2510.02216)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastimpute.gp.sequences import LENGTH

NOISE_VARIANCE = 0.1
_REACH = 5.0  # standard deviations of the stationary law that the grid covers
_CHUNK = 512


def observed_map(x: Tensor) -> Tensor:
    """phi(x) = x + exp(-x^2) + 2 sin x, elementwise."""
    return x + torch.exp(-x.square()) + 2 * torch.sin(x)


def observe(x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Y = phi(X) + eps of sequences x, eps ~ N(0, 0.1) in every cell."""
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    return observed_map(x) + math.sqrt(NOISE_VARIANCE) * noise


def posterior_mean(y: Tensor, missing: Tensor, *, length: float = LENGTH, points: int = 161) -> Tensor:
    """E[Y_m | y_o] where frames are missing, y elsewhere: the least mean squared error that anything can reach.

    Up to its nugget (1e-6, which moves phi by a thousandth: left out) every channel is a Markov chain with transition
    N(a z, 1 - a^2), a = exp(-1 / length): forward and backward sums over a grid are exact up to its spacing, which has
    to stay below the transition's deviation sqrt(1 - a^2).

    Args:
        y: (n, H, d) observations.
        missing: (H,) or (n, H) bool, True where the frame is missing; y is not read there.
        length: of the kernel, in frames.
        points: of the grid over [-5, 5].

    Returns:
        (n, H, d) float64.

    Raises:
        ValueError: a mask of the wrong shape, or a grid too coarse for the length.

    Example:
        >>> y, missing = torch.zeros(1, 3, 1), torch.tensor([False, True, False])
        >>> bool(posterior_mean(y, missing)[0, 1, 0].abs() < 0.3)
        True
    """
    n, frames, channels = y.shape
    if missing.dtype != torch.bool or missing.shape not in ((frames,), (n, frames)):
        raise ValueError(f"missing must be bool of shape {(frames,)} or {(n, frames)}, got {tuple(missing.shape)}")
    decay = math.exp(-1 / length)
    spacing, deviation = 2 * _REACH / (points - 1), math.sqrt(-math.expm1(-2 / length))
    if spacing > deviation:
        raise ValueError(f"points must be at least {math.ceil(2 * _REACH / deviation) + 1}, got {points}")
    grid = torch.linspace(-_REACH, _REACH, points, dtype=torch.float64)
    transition = torch.softmax(-0.5 * ((grid[None, :] - decay * grid[:, None]) / deviation).square(), 1)
    chains = y.double().transpose(1, 2).reshape(n * channels, frames)
    hidden = missing.expand(n, frames).repeat_interleave(channels, 0)
    means = [
        _smoothed(part, part_hidden, grid, transition)
        for part, part_hidden in zip(torch.split(chains, _CHUNK), torch.split(hidden, _CHUNK), strict=True)
    ]
    filled = torch.cat(means) if means else chains
    return filled.view(n, channels, frames).transpose(1, 2).contiguous()


def _smoothed(y: Tensor, missing: Tensor, grid: Tensor, transition: Tensor) -> Tensor:
    """Chains (b, H): the posterior mean of phi where missing, y elsewhere."""
    frames, image = y.shape[1], observed_map(grid)
    start = torch.softmax(-0.5 * grid.square(), 0)

    def likelihood(frame: int) -> Tensor:
        exponent = -0.5 * (y[:, frame, None] - image).square() / NOISE_VARIANCE
        exponent = torch.where(missing[:, frame, None], 0.0, exponent)
        return torch.exp(exponent - exponent.amax(1, keepdim=True))

    def normalised(weights: Tensor) -> Tensor:
        return weights / weights.sum(1, keepdim=True)

    ahead = [start.expand(len(y), -1)]  # p(z_i | y before frame i)
    for frame in range(frames - 1):
        ahead.append(normalised(ahead[-1] * likelihood(frame)) @ transition)
    behind = torch.ones_like(ahead[0])  # p(y after frame i | z_i), up to a factor
    filled = y.clone()
    for frame in reversed(range(frames)):
        mean = normalised(ahead[frame] * behind) @ image
        filled[:, frame] = torch.where(missing[:, frame], mean, y[:, frame])
        behind = normalised(behind * likelihood(frame)) @ transition.T
    return filled

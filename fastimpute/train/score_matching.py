"""Denoising score matching of either head, over patches of the current filling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastimpute.crew import Crew
from fastimpute.nn import EnergyMLP, ScoreMLP
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.windows import PatchSampler

ScoreNet = EnergyMLP | ScoreMLP
HALVES = 2


@dataclass(frozen=True)
class ScoreMatching:
    """How a score network is trained at one noise level.

    Attributes:
        steps: optimiser steps.
        batch: patches per step.
        rows: patches that share a condition and a noise level.
        spread: sigma is drawn log-uniformly within this factor; 1 keeps it fixed.
        clip: largest norm of the gradient.
    """

    steps: int
    batch: int = 512
    rows: int = 16
    spread: float = 2.0
    clip: float = 10.0


def scaled_score(net: ScoreNet, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """``sigma * score`` (n, D) of the network alone, differentiable in its weights; sigma (n, 1)."""
    return net(x, cond) if isinstance(net, ScoreMLP) else sigma * net.closed_form_score(x, cond)[1]


def condition(log_sigma: Tensor, calendar: Tensor) -> Tensor:
    """The networks' condition (q, 1 + F): log sigma (q, 1), then the calendar features (q, F)."""
    return torch.cat([log_sigma, calendar], 1)


def train_score(
    net: ScoreNet,
    optimiser: torch.optim.Optimizer,
    series: Tensor,
    sampler: PatchSampler,
    sigma: float,
    gaussian: GaussianPart | None,
    how: ScoreMatching,
    workers: Crew,
) -> Iterator[float]:
    """Minimise ``E w |sigma * s(x + sigma z | c) + z|^2`` and yield the loss of each step.

    A batch is always drawn and differentiated in the same two halves, side by side: one thread or two give the same
    bits, and two halves on a thread each are faster than one batch on two threads.

    Args:
        net: the network, trained in place (warm start: call again with the next noise level).
        optimiser: of the network's parameters.
        series: (T, N) float32, the current filling.
        sampler: draws patches, and their weights where the SPT weights are in use.
        sigma: centre of the noise levels, in standardised units.
        gaussian: the analytic part that the network adds to, or None.
        how: steps, batch and so on.
        workers: who does it.

    Source: SPIRIT (arXiv 2602.01182), denoising score matching of the functional's log p.
    """
    parameters = list(net.parameters())

    def differentiate(half: PatchSampler) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = _loss(net, series, half, sigma, gaussian, how)
        return loss.detach(), torch.autograd.grad(loss, parameters, materialize_grads=True)

    halves = sampler.split(HALVES)
    for _ in range(how.steps):
        losses, gradients = zip(*workers.map(differentiate, halves), strict=True)
        for parameter, *parts in zip(parameters, *gradients, strict=True):
            parameter.grad = torch.stack(parts).mean(0)
        torch.nn.utils.clip_grad_norm_(parameters, how.clip)
        optimiser.step()
        yield float(torch.stack(losses).mean())


def _loss(
    net: ScoreNet,
    series: Tensor,
    sampler: PatchSampler,
    sigma: float,
    gaussian: GaussianPart | None,
    how: ScoreMatching,
) -> Tensor:
    """The loss over one half of a batch."""
    conditions = max(1, how.batch // (HALVES * how.rows))
    patches, calendar = sampler.indices(conditions, how.rows)
    clean = sampler.gather(series, patches)
    level = (torch.rand(conditions, 1, generator=sampler.generator) * 2 - 1) * math.log(how.spread)
    log_sigma = math.log(sigma) + level
    noise_level = log_sigma.exp().repeat_interleave(how.rows, 0)
    noise = torch.randn(clean.shape, generator=sampler.generator)
    noisy = torch.addcmul(clean, noise_level, noise)
    residual = scaled_score(net, noisy, noise_level, condition(log_sigma, calendar)) + noise
    if gaussian is not None:
        residual = residual + gaussian.scaled_score(noisy, noise_level)
    weights = sampler.weights(patches)
    return residual.square().mean() if weights is None else (residual.square().mean(1) * weights).mean()

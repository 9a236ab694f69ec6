"""Denoising score matching of either head, over patches of the current filling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute import ops
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


class Batch(NamedTuple):
    """Half of a step's patches: noisy x (n, D) and what is to be predicted (n, D), noise levels (n, 1), the condition
    (q, 1 + F) of each run of n / q patches, weights (n,) or None for equal ones."""

    x: Tensor
    target: Tensor
    sigma: Tensor
    condition: Tensor
    weight: Tensor | None


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

    A batch is always drawn in the same two halves, side by side: one thread or two give the same bits. The direct head
    is then differentiated by `ops.score_matching`, the energy head by autograd, half by half.

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

    def draw(half: PatchSampler) -> Batch:
        return _draw(series, half, sigma, gaussian, how)

    halves = sampler.split(HALVES)
    for _ in range(how.steps):
        batches = workers.map(draw, halves)
        if isinstance(net, ScoreMLP):
            loss = _differentiate_direct(net, batches, workers.threads)
        else:
            loss = _differentiate_energy(net, batches, workers)
        torch.nn.utils.clip_grad_norm_(parameters, how.clip)
        optimiser.step()
        yield float(loss)


def _draw(
    series: Tensor, sampler: PatchSampler, sigma: float, gaussian: GaussianPart | None, how: ScoreMatching
) -> Batch:
    conditions = max(1, how.batch // (HALVES * how.rows))
    patches, calendar = sampler.indices(conditions, how.rows)
    clean = sampler.gather(series, patches)
    level = (torch.rand(conditions, 1, generator=sampler.generator) * 2 - 1) * math.log(how.spread)
    log_sigma = math.log(sigma) + level
    noise_level = log_sigma.exp().repeat_interleave(how.rows, 0)
    noise = torch.randn(clean.shape, generator=sampler.generator)
    noisy = clean.addcmul_(noise_level, noise)
    target = noise.neg_()
    if gaussian is not None:
        target -= gaussian.scaled_score(noisy, noise_level)
    return Batch(noisy, target, noise_level, condition(log_sigma, calendar), sampler.weights(patches))


def _differentiate_direct(net: ScoreMLP, batches: list[Batch], threads: int) -> Tensor:
    """Loss of both halves; leaves its gradient in the parameters."""
    x, target, _, conditions, weights = zip(*batches, strict=True)
    modulation = net.modulation(torch.cat(conditions))
    weight = None if weights[0] is None else torch.cat(weights)
    loss, *gradients, by_modulation = ops.score_matching(
        torch.cat(x), torch.cat(target), *net.weights(), modulation, weight, threads=threads
    )
    net.modulation.zero_grad()
    modulation.backward(by_modulation)
    for parameter, gradient in zip(net.weights(), gradients, strict=True):
        parameter.grad = gradient
    return loss


def _differentiate_energy(net: EnergyMLP, batches: list[Batch], workers: Crew) -> Tensor:
    """Loss of both halves; leaves its gradient in the parameters."""
    parameters = list(net.parameters())

    def differentiate(batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        score = net.closed_form_score(batch.x, batch.condition)[1]
        error = (batch.sigma * score - batch.target).square()
        loss = error.mean() if batch.weight is None else (error.mean(1) * batch.weight).mean()
        return loss.detach(), torch.autograd.grad(loss, parameters, materialize_grads=True)

    losses, gradients = zip(*workers.map(differentiate, batches), strict=True)
    for parameter, *parts in zip(parameters, *gradients, strict=True):
        parameter.grad = torch.stack(parts).mean(0)
    return torch.stack(losses).mean()

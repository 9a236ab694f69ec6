"""Denoising score matching of either head, over patches of the current filling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.crew import Crew
from fastimpute.nn import EnergyMLP, ScoreMLP
from fastimpute.ops.shared_score_matching import shared_score_matching
from fastimpute.train.adam import Adam
from fastimpute.train.cuda_graph import replayed
from fastimpute.train.data_parallel import ONE, Gradients, Replicas
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.windows import PatchSampler

ScoreNet = EnergyMLP | ScoreMLP
HALVES = 2  # of a batch of the energy head, differentiated side by side
SHARED_WIDTH = 512  # of a direct head whose step replicas share; 256 took a third longer shared, 1024 a quarter less


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
    """A step's patches: noisy x (n, D) and what is to be predicted (n, D), noise levels (n, 1), the condition
    (q, 1 + F) of each run of n / q patches, weights (n,) or None for equal ones."""

    x: Tensor
    target: Tensor
    sigma: Tensor
    condition: Tensor
    weight: Tensor | None

    def halves(self) -> list[Batch]:
        """Two batches of half the runs each."""
        parts = [(None,) * HALVES if part is None else part.chunk(HALVES) for part in self]
        return [Batch(*half) for half in zip(*parts, strict=True)]


def condition(log_sigma: Tensor, calendar: Tensor) -> Tensor:
    """The networks' condition (q, 1 + F): log sigma (q, 1), then the calendar features (q, F)."""
    return torch.cat([log_sigma, calendar], 1)


def train_score(
    net: ScoreNet,
    optimiser: Adam,
    series: Tensor,
    sampler: PatchSampler,
    sigma: float,
    gaussian: GaussianPart | None,
    how: ScoreMatching,
    workers: Crew,
    precision: str = "fp32",
    replicas: Replicas = ONE,
) -> Iterator[Tensor]:
    """Minimise ``E w |sigma * s(x + sigma z | c) + z|^2`` and yield the loss () of each step.

    While a step descends, the patches of the next are drawn beside it. The gradients of the direct head come from
    `ops.score_matching`, those of the energy head from autograd in two halves side by side: one thread or two give the
    same bits, and so does any number of replicas: they share the halves of the energy head (two replicas at most have
    work), and the rows and blocks of the direct head's kernel where the network is wide; a step of a narrow one each
    does for itself, sooner than its parts could be sent. On a GPU a step is one piece, one CUDA graph, which every rank
    replays for itself.

    Args:
        net: the network, trained in place (warm start: call again with the next noise level).
        optimiser: of the network's parameters.
        series: (T, N) float32, the current filling, on the network's device.
        sampler: draws patches, and their weights where the SPT weights are in use.
        sigma: centre of the noise levels, in standardised units.
        gaussian: the analytic part that the network adds to, or None.
        how: steps, batch and so on.
        workers: who does it.
        precision: of the direct head's products, as in `ops.score_matching`.
        replicas: who shares each step; all call this with the same arguments.

    Raises:
        ValueError: the replicas do not train the same network on the same series.

    Source: SPIRIT (arXiv 2602.01182), denoising score matching of the functional's log p.
    """
    parameters = list(net.parameters())
    replicas.agree("training of the score", [series, *parameters], (ops.isa(), sigma, how))

    def draw() -> Batch:
        return _draw(series, sampler, sigma, gaussian, how)

    def descend(finish: Callable[[], None]) -> None:
        finish()
        torch.nn.utils.clip_grad_norm_(parameters, how.clip)
        optimiser.step()

    if series.is_cuda:

        def whole_step() -> Tensor:
            loss, finish = _differentiate(net, draw(), workers, precision, ONE)
            descend(finish)
            return loss

        yield from replayed(whole_step, how.steps, sampler.generator)
        return
    batch = draw()
    for step in range(how.steps):
        loss, finish = _differentiate(net, batch, workers, precision, replicas)
        tasks: list[Callable[[], Any]] = [partial(descend, finish)]
        if step + 1 < how.steps:  # patches do not wait for the weights
            tasks.append(draw)
        batch = workers.map(lambda task: task(), tasks)[-1]
        yield loss


def _draw(
    series: Tensor, sampler: PatchSampler, sigma: float, gaussian: GaussianPart | None, how: ScoreMatching
) -> Batch:
    conditions = HALVES * max(1, how.batch // (HALVES * how.rows))
    patches, calendar = sampler.indices(conditions, how.rows)
    clean = sampler.gather(series, patches)
    chance = torch.rand(conditions, 1, generator=sampler.generator, device=sampler.device)
    level = (chance * 2 - 1) * math.log(how.spread)
    log_sigma = math.log(sigma) + level
    noise_level = log_sigma.exp().repeat_interleave(how.rows, 0)
    noise = torch.randn(clean.shape, generator=sampler.generator, device=sampler.device)
    noisy = clean.addcmul_(noise_level, noise)
    target = noise.neg_()
    if gaussian is not None:
        target -= gaussian.scaled_score(noisy, noise_level)
    return Batch(noisy, target, noise_level, condition(log_sigma, calendar), sampler.weights(patches))


def _differentiate(
    net: ScoreNet, batch: Batch, workers: Crew, precision: str, replicas: Replicas
) -> tuple[Tensor, Callable[[], None]]:
    """Loss of a batch, and what leaves its gradient in the parameters."""
    if isinstance(net, ScoreMLP):
        return _differentiate_direct(net, batch, workers.threads, precision, replicas)
    return _differentiate_energy(net, batch, workers, replicas)


def _differentiate_direct(
    net: ScoreMLP, batch: Batch, threads: int, precision: str, replicas: Replicas
) -> tuple[Tensor, Callable[[], None]]:
    modulation = net.modulation(batch.condition)
    sharers = replicas if net.hidden_dim >= SHARED_WIDTH else ONE
    loss, *gradients, by_modulation = shared_score_matching(
        batch.x,
        batch.target,
        *net.weights(),
        modulation,
        batch.weight,
        sharers,
        precision=precision,
        threads=threads,
    )

    def finish() -> None:
        net.modulation.zero_grad()
        # modulation.backward(by_modulation) has these bits too, but torch compares the shapes by sympy, and loads it
        (modulation * by_modulation).sum().backward()
        for parameter, gradient in zip(net.weights(), gradients, strict=True):
            parameter.grad = gradient

    return loss, finish


def _differentiate_energy(
    net: EnergyMLP, batch: Batch, workers: Crew, replicas: Replicas
) -> tuple[Tensor, Callable[[], None]]:
    parameters = list(net.parameters())

    def differentiate(half: Batch) -> Gradients:
        score = net.closed_form_score(half.x, half.condition)[1]
        error = (half.sigma * score - half.target).square()
        loss = error.mean() if half.weight is None else (error.mean(1) * half.weight).mean()
        return loss.detach(), torch.autograd.grad(loss, parameters, materialize_grads=True)

    def blank(half: Batch) -> Gradients:
        return half.x.new_empty(()), tuple(map(torch.empty_like, parameters))

    if batch.x.is_cuda:
        pieces = [differentiate(batch)]
    else:
        pieces = replicas.differentiate(workers, differentiate, batch.halves(), blank)
    losses, gradients = zip(*pieces, strict=True)

    def finish() -> None:
        for parameter, *parts in zip(parameters, *gradients, strict=True):
            parameter.grad = torch.stack(parts).mean(0)

    return torch.stack(losses).mean(), finish

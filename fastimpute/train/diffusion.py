"""Training of a denoiser of windows in the white coordinates of a base."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastimpute.crew import Crew
from fastimpute.nn.dit import DiT
from fastimpute.nn.gap_features import gap_features
from fastimpute.train.masking import Masking, hide
from fastimpute.train.windows import PatchSampler

HALVES = 2  # of a batch, differentiated side by side
FEATURES = 5  # per channel: three of the gaps, the base's mean and its deviation
LEAST_DEVIATION = 1e-6
WARM_UP = 50  # steps
WEIGHT_DECAY = 1e-4
LONGEST_MEMORY = 0.999  # of the average of the weights


class Coordinates(Protocol):
    """White coordinates of windows: `fastimpute.bases.Whitening`."""

    @property
    def missing(self) -> Tensor:
        """(n, D) bool."""

    @property
    def mean(self) -> Tensor:
        """(n, D), observed cells themselves."""

    @property
    def deviation(self) -> Tensor:
        """(n, D), 0 where observed."""

    def inward(self, x: Tensor) -> Tensor:
        """(n, D) -> white (n, D)."""

    def outward(self, y: Tensor) -> Tensor:
        """White (m, D) -> departures from the mean (m, D)."""


# White coordinates of windows (n, D) with a mask (n, D) and numbers (n,).
Whiten = Callable[[Tensor, Tensor, Tensor], Coordinates]


@dataclass(frozen=True)
class DiffusionTraining:
    """How a denoiser is trained.

    Attributes:
        steps: optimiser steps.
        windows: per step.
        draws: noise levels per window; the first is the largest, so that the one-step mean is trained too.
        learning_rate: at its highest; then it falls along a cosine.
        centre, spread: of log sigma.
        smallest, largest: noise levels, in units of the white coordinates.
        clip: largest norm of the gradient.
    """

    steps: int
    windows: int = 32
    draws: int = 4
    learning_rate: float = 1e-3
    centre: float = 0.3
    spread: float = 1.4
    smallest: float = 0.02
    largest: float = 40.0
    clip: float = 1.0


class WindowData(NamedTuple):
    """Where windows are cut from: the filled series (T, N) float32, which cells (T, N) bool were filled in or are not
    to be judged, and the windows."""

    filled: Tensor
    own: Tensor
    sampler: PatchSampler


class Batch(NamedTuple):
    """n windows (n, D) with their numbers (n,), what is hidden and judged, noise (draws, n, D) and its levels
    (draws, n)."""

    values: Tensor
    patches: Tensor
    missing: Tensor
    judged: Tensor
    noise: Tensor
    sigma: Tensor

    def halves(self) -> list[Batch]:
        """Two batches of half the windows each."""
        rows = [part.chunk(HALVES) for part in self[:4]]
        drawn = [part.chunk(HALVES, 1) for part in self[4:]]
        return [Batch(*half) for half in zip(*rows, *drawn, strict=True)]


def features(white: Coordinates, frames: int) -> Tensor:
    """What the encoder is told of every cell besides its value, (n, L, 5 d)."""
    missing = white.missing
    deviation = torch.where(missing, torch.log(white.deviation + LEAST_DEVIATION) / 3, 0.0)
    shape = (len(missing), frames, -1)
    gaps = gap_features(missing.view(shape))
    return torch.cat([gaps, white.mean.masked_fill(~missing, 0).view(shape), deviation.view(shape)], -1)


def train_denoiser(
    net: DiT,
    data: WindowData,
    whiten: Whiten,
    masking: Masking,
    how: DiffusionTraining,
    workers: Crew,
    *,
    seed: int = 0,
) -> Iterator[float]:
    """Minimise ``E w |outward(D(y + sigma z, sigma) - y) / deviation|^2`` on judged cells, w = 1 + sigma^-2.

    The loss is measured in the units of the data, cell by cell, although noise is added in white coordinates: there a
    cell mixes with its neighbours, and the cells that are judged are cells of the data. Yields the loss of each step;
    `net` is left with the running average of its weights. A batch is differentiated in two halves of one thread each:
    same bits on any number of threads.

    Args:
        net: the network, trained in place.
        data: where windows are cut from.
        whiten: coordinates of windows, given their values, mask and numbers.
        masking: what is hidden.
        how: steps, batch, noise levels.
        workers: who does it.
        seed: of windows, masks and noise.

    Source: arXiv 2510.02216 (noise on missing cells only), weights and noise levels after EDM (arXiv 2206.00364).
    """
    generator = torch.Generator().manual_seed(seed)
    average = copy.deepcopy(net)
    parameters = list(net.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=WEIGHT_DECAY, foreach=True)
    for step in range(how.steps):
        batch = _draw(data, masking, how, generator)
        results = workers.map(lambda half: _differentiate(net, half, whiten), batch.halves())
        for parameter, *parts in zip(parameters, *(gradients for _, gradients in results), strict=True):
            parameter.grad = torch.stack(parts).mean(0)
        for group in optimiser.param_groups:
            group["lr"] = how.learning_rate * _schedule(step, how.steps)
        torch.nn.utils.clip_grad_norm_(parameters, how.clip)
        optimiser.step()
        memory = min(LONGEST_MEMORY, 1 - 1 / (0.1 * (step + 1) + 1))
        with torch.no_grad():
            for kept, fresh in zip(average.parameters(), parameters, strict=True):
                kept.lerp_(fresh, 1 - memory)
        yield float(sum(loss for loss, _ in results) / HALVES)
    net.load_state_dict(average.state_dict())


def _schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate."""
    return min(1.0, (step + 1) / min(WARM_UP, steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def _draw(data: WindowData, masking: Masking, how: DiffusionTraining, generator: torch.Generator) -> Batch:
    patches = torch.randint(0, data.sampler.table.count, (how.windows,), generator=generator)
    own = data.sampler.gather(data.own, patches)
    missing, judged = hide(masking, own, generator)
    log_sigma = how.centre + how.spread * torch.randn(how.draws, how.windows, generator=generator)
    sigma = log_sigma.exp().clamp(how.smallest, how.largest)
    sigma[0] = how.largest
    noise = torch.randn(how.draws, *own.shape, generator=generator)
    return Batch(data.sampler.gather(data.filled, patches), patches, missing, judged, noise, sigma)


def _differentiate(net: DiT, batch: Batch, whiten: Whiten) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss of a batch and its gradient."""
    draws, count, _ = batch.noise.shape
    white = whiten(batch.values, batch.missing, batch.patches)
    frames = (count, -1, net.channels)
    missing = batch.missing.view(frames)
    memory = net.encode(batch.values.view(frames), missing, features(white, missing.shape[1]))
    clean = white.inward(batch.values).expand(draws, -1, -1)
    noisy = torch.where(batch.missing, clean + batch.sigma[:, :, None] * batch.noise, 0.0)
    denoised = net.denoise(noisy.reshape(draws * count, -1, net.channels), batch.sigma.reshape(-1), memory)
    error = white.outward((denoised.reshape(clean.shape) - clean).view(draws * count, -1)).view(draws, count, -1)
    error = torch.where(batch.judged, error / white.deviation.clamp(min=LEAST_DEVIATION), 0.0)
    mean = error.square().sum(2) / batch.judged.sum(1).clamp(min=1)
    square = batch.sigma.square()
    loss = (mean * (square + 1) / square).mean()
    return loss.detach(), torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)

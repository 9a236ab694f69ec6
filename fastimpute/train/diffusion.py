"""Training of a denoiser of windows in the white coordinates of a base."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastimpute.crew import Crew
from fastimpute.nn.dit import DiT
from fastimpute.nn.white_denoiser import LEAST_DEVIATION, Coordinates, denoise_with_spread, encode
from fastimpute.train.adam import AdamW
from fastimpute.train.data_parallel import ONE, Gradients, Replicas
from fastimpute.train.masking import Mixture, hide
from fastimpute.train.windows import PatchSampler

Arrays = dict[str, NDArray[Any]]
HALVES = 2  # of a batch, differentiated side by side
WARM_UP = 50  # steps
WEIGHT_DECAY = 1e-4
LONGEST_MEMORY = 0.999  # of the average of the weights


# White coordinates of windows (n, D) with a mask (n, D) and numbers (n,).
Whiten = Callable[[Tensor, Tensor, Tensor], Coordinates]


@dataclass(frozen=True)
class DiffusionTraining:
    """How a denoiser is trained.

    Attributes:
        steps: optimiser steps.
        windows: per step.
        draws: per window; the first sees nothing of the values at all: it trains the one-step mean and its spread, the
            others noisy values at levels drawn for each.
        learning_rate: at its highest; then it falls along a cosine.
        centre, spread: of log sigma.
        smallest, largest: noise levels, in units of the white coordinates.
        clip: largest norm of the gradient.
        precision: of the network's products: "fp32" or "bf16" (weights and their average stay float32).
    """

    steps: int
    windows: int = 32
    draws: int = 2
    learning_rate: float = 1e-3
    centre: float = 0.3
    spread: float = 1.4
    smallest: float = 0.02
    largest: float = 40.0
    clip: float = 1.0
    precision: str = "fp32"


class Windows(NamedTuple):
    """n windows: their values (n, D) float32, which cells (n, D) bool were filled in or are not to be judged, and
    their numbers (n,)."""

    values: Tensor
    own: Tensor
    patches: Tensor


class WindowSource(Protocol):
    """Draws windows to train on."""

    def draw(self, count: int, generator: torch.Generator) -> Windows:
        """`count` windows, all equally likely."""


class WindowData(NamedTuple):
    """Windows cut from a series: the filled series (T, N) float32, which cells (T, N) bool were filled in or are not
    to be judged, and the windows."""

    filled: Tensor
    own: Tensor
    sampler: PatchSampler

    def draw(self, count: int, generator: torch.Generator) -> Windows:
        """See `WindowSource.draw`."""
        patches = torch.randint(0, self.sampler.table.count, (count,), generator=generator)
        return Windows(self.sampler.gather(self.filled, patches), self.sampler.gather(self.own, patches), patches)


class SequenceData(NamedTuple):
    """Windows that are whole sequences (n, D) float32, independent of each other and without gaps of their own."""

    sequences: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Windows:
        """See `WindowSource.draw`."""
        chosen = torch.randint(0, len(self.sequences), (count,), generator=generator)
        values = self.sequences[chosen]
        return Windows(values, torch.zeros_like(values, dtype=torch.bool), chosen)


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

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(*(part.to(device) for part in self))


class Training:
    """Minimise ``E w |outward(D(y + sigma z, sigma) - y) / deviation|^2`` on judged cells, w = 1 + sigma^-2.

    The loss is measured in the units of the data, cell by cell, although noise is added in white coordinates: there a
    cell mixes with its neighbours, and the cells that are judged are cells of the data. Beside it the spread of the
    one-step mean's errors is learned by their continuous ranked probability score. A batch is differentiated in two
    halves of one thread each: same bits on any number of threads, and of replicas, of which two at most have work.

    Args:
        net: the network, trained in place and where it lies; batches are drawn on the CPU and moved there.
        data: what draws the windows.
        whiten: coordinates of windows, given their values, mask and numbers.
        masking: what is hidden.
        how: steps, batch, noise levels.
        workers: who does it.
        seed: of windows, masks and noise.
        replicas: who shares the halves; each trains the same network on the same data.

    Source: arXiv 2510.02216 (noise on missing cells only), weights and noise levels after EDM (arXiv 2206.00364).
    """

    def __init__(
        self,
        net: DiT,
        data: WindowSource,
        whiten: Whiten,
        masking: Mixture,
        how: DiffusionTraining,
        workers: Crew,
        *,
        seed: int = 0,
        replicas: Replicas = ONE,
    ) -> None:
        self.net, self.data, self.whiten, self.masking, self.how, self.workers = (
            net,
            data,
            whiten,
            masking,
            how,
            workers,
        )
        self.replicas = replicas
        self._agreed = False
        self.done = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._average = copy.deepcopy(net)
        self._parameters = list(net.parameters())
        self._optimiser = AdamW(self._parameters, how.learning_rate, WEIGHT_DECAY)

    @property
    def steps(self) -> int:
        """How many in all."""
        return self.how.steps

    def step(self) -> float:
        """One step of the optimiser; the loss before it, 1 for an untrained network if the base is right."""
        how, self.done = self.how, self.done + 1
        drawn = self._draw()
        self._agree(drawn)
        batch = drawn.to(next(self.net.parameters()).device)
        results = self.replicas.differentiate(self.workers, self._differentiate, batch.halves(), self._blank)
        for parameter, *parts in zip(self._parameters, *(gradients for _, gradients in results), strict=True):
            parameter.grad = torch.stack(parts).mean(0)
        self._optimiser.learning_rate = how.learning_rate * _schedule(self.done - 1, how.steps)
        torch.nn.utils.clip_grad_norm_(self._parameters, how.clip)
        self._optimiser.step()
        memory = min(LONGEST_MEMORY, 1 - 1 / (0.1 * self.done + 1))
        with torch.no_grad():
            for kept, fresh in zip(self._average.parameters(), self._parameters, strict=True):
                kept.lerp_(fresh, 1 - memory)
        losses = torch.cat([part for part, _ in results])
        self.masking.learn(losses.cpu())
        return float(losses.mean())

    def finish(self) -> None:
        """Give the network the running average of its weights."""
        self.net.load_state_dict(self._average.state_dict())

    def pack(self) -> Arrays:
        """All that the steps to come depend on."""
        packed = {"done": torch.tensor(self.done), "steps": torch.tensor(self.how.steps)}
        packed |= {"generator": self._generator.get_state()}
        packed |= {f"masking.{name}": tensor for name, tensor in self.masking.pack().items()}
        optimiser = self._optimiser
        moments = zip(optimiser.mean, optimiser.square, strict=True)
        for (name, weights), (mean, square) in zip(self.net.named_parameters(), moments, strict=True):
            packed[f"net.{name}"] = weights.detach()
            packed[f"average.{name}"] = self._average.get_parameter(name).detach()
            packed[f"exp_avg.{name}"], packed[f"exp_avg_sq.{name}"] = mean, square
        return {name: tensor.cpu().numpy() for name, tensor in packed.items()}

    def unpack(self, arrays: Arrays) -> None:
        """Go on where `pack` was called.

        Raises:
            KeyError, RuntimeError: the arrays are of another network.
        """
        kept = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        self.done, self.how = int(kept["done"]), replace(self.how, steps=int(kept["steps"]))
        self._generator.set_state(kept["generator"])
        self.masking.unpack({name[8:]: tensor for name, tensor in kept.items() if name.startswith("masking.")})
        names = [name for name, _ in self.net.named_parameters()]
        self.net.load_state_dict({name: kept[f"net.{name}"] for name in names})
        self._average.load_state_dict({name: kept[f"average.{name}"] for name in names})
        self._optimiser.done = self.done
        for name, mean, square in zip(names, self._optimiser.mean, self._optimiser.square, strict=True):
            mean.copy_(kept[f"exp_avg.{name}"])
            square.copy_(kept[f"exp_avg_sq.{name}"])

    def _agree(self, batch: Batch) -> None:
        """Before the first step: all replicas stand at the same place, on the same data."""
        if self.replicas.count > 1 and not self._agreed:
            state = [torch.from_numpy(array) for array in self.pack().values()]
            self.replicas.agree("training of the denoiser", [*batch, *state], self.how)
            self._agreed = True

    def _draw(self) -> Batch:
        how, generator = self.how, self._generator
        values, own, patches = self.data.draw(how.windows, generator)
        missing, judged = hide(self.masking, own, generator)
        log_sigma = how.centre + how.spread * torch.randn(how.draws, how.windows, generator=generator)
        sigma = log_sigma.exp().clamp(how.smallest, how.largest)
        sigma[0] = how.largest
        noise = torch.randn(how.draws, *own.shape, generator=generator)
        return Batch(values, patches, missing, judged, noise, sigma)

    def _blank(self, batch: Batch) -> Gradients:
        """Room for what `_differentiate` returns."""
        return batch.values.new_empty(len(batch.values)), tuple(map(torch.empty_like, self._parameters))

    def _differentiate(self, batch: Batch) -> Gradients:
        """Loss (n,) of the windows of a batch, and the gradient of what is minimised."""
        white = self.whiten(batch.values, batch.missing, batch.patches)
        clean = white.inward(batch.values).expand_as(batch.noise)
        noisy = torch.where(batch.missing, clean + batch.sigma[:, :, None] * batch.noise, 0.0)
        noisy[0] = 0.0
        memory = encode(self.net, white, batch.values, precision=self.how.precision)
        denoised, log_spread = denoise_with_spread(
            self.net, white, memory, noisy.flatten(0, 1), batch.sigma.reshape(-1), precision=self.how.precision
        )
        error = white.outward(denoised - clean.flatten(0, 1)).view(clean.shape)
        error = torch.where(batch.judged, error / white.deviation.clamp(min=LEAST_DEVIATION), 0.0)
        judged = batch.judged.sum(1).clamp(min=1)
        square = batch.sigma.square()
        loss = (error.square().sum(2) / judged * (square + 1) / square).mean(0)
        spread = (
            torch.where(batch.judged, crps(error[0].detach(), log_spread[: len(batch.values)]), 0.0).sum(1) / judged
        )
        gradient = torch.autograd.grad((loss + spread).mean(), self._parameters, materialize_grads=True)
        return loss.detach(), gradient


def crps(error: Tensor, log_spread: Tensor) -> Tensor:
    """Continuous ranked probability score of a Gaussian of deviation exp(log_spread) at `error` from its mean."""
    spread = log_spread.exp()
    z = error.abs() / spread
    density = torch.exp(-0.5 * z.square()) * math.sqrt(2 / math.pi)
    return spread * (z * torch.erf(z * math.sqrt(0.5)) + density - 1 / math.sqrt(math.pi))


def _schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate."""
    return min(1.0, (step + 1) / min(WARM_UP, steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))

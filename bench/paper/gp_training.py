"""Trains a denoiser of Gaussian-process sequences that lack whole frames, for a given time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gp_regions import Base
from torch import Tensor

from fastimpute import gp
from fastimpute.bases import Whitening
from fastimpute.crew import crew
from fastimpute.nn import DiT
from fastimpute.nn.white_denoiser import FEATURES
from fastimpute.train.checkpoint import Checkpoint, run
from fastimpute.train.diffusion import DiffusionTraining, SequenceData, Training
from fastimpute.train.masking import Mixture

MEASURED = 20  # steps that tell how many fit into the time
# Noise levels: in white coordinates as they come; in the values themselves the narrowest directions have deviation .05.
LEVELS: dict[str, dict[str, float]] = {
    "gaussian": {},
    "none": {"centre": -1.0, "spread": 1.8, "smallest": 0.005},
}


@dataclass(frozen=True)
class Network:
    """Sizes of the denoiser: `layers` read the observations, as many draw."""

    hidden: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Budget:
    """How long is trained, on what, and where it is kept."""

    minutes: float
    windows: int
    learning_rate: float
    device: torch.device
    seed: int
    checkpoint: Path | None


@dataclass(frozen=True)
class WholeFrames:
    """Hides frames of all channels, placed as a mixture says."""

    mixture: str | tuple[tuple[int, int], ...]
    frames: int
    channels: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `fastimpute.train.masking.Masking.draw`."""
        hidden = gp.draw_frames(self.mixture, count, self.frames, generator=generator)
        return hidden.repeat_interleave(self.channels, 1)


class NoBase:
    """Coordinates that are the values themselves, which have mean 0 and deviation 1: the paper's setting."""

    def whiten(self, values: Tensor, missing: Tensor, patches: Tensor | None = None) -> Whitening:
        """See `gp_regions.Base.whiten`."""
        return Whitening.diagonal(missing, values.masked_fill(missing, 0), missing.float())


def train(
    x: Tensor, base: Base, masking: WholeFrames, network: Network, budget: Budget, levels: dict[str, float]
) -> tuple[DiT, DiffusionTraining, dict[str, Any]]:
    """A denoiser of sequences x (n, H, d), how it was trained, and what that took.

    The learning rate falls along a cosine over as many steps as fit into the time by the speed of the first `MEASURED`,
    which are taken on a copy. With a checkpoint, training goes on where an earlier one stopped, as if it had not.
    """
    how = DiffusionTraining(MEASURED, windows=budget.windows, learning_rate=budget.learning_rate, **levels)
    data = SequenceData(x.flatten(1).float())
    kept = None
    if budget.checkpoint is not None:
        kept = Checkpoint(budget.checkpoint, repr((network, masking, len(x), how, budget.seed)))

    with crew() as workers:

        def training() -> Training:
            net = _new_net(x.shape[2], x.shape[1], network, budget)
            return Training(net, data, base.whiten, Mixture([masking], [1.0]), how, workers, seed=budget.seed)

        ours = training()
        if kept is None or not kept.restore(ours):
            ours.how = replace(how, steps=_steps_in(budget.minutes, training()))
        begin, done, last = time.perf_counter(), ours.done, 0.0
        for loss in run(ours, kept):
            last += (loss - last) * max(0.01, 1 / (ours.done - done))
    ours.finish()
    weights = sum(parameter.numel() for parameter in ours.net.parameters())
    facts = {
        "steps": ours.steps,
        "training_seconds": time.perf_counter() - begin,
        "last_loss": last,
        "weights": weights,
    }
    return ours.net, ours.how, facts


def _new_net(channels: int, frames: int, network: Network, budget: Budget) -> DiT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(budget.seed)
        sizes = {"hidden": network.hidden, "encoder_layers": network.layers, "decoder_layers": network.layers}
        return DiT(channels, frames, heads=network.heads, feature_dim=FEATURES * channels, **sizes).to(budget.device)


def _steps_in(minutes: float, trial: Training) -> int:
    """Steps that fit into so many minutes."""
    trial.step()  # whatever is set up once
    begin = time.perf_counter()
    count = sum(1 for _ in run(trial))
    return max(MEASURED, int(60 * minutes * count / (time.perf_counter() - begin)))

"""A denoiser over a base: the mean of every window in one step, and its deviation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastimpute.bases import Base
from fastimpute.crew import Crew
from fastimpute.diffusion.schedule import LARGEST
from fastimpute.nn.dit import DiT
from fastimpute.nn.white_denoiser import denoise_with_spread, encode

MEANS_AT_ONCE = 128  # windows of a piece of work


@dataclass(frozen=True)
class Denoising:
    """A network that denoises windows in the white coordinates of a bound base; with its windows it conditions them.

    Attributes:
        base: bound to the windows in question.
        net: the denoiser.
        workers: pieces of fixed size are done side by side: same bits on any number of threads.
        precision: of the network's products, "fp32" or "bf16".
    """

    base: Base
    net: DiT
    workers: Crew
    precision: str = "fp32"

    def condition(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation by one step from the largest noise level; see `Base.condition`."""
        pieces = zip(*(torch.split(part, MEANS_AT_ONCE) for part in (values, missing, patches)), strict=True)
        means, deviations = zip(*self.workers.map(lambda piece: self._mean(*piece), pieces), strict=True)
        return torch.cat(means), torch.cat(deviations)

    @torch.no_grad()
    def _mean(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        white = self.base.whiten(values, missing, patches)
        memory = encode(self.net, white, values, precision=self.precision)
        blank = torch.zeros_like(values)
        found = denoise_with_spread(self.net, white, memory, blank, LARGEST, precision=self.precision)
        mean, deviation = white.mean + white.outward(found[0]), white.deviation * found[1].exp()
        return torch.where(missing, mean, values), deviation

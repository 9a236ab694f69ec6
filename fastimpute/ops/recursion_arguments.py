"""What `proximal_recursion` runs on: the patches of a series, and the numbers of the recursion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Patches(NamedTuple):
    """Index tables of the patches: starts (S,) ascending, columns (G, k), window length L."""

    starts: Tensor
    columns: Tensor
    window: int

    @property
    def total(self) -> int:
        return self.starts.shape[0] * self.columns.shape[0]

    @property
    def dim(self) -> int:
        return self.window * self.columns.shape[1]

    def cells(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns in the series of each element of the given patches, (n, D) each."""
        groups = self.columns.shape[0]
        steps = torch.arange(self.window, device=self.starts.device)
        rows = self.starts[patch // groups][:, None, None] + steps[None, :, None]
        columns = self.columns[patch % groups][:, None, :]
        shape = (len(patch), self.window, self.columns.shape[1])
        return rows.expand(shape).flatten(1), columns.expand(shape).flatten(1)

    def noise_keys(self, patch: Tensor) -> Tensor:
        """Absolute window start and sensors of the given patches, (n, 1 + k)."""
        groups = self.columns.shape[0]
        return torch.cat([self.starts[patch // groups][:, None], self.columns[patch % groups]], 1)


class Settings(NamedTuple):
    """The numbers of the recursion, in the order the kernel takes them."""

    head: str
    sigma: float
    iterations: int
    eta: float
    gamma: float
    eta_w: float
    tau: float
    bound: float
    group: int
    robust: bool
    adam: bool
    dissipation: bool
    seed: int

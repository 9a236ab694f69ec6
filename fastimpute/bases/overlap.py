"""From windows to the series: the overlap average of what a base says of every window."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fastimpute.gaps import Floats, Mask
from fastimpute.series import Series
from fastimpute.train.windows import PatchSampler, PatchTable

BLOCK = 2048  # windows at once
SHARPNESS = 4  # weight of a window: variance to minus this power, so that windows with the gap inside decide


class Conditioner(Protocol):
    """A base, or a model over one."""

    def condition(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """See `Base.condition`."""


class Filling(NamedTuple):
    """mean (T, N), observed cells bit for bit, and standard deviation (T, N), 0 where observed."""

    mean: Floats
    deviation: Floats


def own_cells(table: PatchTable) -> Tensor:
    """(D,) bool: the cells a window answers for. A window of a sensor and its neighbours answers for that sensor, which
    comes first: as a neighbour it would be taken for one of those that many resemble."""
    width = table.dim // table.window
    return torch.arange(table.dim) % width < (width if len(table.columns) == 1 else 1)


def fill(base: Conditioner, series: Series, hidden: Mask, table: PatchTable) -> Filling:
    """Condition every window on its cells that are not hidden (T, N), and average what overlaps.

    The variance of a cell is the weighted mean of its windows' variances: they share most of what they saw. Cells in
    no window, and those of sensors without any observation near, get the base's mean of a window with nothing in it.
    """
    sampler = PatchSampler(table, torch.Generator())
    values, gone = torch.from_numpy(series.values), torch.from_numpy(hidden)
    total, variance, weight = (torch.zeros(values.numel(), dtype=torch.float64) for _ in range(3))
    own = own_cells(table)
    for patches in torch.split(torch.arange(table.count), BLOCK):
        cells = sampler.cells(patches)
        missing = gone.view(-1)[cells]
        mean, deviation = base.condition(values.view(-1)[cells], missing, patches)
        asked = missing & own
        where = cells[asked]
        square = deviation[asked].double().square().clamp(min=1e-10)
        trust = square.pow(-SHARPNESS)
        total.index_add_(0, where, trust * mean[asked].double())
        variance.index_add_(0, where, trust * square)
        weight.index_add_(0, where, trust)
    known = weight > 0
    scale = torch.where(known, weight, 1)
    filled = torch.where(known, total / scale, 0).float().view(values.shape).numpy()
    spread = torch.where(known, (variance / scale).sqrt(), 1).float().view(values.shape).numpy()
    return Filling(np.where(hidden, filled, series.values), np.where(hidden, spread, np.float32(0)))

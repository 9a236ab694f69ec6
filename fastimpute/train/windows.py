"""Patches drawn at random from a filled series, in runs that share their condition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastimpute.patches import Indices, cell_table

AT_ONCE = 2048  # patches gathered at a time: the places of their cells take four times the memory of these


@dataclass(frozen=True)
class PatchTable:
    """Where the patches of a series lie and what each is conditioned on; patch ``i = s * G + g`` (start-major).

    Attributes:
        starts: (S,) int64, first rows, ascending.
        columns: (G, k) int64, the sensors of a patch.
        window: rows of a patch, L.
        sensors: columns of the series, N.
        conditions: (m, F) float32, the distinct conditions.
        condition_index: (S,) int64, the condition of each start.
    """

    starts: Indices
    columns: Indices
    window: int
    sensors: int
    conditions: Tensor
    condition_index: Indices

    @property
    def count(self) -> int:
        """Number of patches, S * G."""
        return len(self.starts) * len(self.columns)

    @property
    def dim(self) -> int:
        """Cells of a patch, D = L * k."""
        return self.window * int(self.columns.shape[1])


class PatchSampler:
    """Draws patches for training: runs of ``rows`` patches share a condition, so that its modulation is computed once.

    A condition is drawn as often as it has starts, its patches uniformly: every patch is equally likely. With
    ``mass`` (S * G,) a patch is drawn as often as its weight says (the SPT weights of the functional). Series, masks
    and ``mass`` lie on ``device``, the generator belongs to it.
    """

    def __init__(
        self,
        table: PatchTable,
        generator: torch.Generator | None,
        mass: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.table, self.generator, self.mass, self.device = table, generator, mass, device
        order = np.argsort(table.condition_index, kind="stable")
        self._order = torch.from_numpy(order).to(device)
        _, first, count = np.unique(table.condition_index[order], return_index=True, return_counts=True)
        self._first, self._count = torch.from_numpy(first).to(device), torch.from_numpy(count).to(device)
        self._conditions = table.conditions[torch.from_numpy(table.condition_index[order][first])].to(device)
        self._share = self._count.float()
        self._cells = torch.from_numpy(cell_table(table.columns, table.window, table.sensors)).to(device)
        self._rows = (torch.from_numpy(table.starts) * table.sensors).to(device)

    def indices(self, conditions: int, rows: int) -> tuple[Tensor, Tensor]:
        """Patch numbers (conditions * rows,) and the conditions (conditions, F) that runs of ``rows`` of them share."""
        groups = len(self.table.columns)
        pick = torch.multinomial(self._share, conditions, replacement=True, generator=self.generator)
        chance = torch.rand(conditions, rows, generator=self.generator, device=self.device)
        start = self._order[self._first[pick][:, None] + (chance * self._count[pick][:, None]).long()]
        group = torch.randint(0, groups, (conditions, rows), generator=self.generator, device=self.device)
        return (start * groups + group).view(-1), self._conditions[pick]

    def some(self, most: int) -> Tensor:
        """All patch numbers, or ``most`` drawn from them where there are more."""
        count = self.table.count
        if count <= most:
            return torch.arange(count, device=self.device)
        return torch.randint(0, count, (most,), generator=self.generator, device=self.device)

    def cells(self, patches: Tensor) -> Tensor:
        """Flat positions (n, D) of the cells of some patches in the series."""
        groups = len(self.table.columns)
        return self._rows[patches // groups][:, None] + self._cells.index_select(0, patches % groups)

    def gather(self, series: Tensor, patches: Tensor) -> Tensor:
        """Patches (n, D) of a contiguous series (T, N)."""
        gathered = series.new_empty(len(patches), self.table.dim)
        for own, some in zip(torch.split(gathered, AT_ONCE), torch.split(patches, AT_ONCE), strict=True):
            # a third of an indexing's time
            torch.index_select(series.view(-1), 0, self.cells(some).view(-1), out=own.view(-1))
        return gathered

    def weights(self, patches: Tensor) -> Tensor | None:
        """Training weight of each patch (n,), mean about one; None when all are equal."""
        return None if self.mass is None else self.mass[patches]

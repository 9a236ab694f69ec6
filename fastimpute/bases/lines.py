"""Straight lines within a window, and lines of what is left over a cycle; their spread is a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fastimpute.bases.base import Arrays, Ground, grounded, pack_cycle, unpack_cycle
from fastimpute.bases.cycle import NO_PERIOD, Cycle
from fastimpute.bases.spread_table import Gaps, SpreadTable
from fastimpute.bases.whitening import Whitening
from fastimpute.gaps import Floats, Mask, gap_distance, hold_out, linear
from fastimpute.profile import Period
from fastimpute.series import Series
from fastimpute.train.windows import PatchSampler, PatchTable

DAMPING = 6.0  # rows from the nearest observation over which a departure from the cycle is forgotten
MOST_WINDOWS = 4000  # that the spread table is learned from


def straight_lines(values: Floats, missing: Mask, series: Series) -> Floats:
    """Straight lines (T, N) within each segment of a series."""
    filled = np.empty_like(values)
    for start, stop in series.segments:
        filled[start:stop] = linear(values[start:stop], missing[start:stop])
    return filled


def first_filling(series: Series, missing: Mask, cycle: Cycle) -> Floats:
    """What is left over the cycle (T, N), gaps filled by straight lines, damped far from observations."""
    left = np.where(missing, 0, series.values - cycle.over(series)).astype(np.float32)
    lines = straight_lines(left, missing, series)
    if cycle.length < 2:
        return lines
    damping = np.exp(-(gap_distance(missing) - 1) / (2 * DAMPING)).astype(np.float32)
    return np.where(missing, lines * damping, left).astype(np.float32)


@dataclass(frozen=True)
class LinearBase:
    """Straight lines across a window's gaps, the nearest observation at its ends.

    Attributes:
        spread: standard deviations by distance to the nearest observation and length of the gap.
        cycle: the recurring mean; none here.
        window: rows of a window, L.
        ground: the cycle over the rows of the series it is bound to.
    """

    kind: ClassVar[str] = "linear"
    cyclic: ClassVar[bool] = False

    spread: SpreadTable
    cycle: Cycle
    window: int
    ground: Ground | None = None

    @classmethod
    def fit(
        cls,
        series: Series,
        missing: Mask,
        table: PatchTable,
        *,
        period: Period = NO_PERIOD,
        seed: int = 0,
    ) -> Self:
        """Learn the spread from observed cells hidden for the purpose; arguments as `GaussianBase.fit`."""
        cycle = Cycle.of(series, missing, period if cls.cyclic else NO_PERIOD)
        base = cls(SpreadTable.flat(), cycle, table.window, Ground(cycle, series, table))
        held = hold_out(missing, seed=seed + 1)
        generator = torch.Generator().manual_seed(seed)
        patches = torch.randperm(table.count, generator=generator)[:MOST_WINDOWS]
        sampler = PatchSampler(table, generator)
        values = sampler.gather(torch.from_numpy(series.values), patches)
        judged = sampler.gather(torch.from_numpy(held), patches)
        hidden = judged | sampler.gather(torch.from_numpy(missing), patches)
        filled, _ = base.condition(values, hidden, patches)
        gaps = Gaps.of(base._frames(hidden))
        errors = base._frames(filled - values)
        return replace(base, spread=SpreadTable.fit(errors, gaps, base._frames(judged)))

    def condition(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """See `Base.condition`."""
        level = grounded(self.ground).mean(patches)
        gaps = Gaps.of(self._frames(missing))
        left = self._frames(torch.where(missing, 0, values - level))
        lines = gaps.lines(left)
        if self.cyclic:
            lines = lines * torch.exp(-(gaps.distance - 1) / DAMPING)
        filled = torch.where(missing, lines.reshape(values.shape) + level, values)
        deviation = torch.where(missing, self.spread.at(gaps).reshape(values.shape), 0)
        return filled, deviation

    def whiten(self, values: Tensor, missing: Tensor, patches: Tensor) -> Whitening:
        """See `Base.whiten`."""
        return Whitening.diagonal(missing, *self.condition(values, missing, patches))

    def _frames(self, windows: Tensor) -> Tensor:
        """(n, D) -> (n, L, k)"""
        return windows.reshape(len(windows), self.window, -1)

    def bind(self, series: Series, table: PatchTable) -> Self:
        """See `Base.bind`."""
        return replace(self, ground=Ground(self.cycle, series, table))

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """See `Base.pack`."""
        arrays, facts = pack_cycle(self.cycle)
        return {**arrays, "spread": self.spread.deviation.numpy()}, {**facts, "window": self.window}

    @classmethod
    def unpack(cls, arrays: Arrays, facts: dict[str, Any]) -> Self:
        """See `Base.unpack`."""
        spread = SpreadTable(torch.from_numpy(np.array(arrays["spread"])))
        return cls(spread, unpack_cycle(arrays, facts), int(facts["window"]))


@dataclass(frozen=True)
class ProfileBase(LinearBase):
    """The cycle, plus lines of what is left over it, damped with the distance to the nearest observation."""

    kind: ClassVar[str] = "profile"
    cyclic: ClassVar[bool] = True

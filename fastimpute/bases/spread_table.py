"""How uncertain a cell is by where it lies in its gap, for methods that do not say so themselves."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from fastimpute.nn.gap_features import since_observed

RANKS = 9  # powers of two of a distance or length: 1, 2, 4, ... 256 and beyond
PRIOR = 50.0  # cells that the coarser table counts for


class Gaps(NamedTuple):
    """Where the missing cells of windows (n, L, k) lie: rows to the observation before and after; L where none is."""

    before: Tensor
    after: Tensor

    @classmethod
    def of(cls, missing: Tensor) -> Self:
        """From masks (n, L, k)."""
        return cls(since_observed(missing), since_observed(missing.flip(1)).flip(1))

    @property
    def distance(self) -> Tensor:
        """Rows to the nearest observation: 0 where observed, L where there is none."""
        return torch.minimum(self.before, self.after)

    def lines(self, values: Tensor) -> Tensor:
        """Straight lines across the gaps of windows (n, L, k), the nearest observation at the ends, 0 without any."""
        length = values.shape[1]
        rows = torch.arange(length)[None, :, None]
        seen_before, seen_after = self.before < length, self.after < length
        left = values.gather(1, torch.where(seen_before, rows - self.before, 0))
        right = values.gather(1, torch.where(seen_after, rows + self.after, 0))
        left, right = torch.where(seen_before, left, right), torch.where(seen_after, right, left)
        share = self.before / (self.before + self.after).clamp(min=1)
        between = left + (right - left) * share
        return torch.where(seen_before | seen_after, between, 0)


class SpreadTable(NamedTuple):
    """Standard deviations (RANKS, RANKS), standardised, by rank of the distance and of the gap's length."""

    deviation: Tensor

    @classmethod
    def flat(cls) -> Self:
        """One everywhere: nothing is known."""
        return cls(torch.ones(RANKS, RANKS))

    @classmethod
    def fit(cls, errors: Tensor, gaps: Gaps, cells: Tensor) -> Self:
        """Root mean squares of the errors (n, L, k) at the cells; drawn to the distance's own where there are few."""
        distance, length = _ranks(gaps)
        square = errors[cells].double().square()
        place = (distance * RANKS + length)[cells]
        total = torch.zeros(RANKS * RANKS, dtype=torch.float64).index_add_(0, place, square).view(RANKS, RANKS)
        count = torch.bincount(place, minlength=RANKS * RANKS).double().view(RANKS, RANKS)
        overall = (total.sum() / count.sum()) if count.sum() else torch.tensor(1.0, dtype=torch.float64)
        rough = (total.sum(1) + PRIOR * overall) / (count.sum(1) + PRIOR)
        rough = torch.cummax(rough, 0).values  # farther from an observation is never surer
        fine = (total + PRIOR * rough[:, None]) / (count + PRIOR)
        return cls(fine.sqrt().clamp(min=1e-4).float())

    def at(self, gaps: Gaps) -> Tensor:
        """Standard deviation (n, L, k) of every cell, as if it were missing."""
        distance, length = _ranks(gaps)
        return self.deviation[distance, length]


def _ranks(gaps: Gaps) -> tuple[Tensor, Tensor]:
    return _rank(gaps.distance), _rank(gaps.before + gaps.after - 1)


def _rank(rows: Tensor) -> Tensor:
    return torch.log2(rows.clamp(min=1).float()).ceil().long().clamp(max=RANKS - 1)

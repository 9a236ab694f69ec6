"""Which cells of a window are hidden in training: the network learns to fill the gaps it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastimpute.train.windows import PatchSampler

BLOCKS = (1, 2, 4, 16)  # a sixth of the window in so many blocks: the quarters of mixture S4
SHARE = 6
FEWEST, MOST = 0.05, 0.8  # share of the cells that `RandomCells` hides


class Masking(Protocol):
    """Draws patterns of missing cells for windows."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, D) bool, True = hidden; frame first."""


@dataclass(frozen=True)
class LookAlike:
    """The gaps of the data themselves: a window is given those of another one.

    Attributes:
        hidden: (T, N) bool, True where the data has nothing.
        sampler: of the windows.
    """

    hidden: Tensor
    sampler: PatchSampler

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Masking.draw`."""
        patches = torch.randint(0, self.sampler.table.count, (count,), generator=generator)
        return self.sampler.gather(self.hidden, patches)


@dataclass(frozen=True)
class RandomCells:
    """Single cells, a share of the window that is drawn for each.

    Attributes:
        cells: of a window, D.
    """

    cells: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Masking.draw`."""
        share = FEWEST + (MOST - FEWEST) * torch.rand(count, 1, generator=generator)
        return torch.rand(count, self.cells, generator=generator) < share


@dataclass(frozen=True)
class MixedBlocks:
    """A sixth of the frames, in 1, 2, 4 or 16 blocks of equal length; of all sensors, or for each sensor elsewhere.

    Source: mixture S4 of arXiv 2510.02216 (16 of 96 frames as 16 x 1, 8 x 2, 4 x 4 or 1 x 16), scaled to the window.

    Attributes:
        window: frames, L.
        sensors: of a window, k.
    """

    window: int
    sensors: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Masking.draw`."""
        frames = torch.arange(self.window)
        hidden = max(1, self.window // SHARE)
        kinds = torch.tensor([blocks for blocks in BLOCKS if blocks <= hidden])
        blocks = kinds[torch.randint(0, len(kinds), (count,), generator=generator)]
        length = hidden // blocks
        starts = torch.rand(count, int(kinds.max()), self.sensors, generator=generator)
        together = torch.rand(count, 1, 1, generator=generator) < 0.5
        starts = torch.where(together, starts[:, :, :1], starts) * (self.window - length + 1)[:, None, None]
        after = frames[None, None, :, None] - starts.long()[:, :, None, :]
        used = torch.arange(starts.shape[1])[None, :] < blocks[:, None]
        inside = (after >= 0) & (after < length[:, None, None, None]) & used[:, :, None, None]
        return inside.any(1).view(count, -1)


@dataclass(frozen=True)
class Mixture:
    """One of several maskings for each window.

    Attributes:
        parts: the maskings.
        shares: how often each is drawn, relative to each other.
    """

    parts: Sequence[Masking]
    shares: Sequence[float]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Masking.draw`."""
        chance = torch.tensor(self.shares, dtype=torch.float64)
        which = torch.multinomial(chance, count, replacement=True, generator=generator)
        drawn = torch.stack([part.draw(count, generator) for part in self.parts])
        return drawn[which, torch.arange(count)]


class Hidden(NamedTuple):
    """missing (n, D): what the network does not see; judged (n, D): where its answer is compared with the data."""

    missing: Tensor
    judged: Tensor


def hide(masking: Masking, own: Tensor, generator: torch.Generator) -> Hidden:
    """Hide cells of windows that have gaps of their own (n, D).

    With probability 1/2 a window's own gaps count as observed, with what fills them: the network then sees patterns as
    dense as those it will be asked about; else they stay missing. They are never judged.
    """
    pattern = masking.draw(len(own), generator)
    seen = torch.rand(len(own), 1, generator=generator) < 0.5
    missing = pattern | (own & ~seen)
    return Hidden(missing, missing & ~own)

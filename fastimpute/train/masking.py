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
LOSS_MEMORY, LARGEST_LOSS = 0.99, 4.0  # of the running loss of a part of a mixture


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


class Mixture:
    """One of several maskings for each window.

    An adaptive mixture shows more of what is learned badly: each part is drawn in proportion to its share times the
    square of its running loss over the mean of all, as far as losses are told by `learn`. A loss is relative to what
    the base leaves (1 for an untrained network), so that a part is not drawn for being hard to everyone.

    Args:
        parts: the maskings.
        shares: how often each is drawn, relative to each other.
        adaptive: whether losses count.

    Source: the mixed masking of arXiv 2510.02216, whose distribution-shift coefficient between training and target
    patterns is estimated here by the ratio of their losses.
    """

    def __init__(self, parts: Sequence[Masking], shares: Sequence[float], *, adaptive: bool = False) -> None:
        self.parts, self.adaptive = tuple(parts), adaptive
        self._shares = torch.tensor(shares, dtype=torch.float64)
        self._losses = torch.ones(len(self.parts), dtype=torch.float64)
        self._drawn = torch.zeros(0, dtype=torch.int64)

    @property
    def shares(self) -> Tensor:
        """(k,) float64, how often each part is drawn now; their sum is one."""
        shares = self._shares * (self._losses / self._losses.mean()).square()
        return shares / shares.sum()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Masking.draw`."""
        self._drawn = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        drawn = torch.stack([part.draw(count, generator) for part in self.parts])
        return drawn[self._drawn, torch.arange(count)]

    def learn(self, losses: Tensor) -> None:
        """Tell the loss (count,) of each window drawn last."""
        if self.adaptive:
            for part in range(len(self.parts)):
                for loss in losses[self._drawn == part].double():
                    self._losses[part].lerp_(loss.clamp(max=LARGEST_LOSS), 1 - LOSS_MEMORY)

    def pack(self) -> dict[str, Tensor]:
        """What was learned."""
        return {"losses": self._losses}

    def unpack(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `pack`."""
        self._losses = tensors["losses"].clone()


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

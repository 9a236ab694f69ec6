"""Which cells of a window are hidden in training: the network learns to fill the gaps it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from fastimpute.train.windows import PatchSampler

BLOCKS = (16, 8, 4, 1)  # a sixth of the window in so many blocks: the quarters of mixture S4
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
    """Blocks of rows, of all sensors together or for each sensor elsewhere; blocks may overlap.

    Attributes:
        window: frames, L.
        sensors: of a window, k.
        parts: pairs (blocks, rows of each), all equally likely.
    """

    window: int
    sensors: int
    parts: tuple[tuple[int, int], ...]

    @classmethod
    def scaled(cls, window: int, sensors: int) -> Self:
        """A sixth of the frames in 16, 8, 4 or 1 blocks.

        Source: mixture S4 of arXiv 2510.02216 (16 of 96 frames as 16 x 1, 8 x 2, 4 x 4 or 1 x 16).
        """
        hidden = max(1, window // SHARE)
        return cls(window, sensors, tuple((blocks, hidden // blocks) for blocks in BLOCKS if blocks <= hidden))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Masking.draw`."""
        parts = torch.tensor(self.parts)
        blocks, length = parts[torch.randint(0, len(parts), (count,), generator=generator)].unbind(1)
        starts = torch.rand(count, int(parts[:, 0].max()), self.sensors, generator=generator)
        together = torch.rand(count, 1, 1, generator=generator) < 0.5
        starts = torch.where(together, starts[:, :, :1], starts) * (self.window - length + 1)[:, None, None]
        after = torch.arange(self.window)[None, None, :, None] - starts.long()[:, :, None, :]
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


Asked = str | dict[str, float] | Sequence[tuple[int, int]]
KINDS = ("look-alike", "mixed", "random")
ADAPTIVE = {"look-alike": 2.0, "mixed": 1.0, "random": 1.0}


def check_masking(asked: Asked) -> None:
    """Raises ValueError unless `read_masking` knows what is meant."""
    if isinstance(asked, (str, dict)):
        shares = {asked: 1.0} if isinstance(asked, str) else asked
        if not shares or (set(shares) - set(KINDS) and asked != "adaptive"):
            known = ", ".join((*KINDS, "adaptive"))
            raise ValueError(f"masking: expected one of {known}, shares of the first three or blocks, got {asked!r}")
        if min(shares.values()) <= 0:
            raise ValueError(f"masking: expected positive shares, got {asked!r}")
        return
    whole = [len(pair) == 2 and all(isinstance(size, int) and size >= 1 for size in pair) for pair in asked]
    if not whole or not all(whole):
        raise ValueError(f"masking: expected pairs (blocks, rows of each) of positive integers, got {asked!r}")


def read_masking(asked: Asked, missing: Tensor, sampler: PatchSampler) -> Mixture:
    """The masking that was asked for; data without gaps has none that look alike, and hides random cells instead.

    Args:
        asked: the name of a kind, shares of several, "adaptive", or pairs (blocks, rows of each).
        missing: (T, N) bool, the gaps of the data.
        sampler: of the windows.

    Raises:
        ValueError: blocks that do not fit into a window; what `check_masking` refuses.
    """
    check_masking(asked)
    table = sampler.table
    sensors = table.dim // table.window
    if not isinstance(asked, (str, dict)):
        for blocks, rows in asked:
            if blocks * rows > table.window:
                raise ValueError(f"masking: {blocks} blocks of {rows} rows do not fit into windows of {table.window}")
        return Mixture([MixedBlocks(table.window, sensors, tuple((blocks, rows) for blocks, rows in asked))], [1.0])
    random = RandomCells(table.dim)
    parts = {
        "look-alike": LookAlike(missing, sampler) if bool(missing.any()) else random,
        "mixed": MixedBlocks.scaled(table.window, sensors),
        "random": random,
    }
    shares = ADAPTIVE if asked == "adaptive" else asked if isinstance(asked, dict) else {asked: 1.0}
    return Mixture([parts[kind] for kind in shares], list(shares.values()), adaptive=asked == "adaptive")

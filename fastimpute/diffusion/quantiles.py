"""Regions from a stream of samples, none of which is kept: the ball of `ball_quantile` and an interval per cell."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute.ops.ball_quantile import order_statistic


class Region(NamedTuple):
    """Where windows lie with probability `level`, in the units of the samples.

    centre: (n, D) mean of the samples; radius: (n,) of the ball around it over the missing cells; lower, upper: (n, D)
    ends of each cell's own interval, both the known value where observed.
    """

    centre: Tensor
    radius: Tensor
    lower: Tensor
    upper: Tensor


class RegionStream:
    """Exact order statistics of Z samples that arrive in chunks, twice: first `add` all, then `add_distances` all.

    Samples with counter-based noise can be drawn again for the second pass. Only the tails that the quantiles lie in
    are kept: (1 - level) / 2 Z values per cell and side and (1 - level) Z distances per window. Memory beside a chunk,
    with float32 samples and c = n D cells: 8 c bytes for sums, 8 ceil(.5 (1 - level) Z) c for tails; at level .95 that
    is a twentieth of the samples (for Z = 1000: 208 bytes a cell instead of 4000). A chunk is briefly held twice.

    The interval of a cell lies between its k-th smallest and k-th largest sample, k = floor((Z + 1) (1 - level) / 2): a
    new draw falls outside either end with a probability of at most (1 - level) / 2.

    Args:
        missing: (n, D) bool, True where missing.
        samples: Z.
        level: in (0, 1).

    Raises:
        ValueError: Z too small for the level (39 for the intervals at .95), or a level outside (0, 1).

    Example:
        >>> stream = RegionStream(torch.tensor([[True]]), 7, 0.5)
        >>> chunks = torch.tensor([3.0, 1.0, 7.0, 5.0, 2.0, 6.0, 4.0]).view(7, 1, 1).split(3)
        >>> for chunk in chunks:
        ...     stream.add(chunk)
        >>> for chunk in chunks:
        ...     stream.add_distances(chunk)
        >>> region = stream.region()
        >>> float(region.centre), float(region.lower), float(region.upper)
        (4.0, 2.0, 6.0)
    """

    def __init__(self, missing: Tensor, samples: int, level: float) -> None:
        self.missing, self.samples = missing, samples
        self._largest = samples + 1 - order_statistic(samples, level)
        self._tail = math.floor((samples + 1) * (1 - level) / 2 + 1e-9)
        if self._tail < 1:
            least = math.ceil(2 / (1 - level) - 1e-9) - 1
            raise ValueError(f"samples must be at least {least} for intervals of level {level}, got {samples}")
        self._seen = self._measured = 0
        self._total = torch.zeros(missing.shape, dtype=torch.float64)
        self._first: Tensor | None = None
        self._low = self._high = self._far = torch.empty(0)

    def add(self, chunk: Tensor) -> None:
        """First pass: takes samples (s, n, D).

        Raises:
            ValueError: samples of another shape, or more than Z of them.
        """
        self._seen = self._counted(chunk, self._seen)
        if self._first is None:
            self._first = chunk[0].clone()
            self._low = self._high = chunk[:0]
            self._far = chunk.new_empty(0, len(self.missing))
        self._total += chunk.sum(0, dtype=torch.float64)
        self._low = _extremes(self._low, chunk, self._tail, largest=False)
        self._high = _extremes(self._high, chunk, self._tail, largest=True)

    @property
    def centre(self) -> Tensor:
        """Mean of the samples, (n, D), the known values where observed; after the first pass.

        Raises:
            ValueError: the first pass has not seen all samples.
        """
        if self._seen != self.samples or self._first is None:
            raise ValueError(f"samples must all have been added, {self.samples} of them, got {self._seen}")
        mean = (self._total / self.samples).to(self._first.dtype)
        return torch.where(self.missing, mean, self._first)

    def add_distances(self, chunk: Tensor) -> None:
        """Second pass: takes the same samples (s, n, D) again, in any chunks.

        Raises:
            ValueError: before the first pass has ended, samples of another shape, or more than Z of them.
        """
        centre = self.centre
        self._measured = self._counted(chunk, self._measured)
        squares = torch.where(self.missing, (chunk - centre).square(), 0.0).sum(2)
        self._far = _extremes(self._far, squares, self._largest, largest=True)

    def region(self) -> Region:
        """The region, after both passes.

        Raises:
            ValueError: a pass has not seen all samples.
        """
        centre = self.centre
        if self._measured != self.samples:
            raise ValueError(f"distances must all have been added, {self.samples} of them, got {self._measured}")
        radius = self._far[-1].sqrt() * (self.samples / (self.samples - 1))
        return Region(
            centre,
            radius,
            torch.where(self.missing, self._low[-1], centre),
            torch.where(self.missing, self._high[-1], centre),
        )

    def _counted(self, chunk: Tensor, seen: int) -> int:
        if chunk.shape[1:] != self.missing.shape:
            raise ValueError(
                f"chunk must have shape (s, {', '.join(map(str, self.missing.shape))}), got {tuple(chunk.shape)}"
            )
        if seen + len(chunk) > self.samples:
            raise ValueError(f"chunk must complete {self.samples} samples, got {seen + len(chunk)}")
        return seen + len(chunk)


def _extremes(kept: Tensor, chunk: Tensor, count: int, *, largest: bool) -> Tensor:
    """The `count` most extreme values so far along axis 0, the most extreme first."""
    together = torch.cat([kept, chunk])
    return together.topk(min(count, len(together)), dim=0, largest=largest).values

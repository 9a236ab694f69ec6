"""The contract of a base, and the windows it is asked about."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastimpute.bases.cycle import Cycle
from fastimpute.bases.whitening import Whitening
from fastimpute.series import Series
from fastimpute.train.windows import PatchSampler, PatchTable

Arrays = dict[str, NDArray[Any]]


class Base(Protocol):
    """Conditional mean and spread of windows (the patches of a `PatchTable`, D = L * k cells, frame first)."""

    kind: ClassVar[str]

    def condition(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of windows given their observed cells.

        Args:
            values: (n, D) float32, standardised; what stands at missing cells is ignored.
            missing: (n, D) bool, True where missing: any mask, not only that of the series.
            patches: (n,) int64, numbers of the windows in the table the base is bound to.

        Returns:
            mean (n, D), observed cells bit for bit; standard deviation (n, D), 0 where observed.
        """

    def whiten(self, values: Tensor, missing: Tensor, patches: Tensor) -> Whitening:
        """Mean, deviation and white coordinates of windows given their observed cells; arguments as `condition`."""

    def bind(self, series: Series, table: PatchTable) -> Self:
        """The same base for the windows of another series of the same sensors."""

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays and JSON-able facts."""

    @classmethod
    def unpack(cls, arrays: Arrays, facts: dict[str, Any]) -> Self:
        """Inverse of `pack`; the base has to be bound before use."""


class Ground:
    """The mean that a base takes off the windows of one series: its cycle, laid over the rows."""

    def __init__(self, cycle: Cycle, series: Series, table: PatchTable) -> None:
        self.sampler = PatchSampler(table, torch.Generator())
        self._mean = None if cycle.length < 2 else torch.from_numpy(cycle.over(series))
        self._none = torch.zeros(1, table.dim)

    def mean(self, patches: Tensor) -> Tensor:
        """(n, D), or (1, D) zeros without a cycle."""
        return self._none if self._mean is None else self.sampler.gather(self._mean, patches)


def grounded(ground: Ground | None) -> Ground:
    """The ground of a bound base.

    Raises:
        RuntimeError: the base was unpacked and not bound yet.
    """
    if ground is None:
        raise RuntimeError("the base is not bound to a series: call bind(series, table) first")
    return ground


def pack_cycle(cycle: Cycle) -> tuple[Arrays, dict[str, Any]]:
    """The part of `pack` that all bases share."""
    return {"cycle": cycle.mean}, {"origin": cycle.origin}


def unpack_cycle(arrays: Arrays, facts: dict[str, Any]) -> Cycle:
    """Inverse of `pack_cycle`."""
    origin = facts["origin"]
    return Cycle(np.asarray(arrays["cycle"], np.float32), None if origin is None else float(origin))

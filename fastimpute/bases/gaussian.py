"""Windows as Gaussian vectors: mean and covariance by EM, then conditional mean and spread in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.bases.base import Arrays, Ground, grounded, pack_cycle, unpack_cycle
from fastimpute.bases.cycle import NO_PERIOD, Cycle
from fastimpute.bases.em import Moments, climb
from fastimpute.bases.lines import first_filling
from fastimpute.bases.whitening import Whitening
from fastimpute.crew import crew
from fastimpute.gaps import Mask
from fastimpute.profile import Period
from fastimpute.series import Series
from fastimpute.train.windows import PatchTable

STEPS = 5


@dataclass(frozen=True)
class GaussianBase:
    """One Gaussian for all windows, over the cycle of the series.

    Attributes:
        moments: mean (D,) and covariance (D, D), double, of a window without its cycle.
        cycle: the recurring mean.
        ground: the cycle over the rows of the series it is bound to.

    Source: the Gaussian conditional of arXiv 2510.02216, with moments by EM.
    """

    kind: ClassVar[str] = "gaussian"
    free_level: ClassVar[bool] = False

    moments: Moments
    cycle: Cycle
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
        steps: int = STEPS,
    ) -> Self:
        """So many steps of EM.

        Args:
            series: what the windows are cut from.
            missing: (T, N), True where a cell is not to be seen; at least where the series has nothing.
            table: the windows.
            period: steps per day and week; none without.
            seed: of the windows drawn.
            steps: of EM.
        """
        return next(islice(cls.climb(series, missing, table, period=period, seed=seed), steps - 1, None))

    @classmethod
    def climb(
        cls, series: Series, missing: Mask, table: PatchTable, *, period: Period, seed: int, last: Self | None = None
    ) -> Iterator[Self]:
        """The base after each step of EM, without end; from `last` on, if given. Same bits on any number of threads."""
        cycle = Cycle.of(series, missing, period)
        ground = Ground(cycle, series, table)
        filled, hidden = torch.from_numpy(first_filling(series, missing, cycle)), torch.from_numpy(missing)
        with crew() as workers:
            steps = climb(
                filled,
                hidden,
                table,
                free_level=cls.free_level,
                seed=seed,
                threads=workers.threads,
                last=None if last is None else last.moments,
            )
        while True:
            with crew():
                moments = next(steps)
            yield cls(moments, cycle, ground)

    @cached_property
    def _precision(self) -> Tensor:
        return torch.cholesky_inverse(torch.linalg.cholesky(self.moments.covariance))

    def condition(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """See `Base.condition`."""
        mean, covariance = self.moments
        level = grounded(self.ground).mean(patches)
        filled, deviation = ops.gaussian_conditional(values - level, missing, mean, covariance, self._precision)
        return torch.where(missing, filled + level, values), deviation

    def whiten(self, values: Tensor, missing: Tensor, patches: Tensor) -> Whitening:
        """See `Base.whiten`."""
        mean = self.moments.mean + grounded(self.ground).mean(patches).double()
        return Whitening.gaussian(values, missing, mean, self._precision)

    def bind(self, series: Series, table: PatchTable) -> Self:
        """See `Base.bind`."""
        return replace(self, ground=Ground(self.cycle, series, table))

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """See `Base.pack`."""
        arrays, facts = pack_cycle(self.cycle)
        return {**arrays, "mean": self.moments.mean.numpy(), "covariance": self.moments.covariance.numpy()}, facts

    @classmethod
    def unpack(cls, arrays: Arrays, facts: dict[str, Any]) -> Self:
        """See `Base.unpack`."""
        mean, covariance = (torch.from_numpy(np.array(arrays[name])) for name in ("mean", "covariance"))
        return cls(Moments(mean, covariance), unpack_cycle(arrays, facts))


@dataclass(frozen=True)
class IncrementsBase(GaussianBase):
    """A Gaussian of what a window does around its level, the level itself left free: for series near a unit root."""

    kind: ClassVar[str] = "increments"
    free_level: ClassVar[bool] = True

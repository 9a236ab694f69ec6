"""A denoiser over a base: the mean of every window in one step, and joint draws of what is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastimpute.bases import Base
from fastimpute.bases.overlap import own_cells
from fastimpute.crew import Crew
from fastimpute.diffusion.sampler import one_step_mean, sample
from fastimpute.diffusion.schedule import LARGEST, Plan
from fastimpute.gaps import Mask
from fastimpute.nn.dit import DiT
from fastimpute.nn.white_denoiser import denoise, denoise_with_spread, encode
from fastimpute.patches import Indices
from fastimpute.series import Series
from fastimpute.train.windows import PatchSampler, PatchTable

MEANS_AT_ONCE, DRAWN_AT_ONCE = 128, 32  # windows of a piece of work


@dataclass(frozen=True)
class Denoising:
    """A network that denoises windows in the white coordinates of a bound base; with its windows it conditions them.

    Attributes:
        base: bound to the windows in question.
        net: the denoiser.
        workers: pieces of fixed size are done side by side: same bits on any number of threads.
        precision: of the network's products, "fp32" or "bf16".
    """

    base: Base
    net: DiT
    workers: Crew
    precision: str = "fp32"

    def condition(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation by one step from the largest noise level; see `Base.condition`."""
        pieces = zip(*(torch.split(part, MEANS_AT_ONCE) for part in (values, missing, patches)), strict=True)
        means, deviations = zip(*self.workers.map(lambda piece: self._mean(*piece), pieces), strict=True)
        return torch.cat(means), torch.cat(deviations)

    @torch.no_grad()
    def _mean(self, values: Tensor, missing: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        white = self.base.whiten(values, missing, patches)
        memory = encode(self.net, white, values, precision=self.precision)
        blank = torch.zeros_like(values)
        found = denoise_with_spread(self.net, white, memory, blank, LARGEST, precision=self.precision)
        mean, deviation = white.mean + white.outward(found[0]), white.deviation * found[1].exp()
        return torch.where(missing, mean, values), deviation

    def draw(
        self,
        series: Series,
        hidden: Mask,
        asked: Mask,
        table: PatchTable,
        *,
        samples: int,
        steps: Plan,
        seed: int,
    ) -> NDArray[np.float32]:
        """Departures (S, T, N) of draws from the one-step mean, 0 in cells that are not asked for.

        Every cell is drawn by the window in which it lies most centrally, together with all that window lacks. Noise is
        keyed by the seed, the start of the window, its sensors and the number of the draw.

        Args:
            series: as the base is bound to.
            hidden: (T, N), True where a cell is not seen.
            asked: (T, N), those of them to be drawn.
            table: the windows; every cell lies in one.
            samples: S.
            steps: of the sampler.
            seed: of the noise.
        """
        sampler = PatchSampler(table, torch.Generator())
        values, gone, wanted = torch.from_numpy(series.values), torch.from_numpy(hidden), torch.from_numpy(asked)
        owner = torch.from_numpy(most_central(table.starts, table.window, series.shape[0]))
        own = own_cells(table)

        @torch.no_grad()
        def draw(patches: Tensor) -> tuple[Tensor, Tensor]:
            cells = sampler.cells(patches)
            mine = wanted.view(-1)[cells] & own
            mine &= owner[cells // table.sensors] == (patches // len(table.columns))[:, None]
            busy = mine.any(1)
            cells, mine, patches = cells[busy], mine[busy], patches[busy]
            if not len(patches):
                return cells[mine], torch.zeros(samples, 0)
            known, missing = values.view(-1)[cells], gone.view(-1)[cells]
            white = self.base.whiten(known, missing, patches)
            memory = encode(self.net, white, known, precision=self.precision)

            def denoised(v: Tensor, sigma: float) -> Tensor:
                rows = v.reshape(-1, table.dim)
                return denoise(self.net, white, memory, rows, sigma, precision=self.precision).view(v.shape)

            blank = torch.zeros_like(known)
            drawn = sample(denoised, blank, missing, _keys(table, patches), samples=samples, seed=seed, steps=steps)
            drawn -= one_step_mean(denoised, blank, missing, steps.start)
            return cells[mine], white.outward(drawn.view(-1, table.dim)).view(drawn.shape)[:, mine]

        out = torch.zeros(samples, values.numel())
        for places, drawn in self.workers.map(draw, torch.split(torch.arange(table.count), DRAWN_AT_ONCE)):
            out[:, places] = drawn
        return np.asarray(out.view(samples, *values.shape).numpy())


def most_central(starts: Indices, window: int, rows: int) -> Indices:
    """Number of the window in which each row (T,) lies most centrally.

    Example:
        >>> most_central(np.array([0, 2, 4]), 4, 8).tolist()
        [0, 0, 0, 1, 1, 2, 2, 2]
    """
    row = np.arange(rows)[:, None]
    inside = (row >= starts) & (row < starts + window)
    away = np.abs(2 * (row - starts) - (window - 1))
    return np.asarray(np.where(inside, away, np.iinfo(np.int64).max).argmin(1), np.int64)


def _keys(table: PatchTable, patches: Tensor) -> Tensor:
    """(n, 1 + k): where a window begins, and its sensors."""
    groups = len(table.columns)
    starts, columns = torch.from_numpy(table.starts), torch.from_numpy(table.columns)
    return torch.cat([starts[patches // groups][:, None], columns[patches % groups]], 1)

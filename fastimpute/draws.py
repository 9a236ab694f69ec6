"""Joint draws of missing cells by a denoiser over a base: all of them, or their moments without keeping any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastimpute.bases.overlap import own_cells
from fastimpute.denoising import Denoising
from fastimpute.diffusion.sampler import one_step_mean, sample_chunks
from fastimpute.diffusion.schedule import Plan
from fastimpute.gaps import Mask
from fastimpute.nn.white_denoiser import denoise, encode
from fastimpute.patches import Indices
from fastimpute.series import Series
from fastimpute.train.windows import PatchSampler, PatchTable

WINDOWS_AT_ONCE, ROWS_AT_ONCE = 32, 512  # windows of a piece of work, and draws of a window in memory

# Takes the places (m,) of cells in the series and what is drawn there (s, m), a chunk of samples after another.
Take = Callable[[Tensor, Iterator[Tensor]], None]


@dataclass(frozen=True)
class Moments:
    """Of the departures of S >= 2 draws from the one-step mean, per cell; 0 in cells that were not asked for.

    Attributes:
        mean: (T, N), of the departures.
        square: (T, N), mean of their squares.
        samples: S.
    """

    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    samples: int

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Of the draws from their own mean (T, N), S - 1 degrees of freedom."""
        variance = np.maximum(self.square - self.mean**2, 0)
        return np.asarray(np.sqrt(variance * self.samples / (self.samples - 1)))

    def widened(self, factor: NDArray[np.floating[Any]]) -> Moments:
        """Of the departures times a factor (T, N)."""
        return Moments(factor * self.mean, np.square(factor, dtype=np.float64) * self.square, self.samples)


@dataclass(frozen=True)
class Draws:
    """S draws of missing cells, as departures from the one-step mean.

    Every cell is drawn by the window in which it lies most centrally, together with all that window lacks. Noise is
    keyed by the seed, the start of the window, its sensors and the number of the draw: whatever is drawn beside it, a
    draw is the same.

    Attributes:
        model: the denoiser.
        series: as its base is bound to.
        hidden: (T, N), True where a cell is not seen.
        asked: (T, N), those of them to be drawn.
        table: the windows; every cell lies in one.
        samples: S.
        steps: of the sampler.
        seed: of the noise.
        rows: draws of a window that a piece of work has in memory at a time, at least one of each of its windows.
    """

    model: Denoising
    series: Series
    hidden: Mask
    asked: Mask
    table: PatchTable
    samples: int
    steps: Plan
    seed: int
    rows: int = ROWS_AT_ONCE

    def departures(self) -> NDArray[np.float32]:
        """All of them (S, T, N), 0 in cells that are not asked for."""
        out = torch.zeros(self.samples, self.series.values.size)

        def keep(places: Tensor, chunks: Iterator[Tensor]) -> None:
            first = 0
            for chunk in chunks:
                out[first : first + len(chunk), places] = chunk
                first += len(chunk)

        self._each_piece(keep)
        return np.asarray(out.view(self.samples, *self.series.shape).numpy())

    def moments(self) -> Moments:
        """Mean and mean square of the departures, in memory that does not grow with S.

        The departures lie around 0 and their sums are float64, so that the variance needs no second pass. Draws are
        added one by one: the sums do not depend on the chunk.
        """
        out = torch.zeros(2, self.series.values.size, dtype=torch.float64)

        def add(places: Tensor, chunks: Iterator[Tensor]) -> None:
            total = torch.zeros(2, len(places), dtype=torch.float64)
            for chunk in chunks:
                for drawn in chunk.double():
                    total[0] += drawn
                    total[1].addcmul_(drawn, drawn)
            out[:, places] = total / self.samples

        self._each_piece(add)
        mean, square = out.view(2, *self.series.shape).numpy()
        return Moments(mean, square, self.samples)

    def _each_piece(self, take: Take) -> None:
        """Let `take` have what is drawn by each piece of windows, pieces side by side; they share no cell."""
        table, sampler = self.table, PatchSampler(self.table, torch.Generator())
        wanted, own = torch.from_numpy(self.asked).view(-1), own_cells(table)
        owner = torch.from_numpy(most_central(table.starts, table.window, self.series.shape[0]))

        @torch.no_grad()
        def draw(patches: Tensor) -> None:
            cells = sampler.cells(patches)
            mine = wanted[cells] & own
            mine &= owner[cells // table.sensors] == (patches // len(table.columns))[:, None]
            busy = mine.any(1)
            if busy.any():
                cells, mine = cells[busy], mine[busy]
                take(cells[mine], (drawn[:, mine] for drawn in self._drawn(cells, patches[busy])))

        self.model.workers.map(draw, torch.split(torch.arange(table.count), WINDOWS_AT_ONCE))

    def _drawn(self, cells: Tensor, patches: Tensor) -> Iterator[Tensor]:
        """Departures (s, n, D) in some windows with their cells (n, D), a chunk of samples after another."""
        known = torch.from_numpy(self.series.values).view(-1)[cells]
        missing = torch.from_numpy(self.hidden).view(-1)[cells]
        net, precision = self.model.net, self.model.precision
        white = self.model.base.whiten(known, missing, patches)
        memory = encode(net, white, known, precision=precision)

        def denoised(v: Tensor, sigma: float) -> Tensor:
            rows = v.reshape(-1, self.table.dim)
            return denoise(net, white, memory, rows, sigma, precision=precision).view(v.shape)

        blank, keys = torch.zeros_like(known), _keys(self.table, patches)
        settings = {"samples": self.samples, "seed": self.seed, "chunk": max(1, self.rows // len(patches))}
        mean = one_step_mean(denoised, blank, missing, self.steps.start)
        for drawn in sample_chunks(denoised, blank, missing, keys, steps=self.steps, **settings):
            yield white.outward((drawn - mean).view(-1, self.table.dim)).view(drawn.shape)


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

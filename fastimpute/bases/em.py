"""EM of one Gaussian over the windows of a series, each with its own mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.train.window_gaussian import conditional_covariance
from fastimpute.train.windows import PatchSampler, PatchTable

MOST_WINDOWS = 8000  # of a step; a step with twice as many ends where two steps do
MOST_COVARIANCES = 256  # windows whose conditional covariance is averaged
SHRINKAGE = 0.002  # share of the covariance that its diagonal replaces
FLOOR = 1e-6  # variance, standardised, added to every cell
LEVEL = 100.0  # variance along a free level, spread over the rows of a window: two for 48 rows


class Moments(NamedTuple):
    """mean (D,) and covariance (D, D) of a window, double."""

    mean: Tensor
    covariance: Tensor


def climb(
    filled: Tensor,
    hidden: Tensor,
    table: PatchTable,
    *,
    free_level: bool,
    seed: int,
    threads: int,
    last: Moments | None = None,
) -> Iterator[Moments]:
    """Steps of EM, without end.

    Args:
        filled: (T, N) float32, observed cells as they are, the hidden ones by any plausible filling.
        hidden: (T, N) bool, True where missing.
        table: the windows.
        free_level: leave the level of every sensor to the window and learn the rest: for series near a unit root,
            whose levels wander farther than a share of the covariance may blur.
        seed: of the windows drawn, where there are more than `MOST_WINDOWS`.
        threads: of the kernel.
        last: moments to go on from; None begins with those of the filling.

    Yields:
        Moments after each step.
    """
    generator = torch.Generator().manual_seed(seed)
    sampler = PatchSampler(table, generator)
    wander = free_directions(table) if free_level else None
    while True:
        patches = _some(table.count, generator)
        windows, missing = sampler.gather(filled, patches), sampler.gather(hidden, patches)
        lacking: Tensor | float = 0.0
        if last is not None:
            precision = torch.cholesky_inverse(torch.linalg.cholesky(last.covariance))
            windows, _ = ops.gaussian_conditional(
                windows, missing, last.mean, last.covariance, precision, spread=False, threads=threads
            )
            few = torch.randperm(len(patches), generator=generator)[:MOST_COVARIANCES]
            lacking = conditional_covariance(precision, missing[few])
        last = _maximise(windows, lacking, wander)
        yield last


def _maximise(windows: Tensor, lacking: Tensor | float, wander: Tensor | None) -> Moments:
    """Moments of filled windows (n, D), widened by what is uncertain of the filled cells."""
    centred = windows.double()
    mean = centred.mean(0)
    centred -= mean
    covariance = centred.T @ centred / len(windows) + lacking
    if wander is not None:
        keep = torch.eye(len(wander), dtype=torch.float64) - wander
        mean, covariance = keep @ mean, keep @ covariance @ keep
    diagonal = covariance.diagonal()
    covariance = (1 - SHRINKAGE) * covariance + torch.diag(SHRINKAGE * diagonal + FLOOR * (1 + diagonal))
    return Moments(mean, covariance if wander is None else covariance + LEVEL * wander)


def free_directions(table: PatchTable) -> Tensor:
    """Projection (D, D) onto the windows in which every sensor stands still."""
    sensors = table.dim // table.window
    same = torch.eye(sensors, dtype=torch.float64).repeat(table.window, table.window)
    return same / table.window


def _some(count: int, generator: torch.Generator) -> Tensor:
    return torch.arange(count) if count <= MOST_WINDOWS else torch.randperm(count, generator=generator)[:MOST_WINDOWS]

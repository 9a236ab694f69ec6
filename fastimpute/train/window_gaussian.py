"""Gaussian EM over overlapping windows, each with its own gaps: the network-free rungs at the top of the ladder."""

from __future__ import annotations

import torch
from torch import Tensor

from fastimpute.crew import Crew
from fastimpute.ops.memory import halved_where_short
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.windows import PatchSampler

SHRINKAGE = 0.002  # share of the covariance's diagonal that replaces the covariance
ITERATIONS = 15  # of conjugate gradients; each EM step starts from the last one's solution
BLOCK, BLOCK_LEAST = 2048, 64  # patches solved at once; fewer where a GPU's memory does not suffice
COVARIANCE_SAMPLE, UNCERTAINTY_SAMPLE = 16384, 192


def maximise(series: Tensor, hidden: Tensor, sampler: PatchSampler, last: GaussianPart | None) -> GaussianPart:
    """Mean and covariance of the patches of a filling, widened by what ``last`` left uncertain of the filled cells."""
    patches, lacking = sampler.some(COVARIANCE_SAMPLE), None
    if last is not None:
        some = sampler.some(UNCERTAINTY_SAMPLE)
        lacking = conditional_covariance(last.precision_matrix(0.0), sampler.gather(hidden, some))
    clean = sampler.gather(series, patches)
    return GaussianPart.fit(clean, sampler.weights(patches), lacking=lacking, shrinkage=SHRINKAGE)


def conditional_covariance(precision: Tensor, hidden: Tensor) -> Tensor:
    """Mean (D, D) over patches of the covariance of their hidden cells (n, D) given the others."""
    dim = len(precision)
    total = torch.zeros(dim * dim, dtype=precision.dtype, device=precision.device)
    for mask in hidden:
        cells = mask.nonzero()[:, 0]
        lower = torch.linalg.cholesky(precision[cells][:, cells])
        places = cells[:, None] * dim + cells
        _add(total, places, torch.cholesky_inverse(lower))
    return total.view(dim, dim) / max(len(hidden), 1)


def expect(series: Tensor, hidden: Tensor, sampler: PatchSampler, gaussian: GaussianPart, workers: Crew) -> Tensor:
    """Overlap average of every patch's conditional mean (T, N); observed cells and cells in no patch stay."""
    return halved_where_short(
        lambda block: _expect(series, hidden, sampler, gaussian, workers, block), BLOCK, BLOCK_LEAST
    )


def _expect(
    series: Tensor, hidden: Tensor, sampler: PatchSampler, gaussian: GaussianPart, workers: Crew, block: int
) -> Tensor:
    precision = gaussian.precision_matrix(0.0)
    total, count = torch.zeros_like(series), torch.zeros_like(series)

    def solve(patches: Tensor) -> tuple[Tensor, Tensor]:
        cells = sampler.cells(patches)
        centred = series.view(-1)[cells] - gaussian.mean
        return cells, conditional_mean(precision, centred, hidden.view(-1)[cells].to(series.dtype)) + gaussian.mean

    blocks = torch.split(torch.arange(sampler.table.count, device=series.device), block)
    for first in range(0, len(blocks), workers.threads):
        for cells, solved in workers.map(solve, blocks[first : first + workers.threads]):
            _add(total, cells, solved)
            _add(count, cells, torch.ones_like(solved))
    return torch.where(hidden & (count > 0), total / count.clamp(min=1), series)


def _add(total: Tensor, places: Tensor, values: Tensor) -> None:
    """Adds values to the cells of a contiguous tensor, in an order that is always the same."""
    if total.is_cuda:  # index_add_ would add atomically there; this sorts
        total.view(-1).index_put_((places.reshape(-1),), values.reshape(-1), accumulate=True)
    else:
        total.view(-1).index_add_(0, places.reshape(-1), values.reshape(-1))


def conditional_mean(precision: Tensor, x: Tensor, free: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Minimise ``x^T P x`` over the free cells (n, D: 1 free, 0 fixed) by conjugate gradients from x (n, D)."""
    scale = free / precision.diagonal()
    residual = -(x @ precision) * free
    direction = residual * scale
    power = (residual * direction).sum(1, keepdim=True)
    for _ in range(iterations):
        image = (direction @ precision) * free
        length = power / (direction * image).sum(1, keepdim=True).clamp(min=1e-30)
        x = x + length * direction
        residual = residual - length * image
        preconditioned = residual * scale
        fresh = (residual * preconditioned).sum(1, keepdim=True)
        direction = preconditioned + fresh / power.clamp(min=1e-30) * direction
        power = fresh
    return x

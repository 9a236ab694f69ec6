"""Cases of `gaussian_conditional` and `gaussian_whitening`: the kernels beside torch.linalg, by window and batched."""

from __future__ import annotations

import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.benchmark.measure import FP64, Candidate, Case
from fastimpute.ops.gaussian_conditional import reference
from fastimpute.ops.gaussian_whitening import reference as whiten_reference

BATCH = 64


def gaussian_case(windows: int, dim: int, share: float, *, one_mask: bool = False) -> Case:
    """Mean and spread of windows with a mask each (or all with one); the output compared is the mean."""
    torch.manual_seed(dim)
    lags = torch.arange(dim, dtype=torch.float64)
    covariance = torch.exp(-(lags[:, None] - lags).abs() / 32) + 0.01 * torch.eye(dim, dtype=torch.float64)
    precision, mean = torch.linalg.inv(covariance), torch.zeros(dim, dtype=torch.float64)
    x = torch.randn(windows, dim) @ torch.linalg.cholesky(covariance).T.float()
    missing = torch.rand(1 if one_mask else windows, dim).expand(windows, dim) < share
    single = precision.float()

    def kernel() -> Tensor:
        return ops.gaussian_conditional(x, missing, mean, covariance, precision, backend="cpu")[0]

    def loop() -> Tensor:
        return reference(x.double(), missing, mean, covariance, precision)[0]

    candidates = (
        Candidate("fastimpute fp64", FP64, kernel),
        Candidate("eager loop fp64", FP64, loop),
        Candidate("eager batches fp64", FP64, lambda: batched(x.double(), missing, precision)),
        Candidate("eager batches in fp32", FP64, lambda: batched(x, missing, single)),
    )
    count = missing.sum(1).double()
    factorisations = count[:1] if one_mask else count
    flops = float((2 * factorisations**3 / 3).sum() + (2 * count * dim + 2 * count**2).sum())
    shape = f"n={windows} D={dim}, {share:.0%} missing{', one mask' if one_mask else ''}"
    return Case("gaussian_conditional", shape, candidates, loop(), flops=flops)


def batched(x: Tensor, missing: Tensor, precision: Tensor) -> Tensor:
    """As one writes it in batches: every window a D x D factorisation, the identity in the place of observed cells."""
    filled = []
    for part, gone in zip(torch.split(x, BATCH), torch.split(missing, BATCH), strict=True):
        both = gone[:, :, None] & gone[:, None, :]
        block = torch.where(both, precision, torch.diag_embed((~gone).to(x.dtype)))
        lower = torch.linalg.cholesky(block)
        right = -(part.masked_fill(gone, 0) @ precision).masked_fill(~gone, 0)
        mean = torch.cholesky_solve(right[:, :, None], lower)[:, :, 0]
        torch.cholesky_inverse(lower).diagonal(dim1=1, dim2=2).sqrt()  # the spread
        filled.append(torch.where(gone, mean, part))
    return torch.cat(filled)


def whitening_case(windows: int, dim: int, share: float, *, blocks: bool = False) -> Case:
    """Mean and factors of windows with a mask each; what is compared is the inverse factor.

    Floors: a window with k missing cells takes 2 k^3 / 3 + 2 k D FLOPs and writes the 8 k^2 bytes of the largest k.
    """
    torch.manual_seed(dim)
    lags = torch.arange(dim, dtype=torch.float64)
    covariance = torch.exp(-(lags[:, None] - lags).abs() / 32) + 0.01 * torch.eye(dim, dtype=torch.float64)
    precision, mean = torch.linalg.inv(covariance), torch.zeros(dim, dtype=torch.float64)
    x = torch.randn(windows, dim) @ torch.linalg.cholesky(covariance).T.float()
    missing = block_gaps(windows, dim, share) if blocks else torch.rand(windows, dim) < share

    def kernel() -> Tensor:
        return ops.gaussian_whitening(x, missing, mean, precision, backend="cpu").inverse

    def batches() -> Tensor:
        return whiten_reference(x, missing, mean, precision).inverse

    count = missing.sum(1).double()
    flops = float((2 * count**3 / 3 + 2 * count * dim + 2 * count**2).sum())
    exact = whiten_reference(x.double(), missing, mean, precision).inverse
    candidates = (Candidate("fastimpute fp64", FP64, kernel), Candidate("eager batches fp64", FP64, batches))
    shape = f"n={windows} D={dim}, {share:.0%} missing{' in blocks' if blocks else ''}"
    return Case("gaussian_whitening", shape, candidates, exact, flops=flops)


def block_gaps(windows: int, dim: int, share: float) -> Tensor:
    """Masks (n, D) whose gaps are runs of 24 cells, a share of them that differs by a fifth among windows."""
    shares = share * (0.8 + 0.4 * torch.rand(windows, 1))
    return (torch.rand(windows, (dim + 23) // 24) < shares).repeat_interleave(24, 1)[:, :dim]

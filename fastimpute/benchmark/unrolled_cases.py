"""Cases of `unrolled_attention`: the paper's 96 frames of 8 channels, 16 missing, beside loops in eager PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.benchmark.measure import FP32, Candidate, Case
from fastimpute.ops.lag_heads import head_matrix
from fastimpute.ops.rates import Rates
from fastimpute.ops.unrolled_attention import reference

FRAMES, MISSING, LENGTH, SIGMA = 96, 16, 256.0, 0.1


def data(n: int, channels: int, *, one_mask: bool) -> tuple[Tensor, Tensor, Tensor]:
    """v, x (n, T, d) and missing (n, T)."""
    torch.manual_seed(0)
    x = torch.randn(n, FRAMES, channels).cumsum(1) / LENGTH**0.5
    order = torch.rand(1 if one_mask else n, FRAMES).argsort(1)
    return x + SIGMA * torch.randn_like(x), x, (order < MISSING).expand(n, FRAMES).contiguous()


def score_case(n: int, channels: int, *, one_mask: bool) -> Case:
    """The exact score of the paper's process by conjugate gradients, preconditioned inside: 15 x 2 iterations."""
    v, x, missing = data(n, channels, one_mask=one_mask)
    table = torch.exp(-torch.arange(FRAMES, dtype=torch.float64) / LENGTH)
    table[0] += 1e-6
    sizes: dict[str, Any] = {"iterations": 15, "inner_iterations": 2, "solver": "cg", "length": LENGTH}

    def run(dtype: torch.dtype) -> Tensor:
        return reference(v.to(dtype), x.to(dtype), missing, table.to(dtype), 1.0, SIGMA, **sizes)[0]

    gamma = table.float()
    candidates = (
        Candidate(
            "fastimpute fp32",
            FP32,
            lambda: ops.unrolled_attention(v, x, missing, gamma, 1.0, SIGMA, backend="cpu", **sizes)[0],
        ),
        Candidate("eager loop fp32", FP32, lambda: run(torch.float32)),
    )
    flops = product_flops(n, channels, inner_products=16 * 2, outer_products=15)
    shape = f"n={n} d={channels} cg 15 x 2, {'one mask' if one_mask else 'own masks'}"
    return Case("unrolled_attention", shape, candidates, run(torch.float64), flops, tolerance={FP32: 1e-3})


def learned_case(n: int, channels: int, *, one_mask: bool) -> Case:
    """A trained network's inference, 4 x 8 iterations with given steps."""
    v, x, missing = data(n, channels, one_mask=one_mask)
    table = torch.exp(-torch.arange(FRAMES) / 4.0)
    rates = Rates(torch.tensor([[[0.5, 0.1]] * 4]), torch.tensor([[[0.2, 0.3]] * 8]))
    sizes: dict[str, Any] = {"iterations": 4, "inner_iterations": 8, "solver": "gd"}

    def eager(v: Tensor, x: Tensor) -> Tensor:
        gamma, steps = table.to(v.dtype), Rates(*(part.to(v.dtype) for part in rates))
        return reference(v, x, missing, gamma, 1.0, SIGMA, None, None, steps, **sizes)[0]

    candidates = [
        Candidate(
            "fastimpute fp32",
            FP32,
            lambda: ops.unrolled_attention(v, x, missing, table, 1.0, SIGMA, None, None, rates, backend="cpu", **sizes)[
                0
            ],
        ),
        Candidate("eager loop fp32", FP32, lambda: eager(v, x)),
    ]
    if one_mask:
        candidates.append(
            Candidate("eager loop on one mask fp32", FP32, lambda: one_mask_loop(v, x, missing[0], table, rates))
        )
    flops = product_flops(n, channels, inner_products=4 * 7, outer_products=3)
    shape = f"n={n} d={channels} given steps 4 x 8, {'one mask' if one_mask else 'own masks'}"
    return Case("unrolled_attention", shape, tuple(candidates), eager(v.double(), x.double()), flops)


def product_flops(n: int, channels: int, *, inner_products: int, outer_products: int) -> float:
    """Of the products with the heads between the frames that occur; the mean is one more product with S_cor^T."""
    seen, hidden = FRAMES - MISSING, MISSING
    cells = inner_products * seen**2 + outer_products * (2 * seen * hidden + hidden**2) + seen * hidden
    return 2.0 * n * channels * cells


def one_mask_loop(v: Tensor, x: Tensor, missing: Tensor, table: Tensor, rates: Rates) -> Tensor:
    """The loop as one writes it for a single mask: small dense matrices times all sequences side by side."""
    n, _, channels = v.shape
    heads = head_matrix(table)
    seen_seen, cor, hidden_hidden = (
        heads[~missing][:, ~missing],
        heads[~missing][:, missing],
        heads[missing][:, missing],
    )

    def columns(values: Tensor, frames: Tensor) -> Tensor:
        return values[:, frames].transpose(0, 1).reshape(-1, n * channels)

    def solve_seen(right: Tensor) -> Tensor:
        u = direction = torch.zeros_like(right)
        for step, momentum in rates.inner[0].tolist():
            direction = (right - seen_seen @ u) + momentum * direction
            u = u + step * direction
        return u

    mu = cor.T @ solve_seen(columns(x, ~missing))
    right = mu - columns(v, missing)
    s = direction = torch.zeros_like(right)
    for step, momentum in rates.outer[0].tolist():
        product = hidden_hidden @ s - cor.T @ solve_seen(cor @ s) + SIGMA**2 * s
        direction = right - product + momentum * direction
        s = s + step * direction
    score = torch.zeros_like(v)
    score[:, missing] = s.reshape(-1, n, channels).transpose(0, 1)
    return score

"""The ops of conditional diffusion (arXiv 2510.02216) at given sizes, on torch's default device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.benchmark.block_cases import HEADS, block_flops
from fastimpute.benchmark.gpu.problem import Problem, Tensors, pick, present
from fastimpute.benchmark.unrolled_cases import LENGTH, data, product_flops
from fastimpute.benchmark.unrolled_cases import SIGMA as NOISE_LEVEL
from fastimpute.ops.dit_block import Block

BOTH = ("fp32", "bf16")
LEVEL = 0.95
SENSORS = 7


def _block(sequences: int, tokens: int, hidden: int, memory: int) -> dict[str, Tensor]:
    layers = ((3 * hidden, hidden), (hidden, hidden), (4 * hidden, hidden), (hidden, 4 * hidden))
    weights = [part for out, size in layers for part in (torch.randn(out, size) / size**0.5, 0.1 * torch.randn(out))]
    block = Block._make([torch.randn(sequences, tokens, hidden), 0.5 * torch.randn(1, 6, hidden), *weights])
    heads = HEADS[hidden]
    tensors = block._asdict() | {"bias": torch.randn(1, heads, tokens, tokens + memory)}
    return tensors | ({"memory": torch.randn(1, memory, 2 * hidden)} if memory else {})


def block(sequences: int, tokens: int, hidden: int, *, memory: int = 0) -> Problem:
    """`dit_block`: sequences of one window, which share modulation, bias and memory."""

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[Tensor, ...]:
        inputs = [*pick(tensors, *Block._fields), HEADS[hidden], tensors["bias"], None, tensors.get("memory")]
        return (ops.dit_block(*inputs, backend=backend, precision=precision),)

    name = f"n={sequences} t={tokens}{f'+{memory}' if memory else ''} h={hidden}"
    work = block_flops(sequences, tokens, hidden, memory)
    tensors = present(_block(sequences, tokens, hidden, memory))
    return Problem("dit_block", name, tensors, call, flops=work, precisions=BOTH)


def block_gradient(sequences: int, tokens: int, hidden: int) -> Problem:
    """`dit_block_gradient`: by inputs and weights."""
    tensors = present({**_block(sequences, tokens, hidden, 0), "way": torch.randn(sequences, tokens, hidden)})

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[Tensor, ...]:
        inputs = [*pick(tensors, "way", *Block._fields), HEADS[hidden], tensors["bias"]]
        found = ops.dit_block_gradient(*inputs, backend=backend)
        return tuple(part for part in found if part is not None)

    work = 2 * block_flops(sequences, tokens, hidden, 0)
    return Problem("dit_block_gradient", f"n={sequences} t={tokens} h={hidden}", tensors, call, flops=work)


def diffusion(samples: int, windows: int, dim: int, *, noise: bool = False) -> Problem:
    """`diffusion_step`: v and two denoised states are read, v is written."""
    states = torch.randn(3, samples, windows, dim)
    sensors = SENSORS if dim % SENSORS == 0 else 1
    keys = torch.cat([12 * torch.arange(windows)[:, None], torch.arange(sensors).expand(windows, sensors)], 1)
    tensors = present(
        {
            "v": states[0], "denoised": states[1], "previous": states[2],
            "missing": torch.rand(windows, dim) < 0.3, "keys": keys,
        },
    )  # fmt: skip
    coefficients = ops.StepCoefficients(0.6, 0.5, -0.1, 0.2 if noise else 0.0)

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[Tensor, ...]:
        inputs = [*pick(tensors, "v", "denoised", "previous", "missing"), coefficients]
        drawn = ops.Noise(1, tensors["keys"]) if noise else None
        return (ops.diffusion_step(*inputs, noise=drawn, backend=backend),)

    name = f"S={samples} n={windows} D={dim}{' noise' if noise else ''}"
    moved = 16.0 * samples * windows * dim + windows * dim
    return Problem("diffusion_step", name, tensors, call, bytes=moved)


def ball(samples: int, windows: int, dim: int, *, together: bool = False) -> Problem:
    """`ball_quantile`: the samples need reading once; `together`: those of a window follow on one another."""
    shape = (windows, samples, dim) if together else (samples, windows, dim)
    tensors = {"drawn": torch.randn(shape), "missing": torch.rand(windows, dim) < 0.5}

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[Tensor, ...]:
        drawn = tensors["drawn"].transpose(0, 1) if together else tensors["drawn"]
        return ops.ball_quantile(drawn, tensors["missing"], LEVEL, backend=backend)

    moved = 4.0 * samples * windows * dim
    return Problem("ball_quantile", f"Z={samples} n={windows} D={dim}", present(tensors), call, bytes=moved)


def _windows(windows: int, dim: int, share: float) -> Tensors:
    lags = torch.arange(dim, dtype=torch.float64)
    covariance = torch.exp(-(lags[:, None] - lags).abs() / 32) + 0.01 * torch.eye(dim, dtype=torch.float64)
    lower = torch.linalg.cholesky(covariance)
    return present(
        {
            "x": torch.randn(windows, dim) @ lower.T.float(), "missing": torch.rand(windows, dim) < share,
            "mean": torch.zeros(dim, dtype=torch.float64), "covariance": covariance,
            "precision": torch.cholesky_inverse(lower),
        },
    )  # fmt: skip


def gaussian(windows: int, dim: int, share: float = 0.3) -> Problem:
    """`gaussian_conditional`: every window has its own mask."""
    tensors = _windows(windows, dim, share)

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[Tensor, ...]:
        parts = pick(tensors, "x", "missing", "mean", "covariance", "precision")
        return tuple(part for part in ops.gaussian_conditional(*parts, backend=backend) if part is not None)

    count = tensors["missing"].sum(1).double()
    work = float((2 * count**3 / 3 + 2 * count * dim + 2 * count**2).sum())
    return Problem("gaussian_conditional", f"n={windows} D={dim}, {share:.0%} missing", tensors, call, flops=work)


def whitening(windows: int, dim: int, share: float = 0.3) -> Problem:
    """`gaussian_whitening`: every window has its own mask."""
    tensors = _windows(windows, dim, share)

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[Tensor, ...]:
        parts = pick(tensors, "x", "missing", "mean", "precision")
        return tuple(ops.gaussian_whitening(*parts, backend=backend))

    count = tensors["missing"].sum(1).double()
    work = float((2 * count**3 / 3 + 2 * count * dim + 2 * count**2).sum())
    return Problem("gaussian_whitening", f"n={windows} D={dim}, {share:.0%} missing", tensors, call, flops=work)


def unrolled(sequences: int, channels: int) -> Problem:
    """`unrolled_attention`: the exact score of the paper's process, 15 x 2 conjugate gradients, preconditioned."""
    v, x, missing = data(sequences, channels, one_mask=False)
    table = torch.exp(-torch.arange(v.shape[1], dtype=torch.float64) / LENGTH)
    table[0] += 1e-6
    tensors = present({"v": v, "x": x, "missing": missing, "gamma": table.float()})
    sizes: dict[str, Any] = {"iterations": 15, "inner_iterations": 2, "solver": "cg", "length": LENGTH}

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[Tensor, ...]:
        inputs = [*pick(tensors, "v", "x", "missing", "gamma"), 1.0, NOISE_LEVEL]
        return tuple(ops.unrolled_attention(*inputs, backend=backend, **sizes))

    work = product_flops(sequences, channels, inner_products=16 * 2, outer_products=15)
    return Problem("unrolled_attention", f"n={sequences} d={channels} cg 15 x 2", tensors, call, flops=work)

"""Cases of `diffusion_step` and `ball_quantile`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.benchmark.measure import FP32, Candidate, Case
from fastimpute.benchmark.network_cases import compiled
from fastimpute.ops import Noise, StepCoefficients
from fastimpute.ops.ball_quantile import order_statistic
from fastimpute.ops.ball_quantile import reference as ball_reference
from fastimpute.ops.diffusion_step import reference as step_reference

LEVEL = 0.95
SENSORS = 7


def diffusion_case(samples: int, windows: int, dim: int, *, noise: bool, compile_baseline: bool) -> Case:
    """One step of samples x windows, three in ten cells missing; v and two denoised states are read and v is written.

    The mask and the keys belong to windows: they are read from the cache for all samples but the first.
    """
    torch.manual_seed(0)
    v, denoised, previous = torch.randn(3, samples, windows, dim).unbind()
    missing = torch.rand(windows, dim) < 0.3
    coefficients = StepCoefficients(0.6, 0.5, -0.1, 0.2 if noise else 0.0)
    keys = torch.cat([12 * torch.arange(windows)[:, None], torch.arange(SENSORS).expand(windows, SENSORS)], 1)
    drawn = Noise(1, keys) if noise else None
    v_new = torch.empty_like(v)

    def given() -> Tensor:
        """The kernel without the allocation of its result, whose page faults otherwise dominate."""
        _native.core().diffusion_step(
            ops.isa(),
            torch.get_num_threads(),
            (samples, windows, dim),
            (v.data_ptr(), dim),
            (denoised.data_ptr(), dim),
            (previous.data_ptr(), dim),
            (missing.data_ptr(), dim),
            (v_new.data_ptr(), dim),
            coefficients,
            (1, keys.data_ptr(), SENSORS + 1, SENSORS, 0, 0),
        )
        return v_new

    def kernel() -> Tensor:
        return ops.diffusion_step(v, denoised, previous, missing, coefficients, noise=drawn, backend="cpu")

    def eager(v: Tensor, denoised: Tensor, previous: Tensor) -> Tensor:
        return step_reference(v, denoised, previous, missing, coefficients, noise=drawn)

    candidates = [
        Candidate("fastimpute fp32, memory given", FP32, given),
        Candidate("fastimpute fp32", FP32, kernel),
        Candidate("eager fp32", FP32, lambda: eager(v, denoised, previous)),
    ]
    if compile_baseline and not noise:
        fused = compiled(eager)
        candidates.append(Candidate("torch.compile fp32", FP32, lambda: fused(v, denoised, previous)))
    exact = eager(v.double(), denoised.double(), previous.double())
    shape = f"S={samples} n={windows} D={dim}{' noise' if noise else ''}"
    moved = 16.0 * v.numel() + missing.numel()
    return Case("diffusion_step", shape, tuple(candidates), exact, bytes=moved)


def ball_case(samples: int, windows: int, dim: int, *, compile_baseline: bool) -> Case:
    """Centre and radius; the samples need reading once, half of the cells are missing."""
    torch.manual_seed(0)
    drawn, missing = torch.randn(samples, windows, dim), torch.rand(windows, dim) < 0.5
    centre, radius = torch.empty(windows, dim), torch.empty(windows)
    rank = order_statistic(samples, LEVEL)

    def given() -> Tensor:
        """The kernel without the allocation of its results."""
        _native.core().ball_quantile(
            ops.isa(),
            torch.get_num_threads(),
            (samples, windows, dim),
            (drawn.data_ptr(), windows * dim, dim),
            (missing.data_ptr(), dim),
            rank,
            (centre.data_ptr(), dim),
            radius.data_ptr(),
        )
        return radius

    def radii(region: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
        return lambda: region(drawn)[1]

    def eager(drawn: Tensor) -> tuple[Tensor, Tensor]:
        return ball_reference(drawn, missing, LEVEL)

    candidates = [
        Candidate("fastimpute fp32, memory given", FP32, given),
        Candidate("fastimpute fp32", FP32, radii(lambda part: ops.ball_quantile(part, missing, LEVEL, backend="cpu"))),
        Candidate("eager fp32", FP32, radii(eager)),
    ]
    if compile_baseline:
        candidates.append(Candidate("torch.compile fp32", FP32, radii(compiled(eager))))
    shape = f"Z={samples} n={windows} D={dim}"
    exact = eager(drawn.double())[1]
    return Case("ball_quantile", shape, tuple(candidates), exact, bytes=4.0 * drawn.numel())

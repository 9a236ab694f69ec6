"""`ball_quantile`: the ball around the mean of samples that holds a level of them (arXiv 2510.02216).

    centre = mean over samples
    radius = k-th smallest of |x_z - centre| Z / (Z - 1),  k = ceil((Z + 1) level)

x_z - centre shrinks because x_z is part of the mean; the factor makes it the distance from the mean of the other
samples, which a new draw has too. Without it, small Z cover too little.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import (
    address,
    check_number,
    check_tensor,
    kernel_refusal,
    row_stride,
    rows_contiguous,
    triton_refusal,
    wants_grad,
)
from fastimpute.ops.library import by_backend, no_gradient, on_device_of, register, stream_of

OP = "ball_quantile"


def order_statistic(samples: int, level: float) -> int:
    """k = ceil((samples + 1) level), counted from 1: the k-th smallest of `samples` exchangeable values is exceeded by
    one more with a probability of at most 1 - level.

    Raises:
        ValueError: a level outside (0, 1), or samples too few for it.

    Example:
        >>> order_statistic(99, 0.95)
        95
    """
    check_number(OP, "level", level, above=0)
    if not level < 1:
        raise ValueError(f"{OP}: level must be less than 1, got {level}")
    # 1e-9: (Z + 1) level may be a whole number that rounding has pushed up.
    rank = max(math.ceil((samples + 1) * level - 1e-9), 1)
    if rank > samples or samples < 2:
        least = max(math.ceil(level / (1 - level) - 1e-9), 2)
        raise ValueError(f"{OP}: samples must be at least {least} for level {level}, got {samples}")
    return rank


def reference(samples: Tensor, missing: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """`ball_quantile` in plain PyTorch for any floating dtype; differentiable."""
    count = samples.shape[0]
    rank = order_statistic(count, level)
    centre = torch.where(missing, samples.mean(0), samples[0])
    squares = torch.where(missing, (samples - centre).square(), 0.0).sum(2)
    radius = squares.sort(0).values[rank - 1].sqrt() * (count / (count - 1))
    return centre, radius


def ball_quantile(samples: Tensor, missing: Tensor, level: float, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Mean of samples and radius of the ball around it, per window (arXiv 2510.02216, confidence region).

    Args:
        samples: (Z, n, D), Z samples of n windows, in the units of the data.
        missing: (n, D) bool, True where missing; distances are over these cells.
        level: share of draws that the ball should hold, in (0, 1).
        backend: "auto", "cpu", "cuda", "triton" or "torch".

    Returns:
        centre (n, D), at observed cells the first sample bit for bit, and radius (n,), 0 where nothing is missing; both
        in the units of the samples. A window with a NaN among its missing cells has a NaN radius.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range, Z too small for the level, or an explicit
            backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import ball_quantile
        >>> samples = torch.tensor([[[0.0]], [[3.0]], [[6.0]]])
        >>> ball_quantile(samples, torch.tensor([[True]]), 0.75)
        (tensor([[3.]]), tensor([4.5000]))
    """
    check_tensor(OP, "samples", samples, (None, None, None), None)
    check_tensor(OP, "missing", missing, tuple(samples.shape[1:]), torch.bool)
    rank = order_statistic(samples.shape[0], level)
    refusals = {
        "cpu": lambda: _refusal(samples),
        "cuda": lambda: _cuda_refusal(samples),
        "triton": lambda: _triton_refusal(samples),
    }
    chosen = backends.choose(OP, backend, {"samples": samples, "missing": missing}, refusals)
    if chosen == "torch":
        return reference(samples, missing, level)
    direct = chosen == "cpu" and not torch.compiler.is_compiling()
    centre, radius = _impl(samples, missing, rank) if direct else _op(samples, missing, rank, chosen)
    return centre, radius


def _refusal(samples: Tensor) -> str | None:
    return _gradient_refusal(samples) or kernel_refusal({"samples": samples})


def _cuda_refusal(samples: Tensor) -> str | None:
    return _refusal(samples) or _native.cuda().samples_refusal(samples.shape[0])


def _triton_refusal(samples: Tensor) -> str | None:
    from fastimpute.kernels.ball_quantile import SAMPLES_MOST

    refusal = _gradient_refusal(samples) or triton_refusal({"samples": samples})
    if refusal is None and samples.shape[0] > SAMPLES_MOST:
        return f"samples are {samples.shape[0]} to a window, the kernel takes up to {SAMPLES_MOST}"
    return refusal


def _gradient_refusal(samples: Tensor) -> str | None:
    return "gradients are required, which the kernel does not compute" if wants_grad(samples) else None


# The registered op takes float32, and float64 through the scalar oracle.


def _impl(samples: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    core = _native.core()
    if samples.dtype == torch.float64:
        return _run(core.ball_quantile_ref_f64, samples, *rest)
    return _run(functools.partial(core.ball_quantile, backends.isa(), torch.get_num_threads()), samples, *rest)


def _cuda(samples: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    with on_device_of(samples):
        return _run(functools.partial(_native.cuda().ball_quantile, stream_of(samples)), samples, *rest)


def _run(kernel: Callable[..., None], samples: Tensor, missing: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    count, windows, dim = samples.shape
    adjacent = dim <= 1 or samples.stride(2) == 1
    if not adjacent or min(samples.stride(0), samples.stride(1)) < dim:
        samples = samples.contiguous()
    missing = rows_contiguous(missing)
    centre = torch.empty(windows, dim, dtype=samples.dtype, device=samples.device)
    radius = torch.empty(windows, dtype=samples.dtype, device=samples.device)
    kernel(
        (count, windows, dim),
        (address(samples), max(samples.stride(0), dim), max(samples.stride(1), dim)),
        (address(missing), row_stride(missing)),
        rank,
        (address(centre), dim),
        address(radius),
    )
    return centre, radius


def _triton(samples: Tensor, missing: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    from fastimpute.kernels.ball_quantile import launch

    if samples.shape[2] > 1 and samples.stride(2) != 1:
        samples = samples.contiguous()
    _, windows, dim = samples.shape
    centre = torch.empty(windows, dim, dtype=samples.dtype, device=samples.device)
    radius = torch.empty(windows, dtype=samples.dtype, device=samples.device)
    with on_device_of(samples):
        launch(samples, missing.contiguous(), centre, radius, rank=rank)
    return centre, radius


def _fake(samples: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return samples.new_empty(samples.shape[1:]), samples.new_empty(samples.shape[1:2])


_by_backend = by_backend({"cpu": _impl, "cuda": _cuda, "triton": _triton})
_op = register(
    OP, "(Tensor samples, Tensor missing, int rank, str backend) -> (Tensor, Tensor)", _by_backend, _fake, _by_backend
)
no_gradient(OP, "the kernels compute no gradients; use backend='torch'")

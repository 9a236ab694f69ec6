"""`diffusion_step`: one step of a reverse diffusion, on missing cells only (arXiv 2510.02216).

    v <- state * v + clean * denoised + earlier * previous + spread * N(0, 1)

Euler-Maruyama, Heun and DPM-Solver++(2M) are all of this form: `fastimpute.diffusion` gives their coefficients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

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
from fastimpute.ops.particle_step import Noise
from fastimpute.ops.philox import standard_normal

OP = "diffusion_step"


class StepCoefficients(NamedTuple):
    """What a step multiplies: the state v, the denoised state, an earlier denoised state, and fresh noise."""

    state: float
    clean: float
    earlier: float = 0.0
    spread: float = 0.0


def reference(
    v: Tensor,
    denoised: Tensor,
    previous: Tensor | None,
    missing: Tensor,
    coefficients: StepCoefficients,
    *,
    noise: Noise | None = None,
) -> Tensor:
    """`diffusion_step` in plain PyTorch for any floating dtype; differentiable."""
    state, clean, earlier, spread = coefficients
    moved = state * v + clean * denoised
    if previous is not None:
        moved = moved + earlier * previous
    if noise is not None and spread > 0:
        moved = moved + spread * _normal(noise, v)
    return torch.where(missing, moved, v)


def _normal(noise: Noise, v: Tensor) -> Tensor:
    dim, samples = v.shape[-1], v.shape[0] if v.dim() == 3 else 1
    drawn = [
        standard_normal(noise.seed, noise.keys, dim, noise.sample + index, noise.step, v.dtype)
        for index in range(samples)
    ]
    return torch.stack(drawn).view(v.shape) if drawn else torch.zeros_like(v)


def diffusion_step(
    v: Tensor,
    denoised: Tensor,
    previous: Tensor | None,
    missing: Tensor,
    coefficients: StepCoefficients,
    *,
    noise: Noise | None = None,
    backend: str = "auto",
) -> Tensor:
    """One step of a reverse diffusion on the missing cells of windows (arXiv 2510.02216, reverse process).

    Args:
        v: noisy windows, (n, D), or (S, n, D) for S samples of each, in the units of the data.
        denoised: E[y | v], like v.
        previous: the denoised state of an earlier step, like v; None: not used.
        missing: (n, D) bool, True where missing; other cells come back bit for bit.
        coefficients: of the step.
        noise: keys of the noise, (n, 1 + sensors); sample s of a window draws as sample `noise.sample + s`. None: none.
        backend: "auto", "cpu", "cuda", "triton" or "torch".

    Returns:
        v after the step, of the same shape.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range, coefficients that need what was not
            given, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import StepCoefficients, diffusion_step
        >>> v, missing = torch.ones(1, 2), torch.tensor([[True, False]])
        >>> diffusion_step(v, torch.zeros(1, 2), None, missing, StepCoefficients(state=0.5, clean=0.5))
        tensor([[0.5000, 1.0000]])
    """
    check_tensor(OP, "v", v, (None, None, None) if isinstance(v, Tensor) and v.dim() == 3 else (None, None), None)
    rows, dim = v.shape[-2:]
    check_tensor(OP, "denoised", denoised, tuple(v.shape), v.dtype)
    if previous is not None:
        check_tensor(OP, "previous", previous, tuple(v.shape), v.dtype)
    check_tensor(OP, "missing", missing, (rows, dim), torch.bool)
    check_number(OP, "spread", coefficients.spread, least=0)
    if previous is None and coefficients.earlier != 0:
        raise ValueError(f"{OP}: previous must be given when earlier is not zero, got None")
    if noise is None and coefficients.spread > 0:
        raise ValueError(f"{OP}: noise must be given when spread is positive, got None")
    if noise is not None:
        _check_noise(noise, rows, dim, v.shape[0] if v.dim() == 3 else 1)
    floating = {"v": v, "denoised": denoised, "previous": previous}
    tensors = {**floating, "missing": missing, "noise.keys": None if noise is None else noise.keys}
    refusals = {
        "cpu": lambda: _refusal(floating),
        "cuda": lambda: _refusal(floating),
        "triton": lambda: _triton_refusal(floating),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(v, denoised, previous, missing, coefficients, noise=noise)
    keys, seed, sample, step = (None, 0, 0, 0) if noise is None else (noise.keys, noise.seed, noise.sample, noise.step)
    arguments = (v, denoised, previous, missing, *coefficients, keys, seed, sample, step)
    if chosen == "cpu" and not torch.compiler.is_compiling():
        return _impl(*arguments)
    return cast(Tensor, _op(*arguments, chosen))


def _check_noise(noise: Noise, rows: int, dim: int, samples: int) -> None:
    check_tensor(OP, "noise.keys", noise.keys, (rows, None), torch.int64)
    sensors = noise.keys.shape[1] - 1
    if sensors < 1 or dim % sensors:
        raise ValueError(
            f"{OP}: noise.keys must have 1 + sensors columns, sensors a divisor of {dim}, got {sensors + 1}"
        )
    check_number(OP, "noise.seed", noise.seed, least=0, most=2**63 - 1)
    check_number(OP, "noise.sample", noise.sample, least=0, most=4096 - samples)
    check_number(OP, "noise.step", noise.step, least=0, most=2**32 - 1)


def _refusal(floating: dict[str, Tensor | None]) -> str | None:
    return _gradient_refusal(floating) or kernel_refusal(floating)


def _triton_refusal(floating: dict[str, Tensor | None]) -> str | None:
    return _gradient_refusal(floating) or triton_refusal(floating)


def _gradient_refusal(floating: dict[str, Tensor | None]) -> str | None:
    if wants_grad(*floating.values()):
        return "gradients are required, which the kernel does not compute"
    return None


# The registered op takes float32, and float64 through the scalar oracle.


def _impl(v: Tensor, *rest: Any) -> Tensor:
    core = _native.core()
    if v.dtype == torch.float64:
        return _run(core.diffusion_step_ref_f64, v, *rest)
    return _run(functools.partial(core.diffusion_step, backends.isa(), torch.get_num_threads()), v, *rest)


def _cuda(v: Tensor, *rest: Any) -> Tensor:
    with on_device_of(v):
        return _run(functools.partial(_native.cuda().diffusion_step, stream_of(v)), v, *rest)


def _run(
    kernel: Callable[..., None],
    v: Tensor,
    denoised: Tensor,
    previous: Tensor | None,
    missing: Tensor,
    state: float,
    clean: float,
    earlier: float,
    spread: float,
    keys: Tensor | None,
    seed: int,
    sample: int,
    step: int,
) -> Tensor:
    samples = v.shape[0] if v.dim() == 3 else 1
    windows, dim = v.shape[-2:]
    rows = [None if part is None else rows_contiguous(_as_rows(part)) for part in (v, denoised, previous)]
    missing = rows_contiguous(missing)
    keys = None if keys is None else keys.contiguous()
    v_new = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    kernel(
        (samples, windows, dim),
        *((0, 0) if part is None else (address(part), row_stride(part)) for part in rows),
        (address(missing), row_stride(missing)),
        (address(v_new), dim),
        (state, clean, earlier, spread),
        (seed, address(keys), *((1, 1) if keys is None else (keys.shape[1], keys.shape[1] - 1)), sample, step),
    )
    return v_new


def _as_rows(part: Tensor) -> Tensor:
    return part.reshape(-1, part.shape[-1]) if part.numel() else part.new_empty(0, part.shape[-1])


def _triton(
    v: Tensor,
    denoised: Tensor,
    previous: Tensor | None,
    missing: Tensor,
    state: float,
    clean: float,
    earlier: float,
    spread: float,
    keys: Tensor | None,
    seed: int,
    sample: int,
    step: int,
) -> Tensor:
    from fastimpute.kernels.diffusion_step import launch

    v_new = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    with on_device_of(v):
        launch(
            _as_samples(v),
            _as_samples(denoised),
            None if previous is None else _as_samples(previous),
            rows_contiguous(missing),
            _as_samples(v_new),
            coefficients=(state, clean, earlier, spread),
            noise=(keys.contiguous(), seed, sample, step) if keys is not None and spread > 0 else None,
        )
    return v_new


def _as_samples(part: Tensor) -> Tensor:
    """As (S, n, D) with adjacent elements in a row; samples may share theirs."""
    part = part if part.dim() == 3 else part[None]
    return part if part.shape[2] <= 1 or part.stride(2) == 1 else part.contiguous()


def _fake(v: Tensor, *rest: Any) -> Tensor:
    return v.new_empty(v.shape)


_by_backend = by_backend({"cpu": _impl, "cuda": _cuda, "triton": _triton})
_op = register(
    OP,
    "(Tensor v, Tensor denoised, Tensor? previous, Tensor missing, float state, float clean, float earlier, "
    "float spread, Tensor? keys, int seed, int sample, int step, str backend) -> Tensor",
    _by_backend,
    _fake,
    _by_backend,
)
no_gradient(OP, "the kernels compute no gradients; use backend='torch'")

"""`particle_step`: the weighted, masked step of the particles (arXiv 2602.01182).

    x <- x + eta * mass * direction * missing

With Adam the direction becomes m_hat / (sqrt(v_hat) + eps). The dissipative variant adds -eta * drift * x and
sqrt(2 eta) * N(0, 1). Observed cells keep their bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
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
from fastimpute.ops.philox import standard_normal

OP = "particle_step"


@dataclass
class AdamState:
    """Adam's moments of the particles, (n, D) each; `particle_step` advances them in place where cells are missing."""

    m: Tensor
    v: Tensor
    step: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @staticmethod
    def zeros_like(x: Tensor) -> AdamState:
        """The state before the first step."""
        return AdamState(torch.zeros_like(x), torch.zeros_like(x))

    def corrections(self) -> tuple[float, float]:
        """1 - beta^step of both moments."""
        return 1 - self.beta1**self.step, 1 - self.beta2**self.step


class Noise(NamedTuple):
    """Counter-based noise: depends on these numbers alone, never on the batch or on threads.

    keys: (n, 1 + sensors) int64: absolute start of each particle's window, then the sensor of each of its columns;
    element d of a particle is window step d // sensors of sensor d % sensors. sample < 4096 tells imputations apart,
    step is the iteration.
    """

    seed: int
    keys: Tensor
    sample: int = 0
    step: int = 0


def reference(
    x: Tensor,
    direction: Tensor,
    mass: Tensor,
    missing: Tensor,
    *,
    eta: float,
    adam: AdamState | None = None,
    noise: Noise | None = None,
    drift: float = 0.0,
) -> Tensor:
    """`particle_step` in plain PyTorch for any floating dtype; without Adam, differentiable."""
    if adam is not None:
        direction = _adam_direction(adam, direction, missing)
    moved = x + eta * mass[:, None] * direction
    if drift:
        moved = moved - eta * drift * x
    if noise is not None:
        normal = standard_normal(noise.seed, noise.keys, x.shape[1], noise.sample, noise.step, x.dtype)
        moved = moved + math.sqrt(2 * eta) * normal
    return torch.where(missing, moved, x)


def _adam_direction(adam: AdamState, gradient: Tensor, missing: Tensor) -> Tensor:
    adam.step += 1
    adam.m.copy_(torch.where(missing, adam.beta1 * adam.m + (1 - adam.beta1) * gradient, adam.m))
    adam.v.copy_(torch.where(missing, adam.beta2 * adam.v + (1 - adam.beta2) * gradient.square(), adam.v))
    correction1, correction2 = adam.corrections()
    return (adam.m / correction1) / ((adam.v / correction2).sqrt() + adam.eps)


def particle_step(
    x: Tensor,
    direction: Tensor,
    mass: Tensor,
    missing: Tensor,
    *,
    eta: float,
    adam: AdamState | None = None,
    noise: Noise | None = None,
    drift: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """One step of the particles on their missing cells (arXiv 2602.01182, particle step).

    Args:
        x: particles, (n, D), standardised units.
        direction: T_x, (n, D), in 1 / standardised units.
        mass: B w, (n,).
        missing: (n, D) bool, True where missing; other cells come back bit for bit.
        eta: step size, in standardised units squared (with Adam: standardised units).
        adam: state of Adam, advanced in place; None: plain step.
        noise: keys of the Gaussian noise sqrt(2 eta) N(0, 1) of the dissipative variant; None: none.
        drift: c in the term -eta c x of the dissipative variant.
        backend: "auto", "cpu", "cuda", "triton" or "torch".

    Returns:
        The particles after the step, (n, D).

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import particle_step
        >>> x, missing = torch.zeros(1, 2), torch.tensor([[True, False]])
        >>> particle_step(x, torch.ones(1, 2), torch.ones(1), missing, eta=0.5)
        tensor([[0.5000, 0.0000]])
    """
    check_tensor(OP, "x", x, (None, None), None)
    rows, dim = x.shape
    check_tensor(OP, "direction", direction, (rows, dim), x.dtype)
    check_tensor(OP, "mass", mass, (rows,), x.dtype)
    check_tensor(OP, "missing", missing, (rows, dim), torch.bool)
    check_number(OP, "eta", eta, least=0)
    if adam is not None:
        check_tensor(OP, "adam.m", adam.m, (rows, dim), x.dtype)
        check_tensor(OP, "adam.v", adam.v, (rows, dim), x.dtype)
    if noise is not None:
        _check_noise(noise, rows, dim)
    floating = {"x": x, "direction": direction, "mass": mass}
    if adam is not None:
        floating |= {"adam.m": adam.m, "adam.v": adam.v}
    tensors = {**floating, "missing": missing, "noise.keys": None if noise is None else noise.keys}
    refusals = {
        "cpu": lambda: _refusal(floating),
        "cuda": lambda: _refusal(floating),
        "triton": lambda: _triton_refusal(floating),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(x, direction, mass, missing, eta=eta, adam=adam, noise=noise, drift=drift)
    draw = (None, 0, 0, 0) if noise is None else (noise.keys, noise.seed, noise.sample, noise.step)
    moments: tuple[Any, ...] = ()
    if adam is not None:
        adam.step += 1
        moments = (adam.m, adam.v, adam.beta1, adam.beta2, adam.eps, *adam.corrections())
    arguments = (x, direction, mass, missing, eta, drift, *draw, *moments)
    if chosen == "cpu" and not torch.compiler.is_compiling():
        return _impl(*arguments)
    return cast(Tensor, (_op_adam if moments else _op)(*arguments, chosen))


def _check_noise(noise: Noise, rows: int, dim: int) -> None:
    check_tensor(OP, "noise.keys", noise.keys, (rows, None), torch.int64)
    sensors = noise.keys.shape[1] - 1
    if sensors < 1 or dim % sensors:
        raise ValueError(
            f"{OP}: noise.keys must have 1 + sensors columns, sensors a divisor of {dim}, got {sensors + 1}"
        )
    check_number(OP, "noise.seed", noise.seed, least=0, most=2**63 - 1)
    check_number(OP, "noise.sample", noise.sample, least=0, most=4095)
    check_number(OP, "noise.step", noise.step, least=0, most=2**32 - 1)


def _refusal(floating: dict[str, Tensor]) -> str | None:
    return _any_refusal(floating) or kernel_refusal(floating)


def _triton_refusal(floating: dict[str, Tensor]) -> str | None:
    return _any_refusal(floating) or triton_refusal(floating)


def _any_refusal(floating: dict[str, Tensor]) -> str | None:
    if wants_grad(*floating.values()):
        return "gradients are required, which the kernel does not compute"
    if not all(_rows_adjacent(floating[name]) for name in ("adam.m", "adam.v") if name in floating):
        return "adam's moments have rows with gaps between elements"
    return None


def _rows_adjacent(tensor: Tensor) -> bool:
    return tensor.shape[1] <= 1 or tensor.stride(1) == 1


# The registered op takes float32, and float64 through the scalar oracle.

_NO_MOMENTS = (0, 0, 0, 0, 0.0, 0.0, 0.0, 1.0, 1.0)


def _impl(x: Tensor, *rest: Any) -> Tensor:
    core = _native.core()
    if x.dtype == torch.float64:
        return _run(core.particle_step_ref_f64, x, *rest)
    return _run(functools.partial(core.particle_step, backends.isa(), torch.get_num_threads()), x, *rest)


def _cuda(x: Tensor, *rest: Any) -> Tensor:
    with on_device_of(x):
        return _run(functools.partial(_native.cuda().particle_step, stream_of(x)), x, *rest)


def _run(
    kernel: Callable[..., None],
    x: Tensor,
    direction: Tensor,
    mass: Tensor,
    missing: Tensor,
    eta: float,
    drift: float,
    keys: Tensor | None,
    seed: int,
    sample: int,
    step: int,
    m: Tensor | None = None,
    v: Tensor | None = None,
    *decays: float,
) -> Tensor:
    x, direction, missing = rows_contiguous(x), rows_contiguous(direction), rows_contiguous(missing)
    mass = mass.contiguous()
    keys = None if keys is None else keys.contiguous()
    rows, dim = x.shape
    x_new = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    kernel(
        rows,
        dim,
        address(x),
        row_stride(x),
        address(direction),
        row_stride(direction),
        address(mass),
        address(missing),
        row_stride(missing),
        address(x_new),
        dim,
        eta,
        drift,
        _NO_MOMENTS if m is None or v is None else (address(m), row_stride(m), address(v), row_stride(v), *decays),
        (seed, address(keys), *((1, 1) if keys is None else (keys.shape[1], keys.shape[1] - 1)), sample, step),
    )
    return x_new


def _triton(
    x: Tensor,
    direction: Tensor,
    mass: Tensor,
    missing: Tensor,
    eta: float,
    drift: float,
    keys: Tensor | None,
    seed: int,
    sample: int,
    step: int,
    *moments: Any,
) -> Tensor:
    from fastimpute.kernels.particle_step import launch

    x, direction, missing = rows_contiguous(x), rows_contiguous(direction), rows_contiguous(missing)
    x_new = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    noise = None if keys is None else (keys.contiguous(), seed, sample, step)
    with on_device_of(x):
        launch(
            x, direction, mass.contiguous(), missing, x_new, eta=eta, drift=drift, noise=noise, moments=moments or None
        )
    return x_new


def _fake(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


_by_backend = by_backend({"cpu": _impl, "cuda": _cuda, "triton": _triton})
_ARGUMENTS = (
    "Tensor x, Tensor direction, Tensor mass, Tensor missing, float eta, float drift, Tensor? keys, int seed, "
    "int sample, int step"
)
_op = register("particle_step", f"({_ARGUMENTS}, str backend) -> Tensor", _by_backend, _fake, _by_backend)
_op_adam = register(
    "particle_step_adam",
    f"({_ARGUMENTS}, Tensor(a!) m, Tensor(b!) v, float beta1, float beta2, float eps, float correction1, "
    "float correction2, str backend) -> Tensor",
    _by_backend,
    _fake,
    _by_backend,
)
no_gradient("particle_step", "the kernels compute no gradients; use backend='torch'")

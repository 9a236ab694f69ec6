"""`spt_weights`: the weight update of semi-proximal transport, per group of particles (arXiv 2602.01182).

    value = log_p - gamma / 2 |score|^2          robust: (value - median) / max(IQR, 1e-6) of the group
    T_w   = value - sum_i w_i value_i
    log_w <- log_softmax(log_ref + (1 - tau) (log_w - log_ref) + eta_w T_w),  |log(B w)| <= bound

T_w's second term is one constant per group, so log_softmax makes it vanish.
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
from fastimpute.ops.checks import address, check_number, check_tensor, kernel_refusal, triton_refusal, wants_grad
from fastimpute.ops.library import by_backend, no_gradient, on_device_of, register, stream_of

OP = "spt_weights"
LEAST_SPREAD = 1e-6
_HALVINGS = 100


def reference(
    log_w: Tensor,
    log_p: Tensor,
    score_sq: Tensor,
    *,
    group: int,
    gamma: float,
    eta_w: float,
    tau: float,
    bound: float,
    log_ref: Tensor | None = None,
    robust: bool = False,
) -> tuple[Tensor, Tensor]:
    """`spt_weights` in plain PyTorch for any floating dtype; without a bound in reach, differentiable."""
    starts = range(0, log_w.shape[0], group)
    parts = [
        _one_group(
            *(
                None if tensor is None else tensor[start : start + group]
                for tensor in (log_w, log_p, score_sq, log_ref)
            ),
            gamma=gamma,
            eta_w=eta_w,
            tau=tau,
            bound=bound,
            robust=robust,
        )
        for start in starts
    ]
    if not parts:
        return log_w.clone(), torch.exp(log_w)
    log_mass = torch.cat(parts)
    sizes = torch.full_like(log_w, group)
    sizes[starts[-1] :] = log_w.shape[0] - starts[-1]
    return log_mass - torch.log(sizes), torch.exp(log_mass)


def _one_group(
    log_w: Any,
    log_p: Any,
    score_sq: Any,
    log_ref: Any,
    *,
    gamma: float,
    eta_w: float,
    tau: float,
    bound: float,
    robust: bool,
) -> Tensor:
    """log(B w) of one group."""
    value = log_p - 0.5 * gamma * score_sq
    if robust:
        low, median, high = torch.quantile(value, value.new_tensor([0.25, 0.5, 0.75])).unbind()
        value = (value - median) / (high - low).clamp_min(LEAST_SPREAD)
    value = value - (torch.softmax(log_w, 0) * value).sum()
    pulled = (1 - tau) * log_w
    if log_ref is not None:
        pulled = pulled + tau * log_ref
    log_mass = torch.log_softmax(pulled + eta_w * value, 0) + math.log(len(value))
    return _bounded(log_mass, bound)


def _bounded(log_mass: Tensor, bound: float) -> Tensor:
    """clamp(log_mass - shift, -bound, bound) with the shift that keeps the mean of its exponential at one."""
    low, high = log_mass.min() - bound, log_mass.max() + bound
    if not (log_mass.abs() > bound).any():
        return log_mass
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        heavy = (log_mass - middle).clamp(-bound, bound).exp().mean() > 1
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    return (log_mass - 0.5 * (low + high)).clamp(-bound, bound)


def spt_weights(
    log_w: Tensor,
    log_p: Tensor,
    score_sq: Tensor,
    *,
    group: int,
    gamma: float,
    eta_w: float,
    tau: float,
    bound: float,
    log_ref: Tensor | None = None,
    robust: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One semi-proximal-transport update of the particles' weights (arXiv 2602.01182, weight update).

    Groups are consecutive runs of `group` particles, the last may be shorter; B is a group's length. Each group's
    weights
    sum to one. Where |log(B w)| would exceed `bound` it is held there and the other weights are shifted to keep the
    sum.

    Args:
        log_w: (n,) natural logarithms of the weights, finite; each group's exponentials sum to one.
        log_p: (n,) log density of each particle, in nats, up to a constant.
        score_sq: (n,) |score|^2, in 1 / standardised units squared.
        group: particles per group.
        gamma: weight of |score|^2 / 2 in the functional.
        eta_w: step of the weights, 2 eta / rho.
        tau: pull towards the reference measure per step, in [0, 1].
        bound: largest |log(B w)|; infinity for none.
        log_ref: (n,) log of the reference measure, finite, up to a constant per group; None: uniform.
        robust: value centred at the group's median, in units of its interquartile range.
        backend: "auto", "cpu", "cuda", "triton" or "torch".

    Returns:
        log_w after the step, (n,), and mass B w, (n,).

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range, or an explicit backend that cannot serve.

    Example:
        >>> import math, torch
        >>> from fastimpute.ops import spt_weights
        >>> log_w = torch.full((4,), -math.log(4))
        >>> log_p = torch.tensor([0.0, 0.0, 0.0, -9.0])
        >>> _, mass = spt_weights(log_w, log_p, torch.zeros(4), group=4, gamma=0.0, eta_w=1.0, tau=0.1, bound=2.0)
        >>> bool(mass[3] < mass[0])
        True
    """
    check_tensor(OP, "log_w", log_w, (None,), None)
    for name, tensor in (("log_p", log_p), ("score_sq", score_sq), ("log_ref", log_ref)):
        if tensor is not None:
            check_tensor(OP, name, tensor, tuple(log_w.shape), log_w.dtype)
    check_number(OP, "group", group, least=1)
    check_number(OP, "tau", tau, least=0, most=1)
    check_number(OP, "bound", bound, above=0)
    tensors = {"log_w": log_w, "log_p": log_p, "score_sq": score_sq, "log_ref": log_ref}
    refusals = {
        "cpu": lambda: _refusal(tensors),
        "cuda": lambda: _refusal(tensors),
        "triton": lambda: _triton_refusal(tensors, group),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(
            log_w,
            log_p,
            score_sq,
            group=group,
            gamma=gamma,
            eta_w=eta_w,
            tau=tau,
            bound=bound,
            log_ref=log_ref,
            robust=robust,
        )
    arguments = (log_w, log_p, score_sq, log_ref, group, gamma, eta_w, tau, bound, robust)
    direct = chosen == "cpu" and not torch.compiler.is_compiling()
    log_w_new, mass = _impl(*arguments) if direct else _op(*arguments, chosen)
    return log_w_new, mass


def _refusal(tensors: dict[str, Tensor | None]) -> str | None:
    return _gradient_refusal(tensors) or kernel_refusal(tensors)


def _triton_refusal(tensors: dict[str, Tensor | None], group: int) -> str | None:
    from fastimpute.kernels.spt_weights import GROUP_MOST

    refusal = _gradient_refusal(tensors) or triton_refusal(tensors)
    if refusal is None and group > GROUP_MOST:
        return f"group is {group}, the kernel takes up to {GROUP_MOST}"
    return refusal


def _gradient_refusal(tensors: dict[str, Tensor | None]) -> str | None:
    if wants_grad(*tensors.values()):
        return "gradients are required, which the kernel does not compute"
    return None


# The registered op takes float32, and float64 through the scalar oracle.


def _impl(log_w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    core = _native.core()
    if log_w.dtype == torch.float64:
        return _run(core.spt_weights_ref_f64, log_w, *rest)
    return _run(functools.partial(core.spt_weights, backends.isa(), torch.get_num_threads()), log_w, *rest)


def _cuda(log_w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    with on_device_of(log_w):
        return _run(functools.partial(_native.cuda().spt_weights, stream_of(log_w)), log_w, *rest)


def _run(
    kernel: Callable[..., None],
    log_w: Tensor,
    log_p: Tensor,
    score_sq: Tensor,
    log_ref: Tensor | None,
    group: int,
    gamma: float,
    eta_w: float,
    tau: float,
    bound: float,
    robust: bool,
) -> tuple[Tensor, Tensor]:
    log_w, log_p, score_sq = log_w.contiguous(), log_p.contiguous(), score_sq.contiguous()
    log_ref = None if log_ref is None else log_ref.contiguous()
    log_w_new, mass = torch.empty_like(log_w), torch.empty_like(log_w)
    kernel(
        log_w.shape[0],
        group,
        address(log_w),
        address(log_p),
        address(score_sq),
        address(log_ref),
        address(log_w_new),
        address(mass),
        gamma,
        eta_w,
        tau,
        bound,
        robust,
    )
    return log_w_new, mass


def _triton(
    log_w: Tensor,
    log_p: Tensor,
    score_sq: Tensor,
    log_ref: Tensor | None,
    group: int,
    gamma: float,
    eta_w: float,
    tau: float,
    bound: float,
    robust: bool,
) -> tuple[Tensor, Tensor]:
    from fastimpute.kernels.spt_weights import launch

    log_w_new, mass = (torch.empty(log_w.shape, dtype=log_w.dtype, device=log_w.device) for _ in range(2))
    log_ref = None if log_ref is None else log_ref.contiguous()
    inputs = (log_w.contiguous(), log_p.contiguous(), score_sq.contiguous(), log_ref)
    with on_device_of(log_w):
        launch(*inputs, log_w_new, mass, group=group, gamma=gamma, eta_w=eta_w, tau=tau, bound=bound, robust=robust)
    return log_w_new, mass


def _fake(log_w: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return log_w.new_empty(log_w.shape), log_w.new_empty(log_w.shape)


_by_backend = by_backend({"cpu": _impl, "cuda": _cuda, "triton": _triton})
_op = register(
    "spt_weights",
    "(Tensor log_w, Tensor log_p, Tensor score_sq, Tensor? log_ref, int group, float gamma, float eta_w, float tau, "
    "float bound, bool robust, str backend) -> (Tensor, Tensor)",
    _by_backend,
    _fake,
    _by_backend,
)
no_gradient("spt_weights", "the kernels compute no gradients; use backend='torch'")

"""`score_matching`: the loss of denoising score matching of the direct network, and all its gradients, in one pass.

loss = mean over rows and columns of weight (net(x) - target)^2  (arXiv 2602.01182; the head is this project's)
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
)
from fastimpute.ops.library import no_gradient, on_device_of, register
from fastimpute.ops.network import LAYER_NORM_EPS, check_precision, product, width_refusal
from fastimpute.ops.triton_pack import OPERANDS

OP = "score_matching"


class LossGradients(NamedTuple):
    """The loss () and its gradients by the weights and the modulation, each of the shape of what it belongs to."""

    loss: Tensor
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor
    b3: Tensor
    modulation: Tensor


def reference(
    x: Tensor,
    target: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    modulation: Tensor,
    weight: Tensor | None = None,
    *,
    precision: str = "fp32",
) -> LossGradients:
    """`score_matching` in plain PyTorch for any floating dtype, by autograd."""
    with torch.enable_grad():
        leaves = [part.detach().requires_grad_() for part in (w1, b1, w2, b2, w3, b3, modulation)]
        residual = direct_network(x.detach(), *leaves, precision=precision) - target.detach()
        error = residual.square() if weight is None else residual.square() * weight.detach()[:, None]
        loss = error.mean()
        return LossGradients(loss.detach(), *torch.autograd.grad(loss, leaves))


def direct_network(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    modulation: Tensor,
    *,
    precision: str = "fp32",
) -> Tensor:
    """Output (n, D) of the direct network at x (n, D), for autograd; runs of n / q rows share one of the modulations
    (q, 4, hidden)."""
    gain1, shift1, gain2, shift2 = modulation.unsqueeze(2).unbind(1)
    h1 = _layer(_linear(x, w1, b1, precision), gain1, shift1)
    h2 = _layer(_linear(h1, w2, b2, precision), gain2, shift2)
    return _linear(h2, w3, b3, precision)


def _linear(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    if precision == "bf16":
        return product(x, weight.T, precision) + bias
    return torch.nn.functional.linear(x, weight, bias)


def _layer(a: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """SiLU(LN(a) (1 + gain) + shift) for a (n, hidden), gain and shift (q, 1, hidden)."""
    normed = torch.nn.functional.layer_norm(a, a.shape[-1:], eps=LAYER_NORM_EPS)
    inner = torch.addcmul(shift, normed.view(gain.shape[0], -1, a.shape[-1]), 1 + gain)
    return torch.nn.functional.silu(inner).view_as(a)


def score_matching(
    x: Tensor,
    target: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    modulation: Tensor,
    weight: Tensor | None = None,
    *,
    backend: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
) -> LossGradients:
    """Loss of denoising score matching of the direct network and its gradients (arXiv 2602.01182; the head is ours).

    loss = mean over all n D cells of weight (net(x) - target)^2, net being `score_mlp` times sigma without the Gaussian
    part: noise and Gaussian part belong into `target`. The cpu kernel has the same bits for any number of threads, the
    triton kernels have them on any GPU of a kind.

    Args:
        x: noisy particles, (n, D) with n >= 1, in standardised units. The kernels take float32, the torch backend any
            floating dtype.
        target: (n, D), what the network is to return: sigma times the score (no units).
        w1: (hidden, D). b1: (hidden,). w2: (hidden, hidden). b2: (hidden,). w3: (D, hidden). b3: (D,).
        modulation: (q, 4, hidden): gain1, shift1, gain2, shift2; runs of n / q consecutive rows share one.
        weight: (n,), of the rows; None: ones.
        backend: "auto", "cpu", "triton" (hidden widths 64, 128 and 256) or "torch".
        precision: "fp32", or "bf16": bfloat16 operands in the matrix products, forward and back, float32 sums; the cpu
            kernel takes "fp32".
        threads: of the cpu kernel; None: torch.get_num_threads().

    Returns:
        `LossGradients`: the loss and its gradients by w1 ... b3 and modulation. Not differentiable itself.

    Raises:
        ValueError, TypeError: an argument of the wrong shape or dtype, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import score_matching
        >>> x, w1, w2, w3 = torch.randn(8, 24), torch.randn(256, 24), torch.randn(256, 256), torch.zeros(24, 256)
        >>> b = torch.zeros(256)
        >>> step = score_matching(x, torch.randn(8, 24), w1, b, w2, b, w3, torch.zeros(24), torch.zeros(2, 4, 256))
        >>> step.loss.shape, step.w1.shape, step.modulation.shape
        (torch.Size([]), torch.Size([256, 24]), torch.Size([2, 4, 256]))
    """
    parts = (x, target, w1, b1, w2, b2, w3, b3, modulation, weight)
    check_step(*parts)
    check_precision(OP, precision)
    if threads is not None:
        check_number(OP, "threads", threads, least=1)
    tensors = dict(zip(_NAMES, parts, strict=True))
    refusals = {
        "cpu": lambda: refusal(tensors, w1.shape[0], precision),
        "triton": lambda: _triton_refusal(tensors, w1),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(*parts, precision=precision)
    run = _op if chosen != "cpu" or torch.compiler.is_compiling() else _impl
    with torch.no_grad():
        return LossGradients(*run(*parts, threads, precision))


def check_step(
    x: Tensor,
    target: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    modulation: Tensor,
    weight: Tensor | None,
) -> None:
    """Raises what `score_matching` raises about its tensors."""
    check_tensor(OP, "w1", w1, (None, None), None)
    (hidden, dim), dtype = w1.shape, w1.dtype
    check_tensor(OP, "x", x, (None, dim), dtype)
    check_number(OP, "number of rows of x", x.shape[0], least=1)
    check_tensor(OP, "target", target, (x.shape[0], dim), dtype)
    check_tensor(OP, "b1", b1, (hidden,), dtype)
    check_tensor(OP, "w2", w2, (hidden, hidden), dtype)
    check_tensor(OP, "b2", b2, (hidden,), dtype)
    check_tensor(OP, "w3", w3, (dim, hidden), dtype)
    check_tensor(OP, "b3", b3, (dim,), dtype)
    check_tensor(OP, "modulation", modulation, (None, 4, hidden), dtype)
    conditions = modulation.shape[0]
    if conditions < 1 or x.shape[0] % conditions:
        raise ValueError(f"{OP}: rows of modulation must divide the {x.shape[0]} rows of x, got {conditions}")
    if weight is not None:
        check_tensor(OP, "weight", weight, (x.shape[0],), dtype)


_NAMES = ("x", "target", "w1", "b1", "w2", "b2", "w3", "b3", "modulation", "weight")


def refusal(tensors: dict[str, Tensor | None], hidden: int, precision: str) -> str | None:
    """Why the cpu kernel cannot serve, if so."""
    if precision != "fp32":
        return f"precision is {precision!r}, the cpu kernel takes 'fp32'"
    return kernel_refusal(tensors) or width_refusal(hidden, backends.isa())


def _triton_refusal(tensors: dict[str, Tensor | None], w1: Tensor) -> str | None:
    from fastimpute.kernels.matrix import WIDTHS

    hidden, dim = w1.shape
    if dim == 0:
        return "the particles have no cells"
    refusal = triton_refusal(tensors, (torch.float32,))
    if refusal is None and hidden not in WIDTHS:
        refusal = f"hidden width is {hidden}, the kernel takes {' or '.join(map(str, WIDTHS))}"
    return refusal


# The registered op takes float32, and float64 through the scalar oracle.


def _impl(x: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *parts, weight, threads, precision = rest
    if precision != "fp32":
        raise RuntimeError(f"{OP}: the cpu kernel takes precision 'fp32', got {precision!r}; use backend='torch'")
    x, target = rows_contiguous(x), rows_contiguous(target)
    dense = [part.contiguous() for part in parts]
    weight = None if weight is None else weight.contiguous()
    gradients = (x.new_empty(()), *(torch.empty_like(part) for part in dense))
    arguments = (
        (*dense[0].shape, *map(address, dense[:6]), 0, 0),
        x.shape[0],
        address(x),
        row_stride(x),
        address(target),
        row_stride(target),
        address(weight),
        address(dense[6]),
        dense[6].shape[0],
        tuple(map(address, gradients)),
    )
    core = _native.core()
    if x.dtype == torch.float64:
        core.score_matching_ref_f64(*arguments)
    else:
        core.score_matching(backends.isa(), threads or torch.get_num_threads(), *arguments)
    return gradients


def _triton(x: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    from fastimpute.kernels import score_matching as kernel
    from fastimpute.kernels.matrix import padded
    from fastimpute.kernels.weight_gradient import STORED

    *parts, weight, _, precision = rest
    x, target = rows_contiguous(x), rows_contiguous(target)
    dense = [part.contiguous() for part in parts]
    weight = None if weight is None else weight.contiguous()
    (rows, dim), hidden, operands = x.shape, dense[0].shape[0], OPERANDS[precision]
    extent = kernel.sizes(rows, dim, hidden, operands.itemsize)
    gradients = (x.new_empty(()), *(torch.empty_like(part) for part in dense))
    columns = padded(dim)
    scratch = (
        x.new_empty(hidden * (2 * columns + hidden), dtype=operands),
        x.new_empty(extent.capacity * (4 * hidden + 2 * columns), dtype=operands),
        x.new_empty(extent.capacity * 4 * hidden),
        x.new_empty(extent.slots * extent.squares * STORED),
        x.new_empty(extent.tiles),
    )
    *weights, modulation = dense
    with on_device_of(x):
        kernel.launch(x, target, weight, tuple(weights), modulation, gradients, scratch, extent=extent)
    return gradients


def _fake(x: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return (x.new_empty(()), *(torch.empty_like(part, memory_format=torch.contiguous_format) for part in rest[:7]))


_op = register(
    OP,
    "(Tensor x, Tensor target, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor w3, Tensor b3, Tensor modulation, "
    "Tensor? weight, int? threads, str precision) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _impl,
    _fake,
    _triton,
)
no_gradient(OP, "it returns gradients and has none itself; use the torch networks for higher derivatives")

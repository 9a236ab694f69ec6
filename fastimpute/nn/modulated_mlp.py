"""Two adaptive-layer-norm layers and a linear head, with a hand-written backward pass.

The gradient is the one autograd would give. Writing it out skips the gradient of the input and the concatenations
that autograd makes for chunked modulations: a training step takes about half the time on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EPS = 1e-5


def _layer(a: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """SiLU(LN(a) * (1 + gain) + shift) for ``a`` (q, r, H) and modulations (q, 1, H); also what backward needs."""
    normed, mean, rstd = torch.native_layer_norm(a, a.shape[-1:], None, None, EPS)
    pre = torch.addcmul(shift, normed, 1 + gain)
    return torch.nn.functional.silu(pre), pre, mean, rstd


def _layer_backward(
    grad_h: Tensor, a: Tensor, pre: Tensor, mean: Tensor, rstd: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``a``, the gain and the shift (summed over the rows that share a condition)."""
    grad_pre = torch.ops.aten.silu_backward(grad_h, pre)
    normed = (a - mean) * rstd
    grad_gain, grad_shift = (grad_pre * normed).sum(1), grad_pre.sum(1)
    grad_normed = grad_pre.mul_(1 + gain)
    grad_a = torch.ops.aten.native_layer_norm_backward(
        grad_normed, a, a.shape[-1:], mean, rstd, None, None, [True, False, False]
    )[0]
    return grad_a, grad_gain, grad_shift


class ModulatedMLP(torch.autograd.Function):
    """The output (q * r, out) at ``x`` (q * r, D); each run of r rows shares a row of ``modulation`` (q, 4, H)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor, modulation: Tensor
    ) -> Tensor:
        conditions, hidden = modulation.shape[0], w1.shape[0]
        grouped = (conditions, x.shape[0] // conditions, hidden)
        gain1, shift1, gain2, shift2 = (row.unsqueeze(1) for row in modulation.unbind(1))
        a1 = torch.addmm(b1, x, w1.T).view(grouped)
        h1, pre1, mean1, rstd1 = _layer(a1, gain1, shift1)
        a2 = torch.addmm(b2, h1.view(-1, hidden), w2.T).view(grouped)
        h2, pre2, mean2, rstd2 = _layer(a2, gain2, shift2)
        ctx.save_for_backward(x, w2, w3, modulation, a1, h1, pre1, mean1, rstd1, a2, h2, pre2, mean2, rstd2)
        return torch.addmm(b3, h2.view(-1, hidden), w3.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, w2, w3, modulation, a1, h1, pre1, mean1, rstd1, a2, h2, pre2, mean2, rstd2 = ctx.saved_tensors
        gain1, gain2 = modulation[:, 0:1], modulation[:, 2:3]
        hidden = w2.shape[0]
        grad_w3, grad_b3 = grad.T @ h2.view(-1, hidden), grad.sum(0)
        grad_a2, grad_gain2, grad_shift2 = _layer_backward((grad @ w3).view_as(a2), a2, pre2, mean2, rstd2, gain2)
        flat2 = grad_a2.view(-1, hidden)
        grad_w2, grad_b2 = flat2.T @ h1.view(-1, hidden), flat2.sum(0)
        grad_a1, grad_gain1, grad_shift1 = _layer_backward((flat2 @ w2).view_as(a1), a1, pre1, mean1, rstd1, gain1)
        flat1 = grad_a1.view(-1, hidden)
        grad_w1, grad_b1 = flat1.T @ x, flat1.sum(0)
        grad_modulation = torch.stack([grad_gain1, grad_shift1, grad_gain2, grad_shift2], 1)
        return None, grad_w1, grad_b1, grad_w2, grad_b2, grad_w3, grad_b3, grad_modulation

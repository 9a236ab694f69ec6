"""The AdaLN network the ops share: its arguments, their checks, and its two hidden layers in closed form.

    a1 = W1 x + b1, h1 = SiLU(LN(a1) (1 + gain1) + shift1), a2 = W2 h1 + b2, h2 = SiLU(LN(a2) (1 + gain2) + shift2)

LN has no affine part, biased variance, eps 1e-5. The energy head ends in w3 . h2 + b3, the direct head in W3 h2 + b3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute.ops.checks import check_choice, check_tensor, kernel_refusal, triton_refusal, wants_grad

LAYER_NORM_EPS = 1e-5
PRECISIONS = ("fp32", "bf16")
KERNEL_WIDTH_STEP, KERNEL_WIDTH_MOST = 32, 1024
NETWORK_SCHEMA = (
    "Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor w3, Tensor b3, Tensor modulation, Tensor? modulation_index, "
    "Tensor? precision_matrix, Tensor? mean"
)


class Network(NamedTuple):
    """A network's tensors, weights laid out as torch.nn.Linear keeps them.

    w1 (hidden, D), b1 (hidden,), w2 (hidden, hidden), b2 (hidden,). Energy head: w3 (hidden,), b3 (1,); direct head:
    w3 (D, hidden), b3 (D,). modulation (m, 4, hidden): gain1, shift1, gain2, shift2; modulation_index (n,) int64 picks
    each particle's row, None: all share row 0 of m = 1. precision_matrix (D, D) symmetric and mean (D,): the Gaussian
    part, both or neither.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor
    b3: Tensor
    modulation: Tensor
    modulation_index: Tensor | None = None
    precision_matrix: Tensor | None = None
    mean: Tensor | None = None

    @property
    def hidden(self) -> int:
        return self.w1.shape[0]

    @property
    def dim(self) -> int:
        return self.w1.shape[1]

    def dense_weights(self) -> list[Tensor | None]:
        """w1 ... b3, precision_matrix, mean, each contiguous: what the kernels read and packs copy."""
        return [None if weight is None else weight.contiguous() for weight in (*self[:6], *self[8:])]

    def floating(self) -> dict[str, Tensor | None]:
        """The floating tensors by name."""
        return {name: value for name, value in self._asdict().items() if name != "modulation_index"}

    def wants_grad(self) -> bool:
        return wants_grad(*self.floating().values())


def check_network(op: str, network: Network, head: str, particles: int) -> None:
    """Raises ValueError or TypeError unless shapes and dtypes fit; `particles` is the length of a modulation index."""
    check_tensor(op, "w1", network.w1, (None, None), None)
    hidden, dim = network.w1.shape
    dtype = network.w1.dtype
    w3_shape, b3_shape = ((hidden,), (1,)) if head == "energy" else ((dim, hidden), (dim,))
    check_tensor(op, "b1", network.b1, (hidden,), dtype)
    check_tensor(op, "w2", network.w2, (hidden, hidden), dtype)
    check_tensor(op, "b2", network.b2, (hidden,), dtype)
    check_tensor(op, "w3", network.w3, w3_shape, dtype)
    check_tensor(op, "b3", network.b3, b3_shape, dtype)
    check_tensor(op, "modulation", network.modulation, (None, 4, hidden), dtype)
    if network.modulation_index is not None:
        check_tensor(op, "modulation_index", network.modulation_index, (particles,), torch.int64)
    elif network.modulation.shape[0] != 1:
        raise ValueError(
            f"{op}: modulation must have one row when modulation_index is None, got {network.modulation.shape[0]}"
        )
    if (network.precision_matrix is None) != (network.mean is None):
        raise ValueError(f"{op}: precision_matrix and mean must be given together, got only one")
    if network.precision_matrix is not None:
        check_tensor(op, "precision_matrix", network.precision_matrix, (dim, dim), dtype)
        check_tensor(op, "mean", network.mean, (dim,), dtype)


def network_refusal(network: Network, precision: str, isa: str) -> str | None:
    """Why the cpu kernels cannot run this network on `isa`; None when they can."""
    if network.wants_grad():
        return "the weights require gradients, which the kernels do not compute"
    refusal = kernel_refusal(network.floating())
    if refusal is not None:
        return refusal
    if precision == "bf16" and isa != "avx512bf16":
        return f"precision 'bf16' needs AVX512_BF16, the instruction set in use is {isa}"
    return width_refusal(network.hidden, isa)


def width_refusal(hidden: int, isa: str) -> str | None:
    """Why the cpu kernels cannot run networks of this width on `isa`; None when they can."""
    if isa != "ref" and (hidden % KERNEL_WIDTH_STEP or not 0 < hidden <= KERNEL_WIDTH_MOST):
        return f"hidden width is {hidden}, the kernels take multiples of {KERNEL_WIDTH_STEP} up to {KERNEL_WIDTH_MOST}"
    return None


def gpu_network_refusal(network: Network, tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why no kernel for GPUs can run this network on `tensors`; None where one might."""
    if network.wants_grad():
        return "the weights require gradients, which the kernels do not compute"
    if network.dim == 0:
        return "the particles have no cells"
    return triton_refusal({**tensors, **network.floating()}, (torch.float32,))


def triton_network_refusal(
    network: Network, tensors: Mapping[str, Tensor | None], widths: tuple[int, ...]
) -> str | None:
    """Why the triton kernels cannot run this network on `tensors`; None when they can."""
    refusal = gpu_network_refusal(network, tensors)
    if refusal is None and network.hidden not in widths:
        refusal = f"hidden width is {network.hidden}, the kernel takes {' or '.join(map(str, widths))}"
    return refusal


def check_precision(op: str, precision: str) -> None:
    check_choice(op, "precision", precision, PRECISIONS)


def product(left: Tensor, right: Tensor, precision: str) -> Tensor:
    """left @ right; under "bf16" both operands are rounded to bfloat16, sums stay wide."""
    if precision == "bf16":
        left, right = (operand.to(torch.bfloat16).to(operand.dtype) for operand in (left, right))
    return left @ right


class Layer(NamedTuple):
    """What one AdaLN + SiLU layer keeps of its forward pass, (n, hidden) each.

    normal: normalised activation; rstd: 1 / standard deviation, (n, 1); gain: 1 + gain; output; slope: derivative of
    SiLU; inner: its argument; gate: sigmoid of that.
    """

    normal: Tensor
    rstd: Tensor
    gain: Tensor
    output: Tensor
    slope: Tensor
    inner: Tensor
    gate: Tensor

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient at the layer's input from the one at its output."""
        return self._normal_backward(grad * self.slope * self.gain)

    def _normal_backward(self, grad: Tensor) -> Tensor:
        projection = (grad * self.normal).mean(-1, keepdim=True)
        return self.rstd * (grad - grad.mean(-1, keepdim=True) - self.normal * projection)

    def tangent(self, tangent: Tensor) -> Tangent:
        """Pushes a tangent of the input forward."""
        shrink = (self.normal * tangent).mean(-1, keepdim=True)
        normal = self.rstd * (tangent - tangent.mean(-1, keepdim=True) - self.normal * shrink)
        inner = normal * self.gain
        return Tangent(normal, -self.rstd * shrink, inner, self.slope * inner)

    def backward_tangent(self, grad: Tensor, grad_tangent: Tensor, moved: Tangent) -> Tensor:
        """Tangent of `backward(grad)` when the input moves along `moved` and `grad` along `grad_tangent`."""
        curvature = self.gate * (1 - self.gate) * (2 + self.inner * (1 - 2 * self.gate))
        normal_grad = grad * self.slope * self.gain
        normal_grad_tangent = (grad_tangent * self.slope + grad * curvature * moved.inner) * self.gain
        projection = (normal_grad * self.normal).mean(-1, keepdim=True)
        twist = (normal_grad * moved.normal).mean(-1, keepdim=True)
        return (
            moved.log_rstd * self._normal_backward(normal_grad)
            + self._normal_backward(normal_grad_tangent)
            - self.rstd * (moved.normal * projection + self.normal * twist)
        )


class Tangent(NamedTuple):
    """How one layer's parts move: the normalised activation, log of rstd (n, 1), the pre-activation, the output."""

    normal: Tensor
    log_rstd: Tensor
    inner: Tensor
    output: Tensor


def _layer(activation: Tensor, gain: Tensor, shift: Tensor) -> Layer:
    centred = activation - activation.mean(-1, keepdim=True)
    rstd = torch.rsqrt(centred.square().mean(-1, keepdim=True) + LAYER_NORM_EPS)
    normal = centred * rstd
    gain = 1 + gain
    inner = normal * gain + shift
    gate = torch.sigmoid(inner)
    return Layer(normal, rstd, gain, inner * gate, gate * (1 + inner * (1 - gate)), inner, gate)


def hidden_layers(x: Tensor, network: Network, precision: str) -> tuple[Layer, Layer]:
    """Both hidden layers at x (n, D)."""
    modulation = (
        network.modulation[0] if network.modulation_index is None else network.modulation[network.modulation_index]
    )
    gain1, shift1, gain2, shift2 = modulation.unbind(-2)
    first = _layer(product(x, network.w1.T, precision) + network.b1, gain1, shift1)
    second = _layer(product(first.output, network.w2.T, precision) + network.b2, gain2, shift2)
    return first, second

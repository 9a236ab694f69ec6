"""The adaptive layer norm and SiLU of some rows inside Triton kernels: forward, backward, and their tangents.

The formulas of `fastimpute.ops.network.Layer`; tiles are float32 (rows, hidden), per-row numbers (rows, 1). A tile of a
program's scratch is worked through in chunks of rows, so that registers suffice.
"""

from __future__ import annotations

import triton
import triton.language as tl

_EPS = tl.constexpr(1e-5)


@triton.jit
def across(vector_ptr, H: tl.constexpr):
    """A vector of the hidden units, for every row."""
    return tl.load(vector_ptr + tl.arange(0, H))[None, :]


@triton.jit
def tile_cells(first, CHUNK: tl.constexpr, H: tl.constexpr):
    """Where some rows of a tile lie in its scratch."""
    return (first + tl.arange(0, CHUNK))[:, None] * H + tl.arange(0, H)[None, :]


@triton.jit
def condition_of(index_ptr, first, rows, CHUNK: tl.constexpr, H: tl.constexpr):
    """Where the modulation of some rows begins; 0 when they share one."""
    if index_ptr is not None:
        row = first + tl.arange(0, CHUNK)
        condition = tl.load(index_ptr + row, mask=row < rows, other=0) * (4 * H)
    else:
        condition = 0
    return condition


@triton.jit
def mean_of(tile):
    """Over the hidden units of each row."""
    return tl.sum(tile, axis=1)[:, None] * (1.0 / tile.shape[1])


@triton.jit
def normalised(activation):
    """The layer norm without its affine part, and 1 / standard deviation."""
    centred = activation - mean_of(activation)
    rstd = tl.rsqrt(mean_of(centred * centred) + _EPS)
    return centred * rstd, rstd


@triton.jit
def modulated(normal, modulation_ptr, condition, LAYER: tl.constexpr, INDEXED: tl.constexpr):
    """SiLU's argument normal (1 + gain) + shift, and 1 + gain, of the LAYER-th layer (0 or 1).

    condition: where each row's modulation begins, counted from `modulation_ptr`; INDEXED: rows differ in it.
    """
    H: tl.constexpr = normal.shape[1]
    if INDEXED:
        begin = (modulation_ptr + condition)[:, None] + tl.arange(0, H)[None, :]
        gain, shift = tl.load(begin + 2 * LAYER * H), tl.load(begin + (2 * LAYER + 1) * H)
    else:
        gain, shift = across(modulation_ptr + 2 * LAYER * H, H), across(modulation_ptr + (2 * LAYER + 1) * H, H)
    gain = 1.0 + gain
    return normal * gain + shift, gain


@triton.jit
def silu(inner):
    return inner * tl.sigmoid(inner)


@triton.jit
def hidden_output(
    state_ptr,
    bias_ptr,
    modulation_ptr,
    index_ptr,
    operand_ptr,
    first_row,
    rows,
    LAYER: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """h of the LAYER-th layer into the scratch at operand_ptr, from the product without bias at state_ptr."""
    for first in range(0, ROWS, CHUNK):
        cells = tile_cells(first, CHUNK, H)
        condition = condition_of(index_ptr, first_row + first, rows, CHUNK, H)
        normal, _ = normalised(tl.load(state_ptr + cells) + across(bias_ptr, H))
        inner, _ = modulated(normal, modulation_ptr, condition, LAYER, index_ptr is not None)
        tl.store(operand_ptr + cells, silu(inner))


@triton.jit
def silu_slope(inner):
    """First derivative."""
    gate = tl.sigmoid(inner)
    return gate * (1.0 + inner * (1.0 - gate))


@triton.jit
def silu_curvature(inner):
    """Second derivative."""
    gate = tl.sigmoid(inner)
    return gate * (1.0 - gate) * (2.0 + inner * (1.0 - 2.0 * gate))


@triton.jit
def normal_backward(grad, normal, rstd):
    """Gradient at the activation from the one at its normalised form."""
    return rstd * (grad - mean_of(grad) - normal * mean_of(grad * normal))


@triton.jit
def normal_tangent(tangent, normal, rstd):
    """How the normalised activation moves when the activation does, and how log rstd moves."""
    shrink = mean_of(normal * tangent)
    return rstd * (tangent - mean_of(tangent) - normal * shrink), -rstd * shrink


@triton.jit
def backward_tangent(grad, grad_tangent, tangent, activation, modulation_ptr, condition, LAYER, INDEXED: tl.constexpr):
    """Tangent of the gradient at the activation when that moves along `tangent` and `grad`, at the layer's output,
    along `grad_tangent`."""
    normal, rstd = normalised(activation)
    moved, log_rstd = normal_tangent(tangent, normal, rstd)
    inner, gain = modulated(normal, modulation_ptr, condition, LAYER, INDEXED)
    slope = silu_slope(inner)
    normal_grad = grad * slope * gain
    normal_grad_tangent = (grad_tangent * slope + grad * silu_curvature(inner) * moved * gain) * gain
    twist = moved * mean_of(normal_grad * normal) + normal * mean_of(normal_grad * moved)
    return normal_backward(normal_grad_tangent + log_rstd * normal_grad, normal, rstd) - rstd * twist

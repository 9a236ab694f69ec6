"""`dit_block_gradient` on the GPU: the float32 block once more, then back through it (arXiv 2212.09748, 2510.02216).

1. `dit_block`'s queries, keys and values   2. attention   3. `dit_block`'s projection   4. tiles of rows back through
the MLP, its layer norm and the projection   5. attention back: queries, keys, memory, bias (`attention_gradient`)
6. tiles of rows back through the first layer norm   7. products of the weight gradients, a square over a slice of rows
each   8. sums over the slices   9. the modulation's sums over its rows

What lies between the launches goes through one scratch, small enough for the L2 cache: long batches go through it slice
by slice, and what sequences share is added up in their order. Operations per token, with hidden width H, an inner width
of 4 H and k keys: 74 H^2 + 22 H k; bytes 16 H, through the L2 cache about 250 H.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastimpute.kernels.adaln import normal_backward, normalised
from fastimpute.kernels.attention_gradient import (
    KEYS,
    QUERIES,
    attended_kernel,
    by_bias_kernel,
    by_keys_kernel,
    by_queries_kernel,
)
from fastimpute.kernels.dit_block import configuration, dit_block_input_kernel, dit_block_projection_kernel
from fastimpute.kernels.dit_weight_gradient import squares, weight_products_kernel, weight_sums_kernel
from fastimpute.kernels.weight_gradient import SLICE, SQUARE

HIDDEN = (32, 64, 128)
HEAD_SIZES = (16, 32)
SCRATCH_BYTES = 32 * 2**20  # well within the L2 cache of a data-centre GPU
ROWS, COLUMNS, SLAB = 32, 32, 16  # of the tiles that go back: rows, inner units and terms of a sum at a time
SUM_ROWS = 64  # of a modulation gradient's sum at a time
_ROWS, _COLUMNS, _SLAB = tl.constexpr(ROWS), tl.constexpr(COLUMNS), tl.constexpr(SLAB)
_SQUARE, _SUM_ROWS = tl.constexpr(SQUARE), tl.constexpr(SUM_ROWS)
_COUNTS = ["first", "rows", "tokens", "modulation_rows"]
_GELU, _CUBIC = tl.constexpr(1.5957691216057308), tl.constexpr(0.07135481282553734)


class Layout(NamedTuple):
    """Columns of the matrices in the scratch, one after the other."""

    modulated1: int
    modulated2: int
    by_down: int  # gradients at the outputs of W_down and W_proj, at the attention's
    by_proj: int
    by_attended: int
    shares: int  # of each row in the modulation's gradient
    qkv: int
    attended: int  # in the first third
    by_qkv: int
    inner: int  # GELU, and the gradient at its argument
    by_inner: int
    level: int  # of the softmax

    @classmethod
    def of(cls, hidden: int, inner: int, heads: int) -> Layout:
        return cls._make([*[hidden] * 5, 6 * hidden, *[3 * hidden] * 3, inner, inner, heads])


def slices(sequences: int, tokens: int, layout: Layout) -> int:
    """Sequences that go through the scratch together; depends on no GPU."""
    most = max(1, SCRATCH_BYTES // (4 * tokens * sum(layout)))
    return -(-sequences // -(-sequences // most))


def capacity(sequences: int, tokens: int) -> int:
    """Rows of the scratch, whole tiles of every launch, for so many sequences together."""
    return -(-sequences * tokens // SLICE) * SLICE


@triton.jit(do_not_specialize=_COUNTS)
def mlp_back_kernel(
    x_ptr,
    out_gradient_ptr,
    modulation_ptr,
    w_proj_ptr,
    b_proj_ptr,
    w_up_ptr,
    b_up_ptr,
    w_down_ptr,
    b_down_ptr,
    attended_ptr,
    modulated_ptr,
    by_down_ptr,
    by_proj_ptr,
    by_attended_ptr,
    inner_ptr,
    by_inner_ptr,
    shares_ptr,
    by_x_ptr,
    first,
    rows,
    tokens,
    modulation_rows,
    H: tl.constexpr,
    INNER: tl.constexpr,
):
    """A tile of rows back from the block's output to the attention's; x: after the attention."""
    start = tl.program_id(0).to(tl.int64) * _ROWS
    row, unit = tl.arange(0, _ROWS), tl.arange(0, H)
    cells = row[:, None] * H + unit[None, :]
    inside = (start + row < rows)[:, None]
    condition = _condition(start, first, rows, tokens, modulation_rows, H)
    x_ptr += start * H
    out_gradient_ptr += start * H
    by_x_ptr += start * H
    shares_ptr += start * (6 * H)
    share = row[:, None] * (6 * H) + unit[None, :]
    modulated_ptr += start * H
    by_down_ptr += start * H
    by_proj_ptr += start * H
    inner_ptr += start * INNER
    by_inner_ptr += start * INNER

    normal, _ = normalised(tl.load(x_ptr + cells, mask=inside, other=0.0))
    gain = 1.0 + tl.load(modulation_ptr + (condition + 3 * H))
    tl.store(modulated_ptr + cells, normal * gain + tl.load(modulation_ptr + (condition + 4 * H)))
    way = tl.load(out_gradient_ptr + cells, mask=inside, other=0.0)
    tl.store(by_down_ptr + cells, way * tl.load(modulation_ptr + (condition + 5 * H)))
    tl.debug_barrier()
    for begin in range(0, INNER, _COLUMNS):
        column = begin + tl.arange(0, _COLUMNS)
        u = _product(modulated_ptr, H, w_up_ptr + column * H, 1, H) + tl.load(b_up_ptr + column)[None, :]
        gate = tl.sigmoid(u * (_GELU + _CUBIC * u * u))
        slope = gate + u * gate * (1.0 - gate) * (_GELU + 3.0 * _CUBIC * u * u)
        place = row[:, None] * INNER + column[None, :]
        tl.store(inner_ptr + place, u * gate)
        tl.store(by_inner_ptr + place, slope * _product(by_down_ptr, H, w_down_ptr + column, INNER, H))
    tl.debug_barrier()
    out = _product(inner_ptr, INNER, w_down_ptr + unit * INNER, 1, INNER) + tl.load(b_down_ptr + unit)[None, :]
    tl.store(shares_ptr + (share + 5 * H), tl.load(out_gradient_ptr + cells, mask=inside, other=0.0) * out)
    by_modulated = _product(by_inner_ptr, INNER, w_up_ptr + unit, H, INNER)
    normal, rstd = normalised(tl.load(x_ptr + cells, mask=inside, other=0.0))
    tl.store(shares_ptr + (share + 3 * H), by_modulated * normal)
    tl.store(shares_ptr + (share + 4 * H), by_modulated)
    gain = 1.0 + tl.load(modulation_ptr + (condition + 3 * H))
    by_x = normal_backward(by_modulated * gain, normal, rstd)
    by_x += tl.load(out_gradient_ptr + cells, mask=inside, other=0.0)
    tl.store(by_x_ptr + cells, by_x, mask=inside)
    tl.store(by_proj_ptr + cells, by_x * tl.load(modulation_ptr + (condition + 2 * H)))
    tl.debug_barrier()
    out = _product(attended_ptr + start * (3 * H), 3 * H, w_proj_ptr + unit * H, 1, H)
    out += tl.load(b_proj_ptr + unit)[None, :]
    tl.store(shares_ptr + (share + 2 * H), tl.load(by_x_ptr + cells, mask=inside, other=0.0) * out)
    tl.store(by_attended_ptr + start * H + cells, _product(by_proj_ptr, H, w_proj_ptr + unit, H, H))


@triton.jit(do_not_specialize=_COUNTS)
def input_back_kernel(
    x_ptr,
    modulation_ptr,
    w_qkv_ptr,
    by_qkv_ptr,
    shares_ptr,
    by_x_ptr,
    first,
    rows,
    tokens,
    modulation_rows,
    H: tl.constexpr,
):
    """A tile of rows back from queries, keys and values to the block's input; adds to the gradient there."""
    start = tl.program_id(0).to(tl.int64) * _ROWS
    row, unit = tl.arange(0, _ROWS), tl.arange(0, H)
    cells = row[:, None] * H + unit[None, :]
    inside = (start + row < rows)[:, None]
    condition = _condition(start, first, rows, tokens, modulation_rows, H)
    by_modulated = _product(by_qkv_ptr + start * (3 * H), 3 * H, w_qkv_ptr + unit, H, 3 * H)
    normal, rstd = normalised(tl.load(x_ptr + start * H + cells, mask=inside, other=0.0))
    shares_ptr += start * (6 * H)
    share = row[:, None] * (6 * H) + unit[None, :]
    tl.store(shares_ptr + share, by_modulated * normal)
    tl.store(shares_ptr + (share + H), by_modulated)
    by_x = normal_backward(by_modulated * (1.0 + tl.load(modulation_ptr + condition)), normal, rstd)
    by_x_ptr += start * H
    by_x += tl.load(by_x_ptr + cells, mask=inside, other=0.0)
    tl.debug_barrier()  # all has been read
    tl.store(by_x_ptr + cells, by_x, mask=inside)


@triton.jit
def _condition(start, first, rows, tokens, modulation_rows, H: tl.constexpr):
    """Where the modulation of each row of a tile begins, (rows, H); beyond the rows that of the last."""
    row = tl.minimum(start + tl.arange(0, _ROWS), rows - 1)
    sequence = (first + row // tokens) % modulation_rows
    return (sequence * (6 * H))[:, None] + tl.arange(0, H)[None, :]


@triton.jit
def _product(left_ptr, left_stride: tl.constexpr, right_ptr, right_stride: tl.constexpr, K: tl.constexpr):
    """A tile of rows, `left_stride` apart, by a matrix: right_ptr is where its columns begin, right_stride how far the
    terms of one lie apart."""
    row = tl.arange(0, _ROWS)
    total = tl.zeros((_ROWS, right_ptr.shape[0]), tl.float32)
    for begin in range(0, K, _SLAB):
        part = begin + tl.arange(0, _SLAB)
        left = tl.load(left_ptr + (row[:, None] * left_stride + part[None, :]))
        right = tl.load(right_ptr[None, :] + (part * right_stride)[:, None])
        total = tl.dot(left, right, total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=["first", "sequences", "tokens", "modulation_rows"])
def modulation_sums_kernel(
    shares_ptr, modulation_ptr, first, sequences, tokens, modulation_rows, FURTHER: tl.constexpr, H: tl.constexpr
):
    """Some columns of the gradient by one row of the modulation: sums over the tokens of the sequences that read it."""
    owner = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * _SQUARE + tl.arange(0, _SQUARE)
    begin = (owner + modulation_rows - first % modulation_rows) % modulation_rows
    rows = tl.cdiv(tl.maximum(sequences - begin, 0), modulation_rows) * tokens
    total = tl.zeros((_SQUARE,), tl.float32)
    for further in range(0, rows, _SUM_ROWS):
        number = further + tl.arange(0, _SUM_ROWS)
        row = (begin + number // tokens * modulation_rows) * tokens + number % tokens
        there = (number < rows)[:, None]
        total += tl.sum(tl.load((shares_ptr + row * (6 * H))[:, None] + column[None, :], mask=there, other=0.0), 0)
    place = modulation_ptr + owner * (6 * H) + column
    if FURTHER:
        total += tl.load(place)
    tl.store(place, total)


def launch(
    out_gradient: Any,
    x: Any,
    modulation: Any,
    weights: tuple[Any, ...],
    bias: Any,
    absent: Any,
    memory: Any,
    gradients: tuple[Any, ...],
    scratch: tuple[Any, ...],
    between: tuple[Any, Any],
    *,
    heads: int,
    count: int,
) -> None:
    """Runs the kernels on the tensors' device.

    Args:
        out_gradient, x: (n, t, H) float32, contiguous, n and t at least 1. modulation: (q, 6, H), contiguous.
        weights: w_qkv ... b_down as `dit_block` takes them, contiguous.
        bias: (b, heads, t, t + m), its last two dimensions within 2^31 elements, or None. absent: (n, t) bool,
            contiguous, or None. memory: (w, m, 2 H), contiguous, m at least 1, or None.
        gradients: by x, modulation, the weights, bias as (b, heads, t + m, t), memory; contiguous, the last two None
            where those are.
        scratch: (capacity, columns) of each matrix of `Layout`, contiguous, the capacity from `capacity`.
        between: (count, t, H): x after the attention; (capacity / SLICE, squares, STORED), see `weight_gradient`.
        count: sequences of a slice, from `slices`.
    """
    sequences, tokens, hidden = x.shape
    by_x, by_modulation, *by_weights, by_bias, by_memory = gradients
    w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down = weights
    parts = Layout(*scratch)
    attended_x, partial = between
    inner, size, shared = w_up.shape[0], hidden // heads, modulation.shape[0]
    tiles = configuration(hidden, 4, shared == 1)
    forward = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    back, again = {"num_warps": 4, "num_stages": 2}, {"num_warps": 4, "num_stages": 1}
    keys = again if size == HEAD_SIZES[0] else back  # the other way round either spills
    memory_rows, memory_tokens = (1, 0) if memory is None else memory.shape[:2]
    bias_rows, bias_strides = (1, (0, 0, 0, 0)) if bias is None else (bias.shape[0], bias.stride())
    query_blocks, key_blocks = triton.cdiv(tokens, QUERIES), triton.cdiv(tokens, KEYS)
    memory_blocks = triton.cdiv(memory_tokens, KEYS)
    for first in range(0, sequences, count):
        here = min(count, sequences - first)
        rows, further = here * tokens, first > 0
        part = slice(first, first + here)
        place = (first, rows, tokens, shared)
        dit_block_input_kernel[(triton.cdiv(rows, tiles.rows),)](
            x[part], modulation, w_qkv, b_qkv, parts.modulated1, parts.qkv, *place,
            hidden, hidden, hidden, shared == 1, tiles.rows, tiles.columns, tiles.slab, **forward,
        )  # fmt: skip
        masked = None if absent is None else absent[part]
        read = (parts.qkv, bias, masked, memory, parts.attended, parts.level)
        sizes = (tokens, memory_tokens, memory_rows, bias_rows, *bias_strides)
        attended_kernel[(here * heads, query_blocks)](*read, first, *sizes, hidden, size, **back)
        dit_block_projection_kernel[(triton.cdiv(rows, tiles.rows),)](
            x[part], modulation, w_proj, b_proj, parts.attended, attended_x, *place,
            hidden, hidden, hidden, shared == 1, tiles.rows, tiles.columns, **forward,
        )  # fmt: skip
        grid = (triton.cdiv(rows, ROWS),)
        mlp_back_kernel[grid](
            attended_x, out_gradient[part], modulation, w_proj, b_proj, w_up, b_up, w_down, b_down, parts.attended,
            parts.modulated2, parts.by_down, parts.by_proj, parts.by_attended, parts.inner, parts.by_inner,
            parts.shares, by_x[part], *place, hidden, inner, **back,
        )  # fmt: skip
        by_queries_kernel[(here * heads, query_blocks)](
            *read, parts.by_attended, parts.by_qkv, first, *sizes, hidden, size, **again
        )
        by_keys_kernel[(here * heads, key_blocks)](
            *read, parts.by_attended, parts.by_qkv, first, here, *sizes, False, False, hidden, size, **keys
        )
        if memory is not None:
            unmasked = (parts.qkv, bias, None, *read[3:])
            by_keys_kernel[(memory_rows * heads, memory_blocks)](
                *unmasked, parts.by_attended, by_memory, first, here, *sizes, True, further, hidden, size, **keys
            )
        if bias is not None:
            by_bias_kernel[(bias_rows * heads, query_blocks, key_blocks + memory_blocks)](
                *read, parts.by_attended, by_bias, first, here, *sizes, further, hidden, size, **again
            )
        input_back_kernel[grid](
            x[part], modulation, w_qkv, parts.by_qkv, parts.shares, by_x[part], *place, hidden, **back
        )
        slots, blocks = triton.cdiv(rows, SLICE), squares(hidden, inner)
        weight_products_kernel[(blocks, slots)](
            parts.by_qkv, parts.modulated1, parts.by_proj, parts.attended, parts.by_inner, parts.modulated2,
            parts.by_down, parts.inner, partial, rows, hidden, inner, blocks, **back,
        )  # fmt: skip
        weight_sums_kernel[(blocks,)](partial, *by_weights, slots, further, hidden, inner, blocks, num_warps=4)
        modulation_sums_kernel[(shared, 6 * hidden // SQUARE)](
            parts.shares, by_modulation, first, here, tokens, shared, further, hidden, num_warps=4
        )

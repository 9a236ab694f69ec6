"""`dit_block_gradient` on the GPU: the float32 block once more, then back through it (arXiv 2212.09748, 2510.02216).

1. `dit_block`'s queries, keys and values   2. attention   3. `dit_block`'s projection   4. tiles of rows back through
the MLP, its layer norm and the projection   5. attention back: queries, keys, memory, bias (`attention_gradient`)
6. tiles of rows back through the first layer norm   7. products of the weight gradients, a square over a slice of rows
each   8. sums over the slices   9. the modulation's sums over its rows

What lies between the launches goes through one scratch, small enough for the L2 cache: long batches go through it slice
by slice, and what sequences share is added up in their order. Operations per token, with hidden width H, an inner width
of 4 H and k keys: 80 H^2 + 24 H k; bytes 16 H, through the L2 cache about 250 H.
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

HIDDEN = (32, 64, 128)
HEAD_SIZES = (16, 32)
SCRATCH_BYTES = 32 * 2**20  # well within the L2 cache of a data-centre GPU
ROWS, COLUMNS, SLAB = 32, 32, 16  # of the tiles that go back: rows, inner units and terms of a sum at a time
SQUARE = 32  # a weight gradient is formed in squares
SLICE = 128  # rows of a sum that one program forms
SUM_ROWS = 64  # of a modulation gradient's sum at a time
_ROWS, _COLUMNS, _SLAB = tl.constexpr(ROWS), tl.constexpr(COLUMNS), tl.constexpr(SLAB)
_SQUARE, _SLICE, _SUM_ROWS = tl.constexpr(SQUARE), tl.constexpr(SLICE), tl.constexpr(SUM_ROWS)
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
        once, thrice = hidden, 3 * hidden
        return cls(once, once, once, once, once, 6 * hidden, thrice, thrice, thrice, inner, inner, heads)


def slices(sequences: int, tokens: int, layout: Layout) -> int:
    """Sequences that go through the scratch together; depends on no GPU."""
    most = max(1, SCRATCH_BYTES // (4 * tokens * sum(layout)))
    return -(-sequences // -(-sequences // most))


def capacity(sequences: int, tokens: int) -> int:
    """Rows of the scratch, whole tiles of every launch, for so many sequences together."""
    return -(-sequences * tokens // SLICE) * SLICE


def squares(hidden: int, inner: int) -> int:
    """Of all weight gradients."""
    return (4 * hidden * hidden + 2 * hidden * inner) // SQUARE**2


@triton.jit
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


@triton.jit
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


@triton.jit
def weight_products_kernel(
    by_qkv_ptr,
    modulated1_ptr,
    by_proj_ptr,
    attended_ptr,
    by_inner_ptr,
    modulated2_ptr,
    by_down_ptr,
    inner_ptr,
    partial_ptr,
    rows,
    H: tl.constexpr,
    INNER: tl.constexpr,
    SQUARES: tl.constexpr,
):
    """A square of a weight gradient over a slice of rows: W_qkv's, W_proj's, W_up's, then W_down's.

    partial_ptr: (slices, SQUARES, SQUARE + 1, SQUARE): below each square the sums of its left factor's columns.
    """
    square, begin = tl.program_id(0), tl.program_id(1).to(tl.int64) * _SLICE
    partial_ptr += (tl.program_id(1).to(tl.int64) * SQUARES + square) * ((_SQUARE + 1) * _SQUARE)
    which, left, right = _place(square, H, INNER)
    if which == 0:
        _sum_products(by_qkv_ptr, 3 * H, left, modulated1_ptr, H, right, begin, rows, partial_ptr)
    elif which == 1:
        _sum_products(by_proj_ptr, H, left, attended_ptr, 3 * H, right, begin, rows, partial_ptr)
    elif which == 2:
        _sum_products(by_inner_ptr, INNER, left, modulated2_ptr, H, right, begin, rows, partial_ptr)
    else:
        _sum_products(by_down_ptr, H, left, inner_ptr, INNER, right, begin, rows, partial_ptr)


@triton.jit
def _place(square, H: tl.constexpr, INNER: tl.constexpr):
    """Which of the four gradients a square belongs to, and its row and column of squares there."""
    UNITS: tl.constexpr = H // _SQUARE
    INNERS: tl.constexpr = INNER // _SQUARE
    PROJ: tl.constexpr = 3 * UNITS * UNITS
    UP: tl.constexpr = 4 * UNITS * UNITS
    DOWN: tl.constexpr = UP + UNITS * INNERS
    which = tl.where(square < PROJ, 0, tl.where(square < UP, 1, tl.where(square < DOWN, 2, 3)))
    before = tl.where(square < PROJ, 0, tl.where(square < UP, PROJ, tl.where(square < DOWN, UP, DOWN)))
    across = tl.where(square < DOWN, UNITS, INNERS)
    return which, (square - before) // across * _SQUARE, (square - before) % across * _SQUARE


@triton.jit
def _sum_products(
    left_ptr, left_stride: tl.constexpr, left, right_ptr, right_stride: tl.constexpr, right, begin, rows, partial_ptr
):
    column = tl.arange(0, _SQUARE)
    total = tl.zeros((_SQUARE, _SQUARE), tl.float32)
    sums = tl.zeros((_SQUARE,), tl.float32)
    for further in range(0, _SLICE, _SQUARE):
        row = begin + further + tl.arange(0, _SQUARE)
        there = (row < rows)[:, None]
        a = tl.load((left_ptr + (left + row * left_stride))[:, None] + column[None, :], mask=there, other=0.0)
        b = tl.load((right_ptr + (right + row * right_stride))[:, None] + column[None, :], mask=there, other=0.0)
        total = tl.dot(tl.trans(a), b, total, input_precision="ieee")
        sums += tl.sum(a, axis=0)
    tl.store(partial_ptr + (column[:, None] * _SQUARE + column[None, :]), total)
    tl.store(partial_ptr + (_SQUARE * _SQUARE + column), sums)


@triton.jit
def weight_sums_kernel(
    partial_ptr,
    w_qkv_ptr,
    b_qkv_ptr,
    w_proj_ptr,
    b_proj_ptr,
    w_up_ptr,
    b_up_ptr,
    w_down_ptr,
    b_down_ptr,
    count,
    FURTHER: tl.constexpr,
    H: tl.constexpr,
    INNER: tl.constexpr,
    SQUARES: tl.constexpr,
):
    """Adds the squares of `count` slices of rows in their order; FURTHER: to what earlier sequences gave."""
    square, column = tl.program_id(0), tl.arange(0, _SQUARE)
    total = tl.zeros((_SQUARE, _SQUARE), tl.float32)
    sums = tl.zeros((_SQUARE,), tl.float32)
    for slot in range(count):
        here = partial_ptr + (slot * SQUARES + square).to(tl.int64) * ((_SQUARE + 1) * _SQUARE)
        total += tl.load(here + (column[:, None] * _SQUARE + column[None, :]))
        sums += tl.load(here + (_SQUARE * _SQUARE + column))
    which, left, right = _place(square, H, INNER)
    if which == 0:
        _put(w_qkv_ptr, b_qkv_ptr, total, sums, left, right, H, FURTHER)
    elif which == 1:
        _put(w_proj_ptr, b_proj_ptr, total, sums, left, right, H, FURTHER)
    elif which == 2:
        _put(w_up_ptr, b_up_ptr, total, sums, left, right, H, FURTHER)
    else:
        _put(w_down_ptr, b_down_ptr, total, sums, left, right, INNER, FURTHER)


@triton.jit
def _put(matrix_ptr, vector_ptr, total, sums, left, right, WIDTH: tl.constexpr, FURTHER: tl.constexpr):
    """A square into a gradient of WIDTH columns; from the first of a row of squares also the bias's."""
    row, column = left + tl.arange(0, _SQUARE), right + tl.arange(0, _SQUARE)
    cells = row[:, None] * WIDTH + column[None, :]
    of_bias = row < tl.where(right == 0, left + _SQUARE, 0)
    if FURTHER:
        total += tl.load(matrix_ptr + cells)
        sums += tl.load(vector_ptr + row, mask=of_bias, other=0.0)
    tl.store(matrix_ptr + cells, total)
    tl.store(vector_ptr + row, sums, mask=of_bias)


@triton.jit
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
        between: (count, t, H): x after the attention; (capacity / SLICE, squares, SQUARE + 1, SQUARE).
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
        read = (parts.qkv, bias, None if absent is None else absent[part], memory, parts.attended, parts.level)
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
        known = (*read, parts.by_attended)
        by_queries_kernel[(here * heads, query_blocks)](*known, parts.by_qkv, first, *sizes, hidden, size, **again)
        by_keys_kernel[(here * heads, key_blocks)](
            *known, parts.by_qkv, first, here, *sizes, False, False, hidden, size, **again
        )
        if memory is not None:
            by_keys_kernel[(memory_rows * heads, memory_blocks)](
                *known, by_memory, first, here, *sizes, True, further, hidden, size, **again
            )
        if bias is not None:
            by_bias_kernel[(bias_rows * heads, query_blocks, key_blocks + memory_blocks)](
                *known, by_bias, first, here, *sizes, further, hidden, size, **again
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

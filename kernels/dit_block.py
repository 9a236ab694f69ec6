"""`dit_block` on the GPU: the adaLN-Zero transformer block in four launches (arXiv 2212.09748, 2510.02216).

    x <- x + gate1 * (W_proj attention(LN(x) (1 + gain1) + shift1) + b_proj)
    x <- x + gate2 * (W_down GELU(W_up (LN(x) (1 + gain2) + shift2) + b_up) + b_down)

1. LN, modulation, queries, keys and values   2. attention, in the place of the queries   3. projection, gate, x
4. LN, modulation, the whole MLP, whose inner layer never leaves the chip, gate, x

All but the attention run over tiles of rows that take no notice of where a sequence ends: tensor cores get full tiles
from the shortest sequences. Only queries, keys and values lie in memory between launches, in a scratch small enough for
the L2 cache: long batches go through it slice by slice.

Floors per token, with hidden width H, an inner width of 4 H and k keys: 24 H^2 + 4 H k operations and k exponentials a
head; 8 H bytes, or 36 H (with 16-bit operands) were nothing to stay in the cache between launches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastimpute.kernels.attention import attention_kernel

HIDDEN_MOST = 256
SCRATCH_BYTES = 32 * 2**20  # of queries, keys and values at a time: well within the L2 cache of a data-centre GPU
_EPS = tl.constexpr(1e-5)


class Configuration(NamedTuple):
    """Tiles of the products over rows: rows, columns of a result (of the MLP: inner units) at a time.

    slab: terms of a sum at a time, 0: all of them, the operand held on the chip. Warps, pipeline stages.
    """

    rows: int
    columns: int
    slab: int
    warps: int
    stages: int


class Pieces(NamedTuple):
    """Tiles of the attention: pieces of a program, keys and features of a head at a time, warps, pipeline stages."""

    pieces: int
    keys: int
    features: int
    warps: int
    stages: int


# By the size of an operand in bytes.
PIECES = {2: Pieces(4, 32, 64, 4, 2), 4: Pieces(4, 16, 16, 8, 2)}
_PADDING = {2: 64, 4: 32}


class Layout(NamedTuple):
    """Widths as the kernels see them: the hidden width H and padded, heads and columns of one, columns of the queries
    of all heads, inner width. Padding is zero."""

    hidden: int
    padded: int
    heads: int
    size: int
    part: int
    inner: int


def layout(hidden: int, heads: int, inner: int, operand_size: int) -> Layout:
    """Of a block of these widths, for operands of so many bytes."""
    step = _PADDING[operand_size]
    size = max(16, triton.next_power_of_2(hidden // heads))
    part, inner = (-(-width // step) * step for width in (heads * size, inner))
    return Layout(hidden, triton.next_power_of_2(hidden), heads, size, part, inner)


def configuration(padded: int, operand_size: int, shared: bool) -> Configuration:
    """Tiles for a padded hidden width and operands of so many bytes; shared: all rows have one modulation."""
    if operand_size == 4:
        return Configuration(64, 32, 16, 8, 2) if padded > 64 else Configuration(32, 32, 16, 4, 2)
    if padded < 256:
        return Configuration(128, 64, 0, 8, 2)
    return Configuration(128, 32, 0, 8, 2) if shared else Configuration(64, 64, 0, 8, 2)


@triton.jit(do_not_specialize=["first", "rows", "tokens", "modulation_rows"])
def dit_block_input_kernel(
    x_ptr,
    modulation_ptr,
    w_ptr,
    b_ptr,
    operand_ptr,
    qkv_ptr,
    first,
    rows,
    tokens,
    modulation_rows,
    H: tl.constexpr,
    HP: tl.constexpr,
    PART: tl.constexpr,
    SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
):
    """Queries, keys and values of a tile of rows."""
    row = tl.arange(0, ROWS)
    start = tl.program_id(0).to(tl.int64) * ROWS
    inside = start + row < rows
    condition = _condition(start + row, first, tokens, modulation_rows, SHARED)
    x = _load(x_ptr + start * H, inside, H, HP)
    operand = _modulated(x, modulation_ptr, condition, 0, inside, H, HP, SHARED).to(w_ptr.dtype.element_ty)
    if operand_ptr is not None:
        operand_ptr += start * HP
        _lay(operand, operand_ptr)
    qkv_ptr += start * (3 * PART)
    for begin in range(0, 3 * PART, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        part = _product(operand, operand_ptr, w_ptr + column * HP, HP, SLAB) + tl.load(b_ptr + column)[None, :]
        tl.store(qkv_ptr + (row[:, None] * (3 * PART) + column[None, :]), part)


@triton.jit(do_not_specialize=["first", "rows", "tokens", "modulation_rows"])
def dit_block_projection_kernel(
    x_ptr,
    modulation_ptr,
    w_ptr,
    b_ptr,
    qkv_ptr,
    out_ptr,
    first,
    rows,
    tokens,
    modulation_rows,
    H: tl.constexpr,
    HP: tl.constexpr,
    PART: tl.constexpr,
    SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """x + gate1 (W_proj attention + b_proj) of a tile of rows; the attention lies where the queries were."""
    row = tl.arange(0, ROWS)
    unit = tl.arange(0, HP)
    start = tl.program_id(0).to(tl.int64) * ROWS
    inside = start + row < rows
    qkv_ptr += start * (3 * PART)
    total = tl.broadcast_to(tl.load(b_ptr + unit)[None, :], (ROWS, HP))
    for begin in range(0, PART, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        attended = tl.load(qkv_ptr + (row[:, None] * (3 * PART) + column[None, :]))
        weights = tl.load(w_ptr + (unit[None, :] * PART + column[:, None]))
        total = tl.dot(attended, weights, total, input_precision="ieee")
    condition = _condition(start + row, first, tokens, modulation_rows, SHARED)
    _add_gated(total, x_ptr + start * H, out_ptr + start * H, modulation_ptr, condition, 2, inside, H, SHARED)


@triton.jit(do_not_specialize=["first", "rows", "tokens", "modulation_rows"])
def dit_block_mlp_kernel(
    x_ptr,
    modulation_ptr,
    w_up_ptr,
    b_up_ptr,
    w_down_ptr,
    b_down_ptr,
    operand_ptr,
    first,
    rows,
    tokens,
    modulation_rows,
    H: tl.constexpr,
    HP: tl.constexpr,
    INNER: tl.constexpr,
    SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
):
    """Adds gate2 (W_down GELU(W_up (LN(x) (1 + gain2) + shift2) + b_up) + b_down) to a tile of rows in its place."""
    row = tl.arange(0, ROWS)
    unit = tl.arange(0, HP)
    start = tl.program_id(0).to(tl.int64) * ROWS
    inside = start + row < rows
    condition = _condition(start + row, first, tokens, modulation_rows, SHARED)
    x_ptr += start * H
    x = _load(x_ptr, inside, H, HP)
    operand = _modulated(x, modulation_ptr, condition, 3, inside, H, HP, SHARED).to(w_up_ptr.dtype.element_ty)
    if operand_ptr is not None:
        operand_ptr += start * HP
        _lay(operand, operand_ptr)
    total = tl.broadcast_to(tl.load(b_down_ptr + unit)[None, :], (ROWS, HP))
    for begin in range(0, INNER, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        inner = _product(operand, operand_ptr, w_up_ptr + column * HP, HP, SLAB) + tl.load(b_up_ptr + column)[None, :]
        weights = tl.load(w_down_ptr + (unit[None, :] * INNER + column[:, None]))
        total = tl.dot(_gelu(inner).to(operand.dtype), weights, total, input_precision="ieee")
    _add_gated(total, x_ptr, x_ptr, modulation_ptr, condition, 5, inside, H, SHARED)


@triton.jit
def _add_gated(
    total, x_ptr, out_ptr, modulation_ptr, condition, WHICH: tl.constexpr, inside, H: tl.constexpr, SHARED: tl.constexpr
):
    """out = x + gate total, some columns after the others: together they would not fit the registers."""
    left, right = _halves(total)
    if total.shape[1] < 256:
        _add_gated_columns(left, x_ptr, out_ptr, modulation_ptr, condition, WHICH, 0, inside, H, SHARED)
        _add_gated_columns(right, x_ptr, out_ptr, modulation_ptr, condition, WHICH, 1, inside, H, SHARED)
    else:
        first, second = _halves(left)
        _add_gated_columns(first, x_ptr, out_ptr, modulation_ptr, condition, WHICH, 0, inside, H, SHARED)
        _add_gated_columns(second, x_ptr, out_ptr, modulation_ptr, condition, WHICH, 1, inside, H, SHARED)
        third, fourth = _halves(right)
        _add_gated_columns(third, x_ptr, out_ptr, modulation_ptr, condition, WHICH, 2, inside, H, SHARED)
        _add_gated_columns(fourth, x_ptr, out_ptr, modulation_ptr, condition, WHICH, 3, inside, H, SHARED)


@triton.jit
def _halves(tile):
    """Its left and its right columns."""
    return tl.split(tl.permute(tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def _add_gated_columns(
    total, x_ptr, out_ptr, modulation_ptr, condition, WHICH: tl.constexpr, NUMBER: tl.constexpr, inside,
    H: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    unit = NUMBER * total.shape[1] + tl.arange(0, total.shape[1])
    cells = tl.arange(0, total.shape[0])[:, None] * H + unit[None, :]
    there = inside[:, None] & (unit < H)[None, :]
    x = tl.load(x_ptr + cells, mask=there, other=0.0)
    tl.debug_barrier()  # out may be x
    gate = _vector(modulation_ptr, condition, WHICH, unit, inside, H, SHARED)
    tl.store(out_ptr + cells, x + gate * total, mask=there)


@triton.jit
def _condition(row, first, tokens, modulation_rows, SHARED: tl.constexpr):
    """Where the modulation of each row begins."""
    if SHARED:
        condition = 0
    else:
        sequence = tl.cast(first, tl.int32) + row.to(tl.int32) // tl.cast(tokens, tl.int32)
        condition = sequence % tl.cast(modulation_rows, tl.int32)
    return condition


@triton.jit
def _load(x_ptr, inside, H: tl.constexpr, HP: tl.constexpr):
    """A tile of rows, zeros beyond them and beyond H."""
    unit = tl.arange(0, HP)
    cells = tl.arange(0, inside.shape[0])[:, None] * H + unit[None, :]
    return tl.load(x_ptr + cells, mask=inside[:, None] & (unit < H)[None, :], other=0.0)


@triton.jit
def _vector(modulation_ptr, condition, WHICH: tl.constexpr, unit, inside, H: tl.constexpr, SHARED: tl.constexpr):
    """One of the six vectors of the modulation at these hidden units, for every row."""
    if SHARED:
        vector = tl.load(modulation_ptr + (WHICH * H + unit), mask=unit < H, other=0.0)[None, :]
    else:
        place = (modulation_ptr + condition.to(tl.int64) * (6 * H))[:, None] + (WHICH * H + unit)[None, :]
        vector = tl.load(place, mask=inside[:, None] & (unit < H)[None, :], other=0.0)
    return vector


@triton.jit
def _modulated(
    x, modulation_ptr, condition, WHICH: tl.constexpr, inside, H: tl.constexpr, HP: tl.constexpr, SHARED: tl.constexpr
):
    """LN(x) (1 + gain) + shift; zeros beyond H."""
    unit = tl.arange(0, HP)
    centred = x - tl.sum(x, axis=1)[:, None] * (1.0 / H)
    if H < HP:
        centred = tl.where((unit < H)[None, :], centred, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1)[:, None] * (1.0 / H) + _EPS)
    gain = 1.0 + _vector(modulation_ptr, condition, WHICH, unit, inside, H, SHARED)
    normal = centred * rstd * gain
    if not SHARED:
        tl.debug_barrier()  # or else the compilers hold both vectors of every row at once
    return normal + _vector(modulation_ptr, condition, WHICH + 1, unit, inside, H, SHARED)


@triton.jit
def _lay(operand, operand_ptr):
    """Lays a tile that the chip does not hold into memory."""
    row, unit = tl.arange(0, operand.shape[0]), tl.arange(0, operand.shape[1])
    tl.store(operand_ptr + (row[:, None] * operand.shape[1] + unit[None, :]), operand)
    tl.debug_barrier()


@triton.jit
def _product(operand, operand_ptr, weights_ptr, K: tl.constexpr, SLAB: tl.constexpr):
    """Columns of operand W^T: of the operand at once, or slab by slab from where it lies."""
    if operand_ptr is None:
        total = tl.dot(operand, tl.load(weights_ptr[None, :] + tl.arange(0, K)[:, None]), input_precision="ieee")
    else:
        row = tl.arange(0, operand.shape[0])
        total = tl.zeros((operand.shape[0], weights_ptr.shape[0]), tl.float32)
        for begin in range(0, K, SLAB):
            part = begin + tl.arange(0, SLAB)
            slab = tl.load(operand_ptr + (row[:, None] * K + part[None, :]))
            weights = tl.load(weights_ptr[None, :] + part[:, None])
            total = tl.dot(slab, weights, total, input_precision="ieee")
    return total


@triton.jit
def _gelu(u):
    """u times the logistic function of 2 sqrt(2 / pi) (u + .044715 u^3): the tanh form."""
    return u * tl.sigmoid(u * (1.5957691216057308 + 0.07135481282553734 * u * u))


def queries(tokens: int, size: int, operand_size: int) -> int:
    """Queries of a piece of attention: more would not fit the registers."""
    return 32 if tokens > 16 and size < 64 and operand_size == 2 else 16


def slices(sequences: int, tokens: int, windows: int, row_bytes: int) -> int:
    """Sequences of a launch, about as many in each: whole rounds of windows where the scratch, `row_bytes` for a token,
    holds them."""
    most = max(1, SCRATCH_BYTES // (tokens * row_bytes))
    together = windows if windows <= most else 1
    rounds = sequences // together
    launches = -(-rounds // (most // together))
    return -(-rounds // launches) * together


def launch(
    x: Any,
    modulation: Any,
    weights: tuple[Any, ...],
    bias: Any,
    absent: Any,
    memory: Any,
    out: Any,
    scratch: tuple[Any, Any],
    *,
    widths: Layout,
    tiles: Configuration,
    count: int,
    windows: int,
) -> None:
    """Runs the block on the tensors' device.

    Args:
        x, out: (n, t, H) float32, contiguous. modulation: (q, 6, H) float32, contiguous.
        weights: w_qkv (3 part, padded), b_qkv, w_proj (padded, part), b_proj, w_up (inner, padded), b_up, w_down
            (padded, inner), b_down; matrices of the operands' dtype, vectors float32. Queries are to come out times
            log2(e) / sqrt(head size).
        bias: (b, heads, t, t + m) float32, its last two dimensions within 2^31 elements, or None. absent: (n, t) bool,
            contiguous, or None. memory: (w, m, 2 H) float32, contiguous, or None.
        scratch: (rows, 3 part) operands for the rows of `count` sequences, rounded up to whole tiles; and where tiles
            have slabs (rows, padded) more, else None.
        count: sequences of a launch. windows: sequences with as many others between them share bias and memory.
    """
    sequences, tokens, _ = x.shape
    if sequences == 0 or tokens == 0:
        return
    w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down = weights
    qkv, operand = scratch
    hidden, padded, heads, size, part, inner = widths
    pieces = PIECES[qkv.element_size()]
    run = queries(tokens, size, qkv.element_size())
    shared = modulation.shape[0] == 1
    bias_rows, bias_strides = (1, (0, 0, 0, 0)) if bias is None else (bias.shape[0], bias.stride())
    memory_rows, memory_tokens = (1, 0) if memory is None else memory.shape[:2]
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    for first in range(0, sequences, count):
        here = min(count, sequences - first)
        rows = here * tokens
        place = (first, rows, tokens, modulation.shape[0])
        x_here, out_here = x[first : first + here], out[first : first + here]
        grid = (triton.cdiv(rows, tiles.rows),)
        dit_block_input_kernel[grid](
            x_here, modulation, w_qkv, b_qkv, operand, qkv, *place,
            hidden, padded, part, shared, tiles.rows, tiles.columns, tiles.slab, **options,
        )  # fmt: skip
        round_of = windows if here % windows == 0 else here
        attention_kernel[(triton.cdiv(here * heads * triton.cdiv(tokens, run), pieces.pieces),)](
            qkv, bias, None if absent is None else absent[first : first + here], memory,
            first, here, tokens, round_of, bias_rows, *bias_strides, memory_rows, memory_tokens,
            hidden, heads, size, part, pieces.pieces, run, pieces.keys, min(pieces.features, size),
            num_warps=pieces.warps, num_stages=pieces.stages,
        )  # fmt: skip
        dit_block_projection_kernel[grid](
            x_here, modulation, w_proj, b_proj, qkv, out_here, *place,
            hidden, padded, part, shared, tiles.rows, tiles.columns, **options,
        )  # fmt: skip
        dit_block_mlp_kernel[grid](
            out_here, modulation, w_up, b_up, w_down, b_down, operand, *place,
            hidden, padded, inner, shared, tiles.rows, tiles.columns, tiles.slab, **options,
        )  # fmt: skip

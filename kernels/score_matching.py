"""`score_matching` on the GPU: loss and gradients of a training step of the direct network (arXiv 2602.01182).

    a1 = W1 x + b1, h1 = SiLU(LN(a1) (1 + gain1) + shift1), a2 = W2 h1 + b2, h2 likewise,
    loss = mean of weight (W3 h2 + b3 - target)^2

1. weights in the operands' dtype, W3 transposed   2. each tile of rows through the network and back   3. products of
the weight gradients, a square over a slice of rows each, and the modulation's sums over its runs   4. sums over slices,
in their order. Longer batches repeat 2 and 3 chunk by chunk: what lies between the launches stays in the L2 cache.

Operations per row: 6 H (2 D + H) - 2 D H. Bytes per row: 8 D + 4; through the L2 cache also 2 (4 H + 2 D) operands and
about 24 H numbers of float32, beside the weights once per tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastimpute.kernels.adaln import across, modulated, normal_backward, normalised, silu, silu_slope, tile_cells
from fastimpute.kernels.matrix import Configuration, hidden_layer, input_layer, inputs, padded, to_input
from fastimpute.kernels.weight_gradient import SLICE, SQUARE, STORED, added_squares, square_cells, square_products

# Of the second launch, by the size of the operands in bytes. Rows divide a slice, columns the padded D.
CONFIGURATIONS = {
    4: Configuration(16, 32, 32, 16, 8, 2),
    2: Configuration(16, 32, 64, 16, 8, 3),
}
SLICES_MOST = 16  # of a chunk
SCRATCH_BYTES = 24 * 2**20  # of a chunk: well within the L2 cache of a data-centre GPU
PACKED = 1024  # elements of a weight that one program packs
LOSSES = 1024  # losses of tiles added up at a time
RUN_ROWS, RUN_UNITS = 32, 64  # of a modulation gradient's sum at a time
_SHARES = tl.constexpr(4)  # gain1, shift1, gain2, shift2
_SQUARE, _SLICE, _STORED, _LOSSES = map(tl.constexpr, (SQUARE, SLICE, STORED, LOSSES))
_RUN_ROWS, _RUN_UNITS = tl.constexpr(RUN_ROWS), tl.constexpr(RUN_UNITS)


class Sizes(NamedTuple):
    """Of the scratch: rows of a chunk (whole slices), slices and tiles of all rows, squares of the gradients."""

    capacity: int
    slots: int
    tiles: int
    squares: int


def sizes(rows: int, dim: int, hidden: int, operand_size: int) -> Sizes:
    """For so many rows and operands of so many bytes; depends on no GPU."""
    columns = padded(dim)
    squares = (hidden // SQUARE) * (hidden // SQUARE + 2 * columns // SQUARE)
    slice_bytes = SLICE * (operand_size * (4 * hidden + 2 * columns) + 16 * hidden) + 4 * squares * STORED
    slots = min(-(-rows // SLICE), SLICES_MOST, max(1, SCRATCH_BYTES // slice_bytes))
    return Sizes(slots * SLICE, slots, -(-rows // CONFIGURATIONS[operand_size].rows), squares)


@triton.jit
def score_matching_pack_kernel(
    w1_ptr, w2_ptr, w3_ptr, packed_ptr, D: tl.constexpr, PADDED: tl.constexpr, H: tl.constexpr, SIZE: tl.constexpr
):
    """W1 and W3 transposed, (H, PADDED), then W2, in the dtype of the packed ones; zeros beyond D."""
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    if tl.program_id(0) * SIZE < 2 * H * PADDED:
        unit, column = place // PADDED % H, place % PADDED
        first = place < H * PADDED
        w1 = tl.load(w1_ptr + (unit * D + column), mask=first & (column < D), other=0.0)
        w3 = tl.load(w3_ptr + (column * H + unit), mask=(~first) & (column < D), other=0.0)
        weights = w1 + w3
    else:
        weights = tl.load(w2_ptr + (place - 2 * H * PADDED))
    tl.store(packed_ptr + place, weights.to(packed_ptr.dtype.element_ty))


@triton.jit
def score_matching_rows_kernel(
    x_ptr,
    target_ptr,
    weight_ptr,
    packed_ptr,
    b1_ptr,
    b2_ptr,
    b3_ptr,
    modulation_ptr,
    operand_ptr,
    state_ptr,
    loss_ptr,
    first_row,
    rows,
    run,
    x_stride,
    target_stride,
    capacity,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One tile of a chunk's rows through the network and back.

    first_row: the chunk's among all. weight_ptr: null for equal ones. Scratch of `capacity` rows, one matrix after the
    other: operands x, gradient at the output (up to 2 / (n D)), h1, h2, gradients at a1 and a2; states a1, gradient at
    h1, a2, gradient at h2, in the end each row's share of the modulation's gradient. loss_ptr: one for each tile.
    """
    start = tl.program_id(0).to(tl.int64) * ROWS
    row = start + tl.arange(0, ROWS)
    inside = row < rows
    matrix = tl.cast(capacity, tl.int64) * H
    wide = tl.cast(capacity, tl.int64) * PADDED
    w1_ptr, w3_ptr, w2_ptr = packed_ptr, packed_ptr + H * PADDED, packed_ptr + 2 * H * PADDED
    seen_ptr = operand_ptr + start * PADDED
    out_ptr = seen_ptr + wide
    h1_ptr = operand_ptr + 2 * wide + start * H
    h2_ptr = h1_ptr + matrix
    d1_ptr = h2_ptr + matrix
    d2_ptr = d1_ptr + matrix
    a1_ptr = state_ptr + start * H
    back1_ptr = a1_ptr + matrix
    a2_ptr = back1_ptr + matrix
    back2_ptr = a2_ptr + matrix

    local = tl.arange(0, ROWS)[:, None] * PADDED
    for first in range(0, PADDED, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        tl.store(seen_ptr + (local + column[None, :]), inputs(x_ptr, row * x_stride, inside, None, column, D))
    input_layer(x_ptr, row * x_stride, inside, w1_ptr, a1_ptr, D, PADDED, H, ROWS, COLUMNS)
    tl.debug_barrier()
    _activate(a1_ptr, b1_ptr, modulation_ptr, h1_ptr, start, first_row, rows, run, 0, H, ROWS, CHUNK)
    tl.debug_barrier()
    hidden_layer(h1_ptr, w2_ptr, a2_ptr, True, H, ROWS, HIDDEN)
    tl.debug_barrier()
    _activate(a2_ptr, b2_ptr, modulation_ptr, h2_ptr, start, first_row, rows, run, 1, H, ROWS, CHUNK)
    tl.debug_barrier()
    loss = tl.zeros((ROWS,), tl.float32)
    for first in range(0, PADDED, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        shown = inside[:, None] & (column < D)[None, :]
        out = to_input(h2_ptr, w3_ptr, column, PADDED, H, ROWS, COLUMNS, HIDDEN)
        out += tl.load(b3_ptr + column, mask=column < D, other=0.0)[None, :]
        target = tl.load((target_ptr + row * target_stride)[:, None] + column[None, :], mask=shown, other=0.0)
        residual = tl.where(shown, out - target, 0.0)
        error = residual
        if weight_ptr is not None:
            error = residual * tl.load(weight_ptr + row, mask=inside, other=0.0)[:, None]
        loss += tl.sum(error * residual, axis=1)
        tl.store(out_ptr + (local + column[None, :]), error)
    tl.store(loss_ptr + tl.program_id(0), tl.sum(loss, axis=0))
    tl.debug_barrier()
    input_layer(out_ptr, tl.arange(0, ROWS) * PADDED, inside, w3_ptr, back2_ptr, D, PADDED, H, ROWS, COLUMNS)
    tl.debug_barrier()
    _differentiate(a2_ptr, b2_ptr, modulation_ptr, back2_ptr, d2_ptr, start, first_row, rows, run, 1, H, ROWS, CHUNK)
    tl.debug_barrier()
    hidden_layer(d2_ptr, w2_ptr, back1_ptr, False, H, ROWS, HIDDEN)
    tl.debug_barrier()
    _differentiate(a1_ptr, b1_ptr, modulation_ptr, back1_ptr, d1_ptr, start, first_row, rows, run, 0, H, ROWS, CHUNK)


@triton.jit
def _condition(start, first_row, rows, run, CHUNK: tl.constexpr, H: tl.constexpr):
    """Where the modulation of each of some rows begins; beyond the rows that of the last."""
    row = tl.minimum(start + tl.arange(0, CHUNK), rows - 1)
    return (first_row + row) // run * (4 * H)


@triton.jit
def _activate(
    a_ptr, bias_ptr, modulation_ptr, h_ptr, start, first_row, rows, run, LAYER: tl.constexpr, H: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """h of a tile from a without bias."""
    for first in range(0, ROWS, CHUNK):
        cells = tile_cells(first, CHUNK, H)
        condition = _condition(start + first, first_row, rows, run, CHUNK, H)
        normal, _ = normalised(tl.load(a_ptr + cells) + across(bias_ptr, H))
        inner, _ = modulated(normal, modulation_ptr, condition, LAYER, True)
        tl.store(h_ptr + cells, silu(inner))


@triton.jit
def _differentiate(
    a_ptr, bias_ptr, modulation_ptr, back_ptr, d_ptr, start, first_row, rows, run, LAYER: tl.constexpr, H: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The gradient at a of a tile from the one at h, at back_ptr.

    In the place of a and of the gradient at h come the rows' shares of the gradient by gain and by shift.
    """
    for first in range(0, ROWS, CHUNK):
        cells = tile_cells(first, CHUNK, H)
        condition = _condition(start + first, first_row, rows, run, CHUNK, H)
        normal, rstd = normalised(tl.load(a_ptr + cells) + across(bias_ptr, H))
        inner, gain = modulated(normal, modulation_ptr, condition, LAYER, True)
        grad = tl.load(back_ptr + cells) * silu_slope(inner)
        tl.store(d_ptr + cells, normal_backward(grad * gain, normal, rstd))
        tl.debug_barrier()  # all has been read
        tl.store(a_ptr + cells, grad * normal)
        tl.store(back_ptr + cells, grad)


@triton.jit
def score_matching_products_kernel(
    operand_ptr,
    state_ptr,
    partial_ptr,
    modulation_ptr,
    first_row,
    rows,
    run,
    capacity,
    slots,
    scale,
    FURTHER: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    SQUARES: tl.constexpr,
):
    """A square of a weight gradient over a slice of the chunk's rows, or part of the modulation gradient of a run.

    partial_ptr: (slots, SQUARES, STORED), as `weight_gradient` lays them out; FURTHER: they are added to.
    modulation_ptr: the gradient, times `scale`.
    """
    program = tl.program_id(0)
    if program < SQUARES * slots:
        square, which = program % SQUARES, program // SQUARES
        left, left_stride, right, right_stride = _factors(square, capacity, PADDED, H)
        total, sums = square_products(
            operand_ptr + left, left_stride, operand_ptr + right, right_stride, which.to(tl.int64) * _SLICE, rows
        )
        partial_ptr += program.to(tl.int64) * _STORED
        cells, below = square_cells()
        if FURTHER:
            total += tl.load(partial_ptr + cells)
            sums += tl.load(partial_ptr + below)
        tl.store(partial_ptr + cells, total)
        tl.store(partial_ptr + below, sums)
    else:
        _sum_run(state_ptr, modulation_ptr, program - SQUARES * slots, first_row, rows, run, capacity, scale, H)


@triton.jit
def _factors(square, capacity, PADDED: tl.constexpr, H: tl.constexpr):
    """Where the first rows of a square's two factors lie among the operands, and how far their rows lie apart.

    Blocks of W2 (gradient at a2, h1) come first, then those of W1 (gradient at a1, x) and of W3 (at the output, h2).
    """
    UNITS: tl.constexpr = H // _SQUARE
    COLUMNS: tl.constexpr = PADDED // _SQUARE
    hidden, wide = tl.cast(capacity, tl.int64) * H, tl.cast(capacity, tl.int64) * PADDED
    of_w2 = square < UNITS * UNITS
    of_w3 = square >= UNITS * (UNITS + COLUMNS)
    of_w1 = (square >= UNITS * UNITS) & (square < UNITS * (UNITS + COLUMNS))
    place = square - tl.where(of_w2, 0, tl.where(of_w1, UNITS * UNITS, UNITS * (UNITS + COLUMNS)))
    across_right = tl.where(of_w1, COLUMNS, UNITS)
    left = tl.where(of_w3, wide, 2 * wide + tl.where(of_w2, 3, 2) * hidden) + place // across_right * _SQUARE
    right = tl.where(of_w1, 0, 2 * wide + tl.where(of_w3, hidden, 0)) + place % across_right * _SQUARE
    return left, tl.where(of_w3, PADDED, H), right, tl.where(of_w1, PADDED, H)


@triton.jit
def _sum_run(state_ptr, modulation_ptr, piece, first_row, rows, run, capacity, scale, H: tl.constexpr):
    """Some units of one of a run's four gradients, over its rows in this chunk; added to what earlier chunks gave."""
    PIECES: tl.constexpr = H // _RUN_UNITS
    number = tl.cast(first_row, tl.int64) // run + piece // (PIECES * _SHARES)
    share, unit = piece // PIECES % _SHARES, piece % PIECES * _RUN_UNITS + tl.arange(0, _RUN_UNITS)
    begin = tl.maximum(number * run - first_row, 0)
    end = tl.minimum((number + 1) * run - first_row, rows)
    state_ptr += share.to(tl.int64) * tl.cast(capacity, tl.int64) * H
    total = tl.zeros((_RUN_UNITS,), tl.float32)
    for first in range(begin, end, _RUN_ROWS):
        row = first + tl.arange(0, _RUN_ROWS).to(tl.int64)
        total += tl.sum(
            tl.load((state_ptr + row * H)[:, None] + unit[None, :], mask=(row < end)[:, None], other=0.0), 0
        )
    place = modulation_ptr + (number * _SHARES + share) * H + unit
    earlier = tl.load(place, mask=unit < tl.where(number * run < first_row, H, 0), other=0.0)
    tl.store(place, earlier + scale * total)


@triton.jit
def score_matching_sums_kernel(
    partial_ptr,
    loss_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    w3_ptr,
    b3_ptr,
    total_loss_ptr,
    slots,
    tiles,
    scale,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    SQUARES: tl.constexpr,
):
    """Adds the slices' squares and the tiles' losses in their order; times `scale`, 2 / (n D)."""
    UNITS: tl.constexpr = H // _SQUARE
    COLUMNS: tl.constexpr = PADDED // _SQUARE
    square = tl.program_id(0)
    if square < SQUARES:
        total, sums = added_squares(partial_ptr, square, slots, SQUARES)
        total, sums = scale * total, scale * sums
        if square < UNITS * UNITS:
            _store_square(w2_ptr, b2_ptr, total, sums, square // UNITS, square % UNITS, H, H)
        elif square < UNITS * (UNITS + COLUMNS):
            square -= UNITS * UNITS
            _store_square(w1_ptr, b1_ptr, total, sums, square // COLUMNS, square % COLUMNS, H, D)
        else:
            square -= UNITS * (UNITS + COLUMNS)
            _store_square(w3_ptr, b3_ptr, total, sums, square // UNITS, square % UNITS, D, H)
    else:
        tile = tl.arange(0, _LOSSES)
        loss = tl.zeros((_LOSSES,), tl.float64)
        for first in range(0, tiles, _LOSSES):
            loss += tl.load(loss_ptr + first + tile, mask=first + tile < tiles, other=0.0).to(tl.float64)
        tl.store(total_loss_ptr, (tl.sum(loss, axis=0) * (0.5 * scale)).to(tl.float32))


@triton.jit
def _store_square(matrix_ptr, vector_ptr, total, sums, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr):
    """A square of a (LEFT, RIGHT) gradient and, from the first of its row of squares, that of the bias."""
    row, column = left * _SQUARE + tl.arange(0, _SQUARE), right * _SQUARE + tl.arange(0, _SQUARE)
    there = (row < LEFT)[:, None] & (column < RIGHT)[None, :]
    tl.store(matrix_ptr + (row[:, None] * RIGHT + column[None, :]), total, mask=there)
    tl.store(vector_ptr + row, sums, mask=row < tl.where(right == 0, LEFT, 0))


def launch(
    x: Any,
    target: Any,
    weight: Any,
    weights: tuple[Any, ...],
    modulation: Any,
    gradients: tuple[Any, ...],
    scratch: tuple[Any, Any, Any, Any, Any],
    *,
    extent: Sizes,
) -> None:
    """Runs the kernels on the tensors' device.

    Args:
        x, target: (n, D) float32, elements of a row adjacent, n at least 1. weight: (n,) float32, contiguous, or None.
        weights: w1, b1, w2, b2, w3, b3, modulation (q, 4, hidden): float32, contiguous.
        gradients: loss (), then of each of these; contiguous.
        scratch: hidden * (2 padded D + hidden) operands for the weights; capacity * (4 hidden + 2 padded D) operands;
            capacity * 4 hidden, slots * squares * STORED and `tiles` float32.
        extent: from `sizes`.
    """
    rows, dim = x.shape
    w1, b1, w2, b2, w3, b3 = weights
    hidden, columns = w1.shape[0], padded(dim)
    packed, operands, states, partial, losses = scratch
    loss, *of_weights, of_modulation = gradients
    tiles = CONFIGURATIONS[packed.element_size()]
    run, scale = rows // modulation.shape[0], 2.0 / (rows * dim)
    score_matching_pack_kernel[(triton.cdiv(packed.numel(), PACKED),)](
        w1, w2, w3, packed, dim, columns, hidden, PACKED, num_warps=4
    )
    for first in range(0, rows, extent.capacity):
        here = min(extent.capacity, rows - first)
        part = slice(first, first + here)
        score_matching_rows_kernel[(triton.cdiv(here, tiles.rows),)](
            x[part], target[part], None if weight is None else weight[part], packed, b1, b2, b3, modulation,
            operands, states, losses[first // tiles.rows :], first, here, run, x.stride(0), target.stride(0),
            extent.capacity, dim, columns, hidden, tiles.rows, tiles.columns, tiles.hidden, tiles.chunk,
            num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=True,
        )  # fmt: skip
        slots = triton.cdiv(here, SLICE)
        runs = (first + here - 1) // run - first // run + 1
        score_matching_products_kernel[(extent.squares * slots + runs * 4 * (hidden // RUN_UNITS),)](
            operands, states, partial, of_modulation, first, here, run, extent.capacity, slots, scale,
            first > 0, columns, hidden, extent.squares, num_warps=4, num_stages=2, enable_fp_fusion=True,
        )  # fmt: skip
    score_matching_sums_kernel[(extent.squares + 1,)](
        partial, losses, *of_weights, loss, extent.slots, extent.tiles, scale,
        dim, columns, hidden, extent.squares, num_warps=4,
    )  # fmt: skip

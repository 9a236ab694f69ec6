"""`energy_mlp` on the GPU: log p, score and H v of the energy network in one launch (arXiv 2602.01182).

    a1 = W1 x + b1, h1 = SiLU(LN(a1) (1 + gain1) + shift1), a2 = W2 h1 + b2, h2 likewise, log p = w3 . h2 + b3
    [- 1/2 (x - mean)^T P (x - mean)],  score = d log p / dx,  H v = d (score . v) / dx

A persistent grid: each program takes tiles of rows through the whole chain. Matrix products and what lies between them
alternate; their results go through a scratch of the program's own, which stays in the L2 cache, so that each phase has
the registers to itself (kept in them from end to end, two tiles of 64 rows by 256 units spill). Sums are float32.

Operations per row: 4 H (D + H) for log p and score, twice that with H v; the Gaussian part adds 2 D^2 (with H v 4 D^2)
of float32. Bytes per row: 8 D + 4 (with H v 12 D + 4, along a vector 16 D + 4).
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fastimpute.kernels.adaln import (
    across,
    backward_tangent,
    condition_of,
    hidden_output,
    modulated,
    normal_backward,
    normal_tangent,
    normalised,
    silu,
    silu_slope,
    tile_cells,
)
from fastimpute.kernels.matrix import Configuration, gaussian_pull, hidden_layer, input_layer, inputs, to_input

# By the size of the operands in bytes and whether H v is wanted. Columns divide the padded D.
CONFIGURATIONS = {
    (4, False): Configuration(32, 16, 16, 16, 8, 2),
    (4, True): Configuration(32, 16, 16, 8, 8, 2),
    (2, False): Configuration(64, 32, 32, 16, 8, 3),
    (2, True): Configuration(64, 32, 32, 16, 8, 3),
}
_SCORE_STATES, _HVP_STATES = 3, 5


@triton.jit
def energy_mlp_kernel(
    x_ptr,
    vector_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    w3_ptr,
    b3_ptr,
    modulation_ptr,
    index_ptr,
    precision_ptr,
    mean_ptr,
    log_p_ptr,
    score_ptr,
    curved_ptr,
    operand_ptr,
    state_ptr,
    rows,
    x_stride,
    vector_stride,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHUNK: tl.constexpr,
    STATES: tl.constexpr,
):
    """Absent parts are null pointers. operand_ptr and state_ptr: scratch of one and of STATES tiles a program.

    The states are a1 and a2 without bias, the gradient at h1, and with H v the tangents of a1 and of what follows.
    """
    program = tl.program_id(0).to(tl.int64)
    operand_ptr += program * (ROWS * H)
    state_ptr += program * (STATES * ROWS * H)
    for tile in range(program, tl.cdiv(rows, ROWS), tl.num_programs(0)):
        energy_tile(
            x_ptr, vector_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, modulation_ptr, index_ptr,
            precision_ptr, mean_ptr, log_p_ptr, score_ptr, curved_ptr, operand_ptr, state_ptr, tile * ROWS, rows,
            x_stride, vector_stride, D, PADDED, H, ROWS, COLUMNS, HIDDEN, CHUNK,
        )  # fmt: skip


@triton.jit
def energy_tile(
    x_ptr,
    vector_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    w3_ptr,
    b3_ptr,
    modulation_ptr,
    index_ptr,
    precision_ptr,
    mean_ptr,
    log_p_ptr,
    score_ptr,
    curved_ptr,
    operand_ptr,
    state_ptr,
    first_row,
    rows,
    x_stride,
    vector_stride,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The tile of rows from first_row (int64) on; operand_ptr and state_ptr: this program's scratch."""
    a1_ptr = state_ptr
    a2_ptr = a1_ptr + ROWS * H
    grad_ptr = a2_ptr + ROWS * H
    row = first_row + tl.arange(0, ROWS)
    inside = row < rows
    input_layer(x_ptr, row * x_stride, inside, w1_ptr, a1_ptr, D, PADDED, H, ROWS, COLUMNS)
    tl.debug_barrier()
    hidden_output(a1_ptr, b1_ptr, modulation_ptr, index_ptr, operand_ptr, first_row, rows, 0, H, ROWS, CHUNK)
    tl.debug_barrier()
    hidden_layer(operand_ptr, w2_ptr, a2_ptr, True, H, ROWS, HIDDEN)
    tl.debug_barrier()
    for first in range(0, ROWS, CHUNK):
        cells = tile_cells(first, CHUNK, H)
        condition = condition_of(index_ptr, first_row + first, rows, CHUNK, H)
        normal, rstd = normalised(tl.load(a2_ptr + cells) + across(b2_ptr, H))
        inner, gain = modulated(normal, modulation_ptr, condition, 1, index_ptr is not None)
        w3 = across(w3_ptr, H)
        log_p = tl.sum(silu(inner) * w3, axis=1) + tl.load(b3_ptr)
        place = first_row + first + tl.arange(0, CHUNK)
        tl.store(log_p_ptr + place, log_p, mask=place < rows)
        tl.store(operand_ptr + cells, normal_backward(w3 * silu_slope(inner) * gain, normal, rstd))
    tl.debug_barrier()
    hidden_layer(operand_ptr, w2_ptr, grad_ptr, False, H, ROWS, HIDDEN)
    tl.debug_barrier()
    for first in range(0, ROWS, CHUNK):
        cells = tile_cells(first, CHUNK, H)
        condition = condition_of(index_ptr, first_row + first, rows, CHUNK, H)
        normal, rstd = normalised(tl.load(a1_ptr + cells) + across(b1_ptr, H))
        inner, gain = modulated(normal, modulation_ptr, condition, 0, index_ptr is not None)
        grad = tl.load(grad_ptr + cells) * silu_slope(inner) * gain
        tl.store(operand_ptr + cells, normal_backward(grad, normal, rstd))
    tl.debug_barrier()
    energy = tl.zeros((ROWS,), tl.float32)
    for first in range(0, PADDED, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        score = to_input(operand_ptr, w1_ptr, column, PADDED, H, ROWS, COLUMNS, HIDDEN)
        if precision_ptr is not None:
            pull = gaussian_pull(
                x_ptr, row * x_stride, inside, mean_ptr, precision_ptr, column, D, PADDED, ROWS, COLUMNS
            )
            energy += 0.5 * tl.sum(pull * inputs(x_ptr, row * x_stride, inside, mean_ptr, column, D), axis=1)
            score -= pull
        shown = inside[:, None] & (column < D)[None, :]
        tl.store((score_ptr + row * D)[:, None] + column[None, :], score, mask=shown)
    tl.debug_barrier()
    if precision_ptr is not None:
        tl.store(log_p_ptr + row, tl.load(log_p_ptr + row, mask=inside, other=0.0) - energy, mask=inside)

    if curved_ptr is not None:
        direction_ptr = score_ptr if vector_ptr is None else vector_ptr
        direction = row * (D if vector_ptr is None else vector_stride)
        t1_ptr = grad_ptr + ROWS * H
        t2_ptr = t1_ptr + ROWS * H
        input_layer(direction_ptr, direction, inside, w1_ptr, t1_ptr, D, PADDED, H, ROWS, COLUMNS)
        tl.debug_barrier()
        for first in range(0, ROWS, CHUNK):
            cells = tile_cells(first, CHUNK, H)
            condition = condition_of(index_ptr, first_row + first, rows, CHUNK, H)
            normal, rstd = normalised(tl.load(a1_ptr + cells) + across(b1_ptr, H))
            moved, _ = normal_tangent(tl.load(t1_ptr + cells), normal, rstd)
            inner, gain = modulated(normal, modulation_ptr, condition, 0, index_ptr is not None)
            tl.store(operand_ptr + cells, silu_slope(inner) * gain * moved)
        tl.debug_barrier()
        hidden_layer(operand_ptr, w2_ptr, t2_ptr, True, H, ROWS, HIDDEN)
        tl.debug_barrier()
        for first in range(0, ROWS, CHUNK):
            cells = tile_cells(first, CHUNK, H)
            condition = condition_of(index_ptr, first_row + first, rows, CHUNK, H)
            a2 = tl.load(a2_ptr + cells) + across(b2_ptr, H)
            grad, moved = across(w3_ptr, H), tl.load(t2_ptr + cells)
            moved = backward_tangent(grad, 0.0, moved, a2, modulation_ptr, condition, 1, index_ptr is not None)
            tl.store(operand_ptr + cells, moved)
        tl.debug_barrier()
        hidden_layer(operand_ptr, w2_ptr, t2_ptr, False, H, ROWS, HIDDEN)
        tl.debug_barrier()
        for first in range(0, ROWS, CHUNK):
            cells = tile_cells(first, CHUNK, H)
            condition = condition_of(index_ptr, first_row + first, rows, CHUNK, H)
            a1 = tl.load(a1_ptr + cells) + across(b1_ptr, H)
            grad, grad_moved = tl.load(grad_ptr + cells), tl.load(t2_ptr + cells)
            moved = tl.load(t1_ptr + cells)
            moved = backward_tangent(grad, grad_moved, moved, a1, modulation_ptr, condition, 0, index_ptr is not None)
            tl.store(operand_ptr + cells, moved)
        tl.debug_barrier()
        for first in range(0, PADDED, COLUMNS):
            column = first + tl.arange(0, COLUMNS)
            curved = to_input(operand_ptr, w1_ptr, column, PADDED, H, ROWS, COLUMNS, HIDDEN)
            if precision_ptr is not None:
                curved -= gaussian_pull(
                    direction_ptr, direction, inside, None, precision_ptr, column, D, PADDED, ROWS, COLUMNS
                )
            shown = inside[:, None] & (column < D)[None, :]
            tl.store((curved_ptr + row * D)[:, None] + column[None, :], curved, mask=shown)
        tl.debug_barrier()  # the scratch is free for the next tile


def configuration(operand_size: int, hvp: bool) -> Configuration:
    """Tiles of the kernel for operands of so many bytes."""
    return CONFIGURATIONS[operand_size, hvp]


def state_tiles(hvp: bool) -> int:
    """float32 tiles (rows, hidden) a program lays aside, besides one of operands."""
    return _HVP_STATES if hvp else _SCORE_STATES


def launch(
    x: Any,
    vector: Any,
    weights: tuple[Any, ...],
    modulation: Any,
    modulation_index: Any,
    outputs: tuple[Any, Any, Any],
    scratch: tuple[Any, Any],
    *,
    programs: int,
    tiles: Configuration,
) -> None:
    """Runs the kernel on the tensors' device.

    Args:
        x: (n, D) float32, elements of a row adjacent. vector: alike, or None for the score.
        weights: w1, b1, w2, b2, w3, b3, P, mean: w1 (hidden, padded D) and w2 of the operands' dtype, the rest float32,
            P (padded D, padded D) and mean (padded D,) or None; zeros in the padding.
        modulation: (m, 4, hidden). modulation_index: (n,) int64 or None.
        outputs: log_p (n,), score (n, D) and H v (n, D) or None, contiguous.
        scratch: programs * rows * hidden operands, and as many float32 `state_tiles` times.
        programs: of the grid; each needs its share of the scratch.
        tiles: from `configuration`.
    """
    rows, dim = x.shape
    if rows == 0:
        return
    w1, *others = weights
    hidden, padded_dim = w1.shape
    hvp = outputs[2] is not None
    energy_mlp_kernel[(min(programs, triton.cdiv(rows, tiles.rows)),)](
        x, vector, w1, *others[:5], modulation, modulation_index, *others[5:], *outputs, *scratch,
        rows, _row_stride(x), 0 if vector is None else _row_stride(vector),
        dim, padded_dim, hidden, tiles.rows, tiles.columns, tiles.hidden, tiles.chunk, state_tiles(hvp),
        num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=True,
    )  # fmt: skip


def _row_stride(tensor: Any) -> int:
    stride: int = tensor.stride(0)
    return stride

"""`score_mlp` on the GPU: the score of the network with a direct head in one launch (arXiv 2602.01182).

    a1 = W1 x + b1, h1 = SiLU(LN(a1) (1 + gain1) + shift1), a2 = W2 h1 + b2, h2 likewise,
    score = (W3 h2 + b3) / sigma [- P (x - mean)]

A persistent grid as in `energy_mlp`: each program takes tiles of rows through the chain, matrix products and what lies
between them in turn, over a scratch of its own that stays in the L2 cache. Sums are float32.

Operations per row: 2 H (2 D + H); the Gaussian part adds 2 D^2 of float32. Bytes per row: 8 D + 4.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fastimpute.kernels.adaln import hidden_output
from fastimpute.kernels.matrix import Configuration, gaussian_pull, hidden_layer, input_layer, to_input

# By the size of the operands in bytes. Columns divide the padded D.
CONFIGURATIONS = {
    4: Configuration(32, 16, 16, 16, 8, 2),
    2: Configuration(64, 32, 32, 16, 8, 3),
}


@triton.jit
def score_mlp_kernel(
    x_ptr,
    sigma_ptr,
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
    score_ptr,
    operand_ptr,
    state_ptr,
    rows,
    x_stride,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Absent parts are null pointers. operand_ptr and state_ptr: scratch of one tile a program each."""
    program = tl.program_id(0).to(tl.int64)
    operand_ptr += program * (ROWS * H)
    state_ptr += program * (ROWS * H)
    for tile in range(program, tl.cdiv(rows, ROWS), tl.num_programs(0)):
        score_tile(
            x_ptr, sigma_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, modulation_ptr, index_ptr, precision_ptr,
            mean_ptr, score_ptr, operand_ptr, state_ptr, tile * ROWS, rows, x_stride,
            D, PADDED, H, ROWS, COLUMNS, HIDDEN, CHUNK,
        )  # fmt: skip


@triton.jit
def score_tile(
    x_ptr,
    sigma_ptr,
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
    score_ptr,
    operand_ptr,
    state_ptr,
    first_row,
    rows,
    x_stride,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The tile of rows from first_row (int64) on; operand_ptr and state_ptr: this program's scratch."""
    row = first_row + tl.arange(0, ROWS)
    inside = row < rows
    input_layer(x_ptr, row * x_stride, inside, w1_ptr, state_ptr, D, PADDED, H, ROWS, COLUMNS)
    tl.debug_barrier()
    hidden_output(state_ptr, b1_ptr, modulation_ptr, index_ptr, operand_ptr, first_row, rows, 0, H, ROWS, CHUNK)
    tl.debug_barrier()
    hidden_layer(operand_ptr, w2_ptr, state_ptr, True, H, ROWS, HIDDEN)
    tl.debug_barrier()
    hidden_output(state_ptr, b2_ptr, modulation_ptr, index_ptr, operand_ptr, first_row, rows, 1, H, ROWS, CHUNK)
    tl.debug_barrier()
    sigma = tl.load(sigma_ptr + row, mask=inside, other=1.0)[:, None]
    for first in range(0, PADDED, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        score = to_input(operand_ptr, w3_ptr, column, PADDED, H, ROWS, COLUMNS, HIDDEN)
        score = (score + tl.load(b3_ptr + column)[None, :]) / sigma
        if precision_ptr is not None:
            score -= gaussian_pull(
                x_ptr, row * x_stride, inside, mean_ptr, precision_ptr, column, D, PADDED, ROWS, COLUMNS
            )
        shown = inside[:, None] & (column < D)[None, :]
        tl.store((score_ptr + row * D)[:, None] + column[None, :], score, mask=shown)
    tl.debug_barrier()  # the scratch is free for the next tile


def configuration(operand_size: int) -> Configuration:
    """Tiles of the kernel for operands of so many bytes."""
    return CONFIGURATIONS[operand_size]


def launch(
    x: Any,
    sigma: Any,
    weights: tuple[Any, ...],
    modulation: Any,
    modulation_index: Any,
    score: Any,
    scratch: tuple[Any, Any],
    *,
    programs: int,
    tiles: Configuration,
) -> None:
    """Runs the kernel on the tensors' device.

    Args:
        x: (n, D) float32, elements of a row adjacent. sigma: (n,), contiguous.
        weights: w1, b1, w2, b2, w3, b3, P, mean: w1 and w3 (hidden, padded D) and w2 of the operands' dtype, the rest
            float32, b3 (padded D,), P (padded D, padded D) and mean (padded D,) or None; zeros in the padding.
        modulation: (m, 4, hidden). modulation_index: (n,) int64 or None.
        score: (n, D), contiguous; receives the result.
        scratch: programs * rows * hidden operands, and as many float32.
        programs: of the grid; each needs its share of the scratch.
        tiles: from `configuration`.
    """
    rows, dim = x.shape
    if rows == 0:
        return
    hidden, padded_dim = weights[0].shape
    score_mlp_kernel[(min(programs, triton.cdiv(rows, tiles.rows)),)](
        x, sigma, *weights[:6], modulation, modulation_index, *weights[6:], score, *scratch,
        rows, x.stride(0), dim, padded_dim, hidden, tiles.rows, tiles.columns, tiles.hidden, tiles.chunk,
        num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=True,
    )  # fmt: skip

"""Matrix products of a tile of rows with weights in device memory inside Triton kernels, summed in float32.

Operands have the dtype of the weights; float32 ones are multiplied as float32 (no tf32). `offset` (rows,) is where each
row of x begins, `inside` (rows,) which rows exist, `column` (columns,) a run of D, padded with zeros to PADDED. Tiles
(rows, H) come from and go to a program's own scratch; the caller sets the barriers between writing and reading one.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

WIDTHS = (64, 128, 256)  # of the hidden layers
PADDING = 32  # D is padded with zeros to a multiple of this


class Configuration(NamedTuple):
    """Rows of a tile, columns of D, of the hidden layer and rows taken at a time, warps, and pipeline stages."""

    rows: int
    columns: int
    hidden: int
    chunk: int
    warps: int
    stages: int


def padded(dim: int) -> int:
    """Columns of w1, of a direct head's w3, of precision_matrix and mean as the kernels read them."""
    return -(-dim // PADDING) * PADDING


@triton.jit
def inputs(x_ptr, offset, inside, mean_ptr, column, D: tl.constexpr):
    """x [- mean] at these columns, zero beyond the rows and beyond D."""
    here = inside[:, None] & (column < D)[None, :]
    x = tl.load((x_ptr + offset)[:, None] + column[None, :], mask=here, other=0.0)
    if mean_ptr is not None:
        x = tl.where(here, x - tl.load(mean_ptr + column)[None, :], 0.0)
    return x


@triton.jit
def input_layer(
    x_ptr,
    offset,
    inside,
    w1_ptr,
    result_ptr,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """x W1^T into the scratch at result_ptr."""
    unit = tl.arange(0, H)
    total = tl.zeros((ROWS, H), tl.float32)
    for first in range(0, PADDED, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        x = inputs(x_ptr, offset, inside, None, column, D).to(w1_ptr.dtype.element_ty)
        weights = tl.load(w1_ptr + (unit[None, :] * PADDED + column[:, None]))
        total = tl.dot(x, weights, total, input_precision="ieee")
    tl.store(result_ptr + (tl.arange(0, ROWS)[:, None] * H + unit[None, :]), total)


@triton.jit
def hidden_layer(
    operand_ptr,
    w2_ptr,
    result_ptr,
    FORWARD: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    """tile W2^T (FORWARD) or tile W2 into the scratch at result_ptr, of the tile at operand_ptr."""
    unit = tl.arange(0, H)
    row = tl.arange(0, ROWS) * H
    total = tl.zeros((ROWS, H), tl.float32)
    for first in range(0, H, HIDDEN):
        part = first + tl.arange(0, HIDDEN)
        tile = tl.load(operand_ptr + (row[:, None] + part[None, :]))
        if FORWARD:
            weights = tl.load(w2_ptr + (unit[None, :] * H + part[:, None]))
        else:
            weights = tl.load(w2_ptr + (part[:, None] * H + unit[None, :]))
        total = tl.dot(tile, weights, total, input_precision="ieee")
    tl.store(result_ptr + (row[:, None] + unit[None, :]), total)


@triton.jit
def to_input(
    operand_ptr,
    w1_ptr,
    column,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    """Columns of tile W1, (rows, columns), of the tile at operand_ptr."""
    row = tl.arange(0, ROWS) * H
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, H, HIDDEN):
        part = first + tl.arange(0, HIDDEN)
        tile = tl.load(operand_ptr + (row[:, None] + part[None, :]))
        weights = tl.load(w1_ptr + (part[:, None] * PADDED + column[None, :]))
        total = tl.dot(tile, weights, total, input_precision="ieee")
    return total


@triton.jit
def gaussian_pull(
    x_ptr,
    offset,
    inside,
    mean_ptr,
    precision_ptr,
    column,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Columns of (x [- mean]) P in float32, (rows, columns)."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, PADDED, COLUMNS):
        part = first + tl.arange(0, COLUMNS)
        x = inputs(x_ptr, offset, inside, mean_ptr, part, D)
        matrix = tl.load(precision_ptr + (part[:, None] * PADDED + column[None, :]))
        total = tl.dot(x, matrix, total, input_precision="ieee")
    return total

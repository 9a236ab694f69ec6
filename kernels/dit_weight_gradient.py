"""The weight gradients of `dit_block_gradient`: squares of all four, W_qkv's, W_proj's, W_up's, then W_down's."""

from __future__ import annotations

import triton
import triton.language as tl

from fastimpute.kernels.weight_gradient import SLICE, SQUARE, STORED, added_squares, square_cells, square_products

_SQUARE, _SLICE, _STORED = map(tl.constexpr, (SQUARE, SLICE, STORED))


def squares(hidden: int, inner: int) -> int:
    """Of all weight gradients."""
    return (4 * hidden * hidden + 2 * hidden * inner) // SQUARE**2


@triton.jit(do_not_specialize=["rows"])
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
    """A square of a weight gradient over a slice of rows; partial_ptr: (slices, SQUARES, STORED)."""
    square, begin = tl.program_id(0), tl.program_id(1).to(tl.int64) * _SLICE
    partial_ptr += (tl.program_id(1).to(tl.int64) * SQUARES + square) * _STORED
    which, left, right = _place(square, H, INNER)
    if which == 0:
        total, sums = square_products(by_qkv_ptr + left, 3 * H, modulated1_ptr + right, H, begin, rows)
    elif which == 1:
        total, sums = square_products(by_proj_ptr + left, H, attended_ptr + right, 3 * H, begin, rows)
    elif which == 2:
        total, sums = square_products(by_inner_ptr + left, INNER, modulated2_ptr + right, H, begin, rows)
    else:
        total, sums = square_products(by_down_ptr + left, H, inner_ptr + right, INNER, begin, rows)
    cells, below = square_cells()
    tl.store(partial_ptr + cells, total)
    tl.store(partial_ptr + below, sums)


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
    place = (square - before).to(tl.int64)
    return which, place // across * _SQUARE, place % across * _SQUARE


@triton.jit(do_not_specialize=["count"])
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
    square = tl.program_id(0)
    total, sums = added_squares(partial_ptr, square, count, SQUARES)
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

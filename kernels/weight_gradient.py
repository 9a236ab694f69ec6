"""Gradients of weights inside Triton kernels: products summed over rows, a square of the result at a time.

A square over a slice of rows is one program's; a later launch adds the slices up in their order, so that the bits are
the same on any GPU. Below each square lie the sums of its left factor's columns: the gradient of a bias.
"""

from __future__ import annotations

import triton
import triton.language as tl

SQUARE = 32  # rows and columns
SLICE = 128  # rows of a sum that one program forms
STORED = (SQUARE + 1) * SQUARE  # numbers of a square with its sums
_SQUARE, _SLICE, _STORED = tl.constexpr(SQUARE), tl.constexpr(SLICE), tl.constexpr(STORED)


@triton.jit
def square_products(left_ptr, left_stride, right_ptr, right_stride, begin, rows):
    """left^T right over a slice of rows from `begin` (int64) on, and the sums of left's columns.

    The pointers lead to the first of SQUARE columns in the first row, the strides from one row to the next.
    """
    column = tl.arange(0, _SQUARE)
    total = tl.zeros((_SQUARE, _SQUARE), tl.float32)
    sums = tl.zeros((_SQUARE,), tl.float32)
    for further in range(0, _SLICE, _SQUARE):
        row = begin + further + tl.arange(0, _SQUARE)
        there = (row < rows)[:, None]
        left = tl.load((left_ptr + row * left_stride)[:, None] + column[None, :], mask=there, other=0.0)
        right = tl.load((right_ptr + row * right_stride)[:, None] + column[None, :], mask=there, other=0.0)
        total = tl.dot(tl.trans(left), right, total, input_precision="ieee")
        sums += tl.sum(left.to(tl.float32), axis=0)
    return total, sums


@triton.jit
def square_cells():
    """Where a square lies from its place on, and where its sums."""
    column = tl.arange(0, _SQUARE)
    return column[:, None] * _SQUARE + column[None, :], _SQUARE * _SQUARE + column


@triton.jit
def added_squares(partial_ptr, square, count, SQUARES: tl.constexpr):
    """A square and its sums, added over `count` slices of SQUARES each in their order."""
    cells, below = square_cells()
    total = tl.zeros((_SQUARE, _SQUARE), tl.float32)
    sums = tl.zeros((_SQUARE,), tl.float32)
    for slot in range(count):
        here = partial_ptr + (slot * SQUARES + square).to(tl.int64) * _STORED
        total += tl.load(here + cells)
        sums += tl.load(here + below)
    return total, sums

"""Blocked Cholesky factorisation inside Triton kernels: one matrix a program, in double, in a scratch of its own.

A = L L^T of a block A = matrix[cells, cells] of matrix (D, D), `count` cells in a list of the program's own. The factor
is kept in tiles (TILE, TILE), each in one piece, those of the lower triangle row by row. A tile on the diagonal holds
L_ii^-1 in its lower triangle, so that products take the place of solves, and L_ii^T above its diagonal. Beyond `count`
the last tiles are filled up with the identity, vectors with zeros.

The caller sets a barrier between writing what a function here reads and calling it; they end with one.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

DIM_MOST = 512  # cells of a window

_LEAST_PIVOT = tl.constexpr(1e-13)  # of the diagonal
_FP64 = tl.constexpr(tl.float64)


class Configuration(NamedTuple):
    """Rows and columns of a tile, warps, pipeline stages, and programs for each multiprocessor."""

    tile: int
    warps: int
    stages: int
    programs: int


# By the most cells of a window. A program waits for one pivot after the other: several share a multiprocessor while
# their tiles leave them the registers.
CONFIGURATIONS = ((256, Configuration(16, 2, 2, 4)), (DIM_MOST, Configuration(32, 8, 2, 1)))


def configuration(dim: int) -> Configuration:
    """Tiles for windows of so many cells."""
    return next(tiles for most, tiles in CONFIGURATIONS if dim <= most)


@triton.jit
def listed(cells_ptr, tile, count, TILE: tl.constexpr):
    """The cells of a tile of the list, and which of them are real."""
    place = tile * TILE + tl.arange(0, TILE)
    real = place < count
    return tl.load(cells_ptr + place, mask=real, other=0), real


@triton.jit
def gathered(matrix_ptr, row_cell, row_real, column_cell, column_real, D: tl.constexpr):
    """matrix[rows, columns], zero beyond the real ones."""
    both = row_real[:, None] & column_real[None, :]
    return tl.load(matrix_ptr + (row_cell[:, None] * D + column_cell[None, :]), mask=both, other=0.0)


@triton.jit
def square(TILE: tl.constexpr):
    """Where the elements of a tile lie in it."""
    return tl.arange(0, TILE)[:, None] * TILE + tl.arange(0, TILE)[None, :]


@triton.jit
def lower(TILE: tl.constexpr):
    """The lower triangle of a tile."""
    return tl.arange(0, TILE)[:, None] >= tl.arange(0, TILE)[None, :]


@triton.jit
def tile_at(factor_ptr, row, column, TILE: tl.constexpr):
    """Where a tile of the factor begins."""
    return factor_ptr + (row * (row + 1) // 2 + column) * (TILE * TILE)


@triton.jit
def part_of(vector_ptr, tile, TILE: tl.constexpr):
    """A tile of a vector in the scratch."""
    return tl.load(vector_ptr + (tile * TILE + tl.arange(0, TILE)))


@triton.jit
def factorise(matrix_ptr, cells_ptr, count, factor_ptr, right_ptr, solved_ptr, D: tl.constexpr, TILE: tl.constexpr):
    """The factor, and solved = L^-1 right. Returns the position of the first pivot that is not positive, or -1.

    A tile takes all its products at once (left-looking), so that it is written once.
    """
    bad = -1
    tiles = tl.cdiv(count, TILE)
    for column in range(tiles):
        cell, real = listed(cells_ptr, column, count, TILE)
        products = tl.zeros((TILE, TILE), _FP64)
        pulls = tl.zeros((TILE, TILE), _FP64)
        for term in range(column):
            tile = tl.load(tile_at(factor_ptr, column, term, TILE) + square(TILE))
            products = tl.dot(tile, tl.trans(tile), products, input_precision="ieee", out_dtype=_FP64)
            pulls += tile * part_of(solved_ptr, term, TILE)[None, :]
        block = gathered(matrix_ptr, cell, real, cell, real, D)
        diagonal = tl.arange(0, TILE)[:, None] == tl.arange(0, TILE)[None, :]
        block = tl.where(diagonal & ~real[None, :], 1.0, block)
        least = _LEAST_PIVOT * tl.sum(tl.where(diagonal, block, 0.0), axis=1)
        block = _eliminated(block - products, tl.minimum(count - column * TILE, TILE), TILE)
        pivot = tl.sum(tl.where(diagonal, block, 0.0), axis=1)
        place = column * TILE + tl.arange(0, TILE)
        refused = tl.min(tl.where(pivot > least, tiles * TILE, place), axis=0)
        bad = tl.where((bad < 0) & (refused < tiles * TILE), refused, bad)
        block = tl.where(diagonal, 1.0, block) * (1.0 / tl.sqrt(pivot))[:, None]
        right = part_of(right_ptr, column, TILE) - tl.sum(pulls, axis=1)
        solved = tl.sum(tl.where(lower(TILE), block, 0.0) * right[None, :], axis=1)
        tl.store(solved_ptr + place, solved)
        block_ptr = tile_at(factor_ptr, column, column, TILE)
        tl.store(block_ptr + square(TILE), block)
        tl.debug_barrier()
        for row in range(column + 1, tiles):
            products = tl.zeros((TILE, TILE), _FP64)
            for term in range(column):
                left = tl.load(tile_at(factor_ptr, row, term, TILE) + square(TILE))
                above = tl.load(tile_at(factor_ptr, column, term, TILE) + square(TILE))
                products = tl.dot(left, tl.trans(above), products, input_precision="ieee", out_dtype=_FP64)
            row_cell, row_real = listed(cells_ptr, row, count, TILE)
            rest = gathered(matrix_ptr, row_cell, row_real, cell, real, D) - products
            inverse = tl.load(block_ptr + square(TILE), mask=lower(TILE), other=0.0)
            tile = tl.dot(rest, tl.trans(inverse), input_precision="ieee", out_dtype=_FP64)
            tl.store(tile_at(factor_ptr, row, column, TILE) + square(TILE), tile)
        tl.debug_barrier()
    return bad


@triton.jit
def _eliminated(block, count, TILE: tl.constexpr):
    """M below the diagonal, M A on and above it, with M unit lower triangular such that M A is upper triangular.

    Both share one tile: a step clears a column of A below the diagonal, and fills that of M. Beyond `count` A is the
    identity.
    """
    row = tl.arange(0, TILE)[:, None]
    column = tl.arange(0, TILE)[None, :]
    for step in range(count - 1):
        across = tl.sum(tl.where(row == step, block, 0.0), axis=0)
        down = tl.sum(tl.where(column == step, block, 0.0), axis=1)
        pivot = tl.sum(tl.where(tl.arange(0, TILE) == step, across, 0.0), axis=0)
        share = (down * (1.0 / pivot))[:, None]
        moved = tl.where(column == step, -share, block - share * across[None, :])
        block = tl.where(row > step, moved, block)
    return block


@triton.jit
def solve_up(factor_ptr, count, solved_ptr, result_ptr, TILE: tl.constexpr):
    """result = L^-T solved."""
    tiles = tl.cdiv(count, TILE)
    for step in range(tiles):
        column = tiles - 1 - step
        pulls = tl.zeros((TILE, TILE), _FP64)
        for row in range(column + 1, tiles):
            tile = tl.load(tile_at(factor_ptr, row, column, TILE) + square(TILE))
            pulls += tile * part_of(result_ptr, row, TILE)[:, None]
        rest = part_of(solved_ptr, column, TILE) - tl.sum(pulls, axis=0)
        inverse = tl.load(tile_at(factor_ptr, column, column, TILE) + square(TILE), mask=lower(TILE), other=0.0)
        result = tl.sum(inverse * rest[:, None], axis=0)
        tl.store(result_ptr + (column * TILE + tl.arange(0, TILE)), result)
        tl.debug_barrier()


@triton.jit
def solved_tile(factor_ptr, panel_ptr, right, first, row, TILE: tl.constexpr):
    """Tile `row` of L^-1 [right], of whose column of tiles those from `first` to `row` - 1 are in the panel."""
    products = tl.zeros((TILE, TILE), _FP64)
    for term in range(first, row):
        left = tl.load(tile_at(factor_ptr, row, term, TILE) + square(TILE))
        above = tl.load(panel_ptr + term * (TILE * TILE) + square(TILE))
        products = tl.dot(left, above, products, input_precision="ieee", out_dtype=_FP64)
    inverse = tl.load(tile_at(factor_ptr, row, row, TILE) + square(TILE), mask=lower(TILE), other=0.0)
    return tl.dot(inverse, right - products, input_precision="ieee", out_dtype=_FP64)


@triton.jit
def rows_times(
    matrix_ptr, cells_ptr, count, vector_ptr, result_ptr, SIGN: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr
):
    """result = SIGN matrix[cells] vector; zeros up to a whole tile."""
    for tile in range(tl.cdiv(count, TILE)):
        cell, real = listed(cells_ptr, tile, count, TILE)
        total = tl.zeros((TILE, TILE), _FP64)
        for first in range(0, D, TILE):
            column = first + tl.arange(0, TILE)
            inside = column < D
            vector = tl.load(vector_ptr + column, mask=inside, other=0.0)
            total += gathered(matrix_ptr, cell, real, column, inside, D) * vector[None, :]
        tl.store(result_ptr + (tile * TILE + tl.arange(0, TILE)), SIGN * tl.sum(total, axis=1))
    tl.debug_barrier()

"""`gaussian_conditional` on the GPU: mean and spread of masked Gaussian windows, one a program (arXiv 2510.02216).

    mean_m = mu_m - P_mm^-1 P_mo (x_o - mu_o)          deviation = sqrt(diag(P_mm^-1))
           = mu_m + S_mo S_oo^-1 (x_o - mu_o)                    = sqrt(diag(S_mm - S_mo S_oo^-1 S_om))

Both ways are one: with A = P_mm = L L^T, b = -P_mo (x_o - mu_o) and C = I, or A = S_oo, b = x_o - mu_o and C = S_om,
the mean is mu_m + C^T A^-1 b, and the columns of Y = L^-1 C have the squares that the variance is made of. The cheaper
way is taken window by window, as its mask says. A persistent grid: a program keeps factor and columns in a scratch of
its own, which stays in the caches. Everything between x and the results is double, as in the cpu kernel.

Operations per window with k missing and o = D - k observed cells: with the spread 2 k^3 / 3 from the precision, or
o^3 / 3 + o^2 k from the covariance; for the mean alone k^3 / 3 or o^3 / 3; and 2 k D for the product with x - mu.
Bytes: 13 D (9 D without the spread); the matrix comes from the L2 cache, some 8 k D of its bytes.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fastimpute.kernels.cholesky import (
    configuration,
    factorise,
    gathered,
    listed,
    part_of,
    rows_times,
    solve_up,
    solved_tile,
    square,
)
from fastimpute.kernels.masked import lanes, sorted_cells, store_mean

# Percent of cells missing beyond which the covariance is cheaper, by whether the spread is wanted.
SHARE = {True: 58, False: 50}

_FP64 = tl.constexpr(tl.float64)


@triton.jit
def gaussian_conditional_kernel(
    x_ptr,
    missing_ptr,
    mean_ptr,
    matrices_ptr,
    filled_ptr,
    deviation_ptr,
    status_ptr,
    scratch_ptr,
    cells_ptr,
    rows,
    x_stride,
    missing_stride,
    D: tl.constexpr,
    WAY: tl.constexpr,
    LANES: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
):
    """deviation_ptr is None where the spread is not wanted. WAY: percent of cells missing beyond which the second
    matrix, the covariance, is taken instead of the first, the precision; 100 or -1 where that or this is all there is.

    status receives the cell whose pivot is not positive, of the covariance plus D, and keeps its value elsewhere.
    """
    SPREAD: tl.constexpr = deviation_ptr is not None
    program = tl.program_id(0).to(tl.int64)
    cells_ptr += program * LANES
    factor_ptr = scratch_ptr + program * scratch_size(TILES, SPREAD, LANES, TILE)
    panel_ptr = factor_ptr + TILES * (TILES + 1) // 2 * (TILE * TILE)
    centred_ptr = panel_ptr + (TILES * (TILE * TILE) if SPREAD else 0)
    right_ptr = centred_ptr + LANES
    solved_ptr = right_ptr + LANES
    for window in tl.range(program, rows, tl.num_programs(0), disable_licm=True):
        count = sorted_cells(
            x_ptr + window * x_stride,
            missing_ptr + window * missing_stride,
            mean_ptr,
            filled_ptr + window * D,
            deviation_ptr + window * D if SPREAD else None,
            centred_ptr,
            cells_ptr,
            D,
            LANES,
        )
        tl.debug_barrier()
        if count > 0:
            from_covariance = 100 * count > WAY * D
            matrix_ptr = matrices_ptr
            if WAY >= 0:
                matrix_ptr += tl.where(from_covariance, D * D, 0)
            pivots = tl.where(from_covariance, D - count, count)
            pivot_cells_ptr = cells_ptr + tl.where(from_covariance, count, 0)
            if from_covariance:
                for tile in range(tl.cdiv(pivots, TILE)):
                    cell, real = listed(pivot_cells_ptr, tile, pivots, TILE)
                    right = tl.load(centred_ptr + cell, mask=real, other=0.0)
                    tl.store(right_ptr + (tile * TILE + tl.arange(0, TILE)), right)
                tl.debug_barrier()
            else:
                rows_times(matrix_ptr, cells_ptr, count, centred_ptr, right_ptr, -1.0, D, TILE)
            bad = factorise(matrix_ptr, pivot_cells_ptr, pivots, factor_ptr, right_ptr, solved_ptr, D, TILE)
            if bad >= 0:
                tl.store(status_ptr + window, tl.load(pivot_cells_ptr + bad) + tl.where(from_covariance, D, 0))
            elif SPREAD:
                _mean_and_spread(
                    matrix_ptr,
                    from_covariance,
                    cells_ptr,
                    count,
                    pivot_cells_ptr,
                    pivots,
                    factor_ptr,
                    panel_ptr,
                    solved_ptr,
                    mean_ptr,
                    filled_ptr + window * D,
                    deviation_ptr + window * D,
                    D,
                    TILE,
                )
            else:
                solve_up(factor_ptr, pivots, solved_ptr, right_ptr, TILE)
                if from_covariance:
                    for tile in range(tl.cdiv(pivots, TILE)):
                        cell, real = listed(pivot_cells_ptr, tile, pivots, TILE)
                        tl.store(centred_ptr + cell, part_of(right_ptr, tile, TILE), mask=real)
                    tl.debug_barrier()
                    rows_times(matrix_ptr, cells_ptr, count, centred_ptr, right_ptr, 1.0, D, TILE)
                for tile in range(tl.cdiv(count, TILE)):
                    cell, real = listed(cells_ptr, tile, count, TILE)
                    store_mean(filled_ptr + window * D, mean_ptr, cell, real, part_of(right_ptr, tile, TILE))
        tl.debug_barrier()  # the scratch is free for the next window


@triton.jit
def _mean_and_spread(
    matrix_ptr,
    from_covariance,
    cells_ptr,
    count,
    pivot_cells_ptr,
    pivots,
    factor_ptr,
    panel_ptr,
    solved_ptr,
    mean_ptr,
    filled_ptr,
    deviation_ptr,
    D: tl.constexpr,
    TILE: tl.constexpr,
):
    """A tile of missing cells at a time: Y = L^-1 C, C = I or S_om; mean Y^T L^-1 b, variance from Y's squares."""
    for column in range(tl.cdiv(count, TILE)):
        cell, real = listed(cells_ptr, column, count, TILE)
        squares = tl.zeros((TILE, TILE), _FP64)
        pulls = tl.zeros((TILE, TILE), _FP64)
        first = tl.where(from_covariance, 0, column)  # L^-1 is zero above
        for row in range(first, tl.cdiv(pivots, TILE)):
            row_cell, row_real = listed(pivot_cells_ptr, row, pivots, TILE)
            right = gathered(matrix_ptr, row_cell, tl.where(from_covariance, row_real, False), cell, real, D)
            same = (row_cell[:, None] == cell[None, :]) & real[None, :] & row_real[:, None]
            right = tl.where(same, 1.0, right)
            block = solved_tile(factor_ptr, panel_ptr, right, first, row, TILE)
            tl.store(panel_ptr + row * (TILE * TILE) + square(TILE), block)
            squares += block * block
            pulls += block * part_of(solved_ptr, row, TILE)[:, None]
            tl.debug_barrier()
        store_mean(filled_ptr, mean_ptr, cell, real, tl.sum(pulls, axis=0))
        variance = tl.sum(squares, axis=0)
        prior = tl.load(matrix_ptr + cell * (D + 1), mask=tl.where(from_covariance, real, False), other=0.0)
        variance = tl.where(from_covariance, prior - variance, variance)
        deviation = tl.sqrt(tl.maximum(variance, 0.0))
        tl.store(deviation_ptr + cell, deviation.to(deviation_ptr.dtype.element_ty), mask=real)


@triton.constexpr_function
def scratch_size(tiles: int, spread: bool, lanes: int, tile: int) -> int:
    """Doubles of one program: the factor, a column of tiles for the spread, and three vectors."""
    return (tiles * (tiles + 1) // 2 + tiles * spread) * tile**2 + 3 * lanes


def way_of(covariance: bool, precision: bool, spread: bool) -> int:
    """WAY of the kernel, by which of the matrices there are and whether the spread is wanted."""
    return SHARE[spread] if covariance and precision else -1 if covariance else 100


def most_tiles(dim: int, way: int) -> int:
    """Tiles of the rows that may have to be factorised in a window, whatever its mask."""
    missing = dim * way // 100  # at most, where the precision is taken
    most = max(missing, dim - missing - 1) if way >= 0 else dim
    tiles: int = triton.cdiv(max(most, 1), configuration(dim).tile)
    return tiles


def scratch_of(dim: int, way: int, spread: bool) -> int:
    """float64 numbers that one program lays aside."""
    size: int = scratch_size(most_tiles(dim, way), spread, lanes(dim), configuration(dim).tile)
    return size


def launch(
    x: Any,
    missing: Any,
    mean: Any,
    matrices: Any,
    filled: Any,
    deviation: Any,
    status: Any,
    scratch: tuple[Any, Any],
    *,
    way: int,
    programs: int,
) -> None:
    """Runs the kernel on the tensors' device.

    Args:
        x: (n, D) float32 or float64, elements of a row adjacent. missing: (n, D) bool, alike.
        mean: (D,) float64. matrices: (2, D, D) float64, precision and covariance, or the one there is (1, D, D).
        filled: (n, D) of x's dtype, contiguous. deviation: alike, zero; or None. status: (n,) int32, negative.
        scratch: programs * `scratch_of` float64, programs * `lanes` int32.
        way: from `way_of`. programs: of the grid; each needs its share of the scratch.
    """
    rows, dim = x.shape
    if rows == 0:
        return
    tiles = configuration(dim)
    gaussian_conditional_kernel[(min(programs, rows),)](
        x, missing, mean, matrices, filled, deviation, status, *scratch,
        rows, x.stride(0), missing.stride(0),
        dim, way, lanes(dim), most_tiles(dim, way), tiles.tile,
        num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=True,
    )  # fmt: skip

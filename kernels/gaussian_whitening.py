"""`gaussian_whitening` on the GPU: mean of masked Gaussian windows and the factors that make the rest white, one window
a program (arXiv 2510.02216).

    filled_m = mu_m - P_mm^-1 P_mo (x_o - mu_o)      P_mm = L L^T      deviation = sqrt(diag(P_mm^-1))

L^-1 comes a column of tiles at a time; the mean is mu_m + L^-T (L^-1 b), b = -P_mo (x_o - mu_o), of what passes by. A
persistent grid: a program keeps the factor in double in a scratch of its own, which stays in the caches. Everything
between x and the results is double, rounded once, as in the cpu kernel.

Operations per window with k missing cells: 2 k^3 / 3 + 2 k D. Bytes: 13 D + 9 K + 8 K^2 written, K the largest k, zeros
included; some 8 k D of the precision's from the L2 cache.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fastimpute.kernels.cholesky import (
    configuration,
    factorise,
    listed,
    part_of,
    rows_times,
    solved_tile,
    square,
    tile_at,
)
from fastimpute.kernels.masked import lanes, sorted_cells, store_mean

_FP64 = tl.constexpr(tl.float64)


@triton.jit
def gaussian_whitening_kernel(
    x_ptr,
    missing_ptr,
    mean_ptr,
    precision_ptr,
    filled_ptr,
    deviation_ptr,
    cells_ptr,
    real_ptr,
    factor_ptr,
    inverse_ptr,
    status_ptr,
    scratch_ptr,
    list_ptr,
    rows,
    most,
    x_stride,
    missing_stride,
    mean_stride,
    D: tl.constexpr,
    LANES: tl.constexpr,
    TILE: tl.constexpr,
):
    """status receives the cell whose pivot is not positive, or D where more than `most` cells are missing; elsewhere it
    keeps its value."""
    program = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(most, TILE)
    numbers = tiles * (tiles + 1) // 2 * (TILE * TILE)
    lower_ptr = scratch_ptr + program * (numbers + tiles * (TILE * TILE) + 3 * LANES)
    panel_ptr = lower_ptr + numbers
    centred_ptr = panel_ptr + tiles * (TILE * TILE)
    right_ptr = centred_ptr + LANES
    solved_ptr = right_ptr + LANES
    list_ptr += program * LANES
    for window in tl.range(program, rows, tl.num_programs(0), disable_licm=True):
        mean = mean_ptr + window * mean_stride
        filled = filled_ptr + window * D
        deviation = deviation_ptr + window * D
        count = sorted_cells(
            x_ptr + window * x_stride,
            missing_ptr + window * missing_stride,
            mean,
            filled,
            deviation,
            centred_ptr,
            list_ptr,
            D,
            LANES,
        )
        tl.debug_barrier()
        if count > most:
            tl.store(status_ptr + window, D)
        else:
            place = tl.arange(0, LANES)
            cells = tl.load(list_ptr + place, mask=place < most, other=0)
            tl.store(cells_ptr + window * most + place, cells.to(tl.int64), mask=place < most)
            tl.store(real_ptr + window * most + place, place < count, mask=place < most)
            rows_times(precision_ptr, list_ptr, count, centred_ptr, right_ptr, -1.0, D, TILE)
            bad = factorise(precision_ptr, list_ptr, count, lower_ptr, right_ptr, solved_ptr, D, TILE)
            if bad >= 0:
                tl.store(status_ptr + window, tl.load(list_ptr + bad))
            else:
                whole = window * most * most
                _write_factor(factor_ptr + whole, lower_ptr, count, most, TILE)
                for column in range(tl.cdiv(count, TILE)):
                    cell, real = listed(list_ptr, column, count, TILE)
                    squares = tl.zeros((TILE, TILE), _FP64)
                    pulls = tl.zeros((TILE, TILE), _FP64)
                    for row in range(column, tl.cdiv(count, TILE)):
                        right = tl.where(_diagonal(TILE) & (row == column), 1.0, tl.zeros((TILE, TILE), _FP64))
                        block = solved_tile(lower_ptr, panel_ptr, right, column, row, TILE)
                        tl.store(panel_ptr + row * (TILE * TILE) + square(TILE), block)
                        _write_tile(inverse_ptr + whole, row, column, block, most, TILE)
                        squares += block * block
                        pulls += block * part_of(solved_ptr, row, TILE)[:, None]
                        tl.debug_barrier()
                    store_mean(filled, mean, cell, real, tl.sum(pulls, axis=0))
                    spread = tl.sqrt(tl.sum(squares, axis=0))
                    tl.store(deviation + cell, spread.to(deviation_ptr.dtype.element_ty), mask=real)
                _write_rest(inverse_ptr + whole, count, most, TILE)
                _write_rest(factor_ptr + whole, count, most, TILE)
        tl.debug_barrier()  # the scratch is free for the next window


@triton.jit
def _diagonal(TILE: tl.constexpr):
    return tl.arange(0, TILE)[:, None] == tl.arange(0, TILE)[None, :]


@triton.jit
def _write_tile(result_ptr, row, column, tile, most, TILE: tl.constexpr):
    """A tile of a factor, zero above the diagonal."""
    at_row = row * TILE + tl.arange(0, TILE)[:, None]
    at_column = column * TILE + tl.arange(0, TILE)[None, :]
    tile = tl.where(at_row >= at_column, tile, 0.0).to(result_ptr.dtype.element_ty)
    tl.store(result_ptr + (at_row * most + at_column), tile, mask=(at_row < most) & (at_column < most))


@triton.jit
def _write_factor(result_ptr, lower_ptr, count, most, TILE: tl.constexpr):
    """L, of whose diagonal tiles the scratch has the transposed ones above the reciprocal diagonal."""
    for row in range(tl.cdiv(count, TILE)):
        for column in range(row):
            tile = tl.load(tile_at(lower_ptr, row, column, TILE) + square(TILE))
            _write_tile(result_ptr, row, column, tile, most, TILE)
        tile = tl.trans(tl.load(tile_at(lower_ptr, row, row, TILE) + square(TILE)))
        _write_tile(
            result_ptr,
            row,
            row,
            tl.where(_diagonal(TILE), 1.0 / tl.where(_diagonal(TILE), tile, 1.0), tile),
            most,
            TILE,
        )


@triton.jit
def _write_rest(result_ptr, count, most, TILE: tl.constexpr):
    """The identity beyond the tiles of `count` cells, and what lies above them."""
    done = tl.cdiv(count, TILE)
    identity = tl.where(_diagonal(TILE), 1.0, tl.zeros((TILE, TILE), _FP64))
    for row in range(tl.cdiv(most, TILE)):
        for column in range(tl.where(row < done, row + 1, 0), tl.cdiv(most, TILE)):
            _write_tile(result_ptr, row, column, tl.where(row == column, identity, 0.0), most, TILE)


def scratch_of(dim: int, most: int) -> int:
    """float64 numbers that one program lays aside: the factor, a column of tiles and three vectors."""
    tile = configuration(dim).tile
    tiles: int = triton.cdiv(most, tile)
    return (tiles * (tiles + 1) // 2 + tiles) * tile**2 + 3 * lanes(dim)


def launch(
    x: Any,
    missing: Any,
    mean: Any,
    precision: Any,
    outputs: tuple[Any, ...],
    status: Any,
    scratch: tuple[Any, Any],
    *,
    programs: int,
) -> None:
    """Runs the kernel on the tensors' device.

    Args:
        x: (n, D) float32 or float64, elements of a row adjacent. missing: (n, D) bool, alike.
        mean: (1, D) or (n, D), and precision (D, D), float64, contiguous.
        outputs: filled, deviation (n, D), cells (n, K) int64, real (n, K) bool, factor, inverse (n, K, K), contiguous,
            of x's dtype where not said; K the most missing cells of a window. status: (n,) int32, negative.
        scratch: programs * `scratch_of` float64, programs * `lanes` int32.
        programs: of the grid; each needs its share of the scratch.
    """
    rows, dim = x.shape
    if rows == 0:
        return
    tiles = configuration(dim)
    gaussian_whitening_kernel[(min(programs, rows),)](
        x, missing, mean, precision, *outputs, status, *scratch,
        rows, outputs[2].shape[1], x.stride(0), missing.stride(0), dim if len(mean) > 1 else 0,
        dim, lanes(dim), tiles.tile,
        num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=True,
    )  # fmt: skip

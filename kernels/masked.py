"""Masked windows inside Triton kernels: their cells in the order of the mask, what is observed of them, and means."""

from __future__ import annotations

import triton
import triton.language as tl

from fastimpute.kernels.cholesky import configuration


def lanes(dim: int) -> int:
    """Cells of a window as the kernel loads them at once."""
    width: int = triton.next_power_of_2(dim)
    return max(configuration(dim).tile, width)


@triton.jit
def sorted_cells(
    x_ptr,
    missing_ptr,
    mean_ptr,
    filled_ptr,
    deviation_ptr,
    centred_ptr,
    cells_ptr,
    D: tl.constexpr,
    LANES: tl.constexpr,
):
    """Lists the missing cells of a window, then the observed ones; copies these, and lays x - mean aside, zero where
    missing. Returns how many are missing."""
    lane = tl.arange(0, LANES)
    inside = lane < D
    missing = tl.load(missing_ptr + lane, mask=inside, other=0) != 0
    observed = inside & (missing == 0)
    count = tl.sum(missing.to(tl.int32), axis=0)
    before = tl.cumsum(missing.to(tl.int32), axis=0)
    tl.store(cells_ptr + tl.where(missing, before - 1, count + lane - before), lane, mask=inside)
    x = tl.load(x_ptr + lane, mask=observed, other=0.0)
    tl.store(filled_ptr + lane, x, mask=observed)
    if deviation_ptr is not None:
        tl.store(deviation_ptr + lane, tl.zeros((LANES,), tl.float32), mask=observed)
    mean = tl.load(mean_ptr + lane, mask=observed, other=0.0)
    tl.store(centred_ptr + lane, x.to(tl.float64) - mean)
    return count


@triton.jit
def store_mean(filled_ptr, mean_ptr, cell, real, value):
    mean = tl.load(mean_ptr + cell, mask=real, other=0.0) + value
    tl.store(filled_ptr + cell, mean.to(filled_ptr.dtype.element_ty), mask=real)

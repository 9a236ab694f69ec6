"""`ball_quantile` on the GPU: centre and radius of a window's ball in one pass over its samples (arXiv 2510.02216).

    centre = mean over Z samples,  radius = k-th smallest of |x_z - centre| Z / (Z - 1)

Bound by memory: 4 Z bytes read per missing cell and 4 per observed one, a byte of mask and 4 written per cell, against
4 Z operations. One program takes a window, some columns at a time: a column's samples fit the registers, so that their
mean and their deviations from it need one reading, whatever D is; what stays of a column is its share of the Z squared
distances. Vectors of 16 bytes without a missing cell are read of the first sample alone. The order statistic stays on
chip: up to 128 samples each is compared with all others, Z^2 operations; beyond, 31 halvings find its bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

SAMPLES_MOST = 2048

_INFINITY = tl.constexpr(float("inf"))
_PAIRS_MOST = tl.constexpr(128)
# Bytes of an array that one thread takes.
_ACCESS = 16


class Configuration(NamedTuple):
    """Lanes of the samples and columns at a time, both powers of two, and warps."""

    samples: int
    columns: int
    warps: int


# Columns and warps by cells to an access and lanes of the samples. A thread holds 64 bytes or 8 single cells, beyond
# 512 samples up to twice that: more would spill.
_LAYOUTS = {
    4: {32: (64, 4), 64: (32, 4), 128: (32, 8), 256: (8, 4), 512: (8, 8), 1024: (8, 8), 2048: (8, 16)},
    8: {32: (64, 2), 64: (64, 4), 128: (64, 8), 256: (32, 8), 512: (16, 8), 1024: (16, 16), 2048: (8, 16)},
    1: {32: (32, 4), 64: (32, 8), 128: (32, 16), 256: (8, 8), 512: (4, 8), 1024: (8, 32), 2048: (4, 32)},
}
_LANES_LEAST = 16


def configuration(samples: int, dim: int, vector: int) -> Configuration:
    """How windows of this many samples and cells are laid out, `vector` cells to an access."""
    lanes = max(_LANES_LEAST, triton.next_power_of_2(samples))
    limit = next(limit for limit in _LAYOUTS[vector] if lanes <= limit)
    most, warps = _LAYOUTS[vector][limit]
    columns = min(most, max(vector, triton.next_power_of_2(dim)))
    return Configuration(lanes, columns, max(1, warps * lanes * columns // (limit * most)))


@triton.jit(do_not_specialize=["count", "sample_vectors", "window_vectors", "missing_vectors", "rank"])
def ball_quantile_kernel(
    samples_ptr,
    missing_ptr,
    centre_ptr,
    radius_ptr,
    count,
    sample_vectors,
    window_vectors,
    missing_vectors,
    rank,
    D: tl.constexpr,
    VECTOR: tl.constexpr,
    SAMPLES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One window of D cells and `count` samples, COLUMNS cells at a time. `sample_vectors` and so on are the distances
    of samples, windows and rows of the mask, counted in vectors of VECTOR cells, which divides D."""
    window = tl.program_id(0).to(tl.int64)
    count, rank = count.to(tl.int32), rank.to(tl.int32)
    sample = tl.arange(0, SAMPLES)
    real = sample < count
    first_ptr = samples_ptr + window * window_vectors * VECTOR
    sample_ptr = (first_ptr + sample.to(tl.int64) * sample_vectors * VECTOR)[:, None]
    WORD: tl.constexpr = tl.uint8 if VECTOR == 1 else tl.uint32 if VECTOR == 4 else tl.uint64
    word_ptr = missing_ptr.to(tl.pointer_type(WORD), bitcast=True) + window * missing_vectors
    share = 1.0 / count
    squares = tl.zeros([SAMPLES], tl.float32)
    for begin in range(0, D, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        inside = column < D
        # The mask of a whole vector: what is read of the samples is decided for 16 bytes together.
        gaps = tl.load(word_ptr + column // VECTOR, mask=inside, other=0)
        missing = (gaps >> (column % VECTOR * 8)) & 0xFF != 0
        known = tl.load(first_ptr + column, mask=inside, other=0.0)
        x = tl.load(sample_ptr + column[None, :], mask=real[:, None] & (gaps != 0)[None, :], other=0.0).to(tl.float32)
        mean = tl.sum(x, axis=0) * share
        centre = tl.where(missing, mean.to(known.dtype), known)
        tl.store(centre_ptr + window * D + column, centre, mask=inside)
        deviation = tl.where(missing[None, :], x - mean[None, :], 0.0)
        squares += tl.sum(deviation * deviation, axis=1)
    value = tl.where(real, squares, _INFINITY)
    spoilt = tl.max((value != value).to(tl.int32), axis=0) > 0
    # Floats that are not negative are in the order of their bits.
    key = value.to(tl.int32, bitcast=True)
    key = _by_pairs(key, rank) if SAMPLES <= _PAIRS_MOST else _by_bits(key, rank)
    of_the_others = (count / (count - 1)).to(tl.float32)
    radius = tl.where(spoilt, float("nan"), tl.sqrt(key.to(tl.float32, bitcast=True)) * of_the_others)
    tl.store(radius_ptr + window, radius.to(radius_ptr.dtype.element_ty))


@triton.jit
def _by_pairs(key, rank):
    """The rank-th smallest: the largest with fewer than `rank` below it."""
    below = tl.sum(_is_less(key[None, :], key[:, None]), axis=1)
    return tl.max(tl.where(below < rank, key, 0), axis=0)


@triton.jit
def _by_bits(key, rank):
    """The rank-th smallest, bit by bit."""
    found = tl.full((), 0, tl.int32)
    for step in range(31):
        tried = found | (tl.full((), 1, tl.int32) << (30 - step))
        below = tl.sum(_is_less(key, tried), axis=0)
        found = tl.where(below < rank, tried, found)
    return found


@triton.jit
def _is_less(left, right):
    """1 or 0, of integers that are not negative: a sum of comparisons would be counted in packed bits, at twice the
    instructions."""
    return -((left - right) >> 31)


def launch(samples: Any, missing: Any, centre: Any, radius: Any, *, rank: int) -> None:
    """Runs all windows on the tensors' device.

    Args:
        samples: (Z, n, D), elements of a row adjacent, samples and windows at any distance; Z <= SAMPLES_MOST.
        missing: (n, D), elements of a row adjacent.
        centre, radius: (n, D) and (n,), contiguous; receive the result.
        rank: of the distance that is the radius, 1 ... Z.
    """
    count, windows, dim = samples.shape
    if windows == 0:
        return
    width = _ACCESS // samples.element_size()
    apart = samples.stride(0), samples.stride(1), missing.stride(0)
    whole = all(size % width == 0 for size in (dim, *apart))
    # All or nothing, so that what is summed together does not depend on where in a batch a window lies.
    vector = width if whole and samples.data_ptr() % _ACCESS == 0 and missing.data_ptr() % width == 0 else 1
    lanes, columns, warps = configuration(count, dim, vector)
    ball_quantile_kernel[(windows,)](
        samples, missing, centre, radius, count, *(distance // vector for distance in apart), rank,
        dim, vector, lanes, columns, num_warps=warps, enable_fp_fusion=True,
    )  # fmt: skip

"""`diffusion_step` on the GPU: one step of a reverse diffusion on the missing cells in one pass (arXiv 2510.02216).

    v <- state * v + clean * denoised [+ earlier * previous] [+ spread * N(0, 1)]    where missing

Bound by memory: per cell 4 + 4 bytes read and 4 written (12), with an earlier state 16, and one byte of mask for all
samples of a window, against 3 to 5 operations. A sample's windows are one run of cells, 16 bytes to a thread wherever D
is a multiple of 4 (8 in half precision) or rows follow each other without gaps. The samples of a block of cells are
neighbouring programs, so that they find its mask and its keys in the cache. Row strides are compile-time constants as
in `particle_step`. Noise is bound by its integer products, about 150 instructions a cell: a program is one warp then,
and draws only where one of its cells is missing.
"""

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from fastimpute.kernels.noise import standard_normal

# Bytes of an array that one thread takes.
_ACCESS = 16
# Warps of a program.
CONFIGURATIONS = {"plain": 8, "noise": 1}


@triton.jit(
    do_not_specialize=[
        "samples", "vectors", "v_vectors", "denoised_vectors", "previous_vectors", "seed", "sample", "step"
    ]
)  # fmt: skip
def diffusion_step_kernel(
    v_ptr,
    denoised_ptr,
    previous_ptr,
    missing_ptr,
    v_new_ptr,
    keys_ptr,
    samples,
    vectors,
    v_vectors,
    denoised_vectors,
    previous_vectors,
    state,
    clean,
    earlier,
    spread,
    seed,
    sample,
    step,
    D: tl.constexpr,
    V_STRIDE: tl.constexpr,
    DENOISED_STRIDE: tl.constexpr,
    PREVIOUS_STRIDE: tl.constexpr,
    MISSING_STRIDE: tl.constexpr,
    SENSORS: tl.constexpr,
    VECTOR: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of cells of one sample, which has `vectors` times VECTOR of them; `v_vectors` and so on, counted alike,
    are the distances of samples. WIDTH divides D; absent parts are null pointers."""
    number = tl.program_id(0) % samples
    first = (tl.program_id(0) // samples).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = first // VECTOR + lane // VECTOR < vectors
    flat = first + lane
    # Rows are counted in vectors where they hold whole ones: then the compiler sees that accesses are aligned.
    vector = (first // WIDTH % (D // WIDTH)).to(tl.int32) + lane // WIDTH
    row = first // D + vector // (D // WIDTH)
    column = vector % (D // WIDTH) * WIDTH + lane % WIDTH

    missing = tl.load(missing_ptr + _offset(flat, row, column, MISSING_STRIDE, D), mask=inside, other=0) != 0
    own = number.to(tl.int64) * VECTOR  # times the distance of an array's samples: where this one begins
    v_cells = v_ptr + own * v_vectors + _offset(flat, row, column, V_STRIDE, D)
    v = tl.load(v_cells, mask=inside, other=0.0)
    denoised_cells = denoised_ptr + own * denoised_vectors + _offset(flat, row, column, DENOISED_STRIDE, D)
    moved = state * v.to(tl.float32) + clean * tl.load(denoised_cells, mask=inside, other=0.0).to(tl.float32)
    if previous_ptr is not None:
        previous_cells = previous_ptr + own * previous_vectors + _offset(flat, row, column, PREVIOUS_STRIDE, D)
        moved += earlier * tl.load(previous_cells, mask=inside, other=0.0).to(tl.float32)
    if keys_ptr is not None:  # noqa: SIM102 - Triton would compute both sides of an `and`
        if tl.max(missing.to(tl.int32), axis=0) > 0:
            key = keys_ptr + row * (SENSORS + 1)
            start = tl.load(key, mask=inside, other=0)
            sensor = tl.load(key + (1 + column % SENSORS).to(tl.int64), mask=inside, other=0)
            moved += spread * standard_normal(seed, start, sensor, sample + number, step, column // SENSORS)
    # Observed cells are written too, with the bits they had: a store with holes would not be 16 bytes wide.
    tl.store(v_new_ptr + own * vectors + flat, tl.where(missing, moved.to(v.dtype), v), mask=inside)


@triton.jit
def _offset(flat, row, column, STRIDE: tl.constexpr, D: tl.constexpr):
    """Where a sample's cells lie; rows without gaps are one run, aligned whatever D is."""
    return flat if STRIDE == D else row * STRIDE + column


def launch(
    v: Any,
    denoised: Any,
    previous: Any,
    missing: Any,
    v_new: Any,
    *,
    coefficients: tuple[float, float, float, float],
    noise: tuple[Any, int, int, int] | None = None,
) -> None:
    """Runs the step on the tensors' device.

    Args:
        v, denoised, previous: (S, n, D), elements of a row adjacent, samples and rows at any distance, zero included;
            previous None: not used.
        missing: (n, D), elements of a row adjacent.
        v_new: (S, n, D), contiguous; receives the result.
        coefficients: state, clean, earlier, spread.
        noise: keys (n, 1 + sensors) contiguous, seed, sample, step; sample s of S draws as sample + s. None: none.
    """
    samples, rows, dim = v.shape
    cells = rows * dim
    if samples == 0 or cells == 0:
        return
    keys, seed, sample, step = noise if noise is not None else (None, 0, 0, 0)
    warps = CONFIGURATIONS["plain" if keys is None else "noise"]
    width = _ACCESS // v.element_size()
    apart = [0 if part is None or samples == 1 else part.stride(0) for part in (v, denoised, previous)]
    vector = math.gcd(width, cells, *apart)
    strides = [
        0 if part is None else dim if rows == 1 else part.stride(-2) for part in (v, denoised, previous, missing)
    ]
    block = 32 * warps * width
    diffusion_step_kernel[(samples * triton.cdiv(cells, block),)](
        v, denoised, previous, missing, v_new, keys,
        samples, cells // vector, *(distance // vector for distance in apart), *coefficients, seed, sample, step,
        dim, *strides, 1 if keys is None else keys.shape[1] - 1, vector, math.gcd(width, dim), block,
        num_warps=warps, enable_fp_fusion=True,
    )  # fmt: skip

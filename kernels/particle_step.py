"""`particle_step` on the GPU: the weighted, masked step of the particles in one pass (arXiv 2602.01182).

    x <- x + eta * mass * direction * missing      Adam: direction = m_hat / (sqrt(v_hat) + eps)
    [- eta * drift * x] [+ sqrt(2 eta) * N(0, 1)]

Bound by memory: per cell 4 + 4 + 1 bytes read and 4 written (13), with Adam 16 more (29), against 5 or 20 operations.
The particles are one run of cells, four to a thread, so that accesses are 16 bytes wide wherever D is a multiple of 4
or rows follow each other without gaps. Sizes and strides are compile-time constants: dividing by D costs two
instructions, and the compiler sees what is aligned. Noise is bound by its integer products: about 150 instructions a
cell.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastimpute.kernels.noise import standard_normal


class Configuration(NamedTuple):
    """Cells of one program, and its warps."""

    block: int
    warps: int


# By variant; four cells to a thread.
CONFIGURATIONS = {
    "plain": Configuration(1024, 8),
    "adam": Configuration(1024, 8),
    "noise": Configuration(512, 4),
}


@triton.jit(do_not_specialize=["seed", "sample", "step"])
def particle_step_kernel(
    x_ptr,
    direction_ptr,
    mass_ptr,
    missing_ptr,
    x_new_ptr,
    m_ptr,
    v_ptr,
    keys_ptr,
    vectors,
    eta,
    drift,
    noise_scale,
    seed,
    sample,
    step,
    beta1,
    rest1,
    beta2,
    rest2,
    eps,
    correction1,
    correction2,
    D: tl.constexpr,
    X_STRIDE: tl.constexpr,
    DIRECTION_STRIDE: tl.constexpr,
    MISSING_STRIDE: tl.constexpr,
    M_STRIDE: tl.constexpr,
    V_STRIDE: tl.constexpr,
    SENSORS: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of cells. `vectors` is the number of cells / VECTOR; absent parts are null pointers."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = first // VECTOR + lane // VECTOR < vectors
    flat = first + lane
    # Rows are counted in vectors where they hold whole ones: then the compiler sees that accesses are aligned.
    WIDTH: tl.constexpr = 4 if D % 4 == 0 else 1
    vector = (first // WIDTH % (D // WIDTH)).to(tl.int32) + lane // WIDTH
    row = first // D + vector // (D // WIDTH)
    column = vector % (D // WIDTH) * WIDTH + lane % WIDTH

    x = tl.load(x_ptr + _offset(flat, row, column, X_STRIDE, D), mask=inside, other=0.0)
    gradient_ptr = direction_ptr + _offset(flat, row, column, DIRECTION_STRIDE, D)
    gradient = tl.load(gradient_ptr, mask=inside, other=0.0).to(tl.float32)
    missing = tl.load(missing_ptr + _offset(flat, row, column, MISSING_STRIDE, D), mask=inside, other=0) != 0
    mass = tl.load(mass_ptr + row, mask=inside, other=0.0).to(tl.float32)

    wide = x.to(tl.float32)
    if m_ptr is not None:
        m_cells = m_ptr + _offset(flat, row, column, M_STRIDE, D)
        v_cells = v_ptr + _offset(flat, row, column, V_STRIDE, D)
        gradient = adam_direction(
            gradient, missing, m_cells, v_cells, inside, beta1, rest1, beta2, rest2, eps, correction1, correction2
        )
    moved = wide + eta * mass * gradient - eta * drift * wide
    if keys_ptr is not None:
        moved += noise_scale * cell_noise(keys_ptr, row, column, inside, seed, sample, step, SENSORS)
    tl.store(x_new_ptr + flat, tl.where(missing, moved.to(x.dtype), x), mask=inside)


@triton.jit
def adam_direction(
    gradient, missing, m_cells, v_cells, inside, beta1, rest1, beta2, rest2, eps, correction1, correction2
):
    """m_hat / (sqrt(v_hat) + eps); advances the moments at m_cells and v_cells where cells are missing."""
    m_old, v_old = tl.load(m_cells, mask=inside, other=0.0), tl.load(v_cells, mask=inside, other=0.0)
    m = beta1 * m_old.to(tl.float32) + rest1 * gradient
    v = beta2 * v_old.to(tl.float32) + rest2 * gradient * gradient
    # Observed cells are written too, with the bits they had: a store with holes would not be 16 bytes wide.
    tl.store(m_cells, tl.where(missing, m.to(m_old.dtype), m_old), mask=inside)
    tl.store(v_cells, tl.where(missing, v.to(v_old.dtype), v_old), mask=inside)
    return (m / correction1) / (tl.sqrt(v / correction2) + eps)


@triton.jit
def cell_noise(keys_ptr, row, column, inside, seed, sample, step, SENSORS: tl.constexpr):
    """N(0, 1) of cells by the keys of their rows."""
    key = keys_ptr + row * (SENSORS + 1)
    start = tl.load(key, mask=inside, other=0)
    sensor = tl.load(key + (1 + column % SENSORS).to(tl.int64), mask=inside, other=0)
    return standard_normal(seed, start, sensor, sample, step, column // SENSORS)


@triton.jit
def _offset(flat, row, column, STRIDE: tl.constexpr, D: tl.constexpr):
    """Where the cells lie; rows without gaps are one run, aligned whatever D is."""
    return flat if STRIDE == D else row * STRIDE + column


def launch(
    x: Any,
    direction: Any,
    mass: Any,
    missing: Any,
    x_new: Any,
    *,
    eta: float,
    drift: float,
    noise: tuple[Any, int, int, int] | None = None,
    moments: tuple[Any, ...] | None = None,
) -> None:
    """Runs the step on the tensors' device.

    Args:
        x, direction, missing: (n, D), elements of a row adjacent. mass: (n,), contiguous.
        x_new: (n, D), contiguous; receives the result.
        noise: keys (n, 1 + sensors) contiguous, seed, sample, step; None: none.
        moments: m, v, beta1, beta2, eps, correction1, correction2 of Adam; m and v are advanced in place.
    """
    rows, dim = x.shape
    if rows == 0 or dim == 0:
        return
    keys, seed, sample, step = noise if noise is not None else (None, 0, 0, 0)
    m, v, beta1, beta2, eps, correction1, correction2 = moments if moments is not None else (None,) * 2 + (1.0,) * 5
    block, warps = CONFIGURATIONS["noise" if keys is not None else "plain" if m is None else "adam"]
    vector = 4 if rows * dim % 4 == 0 else 1
    strides = (
        0 if tensor is None else dim if rows == 1 else tensor.stride(0) for tensor in (x, direction, missing, m, v)
    )
    particle_step_kernel[(triton.cdiv(rows * dim, block),)](
        x, direction, mass, missing, x_new, m, v, keys,
        rows * dim // vector, eta, drift, (2.0 * eta) ** 0.5, seed, sample, step,
        beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, correction1, correction2,
        dim, *strides, 1 if keys is None else keys.shape[1] - 1, vector, block, num_warps=warps, enable_fp_fusion=True,
    )  # fmt: skip

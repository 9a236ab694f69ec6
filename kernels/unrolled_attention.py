"""`unrolled_attention` on the GPU: all K x K_aux iterations of the lag heads in one launch (arXiv 2510.02216).

    (alpha^2 (S_mm - S_mo S_oo^-1 S_om) + sigma^2) score = -(v - alpha mu),  mu = mean_m + S_mo S_oo^-1 (x_o - mean_o)

S = Gamma (x) Lambda, Gamma_ik = lag_table[|i - k|], o the frames seen and m those missing, of each sequence. A row is
one channel of a sequence along its frames, in the basis where Lambda is diagonal, so that no iteration mixes channels;
a tile of rows holds whole sequences. Products are tile Gamma over all frames, what a sequence lacks set to zero before
and after; Gamma is read from the lag table, of a few hundred bytes, in the L1 cache, and never written out.

A persistent grid: each program takes tiles through all iterations. What is multiplied next and the vectors of the
iterations lie in a scratch of the program's own, which stays in the L1 and L2 caches; the product being formed has the
registers to itself (with the inner iterates in them as well, some variants spill).

Operations per sequence: 2 T^2 d a product, K (K_aux + 2) + K_aux + 1 products with cg, (K - 1) (K_aux + 1) + K_aux with
gd and chebyshev. Bytes per sequence: 12 T d + T, whatever the number of iterations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastimpute.kernels.sequence_tile import (
    HIDDEN,
    SEEN,
    TABLES,
    attend,
    dot,
    in_state,
    precondition,
    quotient,
    rate,
    read,
    tabulate,
    write,
)


class Configuration(NamedTuple):
    """Rows of a tile, frames of a row, channels of a sequence (powers of two), and warps."""

    rows: int
    frames: int
    channels: int
    warps: int


# Of a tile: 16 to a thread, 4 x 4 of a product. With 32 the operands would be read less often from shared memory, but
# some variants spill.
CELLS, WARPS = 4096, 8
FRAMES_MOST = 256

# Tiles of the scratch: what is multiplied next; of the inner system its right side, direction (cg: solution) and
# residual; of the outer one its iterate, direction (cg: solution), right side (cg: residual) and the iterate's product;
# the mean.
_OPERAND, _RIGHT, _KEPT, _RESIDUAL, _OUTER, _OUTER_KEPT, _OUTER_RIGHT, _PRODUCT, _MEAN = map(tl.constexpr, range(9))
_TILES = tl.constexpr(9)


@triton.jit(do_not_specialize=["channels", "iterations", "inner_iterations"])
def unrolled_attention_kernel(
    v_ptr,
    x_ptr,
    missing_ptr,
    lag_table_ptr,
    alpha_ptr,
    sigma_ptr,
    mean_ptr,
    basis_ptr,
    variance_ptr,
    outer_ptr,
    inner_ptr,
    decay_ptr,
    weight_ptr,
    score_ptr,
    filled_ptr,
    scratch_ptr,
    sequences,
    channels,
    v_stride,
    x_stride,
    missing_stride,
    outer_stride,
    inner_stride,
    iterations,
    inner_iterations,
    T: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    FRAMES: tl.constexpr,
    CHANNELS: tl.constexpr,
    SCRATCH: tl.constexpr,
):
    """Absent parts are null pointers: without rates the solver is cg, without decay there is no preconditioner."""
    CG: tl.constexpr = inner_ptr is None
    TILE: tl.constexpr = ROWS * FRAMES
    SEQUENCES: tl.constexpr = ROWS // CHANNELS
    scratch_ptr += tl.program_id(0).to(tl.int64) * SCRATCH
    row, frame = tl.arange(0, ROWS), tl.arange(0, FRAMES)
    channel = row % CHANNELS
    cells = row[:, None] * FRAMES + frame[None, :]
    passes = iterations + 1 if CG else tl.maximum(iterations, 1)
    for tile in range(tl.program_id(0).to(tl.int64), tl.cdiv(sequences, SEQUENCES), tl.num_programs(0)):
        sequence = tile * SEQUENCES + row // CHANNELS
        inside = (sequence < sequences) & (channel < D)
        alpha = tl.load(alpha_ptr + sequence, mask=inside, other=0.0)
        sigma = tl.load(sigma_ptr + sequence, mask=inside, other=0.0)
        variance = tl.full((ROWS,), 1.0, tl.float32)
        if variance_ptr is not None:
            variance = tl.load(variance_ptr + channel, mask=channel < D, other=1.0)
        tables = scratch_ptr + _TILES * TILE
        tabulate(missing_ptr, tile, sequences, missing_stride, decay_ptr, weight_ptr, tables, T, SEQUENCES, FRAMES)
        read(
            x_ptr + sequence * x_stride, v_ptr + sequence * v_stride, tables, inside, mean_ptr, alpha, basis_ptr,
            scratch_ptr + _OUTER_RIGHT * TILE, channels, D, ROWS, FRAMES, CHANNELS,
        )  # fmt: skip
        energy = tl.zeros((ROWS,), tl.float32)
        for step in range(passes):
            # The first pass is that of the mean; the others multiply the outer iterate.
            if step == 0:
                right = tl.load(scratch_ptr + _OUTER_RIGHT * TILE + cells)
            else:
                right = attend(scratch_ptr + _OPERAND * TILE, lag_table_ptr, T, ROWS, FRAMES) * variance[:, None]
                tl.store(scratch_ptr + _PRODUCT * TILE + cells, right)
            tl.debug_barrier()
            from_seen = _from_seen(
                right, inside, lag_table_ptr, variance, inner_ptr, sequence * inner_stride, inner_iterations,
                decay_ptr, scratch_ptr, T, ROWS, FRAMES, CHANNELS,
            )  # fmt: skip
            if step == 0:
                energy = _start(
                    from_seen, alpha, inside, outer_ptr, sequence * outer_stride, iterations, scratch_ptr,
                    ROWS, FRAMES, CHANNELS,
                )  # fmt: skip
            else:
                energy = _advance(
                    from_seen, alpha, sigma, energy, inside, outer_ptr, sequence * outer_stride, step, scratch_ptr,
                    ROWS, FRAMES, CHANNELS,
                )  # fmt: skip
            tl.debug_barrier()
        write(
            scratch_ptr + (_OUTER_KEPT if CG else _OUTER) * TILE, scratch_ptr + _MEAN * TILE,
            x_ptr + sequence * x_stride, tables, inside, mean_ptr, basis_ptr,
            score_ptr + sequence * (T * D), filled_ptr + sequence * (T * D), channels, D, ROWS, FRAMES, CHANNELS,
        )  # fmt: skip
        tl.debug_barrier()  # the scratch is free for the next tile


@triton.jit
def _from_seen(
    right,
    inside,
    lag_table_ptr,
    variance,
    rates_ptr,
    rates_offset,
    count,
    decay_ptr,
    scratch_ptr,
    T: tl.constexpr,
    ROWS: tl.constexpr,
    FRAMES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """S u on all frames, after `count` iterations from zero on S_oo u = right at frames seen."""
    TILE: tl.constexpr = ROWS * FRAMES
    frame = tl.arange(0, FRAMES)
    cells = tl.arange(0, ROWS)[:, None] * FRAMES + frame[None, :]
    operand, kept = scratch_ptr + _OPERAND * TILE, scratch_ptr + _KEPT * TILE
    residuals, tables = scratch_ptr + _RESIDUAL * TILE, scratch_ptr + _TILES * TILE
    right = tl.where(in_state(tables, SEEN, ROWS, FRAMES, CHANNELS), right, 0.0)
    image = tl.zeros((ROWS, FRAMES), tl.float32)
    tl.store(operand + cells, image)
    tl.store(kept + cells, image)
    if rates_ptr is None:
        tl.store(residuals + cells, right)
        energy = tl.zeros((ROWS,), tl.float32)
        for index in range(count + 1):
            tl.debug_barrier()
            if index < count:
                residual = tl.load(residuals + cells)
                direction = residual
                if decay_ptr is not None:
                    direction = precondition(residual, residuals, tables, variance, ROWS, FRAMES, CHANNELS)
                previous, energy = energy, dot(residual, direction, ROWS, CHANNELS)
                direction += quotient(energy, previous)[:, None] * tl.load(operand + cells)
                tl.store(operand + cells, direction)
            else:
                tl.store(operand + cells, tl.load(kept + cells))
            tl.debug_barrier()
            image = attend(operand, lag_table_ptr, T, ROWS, FRAMES) * variance[:, None]
            tl.debug_barrier()
            if index < count:
                image = tl.where(in_state(tables, SEEN, ROWS, FRAMES, CHANNELS), image, 0.0)
                direction = tl.load(operand + cells)
                size = quotient(energy, dot(direction, image, ROWS, CHANNELS))[:, None]
                tl.store(residuals + cells, tl.load(residuals + cells) - size * image)
                tl.store(kept + cells, tl.load(kept + cells) + size * direction)
    else:
        rights = scratch_ptr + _RIGHT * TILE
        tl.store(rights + cells, right)
        tl.debug_barrier()
        for index in range(tl.maximum(count, 1)):
            if index < count:
                image = tl.where(in_state(tables, SEEN, ROWS, FRAMES, CHANNELS), image, 0.0)
                residual = tl.load(rights + cells) - image
                if decay_ptr is not None:
                    tl.store(residuals + cells, residual)
                    tl.debug_barrier()
                    residual = precondition(residual, residuals, tables, variance, ROWS, FRAMES, CHANNELS)
                size, momentum = rate(rates_ptr, rates_offset, inside, index)
                direction = residual + momentum[:, None] * tl.load(kept + cells)
                tl.store(kept + cells, direction)
                tl.store(operand + cells, tl.load(operand + cells) + size[:, None] * direction)
            tl.debug_barrier()
            image = attend(operand, lag_table_ptr, T, ROWS, FRAMES) * variance[:, None]
            tl.debug_barrier()
    return image


@triton.jit
def _start(
    from_seen,
    alpha,
    inside,
    rates_ptr,
    rates_offset,
    iterations,
    scratch_ptr,
    ROWS: tl.constexpr,
    FRAMES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Keeps the mean, S_mo S_oo^-1 (x - mean), and lays out the first iterate of the score; its energy for cg."""
    TILE: tl.constexpr = ROWS * FRAMES
    frame = tl.arange(0, FRAMES)
    cells = tl.arange(0, ROWS)[:, None] * FRAMES + frame[None, :]
    hidden = in_state(scratch_ptr + _TILES * TILE, HIDDEN, ROWS, FRAMES, CHANNELS)
    mu = tl.where(hidden, from_seen, 0.0)
    tl.store(scratch_ptr + _MEAN * TILE + cells, mu)
    right = tl.where(hidden, alpha[:, None] * mu - tl.load(scratch_ptr + _OUTER_RIGHT * TILE + cells), 0.0)
    tl.store(scratch_ptr + _OUTER_RIGHT * TILE + cells, right)
    iterate = right
    other = tl.zeros((ROWS, FRAMES), tl.float32)
    if rates_ptr is not None:
        iterate, other = other, right
        if iterations > 0:
            size, _ = rate(rates_ptr, rates_offset, inside, 0)
            iterate = size[:, None] * right
    tl.store(scratch_ptr + _OUTER_KEPT * TILE + cells, other)
    tl.store(scratch_ptr + _OUTER * TILE + cells, iterate)
    tl.store(scratch_ptr + _OPERAND * TILE + cells, iterate)
    return dot(right, right, ROWS, CHANNELS)


@triton.jit
def _advance(
    from_seen,
    alpha,
    sigma,
    energy,
    inside,
    rates_ptr,
    rates_offset,
    step,
    scratch_ptr,
    ROWS: tl.constexpr,
    FRAMES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One outer step; `from_seen` is S_mo u. Returns the residual's energy for cg."""
    TILE: tl.constexpr = ROWS * FRAMES
    frame = tl.arange(0, FRAMES)
    cells = tl.arange(0, ROWS)[:, None] * FRAMES + frame[None, :]
    iterate = tl.load(scratch_ptr + _OUTER * TILE + cells)
    schur = (alpha * alpha)[:, None] * (tl.load(scratch_ptr + _PRODUCT * TILE + cells) - from_seen)
    image = schur + (sigma * sigma)[:, None] * iterate
    image = tl.where(in_state(scratch_ptr + _TILES * TILE, HIDDEN, ROWS, FRAMES, CHANNELS), image, 0.0)
    right = tl.load(scratch_ptr + _OUTER_RIGHT * TILE + cells)
    other = tl.load(scratch_ptr + _OUTER_KEPT * TILE + cells)
    if rates_ptr is None:
        size = quotient(energy, dot(iterate, image, ROWS, CHANNELS))[:, None]
        other += size * iterate
        right -= size * image
        tl.store(scratch_ptr + _OUTER_RIGHT * TILE + cells, right)
        previous = energy
        energy = dot(right, right, ROWS, CHANNELS)
        iterate = right + quotient(energy, previous)[:, None] * iterate
    else:
        size, momentum = rate(rates_ptr, rates_offset, inside, step)
        other = right - image + momentum[:, None] * other
        iterate += size[:, None] * other
    tl.store(scratch_ptr + _OUTER_KEPT * TILE + cells, other)
    tl.store(scratch_ptr + _OUTER * TILE + cells, iterate)
    tl.store(scratch_ptr + _OPERAND * TILE + cells, iterate)
    return energy


def size_refusal(frames: int, channels: int) -> str | None:
    """Why sequences of this size do not fit a tile; None when they do."""
    if frames > FRAMES_MOST:
        return f"the sequences have {frames} frames, the kernel takes up to {FRAMES_MOST}"
    most = CELLS // _padded(frames)
    if channels > most:
        return f"the sequences of {frames} frames have {channels} channels, the kernel takes up to {most}"
    return None


def configuration(frames: int, channels: int) -> Configuration:
    """Tiles for sequences of a size that `size_refusal` lets pass."""
    return Configuration(CELLS // _padded(frames), _padded(frames), triton.next_power_of_2(channels), WARPS)


def _padded(frames: int) -> int:
    return int(max(16, triton.next_power_of_2(frames)))


def programs(sequences: int, tiles: Configuration, multiprocessors: int) -> int:
    """Of the grid: one a multiprocessor, or one a tile where there are fewer."""
    return min(multiprocessors, -(-sequences * tiles.channels // tiles.rows))


def scratch_size(tiles: Configuration) -> int:
    """float32 numbers a program lays aside."""
    size: int = (_TILES.value * tiles.rows + TABLES * (tiles.rows // tiles.channels)) * tiles.frames
    return size


def launch(
    values: tuple[Any, Any, Any],
    covariance: tuple[Any, ...],
    scales: tuple[Any, Any],
    rates: tuple[Any, Any],
    links: tuple[Any, Any],
    outputs: tuple[Any, Any],
    scratch: Any,
    *,
    iterations: int,
    inner_iterations: int,
    programs: int,
    tiles: Configuration,
) -> None:
    """Runs the kernel on the tensors' device.

    Args:
        values: v and x (n, T d) float32 and missing (n, T) bool, elements of a row adjacent.
        covariance: lag_table (T,), mean (T, d), basis (d, d) and variance (d,) of the channels' modes (columns), the
            last three or the last two None.
        scales: alpha, sigma (n,).
        rates: outer (n or 1, K, 2) and inner (n or 1, K_aux, 2), contiguous; None: cg.
        links: by gap, decay and weight of the preconditioner, (T,) each; None: none.
        outputs: score and conditional mean (n, T, d), contiguous.
        scratch: programs * `scratch_size` float32.
        iterations, inner_iterations: K and K_aux.
        programs: of the grid, as `programs` says; each needs its share of the scratch.
        tiles: from `configuration`.
    """
    sequences, frames, channels = outputs[0].shape
    if outputs[0].numel() == 0:
        return
    lag_table, *others = covariance
    outer, inner = rates
    unrolled_attention_kernel[(programs,)](
        *values, lag_table, *scales, *others, outer, inner, *links, *outputs, scratch,
        sequences, channels, *(tensor.stride(0) for tensor in values), _stride(outer), _stride(inner),
        iterations, inner_iterations, frames, channels, tiles.rows, tiles.frames, tiles.channels, scratch_size(tiles),
        num_warps=tiles.warps, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip


def _stride(rates: Any) -> int:
    """Between the rates of one sequence and the next; 0 where all share them."""
    stride: int = 0 if rates is None or rates.shape[0] == 1 else rates.stride(0)
    return stride

"""All iterations of `proximal_recursion` in one launch where the weights are at rest (arXiv 2602.01182).

    iterations times:  T_x = score(x) [- gamma H s],  x <- x + eta * mass * T_x * missing     (as `particle_step` does)

Particles then do not see each other: each program takes a tile of them through the network and the step, again and
again, and goes on to its next tile. Particles, moments and direction lie where `proximal_recursion` keeps a wave; of
them a program has one tile at hand at a time, in the L2 cache, as is its scratch.

Per cell and iteration beside the score: 13 bytes from the L2 cache (29 with Adam), and nothing from device memory.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fastimpute.kernels import energy_mlp, score_mlp
from fastimpute.kernels.energy_mlp import energy_tile
from fastimpute.kernels.matrix import Configuration
from fastimpute.kernels.particle_step import adam_direction, cell_noise
from fastimpute.kernels.score_mlp import score_tile

STEP_BLOCK = 1024  # cells of a step taken at a time


@triton.jit(do_not_specialize=["iterations", "seed", "sample"])
def particle_loop_kernel(
    x_ptr,
    hidden_ptr,
    mass_ptr,
    m_ptr,
    v_ptr,
    keys_ptr,
    corrections_ptr,
    sigma_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    w3_ptr,
    b3_ptr,
    modulation_ptr,
    index_ptr,
    precision_ptr,
    mean_ptr,
    log_p_ptr,
    direction_ptr,
    curved_ptr,
    operand_ptr,
    state_ptr,
    rows,
    iterations,
    eta,
    gamma,
    drift,
    noise_scale,
    seed,
    sample,
    beta1,
    rest1,
    beta2,
    rest2,
    eps,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHUNK: tl.constexpr,
    STATES: tl.constexpr,
    SENSORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Absent parts are null pointers; sigma_ptr tells the direct head. corrections_ptr: Adam's two of each iteration.

    operand_ptr and state_ptr: scratch of one and of STATES tiles a program.
    """
    program = tl.program_id(0).to(tl.int64)
    operand_ptr += program * (ROWS * H)
    state_ptr += program * (STATES * ROWS * H)
    programs = tl.num_programs(0)
    tiles = (tl.cdiv(rows, ROWS) - program + programs - 1) // programs
    # Tiles and iterations are one loop: of two, the inner one's addresses would be kept in registers, too many of them.
    for turn in range(tiles * iterations):
        first_row = (program + turn // iterations * programs) * ROWS
        iteration = turn % iterations
        if sigma_ptr is not None:
            score_tile(
                x_ptr, sigma_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, modulation_ptr, index_ptr,
                precision_ptr, mean_ptr, direction_ptr, operand_ptr, state_ptr, first_row, rows, D,
                D, PADDED, H, ROWS, COLUMNS, HIDDEN, CHUNK,
            )  # fmt: skip
        else:
            energy_tile(
                x_ptr, None, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, modulation_ptr, index_ptr,
                precision_ptr, mean_ptr, log_p_ptr, direction_ptr, curved_ptr, operand_ptr, state_ptr, first_row,
                rows, D, 0, D, PADDED, H, ROWS, COLUMNS, HIDDEN, CHUNK,
            )  # fmt: skip
        if m_ptr is not None:
            correction1 = tl.load(corrections_ptr + 2 * iteration)
            correction2 = tl.load(corrections_ptr + (2 * iteration + 1))
        tl.debug_barrier()
        count = tl.minimum(rows - first_row, ROWS) * D
        for first in range(0, ROWS * D, BLOCK):
            lane = first + tl.arange(0, BLOCK)
            inside = lane < count
            row, column = first_row + lane // D, lane % D
            cell = first_row * D + lane
            x = tl.load(x_ptr + cell, mask=inside, other=0.0)
            gradient = tl.load(direction_ptr + cell, mask=inside, other=0.0)
            missing = tl.load(hidden_ptr + cell, mask=inside, other=0) != 0
            mass = tl.load(mass_ptr + row, mask=inside, other=0.0)
            if curved_ptr is not None:
                gradient -= gamma * tl.load(curved_ptr + cell, mask=inside, other=0.0)
            if m_ptr is not None:
                gradient = adam_direction(
                    gradient, missing, m_ptr + cell, v_ptr + cell, inside,
                    beta1, rest1, beta2, rest2, eps, correction1, correction2,
                )  # fmt: skip
            moved = x + eta * mass * gradient - eta * drift * x
            if keys_ptr is not None:
                noise = cell_noise(keys_ptr, row, column, inside, seed, sample, iteration, SENSORS)
                moved += noise_scale * noise
            tl.store(x_ptr + cell, tl.where(missing, moved, x), mask=inside)
        tl.debug_barrier()


def configuration(operand_size: int, direct: bool, hvp: bool) -> Configuration:
    """Tiles of the kernel for operands of so many bytes: those of the head's own, but fewer rows at a time with H v."""
    if direct:
        return score_mlp.configuration(operand_size)
    tiles = energy_mlp.configuration(operand_size, hvp)
    return tiles._replace(chunk=8) if hvp else tiles


def launch(
    x: Any,
    hidden: Any,
    mass: Any,
    weights: tuple[Any, ...],
    modulation: Any,
    modulation_index: Any,
    outputs: tuple[Any, Any, Any],
    scratch: tuple[Any, Any],
    *,
    sigma: Any,
    iterations: int,
    eta: float,
    gamma: float,
    drift: float,
    noise: tuple[Any, int, int] | None,
    moments: tuple[Any, ...] | None,
    programs: int,
    tiles: Configuration,
) -> None:
    """Moves the particles on their device.

    Args:
        x, hidden, mass: particles (n, D), advanced in place, where they are missing (n, D) bool, and B w (n,).
        weights, modulation, modulation_index, scratch, programs: as `score_mlp` (sigma given) or `energy_mlp` has them.
        outputs: room for log_p (n,), direction (n, D) and H v (n, D), None where gamma is 0.
        sigma: (n,) of the direct head; None: the energy head.
        noise: keys (n, 1 + sensors), seed, sample; None: none.
        moments: m, v, beta1, beta2, eps of Adam and its corrections (iterations, 2); m and v are advanced in place.
        tiles: from `configuration`.
    """
    rows, dim = x.shape
    if rows == 0 or iterations == 0:
        return
    width, padded_dim = weights[0].shape
    states = 1 if sigma is not None else energy_mlp.state_tiles(outputs[2] is not None)
    keys, seed, sample = noise if noise is not None else (None, 0, 0)
    m, v, beta1, beta2, eps, corrections = moments if moments is not None else (None, None, 1.0, 1.0, 1.0, None)
    particle_loop_kernel[(min(programs, triton.cdiv(rows, tiles.rows)),)](
        x, hidden, mass, m, v, keys, corrections, sigma, *weights[:6], modulation, modulation_index, *weights[6:],
        *outputs, *scratch, rows, iterations, eta, gamma, drift, (2.0 * eta) ** 0.5, seed, sample,
        beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps,
        dim, padded_dim, width, tiles.rows, tiles.columns, tiles.hidden, tiles.chunk, states,
        1 if keys is None else keys.shape[1] - 1, STEP_BLOCK,
        num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=True,
    )  # fmt: skip

"""Samples of the missing cells of windows by any denoiser E[y | v] and any plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastimpute.diffusion.schedule import Plan, plan
from fastimpute.ops.diffusion_step import StepCoefficients, diffusion_step
from fastimpute.ops.particle_step import Noise

# E[y | v] of states (S, n, D), S samples of n windows, at noise level sigma.
Denoiser = Callable[[Tensor, float], Tensor]

MOST_SAMPLES = 4096
CELLS_AT_ONCE = 1 << 22


def sample(
    denoise: Denoiser,
    known: Tensor,
    missing: Tensor,
    keys: Tensor,
    *,
    samples: int,
    seed: int = 0,
    steps: Plan | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Z samples of the missing cells of n windows (arXiv 2510.02216, reverse process), (Z, n, D).

    Noise is keyed by (seed, absolute start of the window, cell, sample, step): whatever windows are passed together,
    whatever the chunk and the threads, a sample gets the same noise, and the same bits if the
    denoiser treats rows alike.

    Args:
        denoise: E[y | v] of states (S, n, D) at a noise level; only its missing cells are read.
        known: (n, D) values of y, float32 or float64; read where observed and kept there bit for bit.
        missing: (n, D) bool, True where missing.
        keys: (n, 1 + sensors) int64, absolute start of each window, then the sensor of each of its columns.
        samples: Z, at most 4096.
        seed: of the noise.
        steps: noise levels and solver, 20 evaluations by default; y should have cells of about unit variance.
        chunk: samples computed together; by default as many as have about four million cells.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range.

    Example:
        >>> import torch
        >>> from fastimpute.diffusion import GaussianDenoiser, sample
        >>> missing = torch.tensor([[True, False]])
        >>> denoise = GaussianDenoiser(torch.tensor([[3.0, 7.0]]), torch.eye(1), missing[0])
        >>> keys = torch.zeros(1, 3, dtype=torch.int64)
        >>> drawn = sample(denoise, torch.tensor([[0.0, 7.0]]), missing, keys, samples=50)
        >>> drawn.shape, bool((drawn[..., 1] == 7).all()), bool((drawn[..., 0].mean() - 3).abs() < 0.5)
        (torch.Size([50, 1, 2]), True, True)
    """
    chunks = sample_chunks(denoise, known, missing, keys, samples=samples, seed=seed, steps=steps, chunk=chunk)
    drawn = torch.empty(samples, *known.shape, dtype=known.dtype)
    first = 0
    for part in chunks:
        drawn[first : first + len(part)] = part
        first += len(part)
    return drawn


def sample_chunks(
    denoise: Denoiser,
    known: Tensor,
    missing: Tensor,
    keys: Tensor,
    *,
    samples: int,
    seed: int = 0,
    steps: Plan | None = None,
    chunk: int | None = None,
) -> Iterator[Tensor]:
    """What `sample` returns, a chunk of samples (s, n, D) after another; only one is in memory. Arguments as there."""
    if not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"samples must be between 1 and {MOST_SAMPLES}, got {samples}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    if known.shape != missing.shape:
        raise ValueError(f"known must have shape {tuple(missing.shape)}, got {tuple(known.shape)}")
    chosen = plan() if steps is None else steps
    size = chunk or max(1, CELLS_AT_ONCE // max(known.numel(), 1))
    return _chunks(denoise, known, missing, keys, samples, seed, chosen, size)


def _chunks(
    denoise: Denoiser, known: Tensor, missing: Tensor, keys: Tensor, samples: int, seed: int, steps: Plan, size: int
) -> Iterator[Tensor]:
    centre = one_step_mean(denoise, known, missing, steps.start)
    shrink = StepCoefficients(1 / steps.inflation, 1 - 1 / steps.inflation)
    for first in range(0, samples, size):
        shape = (min(size, samples - first), *known.shape)
        drawn = _reverse(denoise, known.expand(shape), missing, Noise(seed, keys, first), steps)
        yield diffusion_step(drawn, centre.expand(shape), None, missing, shrink)


def one_step_mean(denoise: Denoiser, known: Tensor, missing: Tensor, largest: float) -> Tensor:
    """E[y | nothing but what is observed], (n, D), by one call at the largest noise level; `known` where observed."""
    blank = torch.where(missing, 0.0, known)
    return torch.where(missing, denoise(blank[None], largest)[0], known)


def _reverse(denoise: Denoiser, known: Tensor, missing: Tensor, noise: Noise, steps: Plan) -> Tensor:
    """States from pure noise through all steps; draw number k of a cell is for step k, 0 for the start."""
    start = StepCoefficients(0.0, 0.0, spread=steps.start)
    v = diffusion_step(torch.where(missing, 0.0, known), known.nan_to_num(0.0), None, missing, start, noise=noise)
    previous: Tensor | None = None
    for number, step in enumerate(steps.steps, 1):
        denoised = denoise(v, step.sigma)
        earlier = previous if step.coefficients.earlier else None
        drawn = noise._replace(step=number) if step.coefficients.spread else None
        v = diffusion_step(v, denoised, earlier, missing, step.coefficients, noise=drawn)
        previous = denoised
    return v

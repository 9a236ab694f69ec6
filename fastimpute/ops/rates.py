"""Step sizes of the linear iterations of `unrolled_attention`, from the spectra of its two systems.

One iteration on A y = b: z = M (b - A y), p = z + momentum p, y = y + step p. Gradient descent has momentum 0 and
step 2 / (lmin + lmax); Chebyshev's semi-iteration has a table of both (Golub and Varga, 1961).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute.ops.lag_heads import head_matrix

OP = "unrolled_attention"
_LEAST_RATIO = 1e-13  # of eigenvalues: below, float64 tells no positive definite matrix from a singular one


class Rates(NamedTuple):
    """(step, momentum) per iteration: outer (n or 1, K, 2) for the score, inner (n or 1, K_aux, 2) for frames seen."""

    outer: Tensor
    inner: Tensor


def spectrum(
    missing: Tensor, lag_table: Tensor, channel_covariance: Tensor | None = None, length: float | None = None
) -> Tensor:
    """(n, 4) float64: least and largest eigenvalue of (preconditioned) S_obs, then of S_cond, of each sequence.

    Sequences with the same mask share the work, of the order of T^3 and done in main memory, as it is many small
    matrices.

    Args:
        missing: (n, T) bool. lag_table: (T,). channel_covariance: (d, d) symmetric positive definite; None: identity.
        length: of the preconditioner, in frames; None: none.

    Raises:
        ValueError: the covariance of the frames or of the channels is not positive definite.
    """
    masks, which = torch.unique(missing.cpu(), dim=0, return_inverse=True)
    gamma = head_matrix(lag_table.detach().cpu().double())
    channels = gamma.new_ones(2)
    if channel_covariance is not None:
        channels = _extremes("channel_covariance", channel_covariance.detach().cpu().double())
    rows = [_spectrum_of_mask(mask, gamma, channels, length) for mask in masks]
    return (torch.stack(rows)[which] if rows else gamma.new_ones(0, 4)).to(missing.device)


def _spectrum_of_mask(mask: Tensor, gamma: Tensor, channels: Tensor, length: float | None) -> Tensor:
    seen, hidden = torch.nonzero(~mask)[:, 0], torch.nonzero(mask)[:, 0]
    inner = outer = gamma.new_ones(2)
    observed = gamma[seen][:, seen]
    if len(seen):
        inner = channels * _extremes("lag_table", observed)
    if len(seen) and length is not None:
        inner = _preconditioned_extremes(observed, seen, length)
    if len(hidden):
        cross = gamma[seen][:, hidden]
        schur = gamma[hidden][:, hidden] - cross.T @ torch.linalg.solve(observed, cross)
        outer = channels * _extremes("lag_table", schur)
    return torch.cat([inner, outer])


def _extremes(name: str, matrix: Tensor) -> Tensor:
    values = torch.linalg.eigvalsh(matrix)
    if not float(values[0]) > _LEAST_RATIO * float(values[-1]):
        raise ValueError(
            f"{OP}: {name} must be positive definite, got eigenvalues from {float(values[0]):.3g} to "
            f"{float(values[-1]):.3g}; add to the diagonal (lag_table[0]), or pass rates"
        )
    return torch.stack([values[0], values[-1]])


def _preconditioned_extremes(observed: Tensor, seen: Tensor, length: float) -> Tensor:
    """Of the exponential kernel's precision times `observed`, channel covariances cancelling."""
    exponential = torch.exp(-(seen[:, None] - seen).abs().double() / length)
    factor = torch.linalg.cholesky(exponential)
    half = torch.linalg.solve_triangular(factor, observed, upper=False)
    return _extremes("lag_table", torch.linalg.solve_triangular(factor, half.T, upper=False))


def spectral_rates(
    solver: str, spectra: Tensor, alpha: Tensor, sigma: Tensor, iterations: int, inner_iterations: int
) -> Rates:
    """Rates of "gd" or "chebyshev" from `spectrum`, for v = alpha y + sigma noise; float64.

    Args:
        spectra: (n, 4). alpha, sigma: (n,). iterations, inner_iterations: K and K_aux.
    """
    table = _gradient_descent if solver == "gd" else _chebyshev
    outer = alpha.double()[:, None] ** 2 * spectra[:, 2:] + sigma.double()[:, None] ** 2
    return Rates(table(outer, iterations), table(spectra[:, :2], inner_iterations))


def _gradient_descent(bounds: Tensor, iterations: int) -> Tensor:
    step = 2 / bounds.sum(1)
    return torch.stack([step, torch.zeros_like(step)], 1)[:, None].repeat(1, iterations, 1)


def _chebyshev(bounds: Tensor, iterations: int) -> Tensor:
    middle, half = bounds.mean(1), 0.5 * (bounds[:, 1] - bounds[:, 0])
    step, momentum = 1 / middle, torch.zeros_like(middle)
    rows = []
    for index in range(iterations):
        if index > 0:
            momentum = (half * step).square() * (0.5 if index == 1 else 0.25)
            step = 1 / (middle - momentum / step)
        rows.append(torch.stack([step, momentum], 1))
    return torch.stack(rows, 1) if rows else bounds.new_empty(len(bounds), 0, 2)

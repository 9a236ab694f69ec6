"""Attention heads whose scores depend on the time gap only, and the transformer they build (arXiv 2510.02216).

Four ReLU heads per lag m, without softmax, pick the pairs of frames with |i - k| = m; their value matrix is
gamma_m Lambda. Summed over the lags they are one product with the Toeplitz matrix of the table gamma: `head_matrix`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A trapezoid of four ReLUs around m^2: 1 within a quarter, 0 from a half on; squared gaps are integers.
_OFFSETS = (0.5, 0.25, -0.25, -0.5)
_SIGNS = (4.0, -4.0, -4.0, 4.0)


def lag_selectors(frames: int, dtype: torch.dtype = torch.float64, device: torch.device | None = None) -> Tensor:
    """(T, T, T): entry (m, i, k) is the sum of lag m's four ReLU heads for query i and key k, 1 where |i - k| = m."""
    position = torch.arange(frames, dtype=dtype, device=device)
    ones = torch.ones_like(position)
    queries = torch.stack([position.square(), position, ones], 1)
    keys = torch.stack([ones, -2 * position, position.square()], 1)
    distance = queries @ keys.T - position.square()[:, None, None]
    heads = [sign * torch.relu(distance + offset) for sign, offset in zip(_SIGNS, _OFFSETS, strict=True)]
    return torch.stack(heads).sum(0)


def head_matrix(lag_table: Tensor) -> Tensor:
    """(T, T): entry (i, k) is lag_table[|i - k|], what the heads of all lags amount to."""
    position = torch.arange(len(lag_table), device=lag_table.device)
    return lag_table[(position[:, None] - position).abs()]


def _attend(values: Tensor, lag_table: Tensor, channel_covariance: Tensor) -> Tensor:
    """One attention block: the heads of every lag m on (n, T, d) values, value matrix lag_table[m] Lambda."""
    selectors = lag_selectors(len(lag_table), values.dtype, values.device)
    return torch.einsum("mik,m,nkc,ce->nie", selectors, lag_table, values, channel_covariance)


def transformer(
    v: Tensor,
    x: Tensor,
    missing: Tensor,
    lag_table: Tensor,
    alpha: float,
    sigma: float,
    channel_covariance: Tensor,
    *,
    theta: float,
    eta: float,
    iterations: int,
    inner_iterations: int,
) -> tuple[Tensor, Tensor]:
    """Theorem 1 of arXiv 2510.02216 block by block, for data of mean zero: (score, conditional mean), each (n, T, d).

    What a token carries: v, x, whether it is missing, and the registers s, u, r. The feed-forward modules f_mult of the
    paper multiply exactly here. Slow: it is the statement that `unrolled_attention` with solver "gd" is tested against.

    Args:
        v: (n, T, d) noisy frames. x: (n, T, d) observed frames. missing: (n, T) bool.
        lag_table: (T,) gamma. alpha, sigma: scales of signal and noise in v. channel_covariance: (d, d) Lambda.
        theta, eta: step sizes of the inner and the outer iteration.
        iterations, inner_iterations: K and K_aux.
    """
    hidden = missing[..., None].to(v.dtype)
    seen = 1 - hidden

    def inner(r: Tensor) -> Tensor:
        u = torch.zeros_like(r)
        for _ in range(inner_iterations):  # TB_obs, f_mult, f_mult
            u = u - theta * (seen * _attend(u, lag_table, channel_covariance) - r)
        return u

    def cor_transposed(u: Tensor) -> Tensor:
        return hidden * _attend(u, lag_table, channel_covariance)

    mu = cor_transposed(inner(torch.where(missing[..., None], 0.0, x)))
    noisy = torch.where(missing[..., None], v, 0.0)
    s = torch.zeros_like(noisy)
    for _ in range(iterations):
        u = inner(seen * _attend(s, lag_table, channel_covariance))  # TB_cor
        from_seen = cor_transposed(u)  # TB_cor^T
        from_hidden = hidden * _attend(s, lag_table, channel_covariance)  # TB_miss
        s = s - eta * (alpha**2 * (from_hidden - from_seen) + sigma**2 * s + noisy - alpha * mu)
    return s, torch.where(missing[..., None], mu, x)

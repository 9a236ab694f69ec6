"""Probability of balls under centred Gaussians, exactly: the radius a confidence region should have."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

_NEGLIGIBLE = 1e-11


def ball_probability(radius: float, variances: Tensor) -> float:
    """P(|x| <= radius) for x ~ N(0, diag(variances)), to about 1e-8 for six or more comparable variances.

    Inversion of the characteristic function of |x|^2 (J. P. Imhof, Biometrika 48, 1961, equation 3.2).

    Args:
        radius: in the units of x.
        variances: (k,) positive; a full covariance enters by its eigenvalues.

    Raises:
        ValueError: variances that are not positive.

    Example:
        >>> import torch
        >>> round(ball_probability(3.0, torch.ones(8)), 4)  # a chi-square variable of 8 degrees of freedom below 9
        0.6577
    """
    spread = _checked(variances)
    if radius <= 0:
        return 0.0
    scale = spread.max()
    spread, square = spread / scale, radius**2 / scale

    def log_decay(at: float) -> float:
        return float(0.25 * np.log1p((spread * at) ** 2).sum())

    def integrand(at: float) -> float:
        angle = 0.5 * float(np.arctan(spread * at).sum()) - 0.5 * square * at
        return float(np.sin(angle) * np.exp(-log_decay(at)) / at)

    end = 1.0
    while np.exp(-log_decay(end)) > _NEGLIGIBLE * end and end < 1e3:
        end *= 1.5
    # Halves of a turn of the fastest oscillation are integrated one by one, so that none is missed.
    cuts = np.linspace(0.0, end, 2 + int(end * (square + spread.sum()) / 30))
    total = sum(quad(integrand, a, b, epsabs=1e-12, epsrel=1e-10, limit=200)[0] for a, b in pairwise(cuts))
    return float(np.clip(0.5 - total / np.pi, 0.0, 1.0))


def ball_radius(level: float, variances: Tensor) -> float:
    """The radius whose ball holds N(0, diag(variances)) with probability `level`.

    Raises:
        ValueError: a level outside (0, 1), or variances that are not positive.

    Example:
        >>> import torch
        >>> round(ball_radius(0.95, torch.ones(8)) ** 2, 3)  # the 95 % point of a chi-square variable
        15.507
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    spread = _checked(variances)
    high = np.sqrt(spread.sum())
    while ball_probability(high, variances) < level:
        high *= 1.5
    return float(brentq(lambda radius: ball_probability(radius, variances) - level, 0.0, high, xtol=1e-9))


def _checked(variances: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if variances.dim() != 1 or len(variances) == 0 or not bool((variances > 0).all()):
        raise ValueError(f"variances must be a vector of positive numbers, got {variances}")
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = variances.double().numpy()
    return found

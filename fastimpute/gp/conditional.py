"""The law of missing frames given the others, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastimpute.gp.ball import ball_radius


class Conditional:
    """Missing frames given the observed ones, X_m | x_o ~ N(gain x_o, covariance (x) I) per channel, all float64.

    arXiv 2510.02216, setting: gain = S_cor^T S_obs^-1, covariance = S_miss - S_cor^T S_obs^-1 S_cor.

    Attributes:
        missing: (H,) bool.
        gain: (m, H - m), takes observed frames to the conditional mean.
        covariance: (m, m), the same for every channel and every x_o.
        deviation: (m,), conditional standard deviation of a cell of each missing frame.

    Raises:
        ValueError: a kernel that is not (H, H) float64 or not positive definite, missing frames that are not (H,) bool,
            none or all of them missing.

    Example:
        >>> from fastimpute import gp
        >>> round(gp.Conditional(gp.kernel(), gp.pattern("P4")).condition_number, 2)
        3.0
    """

    def __init__(self, kernel: Tensor, missing: Tensor) -> None:
        if kernel.dim() != 2 or kernel.shape[0] != kernel.shape[1] or kernel.dtype != torch.float64:
            raise ValueError(f"kernel must be a square float64 matrix, got {tuple(kernel.shape)} {kernel.dtype}")
        if missing.dtype != torch.bool or missing.shape != kernel.shape[:1]:
            raise ValueError(
                f"missing must be ({len(kernel)},) bool, got {tuple(missing.shape)} {str(missing.dtype).split('.')[-1]}"
            )
        if not 0 < int(missing.sum()) < len(missing):
            raise ValueError(f"missing must leave out some frames but not all, got {int(missing.sum())}")
        self.missing = missing
        observed = ~missing
        root, failed = torch.linalg.cholesky_ex(kernel[observed][:, observed])
        if failed:
            raise ValueError(f"kernel must be positive definite, got one whose leading minor {int(failed)} is not")
        cross = kernel[observed][:, missing]
        self.gain: Tensor = torch.cholesky_solve(cross, root).T.contiguous()
        covariance = kernel[missing][:, missing] - self.gain @ cross
        self.covariance: Tensor = (covariance + covariance.T) / 2
        self.deviation: Tensor = self.covariance.diagonal().sqrt()
        self.variances: Tensor
        self.axes: Tensor
        self.variances, self.axes = torch.linalg.eigh(self.covariance)

    @property
    def condition_number(self) -> float:
        """kappa, largest over smallest eigenvalue of the covariance."""
        return float(self.variances[-1] / self.variances[0])

    @property
    def correlation(self) -> Tensor:
        """(m, m), the covariance in units of `deviation`."""
        return self.covariance / (self.deviation[:, None] * self.deviation)

    def mean(self, x: Tensor) -> Tensor:
        """Conditional mean (n, m, d) of the missing frames of sequences x (n, H, d); what x holds there is not read."""
        return self.gain @ x[:, ~self.missing].double()

    def filled(self, x: Tensor) -> Tensor:
        """x (n, H, d) in float64 with the conditional mean in the missing frames."""
        result = x.double().clone()
        result[:, self.missing] = self.mean(x)
        return result

    def draw(self, mean: Tensor, *, generator: torch.Generator) -> Tensor:
        """One draw from the conditional for every mean (..., m, d)."""
        white = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        return mean + (self.axes * self.variances.clamp_min(0).sqrt()) @ white

    def score(self, v: Tensor, mean: Tensor, t: float) -> Tensor:
        """Score of the noised missing frames v (..., m, d) at time t of the forward process dx = -x/2 dt + dw.

        s = -(alpha^2 S_cond + sigma^2 I)^-1 (v - alpha mean), alpha = exp(-t/2), sigma^2 = 1 - exp(-t).
        """
        alpha, sigma_sq = math.exp(-t / 2), -math.expm1(-t)
        weights = 1 / (alpha**2 * self.variances + sigma_sq)
        return -((self.axes * weights) @ (self.axes.T @ (v - alpha * mean)))

    def radius(self, level: float = 0.95, channels: int = 8) -> float:
        """Oracle radius: the `level` quantile of |N(0, S_cond (x) I_channels)|."""
        return ball_radius(level, self.variances.repeat_interleave(channels))

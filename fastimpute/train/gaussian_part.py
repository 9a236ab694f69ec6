"""The analytic Gaussian term of the energy: the network only learns what it leaves over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 2048  # patches centred at a time: beside a copy in float64 there is room for no other
FLOOR = 1e-8  # smallest eigenvalue; the noise variance is added to it, so it never decides anything


@dataclass(frozen=True)
class GaussianPart:
    """Mean and covariance of the patches of a filled series, smoothed by the noise level.

    ``log p = -1/2 (x - mean)^T P (x - mean)`` with ``P = (Sigma + sigma^2 I)^-1 = U diag(1 / (lambda + sigma^2)) U^T``.

    Attributes:
        mean: (D,) float32.
        eigenvalues: (D,) float32, lambda.
        basis: (D, D) float32, U, eigenvectors in columns.
    """

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor

    @classmethod
    def fit(
        cls,
        patches: Tensor,
        weights: Tensor | None = None,
        *,
        lacking: Tensor | None = None,
        shrinkage: float = 0.0,
    ) -> GaussianPart:
        """Estimate from patches (n, D), optionally weighted (n,).

        Args:
            patches: (n, D).
            weights: (n,), None for equal ones.
            lacking: (D, D), a covariance to add: what that of filled patches lacks.
            shrinkage: share of the covariance that its diagonal replaces.
        """
        weights = torch.ones(len(patches), device=patches.device) if weights is None else weights
        share = (weights / weights.sum())[:, None]
        mean = (patches * share).sum(0)
        centred = torch.empty(patches.shape, dtype=torch.float64, device=patches.device)
        parts = (torch.split(part, AT_ONCE) for part in (centred, patches, share.sqrt()))
        for own, some, root in zip(*parts, strict=True):
            own.copy_((some - mean) * root)
        covariance = centred.T @ centred
        if lacking is not None:
            covariance += lacking
        covariance = (1 - shrinkage) * covariance + shrinkage * torch.diag(covariance.diagonal())
        eigenvalues, basis = torch.linalg.eigh(covariance)
        return cls(mean, eigenvalues.clamp_(min=FLOOR).float(), basis.float())

    def to(self, device: torch.device | str) -> GaussianPart:
        """The same on another device."""
        return GaussianPart(self.mean.to(device), self.eigenvalues.to(device), self.basis.to(device))

    def scaled_score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``sigma * score`` (n, D) at x (n, D) for noise levels sigma (n, 1)."""
        along = torch.addmm(self.mean @ self.basis, x, self.basis, beta=-1)
        return along.mul_(-sigma / (self.eigenvalues + sigma.square())) @ self.basis.T

    def precision_matrix(self, sigma: float) -> Tensor:
        """P (D, D) at one noise level."""
        return (self.basis / (self.eigenvalues + sigma**2)) @ self.basis.T

"""Coordinates in which what a base leaves open of a window is white: a diffusion model starts from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.ops.gaussian_whitening import missing_first


@dataclass(frozen=True)
class Whitening:
    """Mean of windows given their observed cells, and the factor that takes the rest to unit variance.

    With the precision P of a Gaussian base and L the Cholesky factor of its block of missing cells,
    ``y = L^T (x_m - mean)`` is white under the base and ``x_m = mean + L^-T y``; a base that says nothing about pairs
    of cells divides by the deviation. A denoiser that knows nothing then draws the joint conditional of the base.

    Attributes:
        missing: (n, D) bool.
        mean: (n, D) float32, observed cells bit for bit.
        deviation: (n, D) float32, standard deviation of the base, 0 where observed.
        cells: (n, k) int64, the missing cells of a window first; k is the largest number of them.
        real: (n, k) bool, which of these are missing.
        factor: (n, k, k) float32, L, the identity beyond the missing cells; None: diagonal.
        inverse: (n, k, k) float32, L^-1; None: diagonal.
    """

    missing: Tensor
    mean: Tensor
    deviation: Tensor
    cells: Tensor
    real: Tensor
    factor: Tensor | None = None
    inverse: Tensor | None = None

    @classmethod
    def diagonal(cls, missing: Tensor, mean: Tensor, deviation: Tensor) -> Self:
        """Of a base that knows only the deviation of each cell."""
        cells, real = missing_first(missing)
        return cls(missing, mean, deviation, cells, real)

    @classmethod
    def gaussian(cls, values: Tensor, missing: Tensor, mean: Tensor, precision: Tensor) -> Self:
        """Of N(mean, P^-1).

        Args:
            values: (n, D) float32; what stands at missing cells is ignored.
            missing: (n, D) bool.
            mean: (D,) or (n, D) float64.
            precision: (D, D) float64, P.

        Source: conditional of arXiv 2510.02216; P_mm (x_m - mean_m) = -P_mo (x_o - mean_o), covariance P_mm^-1.
        """
        return cls(missing, *ops.gaussian_whitening(values, missing, mean, precision))

    def inward(self, x: Tensor) -> Tensor:
        """White coordinates (n, D) of windows x (n, D): unit variance at missing cells, 0 where observed."""
        left = torch.where(self.missing, x - self.mean, 0.0)
        if self.factor is None:
            return left / torch.where(self.missing, self.deviation, 1.0)
        return self._through(self.factor, left)

    def outward(self, y: Tensor) -> Tensor:
        """Departures from the mean (m, D) of white coordinates (m, D), 0 where observed; differentiable.

        m is a multiple of n: row i is a draw of window i modulo n.
        """
        drawn = y.view(-1, *self.missing.shape)
        if self.inverse is None:
            return torch.where(self.missing, drawn * self.deviation, 0.0).view(y.shape)
        return self._through(self.inverse, drawn).view(y.shape)

    def correction(self, said: Tensor) -> Tensor:
        """White departures (m, D) that stand for what a network says of every cell, in units of its deviation.

        The mean of a long gap is off by smooth amounts, which are easily said cell by cell; in white coordinates, where
        a cell stands for what its neighbours do not tell, the same amounts are steep at one end and nothing elsewhere.
        """
        drawn = said.view(-1, *self.missing.shape)
        if self.factor is None:
            return torch.where(self.missing, drawn, 0.0).view(said.shape)
        return self._through(self.factor, torch.where(self.missing, drawn * self.deviation, 0.0)).view(said.shape)

    def _through(self, factor: Tensor, rows: Tensor) -> Tensor:
        """factor^T of the missing cells of rows (S, n, D) or (n, D)."""
        drawn = rows.view(-1, *self.missing.shape)
        index = self.cells.expand(len(drawn), -1, -1)
        inside = torch.where(self.real, drawn.gather(2, index), 0.0).transpose(0, 1)
        turned = torch.where(self.real, (inside @ factor).transpose(0, 1), 0.0)
        return torch.zeros_like(drawn).scatter(2, index, turned).view(rows.shape)

"""A denoiser in the white coordinates of a base, by a network that speaks of cells."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fastimpute.nn.dit import DiT, Memory
from fastimpute.nn.gap_features import gap_features
from fastimpute.nn.preconditioning import Preconditioning

FEATURES = 5  # per channel: three of the gaps, the base's mean and its deviation
LEAST_DEVIATION = 1e-6


class Coordinates(Protocol):
    """White coordinates of n windows: `fastimpute.bases.Whitening`."""

    @property
    def missing(self) -> Tensor:
        """(n, D) bool."""

    @property
    def mean(self) -> Tensor:
        """(n, D), observed cells themselves."""

    @property
    def deviation(self) -> Tensor:
        """(n, D), 0 where observed."""

    def inward(self, x: Tensor) -> Tensor:
        """(n, D) -> white (n, D)."""

    def outward(self, y: Tensor) -> Tensor:
        """White (m, D) -> departures from the mean (m, D)."""

    def correction(self, said: Tensor) -> Tensor:
        """White departures (m, D) that the network's output (m, D) stands for."""


def encode(net: DiT, white: Coordinates, values: Tensor, *, precision: str = "fp32") -> Memory:
    """Reads windows (n, D) with what their base says of them."""
    shape = (len(values), -1, net.channels)
    missing = white.missing.view(shape)
    deviation = torch.where(white.missing, torch.log(white.deviation + LEAST_DEVIATION) / 3, 0.0)
    mean = white.mean.masked_fill(~white.missing, 0)
    told = torch.cat([gap_features(missing), mean.view(shape), deviation.view(shape)], -1)
    return net.encode(values.view(shape), missing, told, precision=precision)


def denoise(
    net: DiT, white: Coordinates, memory: Memory, v: Tensor, sigma: float | Tensor, *, precision: str = "fp32"
) -> Tensor:
    """E[y | v] of white windows v (m, D), row i a draw of window i modulo n; sigma one noise level or (m,).

    ``D(v, sigma) = c_skip v + c_out correction(F(c_in v, sigma))``: an untrained network is the denoiser of the base.
    """
    factors, noisy = _prepared(net, v, sigma)
    said = net.decode(memory, noisy, sigma, precision=precision)
    return factors.skip * v + factors.out * white.correction(said.reshape(v.shape))


def denoise_with_spread(
    net: DiT, white: Coordinates, memory: Memory, v: Tensor, sigma: float | Tensor, *, precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """`denoise` (m, D), and the logarithm (m, D) of the deviation of every cell in units of the base's."""
    factors, noisy = _prepared(net, v, sigma)
    said, log_spread = net.decode_with_spread(memory, noisy, sigma, precision=precision)
    return factors.skip * v + factors.out * white.correction(said.reshape(v.shape)), log_spread.reshape(v.shape)


def _prepared(net: DiT, v: Tensor, sigma: float | Tensor) -> tuple[Preconditioning, Tensor]:
    """Factors (1 or m, 1) and the network's input (m, L, d)."""
    factors = Preconditioning.at(torch.as_tensor(sigma, dtype=v.dtype, device=v.device).reshape(-1, 1))
    return factors, (factors.scale * v).view(len(v), -1, net.channels)

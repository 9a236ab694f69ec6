"""The denoiser of Gaussian data in closed form: the oracle of samplers, and the linear part of any."""

from __future__ import annotations

import torch
from torch import Tensor


class GaussianDenoiser:
    """D(v, sigma) = m + S (S + sigma^2)^-1 (v - m) for missing cells y ~ N(m, S (x) I_channels).

    Args:
        mean: (n, D), m of each window at its missing cells, the known values elsewhere, in units of y.
        covariance: (k, k), S over the missing frames, in units of y squared.
        missing: (D / channels,) bool, the missing frames, the same in every window.
        channels: independent channels of a frame, adjacent in a window; 1: cells are frames.

    Raises:
        ValueError: shapes that do not fit each other, or a covariance with a negative eigenvalue.

    Example:
        >>> denoise = GaussianDenoiser(torch.zeros(1, 2), torch.eye(1), torch.tensor([True, False]))
        >>> denoise(torch.ones(1, 1, 2), 1.0)
        tensor([[[0.5000, 0.0000]]])
    """

    def __init__(self, mean: Tensor, covariance: Tensor, missing: Tensor, channels: int = 1) -> None:
        frames, count = len(missing), int(missing.sum())
        if mean.dim() != 2 or mean.shape[1] != frames * channels:
            raise ValueError(f"mean must have shape (n, {frames * channels}), got {tuple(mean.shape)}")
        if covariance.shape != (count, count):
            raise ValueError(f"covariance must have shape {(count, count)}, got {tuple(covariance.shape)}")
        self.mean, self.missing, self.channels = mean, missing, channels
        self.variances: Tensor
        self.axes: Tensor
        self.variances, self.axes = torch.linalg.eigh(covariance.double())
        if count and float(self.variances[0]) < -1e-9 * float(self.variances[-1]):
            raise ValueError(f"covariance must have no negative eigenvalue, got {float(self.variances[0])}")

    def __call__(self, v: Tensor, sigma: float) -> Tensor:
        """E[y | v] of states v (S, n, D), of the same shape; `mean` where nothing is missing."""
        shrink = self.variances / (self.variances + sigma**2)
        filter_matrix = ((self.axes * shrink) @ self.axes.T).to(v.dtype)
        frames = (len(self.mean), len(self.missing), self.channels)
        mean = self.mean.to(v.dtype).reshape(frames)
        deviation = v.reshape(-1, *frames)[:, :, self.missing] - mean[:, self.missing]
        denoised = mean.expand(len(v), *frames).clone()
        filtered = torch.tensordot(deviation, filter_matrix, dims=([2], [1])).transpose(2, 3)
        denoised[:, :, self.missing] += filtered
        return denoised.view(v.shape)

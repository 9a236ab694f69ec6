"""What the kernels of `unrolled_attention` are told about its covariances: modes of the channels, links of frames."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute.ops.pack_cache import PackCache
from fastimpute.ops.rates import OP


class ChannelModes(NamedTuple):
    """Variances and basis (columns) that make the channels independent: no iteration then mixes them."""

    variance: Tensor
    basis: Tensor

    @staticmethod
    def of(channel_covariance: Tensor) -> ChannelModes:
        variance, basis = torch.linalg.eigh(channel_covariance.detach().double())
        dtype = channel_covariance.dtype
        return ChannelModes(variance.to(dtype).contiguous(), basis.to(dtype).contiguous())

    def holds(self, addresses: tuple[int, ...]) -> bool:
        """Whether these are the modes of the covariance at this address: asking costs as much as finding them anew."""
        return False


_modes = PackCache(most=8, compared=1)


def modes_on_gpu(channel_covariance: Tensor) -> ChannelModes:
    """Found in main memory, sooner for so small a matrix, and kept: the way there and back waits for the GPU."""

    def find() -> ChannelModes:
        modes = ChannelModes.of(channel_covariance.cpu())
        least = float(modes.variance.min())
        if not least > 0:
            raise ValueError(
                f"{OP}: channel_covariance must be positive definite, each variance above 0, got {least:g}"
            )
        return ChannelModes(*(part.to(channel_covariance.device) for part in modes))

    modes: ChannelModes = _modes.get((), [channel_covariance], find)
    return modes


@functools.lru_cache(maxsize=32)
def exponential_links(frames: int, length: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """By gap between neighbouring frames seen: the exponential kernel's correlation r and 1 / (1 - r^2), float32.

    Gap 0 stands for a frame that has no neighbour: 0 and 1.
    """
    decay = torch.exp(-torch.arange(frames, dtype=torch.float64, device="cpu") / length)
    decay[:1] = 0.0
    return decay.float().to(device), (1 / (1 - decay.square())).float().to(device)

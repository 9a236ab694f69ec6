"""The AdaLN energy network as the CUDA kernel reads it: bfloat16 blocks packed on the host, copied to the GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops.checks import address
from fastimpute.ops.network import Network
from fastimpute.ops.pack_cache import PackCache

_packs = PackCache(most=32, compared=6)  # w1 ... b3


class CudaPack(NamedTuple):
    """The packed bytes, on the network's device."""

    values: Tensor

    @staticmethod
    def of(network: Network) -> CudaPack:
        """Packs `network`; waits for the weights to be computed."""
        module = _native.cuda()
        weights = [weight.detach().cpu().contiguous() for weight in network[:6]]
        values = torch.empty(module.energy_pack_bytes(network.dim), dtype=torch.uint8)
        module.pack_energy(network.hidden, network.dim, *map(address, weights), address(values))
        return CudaPack(values.to(network.w1.device))

    def holds(self, addresses: tuple[int, ...]) -> bool:
        """Whether the values at these addresses are those packed: comparing would cost as much as packing anew."""
        return False


def energy_cuda_pack(network: Network) -> Tensor:
    """The pack of these weights, reused as `PackCache` says."""
    pack: CudaPack = _packs.get(("cuda",), network[:6], lambda: CudaPack.of(network))
    return pack.values

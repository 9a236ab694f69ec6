"""The AdaLN network as the CUDA kernels read it: bfloat16 blocks packed on the host, copied to the GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops.checks import address
from fastimpute.ops.library import on_device_of
from fastimpute.ops.network import Network
from fastimpute.ops.pack_cache import PackCache

_packs = PackCache(most=32, compared=6)  # w1 ... b3


class CudaPack(NamedTuple):
    """The packed bytes, on the network's device."""

    values: Tensor

    @staticmethod
    def of(network: Network, head: str) -> CudaPack:
        """Packs `network`; waits for the weights to be computed."""
        module = _native.cuda()
        weights = [weight.detach().cpu().contiguous() for weight in network[:6]]
        values = torch.empty(module.mlp_pack_bytes(head, network.dim), dtype=torch.uint8, device="cpu")
        module.pack_mlp(head, network.hidden, network.dim, *map(address, weights), address(values))
        return CudaPack(values.to(network.w1.device))

    def holds(self, addresses: tuple[int, ...]) -> bool:
        """Whether the values at these addresses are those packed: comparing would cost as much as packing anew."""
        return False


def cuda_pack(network: Network, head: str) -> Tensor:
    """The pack of these weights, reused as `PackCache` says."""
    pack: CudaPack = _packs.get((head,), network[:6], lambda: CudaPack.of(network, head))
    return pack.values


def cuda_refusal(network: Network, head: str, precision: str) -> str | None:
    """Why the CUDA kernels cannot run this network; None when they can."""
    if precision != "bf16":
        return f"precision is {precision}, the kernel takes bf16"
    with on_device_of(network.w1):
        reason: str | None = _native.cuda().mlp_refusal(head, network.hidden, network.dim)
    return reason


def gaussian_part(network: Network) -> tuple[Tensor | None, Tensor | None]:
    """The precision matrix, rows adjacent, and the mean: beside the pack, as they change from call to call."""
    if network.precision_matrix is None or network.mean is None:
        return None, None
    return network.precision_matrix.contiguous(), network.mean.contiguous()

"""The AdaLN network as the triton kernels read it: dense, in the operands' dtype, D padded with zeros."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fastimpute.ops.network import Network
from fastimpute.ops.pack_cache import PackCache

OPERANDS = {"fp32": torch.float32, "bf16": torch.bfloat16}

_packs = PackCache(most=32, compared=6)  # w1 ... b3


class TritonPack(NamedTuple):
    """Matrices and vectors in the order of the kernels' arguments.

    A direct head's w3 is transposed, (hidden, padded D), so that it is read as w1 is.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor
    b3: Tensor
    precision_matrix: Tensor | None
    mean: Tensor | None

    @staticmethod
    def of(network: Network, operands: torch.dtype, padded: int) -> TritonPack:
        """Packs `network` with `padded` columns for D."""
        more = padded - network.dim
        matrix, mean = network.precision_matrix, network.mean
        w3, b3 = network.w3.detach(), network.b3.detach()
        if w3.dim() == 2:  # the direct head
            w3, b3 = functional.pad(w3.T, (0, more)).to(operands), functional.pad(b3, (0, more))
        return TritonPack(
            functional.pad(network.w1.detach(), (0, more)).to(operands).contiguous(),
            network.b1.detach().contiguous(),
            network.w2.detach().to(operands).contiguous(),
            network.b2.detach().contiguous(),
            w3.contiguous(),
            b3.contiguous(),
            None if matrix is None else functional.pad(matrix.detach(), (0, more, 0, more)).contiguous(),
            None if mean is None else functional.pad(mean.detach(), (0, more)).contiguous(),
        )

    def holds(self, addresses: tuple[int, ...]) -> bool:
        """Whether the values at these addresses are those packed: comparing would cost as much as packing anew."""
        return False


def triton_pack(network: Network, precision: str, padded: int) -> TritonPack:
    """The pack of these weights, reused as `PackCache` says."""
    weights = [*network[:6], network.precision_matrix, network.mean]
    pack: TritonPack = _packs.get(
        (precision, padded), weights, lambda: TritonPack.of(network, OPERANDS[precision], padded)
    )
    return pack

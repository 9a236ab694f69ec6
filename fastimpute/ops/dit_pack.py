"""The weights of a transformer block in the kernels' layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address
from fastimpute.ops.pack_cache import PackCache
from fastimpute.ops.triton_pack import OPERANDS

if TYPE_CHECKING:
    from fastimpute.kernels.dit_block import Layout

# A network of twelve blocks in both precisions, and some.
_packs = PackCache(most=64, compared=8)
_triton_packs = PackCache(most=64, compared=8)


def dit_pack(weights: list[Tensor], heads: int, precision: str) -> Any:
    """The `_core.DitPack` of w_qkv, b_qkv, ... b_down on the current instruction set, reused as `PackCache` says."""
    isa = backends.isa()

    def pack() -> Any:
        dense = [weight.contiguous() for weight in weights]
        sizes = (dense[2].shape[0], heads, dense[4].shape[0])
        return _native.core().DitPack(isa, precision, sizes, tuple(map(address, dense)))

    return _packs.get((isa, precision, heads), weights, pack)


class DitTritonPack(NamedTuple):
    """w_qkv, b_qkv, ... b_down as the triton kernels read them: dense, matrices in the operands' dtype, widths padded
    with zeros, heads apart, queries in the scale of the scores."""

    w_qkv: Tensor
    b_qkv: Tensor
    w_proj: Tensor
    b_proj: Tensor
    w_up: Tensor
    b_up: Tensor
    w_down: Tensor
    b_down: Tensor

    @staticmethod
    def of(weights: list[Tensor], operands: torch.dtype, widths: Layout) -> DitTritonPack:
        """Packs the weights, which are laid out like torch.nn.Linear's."""
        from fastimpute.kernels.attention import LOG2_E

        w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down = (weight.detach() for weight in weights)
        units, further = widths.padded - widths.hidden, widths.inner - w_up.shape[0]
        scale = torch.ones(3, 1, device=w_qkv.device)
        scale[0] = LOG2_E * (widths.heads / widths.hidden) ** 0.5
        w_qkv = _spread(w_qkv.T.reshape(-1, 3, widths.hidden) * scale, widths).flatten(1).T
        b_qkv = _spread(b_qkv.reshape(3, widths.hidden) * scale, widths).flatten()
        packed = DitTritonPack(
            functional.pad(w_qkv, (0, units)),
            b_qkv,
            functional.pad(_spread(w_proj, widths), (0, 0, 0, units)),
            functional.pad(b_proj, (0, units)),
            functional.pad(w_up, (0, units, 0, further)),
            functional.pad(b_up, (0, further)),
            functional.pad(w_down, (0, further, 0, units)),
            functional.pad(b_down, (0, units)),
        )
        return DitTritonPack._make((part.to(operands) if part.dim() == 2 else part).contiguous() for part in packed)

    def holds(self, addresses: tuple[int, ...]) -> bool:
        """Whether the values at these addresses are those packed: comparing would wait for the device."""
        return False


def _spread(features: Tensor, widths: Layout) -> Tensor:
    """(..., part) from (..., hidden): the features of each head at its columns."""
    apart = features.reshape(*features.shape[:-1], widths.heads, -1)
    columns = functional.pad(apart, (0, widths.size - apart.shape[-1])).flatten(-2)
    return functional.pad(columns, (0, widths.part - columns.shape[-1]))


def dit_triton_pack(weights: list[Tensor], precision: str, widths: Layout) -> DitTritonPack:
    """The pack of these weights, reused as `PackCache` says."""
    pack: DitTritonPack = _triton_packs.get(
        (precision, widths), weights, lambda: DitTritonPack.of(weights, OPERANDS[precision], widths)
    )
    return pack

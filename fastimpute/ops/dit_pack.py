"""The weights of a transformer block in the kernels' layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address
from fastimpute.ops.pack_cache import PackCache

# A network of twelve blocks in both precisions, and some.
_packs = PackCache(most=64, compared=8)


def dit_pack(weights: list[Tensor], heads: int, precision: str) -> Any:
    """The `_core.DitPack` of w_qkv, b_qkv, ... b_down on the current instruction set, reused as `PackCache` says."""
    isa = backends.isa()

    def pack() -> Any:
        dense = [weight.contiguous() for weight in weights]
        sizes = (dense[2].shape[0], heads, dense[4].shape[0])
        return _native.core().DitPack(isa, precision, sizes, tuple(map(address, dense)))

    return _packs.get((isa, precision, heads), weights, pack)

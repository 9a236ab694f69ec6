"""The AdaLN network in the kernels' layout."""

from __future__ import annotations

from typing import Any

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address
from fastimpute.ops.network import Network
from fastimpute.ops.pack_cache import PackCache

_packs = PackCache(most=32, compared=6)  # w1 ... b3


def mlp_pack(network: Network, head: str, precision: str) -> Any:
    """The `_core.MlpPack` of these weights on the current instruction set, reused as `PackCache` says."""
    isa = backends.isa()

    def pack() -> Any:
        weights = network.dense_weights()
        return _native.core().MlpPack(isa, precision, head, network.hidden, network.dim, *map(address, weights))

    return _packs.get((isa, precision, head), [*network[:6], network.precision_matrix, network.mean], pack)

"""Packed weights of a network, kept as long as the weights are the same tensors in the same state."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address
from fastimpute.ops.network import Network

_Key = tuple[str, str, str, tuple[int, ...]]
_KEPT = 32
_packs: OrderedDict[_Key, tuple[list[weakref.ref[Tensor] | None], tuple[int, ...], Any]] = OrderedDict()


def mlp_pack(network: Network, head: str, precision: str) -> Any:
    """The `_core.MlpPack` of these weights on the current instruction set.

    A pack is reused when every weight is the same tensor object and has not been written to since (its version
    counter);
    tensors made under inference mode have no counter and are packed anew.
    """
    weights = [*network[:6], network.precision_matrix, network.mean]
    isa = backends.isa()
    if any(weight is not None and weight.is_inference() for weight in weights):
        return _pack(network, head, precision, isa)
    key = (isa, precision, head, tuple(id(weight) for weight in weights))
    versions = tuple(0 if weight is None else weight._version for weight in weights)
    kept = _packs.get(key)
    if kept is not None:
        references, kept_versions, pack = kept
        alive = all(
            weight is None if reference is None else reference() is weight
            for reference, weight in zip(references, weights, strict=True)
        )
        if alive and kept_versions == versions:
            _packs.move_to_end(key)
            return pack
    pack = _pack(network, head, precision, isa)
    _packs[key] = ([None if weight is None else weakref.ref(weight) for weight in weights], versions, pack)
    _packs.move_to_end(key)
    while len(_packs) > _KEPT:
        _packs.popitem(last=False)
    return pack


def _pack(network: Network, head: str, precision: str, isa: str) -> Any:
    weights = network.dense_weights()
    return _native.core().MlpPack(isa, precision, head, network.hidden, network.dim, *map(address, weights))

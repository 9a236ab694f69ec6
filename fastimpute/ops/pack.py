"""Packed weights of a network, kept as long as the weights are the same tensors in the same state."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address
from fastimpute.ops.network import Network

_Key = tuple[str, str, str, tuple[int, ...]]
_KEPT = 32


class _Kept(NamedTuple):
    references: list[weakref.ref[Tensor] | None]
    versions: tuple[int, ...]
    pack: Any

    def serves(self, weights: list[Tensor | None], versions: tuple[int, ...]) -> bool:
        """Whether the pack still shows these tensors.

        Optimizers may write without counting (torch's fused ones do), so tensors that can be trained are compared.
        """
        pairs = zip(self.references, weights, strict=True)
        if self.versions != versions or any(ref is not None and ref() is not weight for ref, weight in pairs):
            return False
        trained = [
            None if weight is None or not weight.requires_grad else weight.contiguous() for weight in weights[:6]
        ]
        return all(weight is None for weight in trained) or self.pack.holds(tuple(map(address, trained)))


_packs: OrderedDict[_Key, _Kept] = OrderedDict()
_lock = threading.Lock()


def mlp_pack(network: Network, head: str, precision: str) -> Any:
    """The `_core.MlpPack` of these weights on the current instruction set.

    A pack is reused when every weight is the same tensor object, not written to since by its version counter and, if it
    requires gradients, by its values. Tensors made under inference mode have no counter and are packed anew.
    """
    weights = [*network[:6], network.precision_matrix, network.mean]
    isa = backends.isa()
    if any(weight is not None and weight.is_inference() for weight in weights):
        return _pack(network, head, precision, isa)
    key = (isa, precision, head, tuple(id(weight) for weight in weights))
    versions = tuple(0 if weight is None else weight._version for weight in weights)
    with _lock:
        kept = _packs.get(key)
        if kept is None or not kept.serves(weights, versions):
            references = [None if weight is None else weakref.ref(weight) for weight in weights]
            kept = _packs[key] = _Kept(references, versions, _pack(network, head, precision, isa))
        _packs.move_to_end(key)
        while len(_packs) > _KEPT:
            _packs.popitem(last=False)
        return kept.pack


def _pack(network: Network, head: str, precision: str, isa: str) -> Any:
    weights = network.dense_weights()
    return _native.core().MlpPack(isa, precision, head, network.hidden, network.dim, *map(address, weights))

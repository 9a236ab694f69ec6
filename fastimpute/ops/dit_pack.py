"""Packed weights of a transformer block, kept as long as the weights are the same tensors in the same state."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address

_Key = tuple[str, str, int, tuple[int, ...]]
_KEPT = 64  # blocks: a network of twelve in both precisions, and some


class _Kept(NamedTuple):
    references: list[weakref.ref[Tensor]]
    versions: tuple[int, ...]
    pack: Any

    def serves(self, weights: list[Tensor], versions: tuple[int, ...]) -> bool:
        """Whether the pack still shows these tensors.

        Optimizers may write without counting (torch's fused ones do), so tensors that can be trained are compared.
        """
        same = all(ref() is weight for ref, weight in zip(self.references, weights, strict=True))
        if not same or self.versions != versions:
            return False
        trained = [weight.contiguous() if weight.requires_grad else None for weight in weights]
        return all(weight is None for weight in trained) or self.pack.holds(tuple(map(address, trained)))


_packs: OrderedDict[_Key, _Kept] = OrderedDict()
_lock = threading.Lock()


def dit_pack(weights: list[Tensor], heads: int, precision: str) -> Any:
    """The `_core.DitPack` of w_qkv, b_qkv, ... b_down on the current instruction set.

    A pack is reused when every weight is the same tensor object, not written to since by its version counter and, if it
    requires gradients, by its values. Tensors made under inference mode have no counter and are packed anew.
    """
    isa = backends.isa()
    if any(weight.is_inference() for weight in weights):
        return _pack(weights, heads, precision, isa)
    key = (isa, precision, heads, tuple(id(weight) for weight in weights))
    versions = tuple(weight._version for weight in weights)
    with _lock:
        kept = _packs.get(key)
        if kept is None or not kept.serves(weights, versions):
            references = [weakref.ref(weight) for weight in weights]
            kept = _packs[key] = _Kept(references, versions, _pack(weights, heads, precision, isa))
        _packs.move_to_end(key)
        while len(_packs) > _KEPT:
            _packs.popitem(last=False)
        return kept.pack


def _pack(weights: list[Tensor], heads: int, precision: str, isa: str) -> Any:
    dense = [weight.contiguous() for weight in weights]
    sizes = (dense[2].shape[0], heads, dense[4].shape[0])
    return _native.core().DitPack(isa, precision, sizes, tuple(map(address, dense)))

"""Packed weights, kept as long as the weights are the same tensors in the same state."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fastimpute.ops.checks import address

Weights = Sequence[Tensor | None]


class _Kept(NamedTuple):
    references: list[weakref.ref[Tensor] | None]
    versions: tuple[int, ...]
    pack: Any

    def shows(self, weights: Weights, versions: tuple[int, ...], compared: int) -> bool:
        """Whether the pack still shows these tensors."""
        pairs = zip(self.references, weights, strict=True)
        if self.versions != versions or any(ref is not None and ref() is not weight for ref, weight in pairs):
            return False
        trained = [
            None if weight is None or not weight.requires_grad else weight.contiguous() for weight in weights[:compared]
        ]
        return all(weight is None for weight in trained) or self.pack.holds(tuple(map(address, trained)))


class PackCache:
    """The packs used last, found again by what they were made of.

    A pack is reused when every weight is the same tensor object, not written to since by its version counter and, if it
    requires gradients, by its values: optimizers may write without counting (torch's fused ones do). Tensors made under
    inference mode have no counter and are packed anew.

    Args:
        most: packs kept.
        compared: how many weights, the first ones, a pack's `holds` takes the addresses of.
    """

    def __init__(self, most: int, compared: int) -> None:
        self._most, self._compared = most, compared
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, settings: tuple[Hashable, ...], weights: Weights, pack: Callable[[], Any]) -> Any:
        """The pack of these weights under these settings; `pack` makes it where there is none."""
        if any(weight is not None and weight.is_inference() for weight in weights):
            return pack()
        key = (settings, tuple(id(weight) for weight in weights))
        versions = tuple(0 if weight is None else weight._version for weight in weights)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or not kept.shows(weights, versions, self._compared):
                references = [None if weight is None else weakref.ref(weight) for weight in weights]
                kept = self._kept[key] = _Kept(references, versions, pack())
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return kept.pack

"""Tensors among NaN: what a kernel writes beside its output, or reads beside its input, shows."""

from __future__ import annotations

import torch
from torch import Tensor

GUARD = 64


class Guarded:
    """A contiguous output of NaN with NaN on both sides."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        size = torch.Size(shape).numel()
        self._all = torch.full((size + 2 * GUARD,), float("nan"), dtype=dtype)
        self.inside = self._all[GUARD : GUARD + size].view(shape)

    def guards_untouched(self) -> bool:
        size = self.inside.numel()
        return bool(self._all[:GUARD].isnan().all()) and bool(self._all[GUARD + size :].isnan().all())


def among_nan(tensor: Tensor, columns: int = 3) -> Tensor:
    """The (n, D) tensor as a view into a wider one, NaN (True for masks) to its left and right."""
    rows, dim = tensor.shape
    wide = torch.full((rows, dim + 2 * columns), float("nan")).to(tensor.dtype)
    wide[:, columns : columns + dim] = tensor
    return wide[:, columns : columns + dim]

"""The condition of a patch turned into the gains and shifts of the two adaptive layer norms."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_DIM = 16  # a wider embedding cost training time and changed no error by more than the seed does


class Modulation(nn.Module):
    """Adaptive layer norm's modulation as a function of the condition (log sigma, calendar phase, ...).

    ``forward(cond)`` maps ``(m, cond_dim)`` to ``(m, 4, hidden_dim)`` in the order gain 1, shift 1, gain 2, shift 2.
    The output layer starts at zero: an untrained network is an ordinary layer-norm MLP. With ``cond_dim=0`` the
    modulation is one learned row and ``forward(None)`` gives ``(1, 4, hidden_dim)``.

    Source: SPIRIT (arXiv 2602.01182) states adaptive layer norm; what conditions it is chosen here.

    Raises:
        ValueError: ``cond`` has another width than ``cond_dim``.

    Example:
        >>> import torch
        >>> from fastimpute.nn import Modulation
        >>> Modulation(cond_dim=3, hidden_dim=32)(torch.zeros(5, 3)).shape
        torch.Size([5, 4, 32])
    """

    def __init__(self, cond_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.cond_dim, self.hidden_dim = cond_dim, hidden_dim
        self.embed = nn.Linear(cond_dim, EMBEDDING_DIM) if cond_dim else None
        self.out = nn.Linear(EMBEDDING_DIM if cond_dim else 1, 4 * hidden_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, cond: Tensor | None) -> Tensor:
        if self.embed is None:
            if cond is not None and cond.shape[-1] != 0:
                raise ValueError(f"cond: expected None for a network without conditions, got shape {tuple(cond.shape)}")
            embedded = self.out.weight.new_ones(1, 1)
        else:
            if cond is None or cond.ndim != 2 or cond.shape[1] != self.cond_dim:
                got = None if cond is None else tuple(cond.shape)
                raise ValueError(f"cond: expected shape (rows, {self.cond_dim}), got {got}")
            embedded = functional.silu(self.embed(cond))
        modulation: Tensor = self.out(embedded).view(-1, 4, self.hidden_dim)
        return modulation

"""The energy network: ``log p(x | c)`` as a scalar, its input gradient as the score."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastimpute import ops
from fastimpute.nn.conditioning import Modulation
from fastimpute.ops.network import LAYER_NORM_EPS


class EnergyMLP(nn.Module):
    """Three-layer adaptive-layer-norm MLP for ``log p(x | c)`` (the faithful head of SPIRIT).

    ``forward(x, cond)`` maps ``(n, in_dim)`` and ``(n, cond_dim)`` (or one row for all) to ``log p`` ``(n,)`` by plain
    autograd. ``closed_form_score`` gives ``(log p, score)`` as differentiable torch expressions: training through it
    needs one backward pass instead of double backpropagation. ``value_score`` runs the fused kernel.

    Source: SPIRIT (arXiv 2602.01182): 3 layers, width 256, adaptive layer norm.

    Raises:
        ValueError: ``in_dim`` or ``hidden_dim`` below one, or shapes that do not fit.

    Example:
        >>> import torch
        >>> from fastimpute.nn import EnergyMLP
        >>> net = EnergyMLP(in_dim=6, cond_dim=2)
        >>> log_p, score = net.value_score(torch.randn(8, 6), torch.randn(8, 2))
        >>> log_p.shape, score.shape
        (torch.Size([8]), torch.Size([8, 6]))
    """

    def __init__(self, in_dim: int, cond_dim: int = 0, hidden_dim: int = 256) -> None:
        super().__init__()
        if in_dim < 1 or hidden_dim < 1:
            raise ValueError(f"in_dim, hidden_dim: expected at least 1, got {in_dim}, {hidden_dim}")
        self.in_dim, self.cond_dim, self.hidden_dim = in_dim, cond_dim, hidden_dim
        self.modulation = Modulation(cond_dim, hidden_dim)
        self.w1 = nn.Parameter(torch.empty(hidden_dim, in_dim).uniform_(-1, 1) / math.sqrt(in_dim))
        self.b1 = nn.Parameter(torch.zeros(hidden_dim))
        self.w2 = nn.Parameter(torch.empty(hidden_dim, hidden_dim).uniform_(-1, 1) / math.sqrt(hidden_dim))
        self.b2 = nn.Parameter(torch.zeros(hidden_dim))
        # Zero would leave W1 and W2 without gradient in the score; small keeps the Gaussian part in charge at first.
        self.w3 = nn.Parameter(torch.randn(hidden_dim) * (0.01 / math.sqrt(hidden_dim)))
        self.b3 = nn.Parameter(torch.zeros(1))

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The six tensors in the order in which the kernels take them."""
        return self.w1, self.b1, self.w2, self.b2, self.w3, self.b3

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        gain1, shift1, gain2, shift2 = self.modulation(cond).unbind(1)
        shape = (self.hidden_dim,)
        h1 = functional.silu(
            functional.layer_norm(x @ self.w1.T + self.b1, shape, eps=LAYER_NORM_EPS) * (1 + gain1) + shift1
        )
        h2 = functional.silu(
            functional.layer_norm(h1 @ self.w2.T + self.b2, shape, eps=LAYER_NORM_EPS) * (1 + gain2) + shift2
        )
        return h2 @ self.w3 + self.b3

    def closed_form_score(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(log p (n,), score (n, in_dim))``, differentiable in the weights by one backward pass."""
        modulation = self.modulation(cond)
        index = None if modulation.shape[0] == 1 else torch.arange(x.shape[0]) // (x.shape[0] // modulation.shape[0])
        log_p, score = ops.energy_mlp_reference(x, *self.weights(), modulation, index)[:2]
        return log_p, score

    @torch.no_grad()
    def value_score(
        self,
        x: Tensor,
        cond: Tensor | None = None,
        *,
        hvp: bool = False,
        precision_matrix: Tensor | None = None,
        mean: Tensor | None = None,
        backend: str = "auto",
        precision: str = "fp32",
    ) -> tuple[Tensor, ...]:
        """Fused ``(log p, score)``, with ``hvp`` also ``H @ score``; ``cond`` (n, cond_dim) or one row."""
        modulation = self.modulation(cond)
        index = None if modulation.shape[0] == 1 else torch.arange(x.shape[0])
        result: tuple[Tensor, ...] = ops.energy_mlp(
            x,
            *self.weights(),
            modulation,
            index,
            precision_matrix,
            mean,
            hvp=hvp,
            backend=backend,
            precision=precision,
        )
        return result

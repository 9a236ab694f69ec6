"""Random networks and particles for the tests of the network ops."""

from __future__ import annotations

import torch
from torch import Tensor

from fastimpute.ops.network import Network


def random_network(
    head: str, dim: int, hidden: int = 256, *, modulations: int = 1, particles: int = 0, gaussian: bool = False
) -> Network:
    """A float64 network with weights of the size training gives them."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    w3, b3 = (
        (normal(hidden) / hidden**0.5, normal(1))
        if head == "energy"
        else (normal(dim, hidden) / hidden**0.5, normal(dim))
    )
    root = normal(dim, dim) / dim**0.5
    return Network(
        normal(hidden, dim) / dim**0.5,
        0.1 * normal(hidden),
        normal(hidden, hidden) / hidden**0.5,
        0.1 * normal(hidden),
        w3,
        0.1 * b3,
        0.3 * normal(modulations, 4, hidden),
        None if modulations == 1 else torch.randint(0, modulations, (particles,)),
        root @ root.T + torch.eye(dim, dtype=torch.float64) if gaussian else None,
        0.1 * normal(dim) if gaussian else None,
    )


def to_dtype(network: Network, dtype: torch.dtype) -> Network:
    """The same network with its floating tensors converted."""
    return Network(*(part.to(dtype) if part is not None and part.dtype.is_floating_point else part for part in network))


def rounded(network: Network) -> Network:
    """float64 values that float32 holds exactly, so that both precisions compute with the same numbers."""
    return to_dtype(to_dtype(network, torch.float32), torch.float64)

"""Cases of `energy_mlp` and `score_mlp`: kernels beside autograd, autocast, torch.compile, bare matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastimpute import ops
from fastimpute.benchmark.measure import BF16, FP32, Candidate, Case
from fastimpute.ops.energy_mlp import reference as energy_reference
from fastimpute.ops.network import Network
from fastimpute.ops.score_mlp import reference as score_reference

HIDDEN = 256
SIGMA = 0.2


def random_network(head: str, dim: int) -> Network:
    """Weights of the size training gives them; one modulation for all particles."""
    torch.manual_seed(dim)
    w3, b3 = (
        (torch.randn(HIDDEN) / 16, torch.zeros(1))
        if head == "energy"
        else (torch.randn(dim, HIDDEN) / 16, torch.zeros(dim))
    )
    return Network(
        torch.randn(HIDDEN, dim) / dim**0.5,
        0.1 * torch.randn(HIDDEN),
        torch.randn(HIDDEN, HIDDEN) / 16,
        0.1 * torch.randn(HIDDEN),
        w3,
        b3,
        0.3 * torch.randn(1, 4, HIDDEN),
    )


def to_double(network: Network) -> Network:
    parts: list[Any] = [None if part is None else part.double() for part in network]
    return Network(*parts)


def energy_flops(rows: int, dim: int) -> float:
    """Multiply-adds, two operations each, of forward and input gradient."""
    return 2.0 * rows * 2 * HIDDEN * (dim + HIDDEN)


def direct_flops(rows: int, dim: int) -> float:
    """Multiply-adds, two operations each, of the direct head's forward pass."""
    return 2.0 * rows * HIDDEN * (2 * dim + HIDDEN)


def hidden_output(x: Tensor, network: Network) -> Tensor:
    """The hidden layers as one writes them in PyTorch."""
    gain1, shift1, gain2, shift2 = network.modulation[0]
    shape = (HIDDEN,)
    h1 = functional.silu(
        functional.layer_norm(functional.linear(x, network.w1, network.b1), shape) * (1 + gain1) + shift1
    )
    return functional.silu(
        functional.layer_norm(functional.linear(h1, network.w2, network.b2), shape) * (1 + gain2) + shift2
    )


def autograd_score(x: Tensor, network: Network) -> Tensor:
    x = x.detach().requires_grad_()
    log_p = hidden_output(x, network) @ network.w3 + network.b3
    return torch.autograd.grad(log_p.sum(), x)[0]


def autograd_hvp(x: Tensor, network: Network) -> Tensor:
    """H s by double backpropagation."""
    x = x.detach().requires_grad_()
    log_p = hidden_output(x, network) @ network.w3 + network.b3
    (score,) = torch.autograd.grad(log_p.sum(), x, create_graph=True)
    return torch.autograd.grad(score, x, score.detach())[0]


def under_autocast(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def cast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    return cast


def products(rows: int, dim: int, dtype: torch.dtype, passes: int) -> Callable[[], None]:
    """Only the matrix products of forward and backward, `passes` times, through oneDNN: no activations, no sums."""
    x, hidden = torch.randn(rows, dim, dtype=dtype), torch.randn(rows, HIDDEN, dtype=dtype)
    w1, w2 = torch.randn(HIDDEN, dim, dtype=dtype), torch.randn(HIDDEN, HIDDEN, dtype=dtype)
    pairs = ((x, w1.T), (hidden, w2.T), (hidden, w2), (hidden, w1)) * passes

    def run() -> None:
        for left, right in pairs:
            torch.mm(left, right)

    return run


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def precisions() -> tuple[str, ...]:
    return (FP32, BF16) if ops.isa() == "avx512bf16" else (FP32,)


def energy_case(rows: int, dim: int, *, hvp: bool, compile_baseline: bool) -> Case:
    """log p and score, or with `hvp` also H s; particles share one condition."""
    network = random_network("energy", dim)
    x = torch.randn(rows, dim)

    def kernel(precision: str) -> Callable[[], Tensor]:
        return lambda: ops.energy_mlp(x, *network, hvp=hvp, backend="cpu", precision=precision)[-1]

    eager = autograd_hvp if hvp else autograd_score
    candidates = [Candidate(f"fastimpute {precision}", precision, kernel(precision)) for precision in precisions()]
    candidates += [
        Candidate("eager autograd fp32", FP32, lambda: eager(x, network)),
        Candidate("eager autocast bf16", BF16, under_autocast(lambda: eager(x, network))),
    ]
    passes = 2 if hvp else 1
    candidates += [
        Candidate("matrix products alone fp32", FP32, products(rows, dim, torch.float32, passes)),
        Candidate("matrix products alone bf16", BF16, products(rows, dim, torch.bfloat16, passes)),
    ]
    if compile_baseline:
        closed = compiled(lambda x: energy_reference(x, *network, hvp=hvp)[-1])
        closed_bf16 = compiled(lambda x: energy_reference(x, *network, hvp=hvp)[-1])
        candidates += [
            Candidate("torch.compile closed form fp32", FP32, lambda: closed(x)),
            Candidate("torch.compile closed form bf16", BF16, under_autocast(lambda: closed_bf16(x))),
        ]
    exact = energy_reference(x.double(), *to_double(network), hvp=hvp)[-1]
    return Case(
        op="energy_mlp",
        shape=f"n={rows} D={dim} {'log p, score, H s' if hvp else 'log p, score'}",
        candidates=tuple(candidates),
        exact=exact,
        flops=energy_flops(rows, dim) * passes,
    )


def score_case(rows: int, dim: int, *, compile_baseline: bool) -> Case:
    """Score of the direct head; particles share one condition."""
    network = random_network("direct", dim)
    x = torch.randn(rows, dim)

    def eager() -> Tensor:
        with torch.no_grad():
            return functional.linear(hidden_output(x, network), network.w3, network.b3) / SIGMA

    def kernel(precision: str) -> Callable[[], Tensor]:
        return lambda: ops.score_mlp(x, *network[:6], SIGMA, *network[6:], backend="cpu", precision=precision)

    candidates = [Candidate(f"fastimpute {precision}", precision, kernel(precision)) for precision in precisions()]
    candidates += [Candidate("eager fp32", FP32, eager), Candidate("eager autocast bf16", BF16, under_autocast(eager))]
    if compile_baseline:
        closed = compiled(lambda x: score_reference(x, *network[:6], SIGMA, *network[6:]))
        candidates.append(Candidate("torch.compile fp32", FP32, lambda: closed(x)))
    return Case(
        op="score_mlp",
        shape=f"n={rows} D={dim}",
        candidates=tuple(candidates),
        exact=score_reference(x.double(), *to_double(network)[:6], SIGMA, *to_double(network)[6:]),
        flops=direct_flops(rows, dim),
    )

"""Cases of `score_matching`: a whole training step of the direct network beside autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from fastimpute import ops
from fastimpute.benchmark.measure import FP32, Candidate, Case, error
from fastimpute.benchmark.network_cases import HIDDEN, compiled, random_network, to_double
from fastimpute.ops.score_matching import LossGradients, direct_network
from fastimpute.ops.score_matching import reference as step_reference

RUN = 16  # rows that share a condition
TOLERANCE = 1e-4


def training_flops(rows: int, dim: int) -> float:
    """Multiply-adds, two operations each: three products forward, two back through the layers, three of weights."""
    return 2.0 * rows * HIDDEN * (5 * dim + 3 * HIDDEN)


def training_case(rows: int, dim: int, *, compile_baseline: bool) -> Case:
    """Loss and all gradients; runs of 16 rows share a condition, as in training."""
    network = random_network("direct", dim)
    network = network._replace(modulation=0.3 * torch.randn(rows // RUN, 4, HIDDEN))
    x, target = torch.randn(rows, dim), torch.randn(rows, dim)
    leaves = [part.clone().requires_grad_() for part in network[:7]]

    def differentiate(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, leaves)[0]

    def loss_of() -> Tensor:
        return (direct_network(x, *leaves) - target).square().mean()

    def kernel() -> LossGradients:
        return ops.score_matching(x, target, *network[:7], backend="cpu")

    exact = step_reference(x.double(), target.double(), *to_double(network)[:7])
    _check(kernel(), exact)
    candidates = [
        Candidate("fastimpute fp32", FP32, lambda: kernel().w1),
        Candidate("eager autograd fp32", FP32, lambda: differentiate(loss_of())),
    ]
    if compile_baseline:
        fused = compiled(loss_of)
        candidates.append(Candidate("torch.compile fp32", FP32, lambda: differentiate(fused())))
    return Case(
        op="score_matching",
        shape=f"n={rows} D={dim}",
        candidates=tuple(candidates),
        exact=exact.w1,
        flops=training_flops(rows, dim),
    )


def _check(step: LossGradients, exact: LossGradients) -> None:
    """Raises RuntimeError unless the loss and all gradients are right: rows compare that by W1 alone."""
    for name, value, right in zip(LossGradients._fields, step, exact, strict=True):
        if not error(value, right) <= TOLERANCE:
            raise RuntimeError(f"score_matching: {name} has error {error(value, right):.2g}, not timed")

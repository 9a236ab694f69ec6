"""Cases of `spt_weights`, `particle_step` and `proximal_recursion`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.benchmark.measure import BF16, FP32, Candidate, Case
from fastimpute.benchmark.network_cases import (
    SIGMA,
    autograd_score,
    compiled,
    direct_flops,
    energy_flops,
    hidden_output,
    precisions,
    random_network,
    to_double,
    under_autocast,
)
from fastimpute.ops.network import Network
from fastimpute.ops.particle_step import reference as step_reference
from fastimpute.ops.proximal_recursion import reference as recursion_reference
from fastimpute.ops.recursion_arguments import Patches

ETA = 0.01
RECURSION_ETA = {"energy": 0.2, "direct": 0.01}  # random networks of both heads then move their particles as far
# Window and sensors of each dimension: what the default settings choose for the usual data sets.
WINDOWS = {24: (12, 2), 84: (12, 7), 168: (24, 7), 480: (48, 10)}


def weights_case(rows: int, group: int, *, compile_baseline: bool) -> Case:
    """One weight update; three arrays are read and two written."""
    torch.manual_seed(0)
    log_w = torch.log_softmax(torch.randn(rows // group, group), 1).flatten()
    log_p, score_sq = torch.randn(rows), torch.rand(rows)
    settings: dict[str, Any] = {"group": group, "gamma": 0.01, "eta_w": 0.1, "tau": 0.1, "bound": 50.0}

    def eager(log_w: Tensor, log_p: Tensor, score_sq: Tensor) -> Tensor:
        value = (log_p - 0.005 * score_sq).view(-1, group)
        value = value - (log_w.view(-1, group).exp() * value).sum(1, keepdim=True)
        log_mass = torch.log_softmax(0.9 * log_w.view(-1, group) + 0.1 * value, 1) + math.log(group)
        return log_mass.clamp(-50, 50).exp().flatten()

    kernel = Candidate(
        "fastimpute fp32", FP32, lambda: ops.spt_weights(log_w, log_p, score_sq, backend="cpu", **settings)[1]
    )
    given = weights_into_given_memory(log_w, log_p, score_sq, **settings)
    candidates = [given, kernel, Candidate("eager fp32", FP32, lambda: eager(log_w, log_p, score_sq))]
    if compile_baseline:
        fused = compiled(eager)
        candidates.append(Candidate("torch.compile fp32", FP32, lambda: fused(log_w, log_p, score_sq)))
    exact = eager(log_w.double(), log_p.double(), score_sq.double())
    return Case("spt_weights", f"n={rows} group={group}", tuple(candidates), exact, bytes=20.0 * rows)


def weights_into_given_memory(log_w: Tensor, log_p: Tensor, score_sq: Tensor, **settings: Any) -> Candidate:
    """The kernel without the allocation of its results, whose page faults otherwise dominate."""
    log_w_new, mass = torch.empty_like(log_w), torch.empty_like(log_w)
    numbers = (settings["gamma"], settings["eta_w"], settings["tau"], settings["bound"], False)

    def run() -> Tensor:
        sizes = (ops.isa(), torch.get_num_threads(), len(log_w), settings["group"])
        inputs = (log_w.data_ptr(), log_p.data_ptr(), score_sq.data_ptr(), 0)
        _native.core().spt_weights(*sizes, *inputs, log_w_new.data_ptr(), mass.data_ptr(), *numbers)
        return mass

    return Candidate("fastimpute fp32, memory given", FP32, run)


def step_case(rows: int, dim: int, *, adam: bool, compile_baseline: bool) -> Case:
    """One particle step; x, direction and mask are read and x written, with Adam also both moments."""
    torch.manual_seed(0)
    x, direction, mass = torch.randn(rows, dim), torch.randn(rows, dim), torch.rand(rows)
    missing = torch.rand(rows, dim) < 0.3
    state = ops.AdamState.zeros_like(x) if adam else None

    x_new = torch.empty_like(x)

    def fresh_moments() -> tuple[float, ...]:
        if state is None:
            return (0, 0, 0, 0, 0.0, 0.0, 0.0, 1.0, 1.0)
        state.step = 1
        state.m.zero_()
        state.v.zero_()
        addresses = (state.m.data_ptr(), dim, state.v.data_ptr(), dim)
        return (*addresses, state.beta1, state.beta2, state.eps, *state.corrections())

    def given() -> Tensor:
        """The kernel without the allocation of its result, whose page faults otherwise dominate."""
        _native.core().particle_step(
            ops.isa(),
            torch.get_num_threads(),
            rows,
            dim,
            x.data_ptr(),
            dim,
            direction.data_ptr(),
            dim,
            mass.data_ptr(),
            missing.data_ptr(),
            dim,
            x_new.data_ptr(),
            dim,
            ETA,
            0.0,
            fresh_moments(),
            (0, 0, 1, 1, 0, 0),
        )
        return x_new

    def kernel() -> Tensor:
        if state is not None:
            state.step = 0
            state.m.zero_()
            state.v.zero_()
        return ops.particle_step(x, direction, mass, missing, eta=ETA, adam=state, backend="cpu")

    def eager(x: Tensor, direction: Tensor, mass: Tensor) -> Tensor:
        fresh = ops.AdamState.zeros_like(x) if adam else None
        return step_reference(x, direction, mass, missing, eta=ETA, adam=fresh)

    candidates = [
        Candidate("fastimpute fp32, memory given", FP32, given),
        Candidate("fastimpute fp32", FP32, kernel),
        Candidate("eager fp32", FP32, lambda: eager(x, direction, mass)),
    ]
    if compile_baseline and not adam:
        fused = compiled(eager)
        candidates.append(Candidate("torch.compile fp32", FP32, lambda: fused(x, direction, mass)))
    exact = eager(x.double(), direction.double(), mass.double())
    moved = (13.0 + (24.0 if adam else 0.0)) * rows * dim
    shape = f"n={rows} D={dim}{' Adam' if adam else ''}"
    return Case("particle_step", shape, tuple(candidates), exact, bytes=moved)


def recursion_case(head: str, patches: int, dim: int, iterations: int, *, weights: bool = False) -> Case:
    """The inner loop over overlapping windows, a third of the cells missing, beside the same loop in eager PyTorch."""
    window, sensors = WINDOWS[dim]
    network = random_network(head, dim)
    network = network._replace(w3=0.1 * network.w3) if head == "direct" else network
    series = torch.randn(patches + window - 1, sensors)
    missing = torch.rand(series.shape) < 0.3
    tables = (torch.arange(patches), torch.arange(sensors)[None], window)
    inputs: tuple[Any, ...] = (series, missing, *tables, *network)
    exact_inputs: tuple[Any, ...] = (series.double(), missing, *tables, *to_double(network))
    settings: dict[str, Any] = {"head": head, "sigma": SIGMA, "iterations": iterations, "eta": RECURSION_ETA[head]}
    if weights:
        settings["rho"] = 1.0

    def kernel(precision: str) -> Callable[[], Tensor]:
        return lambda: moved(ops.proximal_recursion(*inputs, backend="cpu", precision=precision, **settings)[0])

    def moved(filled: Tensor) -> Tensor:
        return (filled - series)[missing]

    def bare(precision: str) -> Callable[[], None]:
        x = series[Patches(*tables).cells(torch.arange(patches))]

        def run() -> None:
            for _ in range(iterations):
                if head == "energy":
                    ops.energy_mlp(x, *network, backend="cpu", precision=precision)
                else:
                    ops.score_mlp(x, *network[:6], SIGMA, *network[6:], backend="cpu", precision=precision)

        return run

    candidates = [Candidate(f"fastimpute {precision}", precision, kernel(precision)) for precision in precisions()]
    candidates += [
        Candidate(f"score kernel alone {precision}", precision, bare(precision)) for precision in precisions()
    ]
    if not weights:
        eager = eager_loop(head, series, missing, Patches(*tables), network, iterations)

        def loop() -> Tensor:
            return moved(eager())

        candidates += [
            Candidate("eager loop fp32", FP32, loop),
            Candidate("eager loop bf16", BF16, under_autocast(loop)),
        ]
    exact, _ = recursion_reference(*exact_inputs, **settings)
    return Case(
        op="proximal_recursion",
        shape=f"{head} head, {patches} patches, D={dim}, K={iterations}{', weights' if weights else ''}",
        candidates=tuple(candidates),
        exact=moved(exact),
        flops=iterations * (energy_flops if head == "energy" else direct_flops)(patches, dim),
    )


def eager_loop(
    head: str, series: Tensor, missing: Tensor, patches: Patches, network: Network, iterations: int
) -> Callable[[], Tensor]:
    """The same loop as one writes it in PyTorch: unfold, autograd score, masked steps, average."""
    rows, columns = patches.cells(torch.arange(patches.total))
    eta = RECURSION_ETA[head]

    def score(x: Tensor) -> Tensor:
        if head == "energy":
            return autograd_score(x, network).float()
        with torch.no_grad():
            return (hidden_output(x, network) @ network.w3.T + network.b3).float() / SIGMA

    def run() -> Tensor:
        x, hidden = series[rows, columns], missing[rows, columns]
        for _ in range(iterations):
            x = torch.where(hidden, x + eta * score(x), x)
        total, count = torch.zeros_like(series), torch.zeros_like(series)
        total.index_put_((rows, columns), x, accumulate=True)
        count.index_put_((rows, columns), torch.ones_like(x), accumulate=True)
        return torch.where(missing, total / count, series)

    return run

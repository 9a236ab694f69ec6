"""The ops of SPIRIT (arXiv 2602.01182) at given sizes, on torch's default device."""

from __future__ import annotations

import math
from typing import Any

import torch

from fastimpute import ops
from fastimpute.benchmark.gpu.problem import Problem, Tensors, pick, present
from fastimpute.benchmark.loop_cases import RECURSION_ETA, WINDOWS
from fastimpute.benchmark.network_cases import HIDDEN, SIGMA, direct_flops, energy_flops, random_network
from fastimpute.ops.network import Network

BOTH = ("fp32", "bf16")
SENSORS = 7
TRAINING_CONDITIONS = 32


def network_of(tensors: Tensors) -> Any:
    """The network among a problem's tensors."""
    return Network(*(tensors.get(name) for name in Network._fields))  # type: ignore[arg-type]


def energy(rows: int, dim: int, *, hvp: bool = False, gaussian: bool = False) -> Problem:
    """`energy_mlp`; the particles share one condition."""
    network = random_network("energy", dim)
    if gaussian:
        root = torch.randn(dim, dim) / dim**0.5
        network = network._replace(precision_matrix=root @ root.T + torch.eye(dim), mean=0.1 * torch.randn(dim))

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[torch.Tensor, ...]:
        return ops.energy_mlp(tensors["x"], *network_of(tensors), hvp=hvp, backend=backend, precision=precision)

    name = f"n={rows} D={dim} log p, score{', H s' if hvp else ''}{', Gaussian part' if gaussian else ''}"
    work = energy_flops(rows, dim) * (2 if hvp else 1) + (2 if hvp else 1) * 2.0 * rows * dim**2 * gaussian
    tensors = present({"x": torch.randn(rows, dim), **network._asdict()})
    return Problem("energy_mlp", name, tensors, call, flops=work, precisions=BOTH)


def score(rows: int, dim: int) -> Problem:
    """`score_mlp`; the particles share one condition."""
    network = random_network("direct", dim)

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[torch.Tensor, ...]:
        network = network_of(tensors)
        inputs = [tensors["x"], *network[:6], SIGMA, *network[6:]]
        return (ops.score_mlp(*inputs, backend=backend, precision=precision),)

    tensors = present({"x": torch.randn(rows, dim), **network._asdict()})
    work = direct_flops(rows, dim)
    return Problem("score_mlp", f"n={rows} D={dim}", tensors, call, flops=work, precisions=BOTH)


def matching(rows: int, dim: int) -> Problem:
    """`score_matching`: one training step's gradients."""
    network = random_network("direct", dim)
    conditions = math.gcd(rows, TRAINING_CONDITIONS)
    tensors = {"x": torch.randn(rows, dim), "target": torch.randn(rows, dim), **network._asdict()}
    tensors["modulation"] = 0.3 * torch.randn(conditions, 4, HIDDEN)

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[torch.Tensor, ...]:
        parts = network_of(tensors)
        return ops.score_matching(tensors["x"], tensors["target"], *parts[:7], backend=backend, precision=precision)

    work = 3 * direct_flops(rows, dim)
    return Problem("score_matching", f"n={rows} D={dim}", present(tensors), call, flops=work, precisions=BOTH)


def weights(rows: int, group: int, *, robust: bool = False) -> Problem:
    """`spt_weights`: three arrays are read and two written."""
    log_w = torch.log_softmax(torch.randn(max(rows // group, 1), min(group, rows)), 1).flatten()[:rows]
    settings: dict[str, Any] = {"group": group, "gamma": 0.01, "eta_w": 0.1, "tau": 0.1, "bound": 50.0}

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[torch.Tensor, ...]:
        parts = pick(tensors, "log_w", "log_p", "score_sq")
        return ops.spt_weights(*parts, robust=robust, backend=backend, **settings)

    tensors = present({"log_w": log_w, "log_p": torch.randn(len(log_w)), "score_sq": torch.rand(len(log_w))})
    name = f"n={len(log_w)} group={group}{' robust' if robust else ''}"
    return Problem("spt_weights", name, tensors, call, bytes=20.0 * len(log_w))


def step(rows: int, dim: int, *, kind: str = "plain") -> Problem:
    """`particle_step`, `kind`: "plain", "adam" or "noise"."""
    tensors = present(
        {
            "x": torch.randn(rows, dim),
            "direction": torch.randn(rows, dim),
            "mass": torch.rand(rows),
            "missing": torch.rand(rows, dim) < 0.3,
        },
    )
    if kind == "adam":
        tensors |= present({"m": torch.randn(rows, dim), "v": torch.rand(rows, dim)})
    if kind == "noise":
        sensors = SENSORS if dim % SENSORS == 0 else 1
        order = torch.arange(sensors).expand(rows, sensors)
        tensors |= present({"keys": torch.cat([12 * torch.arange(rows)[:, None], order], 1)})

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[torch.Tensor, ...]:
        adam = ops.AdamState(tensors["m"], tensors["v"], step=4) if kind == "adam" else None
        noise = ops.Noise(7, tensors["keys"]) if kind == "noise" else None
        inputs = pick(tensors, "x", "direction", "mass", "missing")
        moved = ops.particle_step(*inputs, eta=0.01, adam=adam, noise=noise, backend=backend)
        return (moved, adam.m, adam.v) if adam is not None else (moved,)

    moved = (13.0 + (16.0 if kind == "adam" else 0.0)) * rows * dim
    return Problem("particle_step", f"n={rows} D={dim} {kind}", tensors, call, bytes=moved)


def recursion(head: str, windows: int, dim: int, *, iterations: int = 20, rho: float = float("inf")) -> Problem:
    """`proximal_recursion` over overlapping windows of all sensors, three in ten cells missing."""
    window, sensors = WINDOWS[dim]
    network = random_network(head, dim)
    network = network._replace(w3=0.1 * network.w3) if head == "direct" else network
    series = torch.randn(windows + window - 1, sensors)
    tensors = present(
        {
            "series": series,
            "missing": torch.rand(series.shape) < 0.3,
            "starts": torch.arange(windows),
            "columns": torch.arange(sensors)[None],
            **network._asdict(),
        },
    )
    settings: dict[str, Any] = {
        "head": head, "sigma": SIGMA, "iterations": iterations, "eta": RECURSION_ETA[head], "rho": rho,
    }  # fmt: skip

    def call(tensors: Tensors, backend: str, precision: str) -> tuple[torch.Tensor, ...]:
        inputs = [*pick(tensors, "series", "missing", "starts", "columns"), window, *network_of(tensors)]
        return ops.proximal_recursion(*inputs, backend=backend, precision=precision, **settings)

    work = iterations * (energy_flops if head == "energy" else direct_flops)(windows, dim)
    name = f"{head} head, {windows} windows, D={dim}, K={iterations}{'' if rho == float('inf') else ', weights'}"
    return Problem("proximal_recursion", name, tensors, call, flops=work, precisions=BOTH)

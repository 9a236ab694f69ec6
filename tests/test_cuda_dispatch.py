"""Ops on the CUDA backend without a GPU: dispatch, packing, autograd and bindings over kernels on emulated lanes.

Main memory stands in for the GPU's, so that all but the launch itself is what runs on one.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import cuda_emulation
import pytest
import torch
from closeness import assert_close, same_bits
from networks import random_network, to_dtype
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.benchmark.gpu import checks
from fastimpute.ops import backends
from fastimpute.ops.cuda_pack import cuda_pack
from fastimpute.ops.energy_mlp import energy_mlp
from fastimpute.ops.energy_mlp import reference as energy_reference
from fastimpute.ops.network import Network
from fastimpute.ops.particle_step import AdamState, Noise, particle_step
from fastimpute.ops.registry import OPS
from fastimpute.ops.score_mlp import reference as score_reference
from fastimpute.ops.score_mlp import score_mlp
from fastimpute.ops.spt_weights import spt_weights


@pytest.fixture(scope="module")
def module(emulated_cuda: Path) -> ModuleType:
    return cuda_emulation.module(emulated_cuda)


@pytest.fixture(autouse=True)
def _main_memory_is_the_gpu(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: module)
    monkeypatch.setitem(backends.DEVICES, "cuda", "cpu")
    monkeypatch.setitem(backends._PROBES, "cuda", lambda: backends.Availability(True, "emulated"))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_the_default_device_of_new_tensors_does_not_matter(op: str, backend: str) -> None:
    """What is computed in main memory for tensors on another device is where the other's tensors cannot be."""
    if backend not in OPS[op].backends:
        return
    _, problem, *_ = checks.sweep(op, quick=True)  # the first one has no rows
    precision = problem.precisions[-1] if backend == "cuda" else "fp32"
    expected = problem.run_on_copies(backend, precision)
    with torch.device("meta"):
        found = problem.run_on_copies(backend, precision)
    assert all(same_bits(one[None], other[None]) for one, other in zip(found, expected, strict=True))


def energy(dim: int = 20, rows: int = 5, **kind: Any) -> tuple[Tensor, Network]:
    return torch.randn(rows, dim), to_dtype(random_network("energy", dim, particles=rows, **kind), torch.float32)


bf16_energy = functools.partial(energy_mlp, precision="bf16", backend="cuda")


@pytest.mark.parametrize("with_reference", [False, True])
def test_weights_are_updated(with_reference: bool) -> None:
    log_w, log_p = torch.log_softmax(torch.randn(2, 9), 1).flatten(), torch.randn(18)
    score_sq = torch.rand(18, 2)[:, 0]
    log_ref = torch.randn(18) if with_reference else None
    settings: dict[str, Any] = {"group": 9, "gamma": 0.3, "eta_w": 0.7, "tau": 0.2, "bound": 1.0, "log_ref": log_ref}
    got = spt_weights(log_w, log_p, score_sq, **settings, robust=True, backend="cuda")
    expected = spt_weights(log_w, log_p, score_sq, **settings, robust=True, backend="torch")
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_adam", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_particles_step(with_adam: bool, noisy: bool) -> None:
    x, direction = torch.randn(7, 6), torch.randn(7, 9)[:, :6]
    mass, missing = torch.rand(7), torch.rand(7, 6) < 0.5
    keys = torch.cat([torch.randint(2**40, (7, 1)), torch.randint(9999, (7, 3))], 1)
    noise = Noise(2**50 + 7, keys, sample=3, step=11) if noisy else None

    def step(backend: str) -> tuple[Tensor, AdamState]:
        state = AdamState(x.flip(0).clone(), x.square(), step=4)
        adam = state if with_adam else None
        moved = particle_step(x, direction, mass, missing, eta=0.1, adam=adam, noise=noise, drift=0.3, backend=backend)
        return moved, state

    (moved, state), (expected, expected_state) = step("cuda"), step("torch")
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-5)
    assert same_bits(moved[~missing], x[~missing])
    torch.testing.assert_close((state.m, state.v), (expected_state.m, expected_state.v))


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("product", [None, "score", "vector"])
def test_energy_and_derivatives(product: str | None, gaussian: bool) -> None:
    x, network = energy(modulations=3, gaussian=gaussian)
    vector = torch.randn(5, 20) if product == "vector" else None
    wanted: dict[str, Any] = {"vector": vector, "hvp": product is not None}
    got = bf16_energy(torch.randn(5, 33).narrow(1, 4, 20).copy_(x), *network, **wanted)
    doubled = {"vector": None if vector is None else vector.double(), "hvp": wanted["hvp"]}
    exact = energy_reference(x.double(), *to_dtype(network, torch.float64), **doubled)
    peer = energy_reference(x, *network, **wanted, precision="bf16")
    for name, value, truth, other in zip(("log_p", "score", "hvp"), got, exact, peer, strict=False):
        assert_close(name, value, truth, other, "bf16")


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("levels", [0.3, None])
def test_score_of_the_direct_head(levels: float | None, gaussian: bool) -> None:
    x, exact_network = torch.randn(5, 20), random_network("direct", 20, modulations=3, particles=5, gaussian=gaussian)
    network = to_dtype(exact_network, torch.float32)
    sigma = 0.1 + torch.rand(5) if levels is None else torch.full((5,), levels)
    given = sigma if levels is None else levels
    got = score_mlp(
        torch.randn(5, 33).narrow(1, 4, 20).copy_(x),
        *network[:6],
        given,
        *network[6:],
        precision="bf16",
        backend="cuda",
    )
    wide = to_dtype(network, torch.float64)
    exact = score_reference(x.double(), *wide[:6], sigma.double(), *wide[6:])
    assert_close("score", got, exact, score_reference(x, *network[:6], sigma, *network[6:], precision="bf16"), "bf16")


@pytest.mark.parametrize("dim", [1, 31, 33, 64, 97, 130, 260])
@pytest.mark.parametrize("rows", [1, 17])
def test_the_gaussian_part_is_as_close_as_torch_in_float32(dim: int, rows: int) -> None:
    """The networks end in zeros, so that nothing else is left."""
    x = torch.randn(rows, dim)
    for head in ("direct", "energy"):
        network = to_dtype(random_network(head, dim, gaussian=True), torch.float32)
        network.w3.zero_()
        network.b3.zero_()
        assert network.precision_matrix is not None
        assert network.mean is not None
        matrix, away = network.precision_matrix.double(), (x - network.mean).double()
        pull = (x - network.mean) @ network.precision_matrix
        if head == "direct":
            got = score_mlp(x, *network[:6], 0.5, *network[6:], precision="bf16", backend="cuda")
            assert_close("score", got, -away @ matrix, -pull)
            continue
        log_p, score, curved = bf16_energy(x, *network, hvp=True)
        assert_close("log_p", log_p, -0.5 * (away @ matrix * away).sum(1), -0.5 * (pull * (x - network.mean)).sum(1))
        assert_close("score", score, -away @ matrix, -pull)
        assert_close("hvp", curved, away @ matrix @ matrix, pull @ network.precision_matrix)


def test_the_direct_head_computes_no_gradient_here() -> None:
    x, network = torch.randn(5, 20, requires_grad=True), to_dtype(random_network("direct", 20), torch.float32)
    arguments = (x, *network[:6], 0.1, *network[6:])
    with pytest.raises(ValueError, match="score_mlp: backend 'cuda' cannot serve: gradients are required"):
        score_mlp(*arguments, precision="bf16", backend="cuda")


def test_the_chain_of_derivatives_stays_on_the_backend() -> None:
    x, network = energy(dim=16)
    leaf = x.clone().requires_grad_()
    log_p, score = bf16_energy(leaf, *network)
    (slope,) = torch.autograd.grad(log_p.sum(), leaf, retain_graph=True)
    assert same_bits(slope, score.detach())
    (curved,) = torch.autograd.grad(score, leaf, torch.ones_like(score))
    assert same_bits(curved, bf16_energy(x, *network, vector=torch.ones_like(x), hvp=True)[2])


def test_weights_are_packed_anew_when_they_change() -> None:
    x, network = energy()
    pack = cuda_pack(network, "energy")
    assert cuda_pack(network, "energy") is pack
    network.w3.zero_()
    log_p, score = bf16_energy(x, *network)
    assert torch.equal(log_p, network.b3.expand(5))
    assert not bool(score.any())


@pytest.mark.parametrize(
    ("kind", "precision", "reason"),
    [
        ({}, "fp32", "precision is fp32, the kernel takes bf16"),
        ({"hidden": 128}, "bf16", "hidden width is 128, the kernel takes 256"),
        ({"dim": 2049}, "bf16", "the particles have 2049 cells, the kernel takes 1 to 2048"),
    ],
)
def test_what_the_energy_kernel_does_not_take_is_refused(kind: dict[str, Any], precision: str, reason: str) -> None:
    x, network = energy(**kind)
    with pytest.raises(ValueError, match=f"^energy_mlp: backend 'cuda' cannot serve: {reason}$"):
        energy_mlp(x, *network, precision=precision, backend="cuda")


def test_double_precision_is_refused() -> None:
    one = torch.zeros(1).double()
    with pytest.raises(ValueError, match=r"spt_weights: backend 'cuda' cannot serve: log_w is torch\.float64"):
        ops.spt_weights(one, one, one, group=1, gamma=0.0, eta_w=0.1, tau=0.1, bound=1.0, backend="cuda")


def test_the_binding_checks_what_it_is_given(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="spt_weights: group must be at least 1, got 0"):
        module.spt_weights(0, 1, 0, *[0] * 6, 0.1, 0.1, 0.1, 1.0, False)
    with pytest.raises(ValueError, match=r"pack_mlp: dim must be in \[1, 2048\], got 0"):
        module.mlp_pack_bytes("energy", 0)

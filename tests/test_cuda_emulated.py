"""CUDA kernels without a GPU: their bodies run lane by lane on the host.

Nothing here shows that a kernel runs on a GPU, nor how fast. The bodies are compiled as plain C++ over emulated lanes
(tests/cuda/emulated_lane.h), so wrong indices, formulas and meeting points show.
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import NamedTuple

import cuda_emulation
import pytest
import torch
from closeness import assert_close, same_bits
from cuda_emulation import SHARED_LIMIT
from networks import random_network, to_dtype
from torch import Tensor

from fastimpute.ops.energy_mlp import reference as energy_reference
from fastimpute.ops.network import Network
from fastimpute.ops.particle_step import AdamState, Noise
from fastimpute.ops.particle_step import reference as step_reference
from fastimpute.ops.score_mlp import reference as score_reference
from fastimpute.ops.spt_weights import reference as weights_reference


@pytest.fixture(scope="module")
def emulated(emulated_cuda: Path) -> ctypes.CDLL:
    return cuda_emulation.functions(emulated_cuda)


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def int64(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def real(value: float) -> ctypes.c_float:
    return ctypes.c_float(value)


def double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.double()


# Lanes of a team (0: a block with shared memory, -1: one without), particles, particles per group.
GROUPS = [(8, 37, 7), (8, 8, 8), (8, 3, 1), (32, 65, 31), (32, 33, 33), (32, 400, 127), (0, 300, 129), (-1, 300, 129)]


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("bound", [math.inf, 1.0])
@pytest.mark.parametrize(("lanes", "rows", "group"), GROUPS)
def test_every_team_updates_weights_as_the_reference(
    emulated: ctypes.CDLL, lanes: int, rows: int, group: int, bound: float, robust: bool
) -> None:
    log_w, log_ref = torch.log_softmax(torch.randn(rows), 0), torch.randn(rows) if robust else None
    log_p, score_sq = 3 * torch.randn(rows) - 5, 10 * torch.rand(rows)
    log_w_new, mass = torch.full((2, rows), math.nan)
    emulated.emulate_spt_weights(
        lanes,
        int64(rows),
        int64(group),
        *map(pointer, (log_w, log_p, score_sq, log_ref, log_w_new, mass)),
        *map(real, (0.3, 0.7, 0.2, bound)),
        ctypes.c_bool(robust),
    )
    expected = weights_reference(
        log_w.double(),
        log_p.double(),
        score_sq.double(),
        group=group,
        gamma=0.3,
        eta_w=0.7,
        tau=0.2,
        bound=bound,
        log_ref=double(log_ref),
        robust=robust,
    )
    torch.testing.assert_close(log_w_new.double(), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mass.double(), expected[1], atol=1e-6, rtol=1e-5)


def test_equal_values_have_the_quartiles_of_torch(emulated: ctypes.CDLL) -> None:
    values = torch.tensor([-0.0, 0.0, 1.0, 1.0, 1.0, -3.0, 1.0, 7.0, 7.0])
    log_w, zeros = torch.full((9,), -math.log(9)), torch.zeros(9)
    log_w_new, mass = torch.full((2, 9), math.nan)
    emulated.emulate_spt_weights(
        32,
        int64(9),
        int64(9),
        *map(pointer, (log_w, values, zeros, None, log_w_new, mass)),
        *map(real, (0.0, 0.5, 0.1, math.inf)),
        ctypes.c_bool(True),
    )
    arguments = (log_w.double(), values.double(), zeros.double())
    expected = weights_reference(*arguments, group=9, gamma=0.0, eta_w=0.5, tau=0.1, bound=math.inf, robust=True)
    torch.testing.assert_close(mass.double(), expected[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("with_adam", [False, True])
@pytest.mark.parametrize(
    ("wide", "rows", "dim", "stride"), [(4, 7, 12, 16), (1, 7, 12, 13), (4, 31, 24, 24), (1, 3, 1, 1)]
)
def test_particles_step_as_the_reference(
    emulated: ctypes.CDLL, wide: int, rows: int, dim: int, stride: int, with_adam: bool, noisy: bool
) -> None:
    storage = torch.randn(5, rows, stride)
    x, direction, m, v, x_new = storage[:, :, :dim]
    v.abs_()
    x_new.fill_(math.nan)
    guard = storage[4, :, dim:].clone()
    mask = torch.rand(rows, stride) < 0.5
    mass = torch.rand(rows)
    sensors = 3 if dim % 3 == 0 else 1
    keys = torch.cat([torch.randint(2**40, (rows, 1)), torch.randint(9999, (rows, sensors))], 1)
    adam = AdamState(m.double(), v.double(), step=4) if with_adam else None
    noise = Noise(2**50 + 7, keys, sample=3, step=11) if noisy else None
    expected = step_reference(
        x.double(), direction.double(), mass.double(), mask[:, :dim], eta=0.1, adam=adam, noise=noise, drift=0.3
    )
    emulated.emulate_particle_step(
        wide,
        *map(int64, (rows, dim, stride)),
        *map(pointer, (x, direction, mass, mask, x_new)),
        *map(real, (0.1, 0.3)),
        *map(pointer, (m, v) if with_adam else (None, None)),
        *map(real, adam.corrections() if adam else (1.0, 1.0)),
        ctypes.c_uint64(2**50 + 7),
        pointer(keys if noisy else None),
        int64(sensors),
        ctypes.c_uint32(3),
        ctypes.c_uint32(11),
    )
    torch.testing.assert_close(x_new.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(x_new[~mask[:, :dim]], x[~mask[:, :dim]])
    assert torch.equal(storage[4, :, dim:], guard)
    if adam is not None:
        torch.testing.assert_close(m.double(), adam.m, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(v.double(), adam.v, atol=1e-6, rtol=1e-5)


class Energy(NamedTuple):
    """What the emulated kernel gave."""

    log_p: Tensor
    score: Tensor
    hvp: Tensor | None


def emulate_energy(
    emulated: ctypes.CDLL,
    network: Network,
    x: Tensor,
    vector: Tensor | None = None,
    *,
    hvp: bool,
    warps: int = 1,
    blocks: int = 1,
    slab_steps: int = 1,
) -> Energy:
    rows, dim = x.shape
    log_p, score = torch.full((rows,), math.nan), torch.full((rows, dim), math.nan)
    curved = torch.full((rows, dim), math.nan) if hvp else None
    weights = (ctypes.c_void_p * 6)(*(tensor.data_ptr() for tensor in network[:6]))
    emulated.emulate_energy_mlp(
        warps,
        int64(blocks),
        slab_steps,
        int64(rows),
        int64(dim),
        weights,
        pointer(network.modulation),
        int64(network.modulation.shape[0]),
        pointer(network.modulation_index),
        *map(pointer, (x, vector, log_p, score, curved)),
        int64(dim),
    )
    return Energy(log_p, score, curved)


# Warps of a block, blocks, slab of W1 in steps of 16 inputs, particles, D, modulations, what H is multiplied by.
ENERGY = [
    (1, 1, 1, 1, 1, 1, "score"),
    (1, 1, 1, 16, 16, 1, None),
    (2, 1, 2, 37, 24, 3, None),
    (1, 2, 1, 37, 33, 3, "vector"),
    (2, 1, 2, 7, 84, 1, "score"),
    (1, 1, 4, 17, 100, 2, "vector"),
]


@pytest.mark.parametrize(("warps", "blocks", "slab", "rows", "dim", "modulations", "product"), ENERGY)
def test_energy_and_derivatives_are_as_close_as_torch_in_bfloat16(
    emulated: ctypes.CDLL,
    warps: int,
    blocks: int,
    slab: int,
    rows: int,
    dim: int,
    modulations: int,
    product: str | None,
) -> None:
    exact_network = random_network("energy", dim, modulations=modulations, particles=rows)
    network = to_dtype(exact_network, torch.float32)
    x, vector = torch.randn(rows, dim), torch.randn(rows, dim) if product == "vector" else None
    hvp = product is not None
    got = emulate_energy(emulated, network, x, vector, hvp=hvp, warps=warps, blocks=blocks, slab_steps=slab)
    exact = energy_reference(x.double(), *to_dtype(network, torch.float64), vector=double(vector), hvp=hvp)
    peer = energy_reference(x, *network, vector=vector, hvp=hvp, precision="bf16")
    for name, value, truth, other in zip(Energy._fields, got, exact, peer, strict=False):
        assert value is not None
        assert_close(name, value, truth, other, "bf16")


def test_a_row_has_the_same_bits_in_any_block_and_any_slab(emulated: ctypes.CDLL) -> None:
    network = to_dtype(random_network("energy", 40), torch.float32)
    x = torch.randn(35, 40)
    whole = emulate_energy(emulated, network, x, hvp=True, warps=2, blocks=1, slab_steps=3)
    parts = [emulate_energy(emulated, network, part.contiguous(), hvp=True, slab_steps=1) for part in x.split([16, 19])]
    for values in zip(whole, *parts, strict=True):
        together, *apart = (value for value in values if value is not None)
        assert same_bits(together, torch.cat(apart))


def emulate_score(
    emulated: ctypes.CDLL,
    network: Network,
    x: Tensor,
    sigma: Tensor,
    *,
    warps: int = 1,
    blocks: int = 1,
    slab_steps: int = 1,
) -> Tensor:
    rows, dim = x.shape
    score = torch.full((rows, dim), math.nan)
    weights = (ctypes.c_void_p * 6)(*(tensor.data_ptr() for tensor in network[:6]))
    emulated.emulate_score_mlp(
        warps,
        int64(blocks),
        slab_steps,
        int64(rows),
        int64(dim),
        weights,
        pointer(network.modulation),
        int64(network.modulation.shape[0]),
        pointer(network.modulation_index),
        *map(pointer, (x, sigma, score)),
        int64(dim),
    )
    return score


# As ENERGY, without the product; a slab of 4 steps holds W1 and W3^T of 24 inputs for good.
SCORE = [(1, 1, 1, 1, 1, 1), (1, 1, 2, 16, 16, 1), (2, 1, 4, 37, 24, 3), (1, 2, 1, 37, 33, 3), (2, 1, 4, 17, 100, 2)]


@pytest.mark.parametrize(("warps", "blocks", "slab", "rows", "dim", "modulations"), SCORE)
def test_score_of_the_direct_head_is_as_close_as_torch_in_bfloat16(
    emulated: ctypes.CDLL, warps: int, blocks: int, slab: int, rows: int, dim: int, modulations: int
) -> None:
    exact_network = random_network("direct", dim, modulations=modulations, particles=rows)
    network = to_dtype(exact_network, torch.float32)
    x, sigma = torch.randn(rows, dim), 0.1 + torch.rand(rows)
    got = emulate_score(emulated, network, x, sigma, warps=warps, blocks=blocks, slab_steps=slab)
    wide = to_dtype(network, torch.float64)
    exact = score_reference(x.double(), *wide[:6], sigma.double(), *wide[6:])
    peer = score_reference(x, *network[:6], sigma, *network[6:], precision="bf16")
    assert_close("score", got, exact, peer, "bf16")


def test_a_score_has_the_same_bits_in_any_block_and_any_slab(emulated: ctypes.CDLL) -> None:
    network = to_dtype(random_network("direct", 40), torch.float32)
    x, sigma = torch.randn(35, 40), 0.1 + torch.rand(35)
    whole = emulate_score(emulated, network, x, sigma, warps=2, slab_steps=6)
    parts = [
        emulate_score(emulated, network, part.contiguous(), level, slab_steps=1)
        for part, level in zip(x.split([16, 19]), sigma.split([16, 19]), strict=True)
    ]
    assert same_bits(whole, torch.cat(parts))


@pytest.mark.parametrize("direct", [0, 1])
@pytest.mark.parametrize(("code", "warps"), [("sm_80", 2), ("sm_90a", 8)])
def test_a_block_of_the_network_fits_into_shared_memory(
    emulated: ctypes.CDLL, code: str, warps: int, direct: int
) -> None:
    for dim in (1, 16, 17, 33, 64, 84, 168, 2048):
        layout = (ctypes.c_int * 3)()
        emulated.mlp_layout(direct, int64(dim), SHARED_LIMIT[code], layout)
        assert layout[0] >= warps
        assert 1 <= layout[1] <= (1 + direct) * -(-dim // 16)
        assert layout[2] <= SHARED_LIMIT[code]


def test_a_chip_with_too_little_shared_memory_gets_no_block(emulated: ctypes.CDLL) -> None:
    layout = (ctypes.c_int * 3)()
    emulated.mlp_layout(0, int64(84), 99 * 1024, layout)
    assert layout[0] == 0

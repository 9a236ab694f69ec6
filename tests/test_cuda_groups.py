"""`energy_mlp` by warpgroups (Hopper's wgmma) without one: the kernel's body over emulated lanes, and who chooses it.

The emulated product reads a matrix where its descriptor says, by the PTX ISA's canonical layouts, so wrong descriptors,
fragments and turns show. That a device does the same is what the proof at first use is for.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cuda_emulation
import pytest
import torch
from closeness import assert_close, same_bits
from networks import random_network, to_dtype
from torch import Tensor

from fastimpute import _native
from fastimpute.benchmark.gpu import speed, spirit_problems
from fastimpute.ops import backends
from fastimpute.ops.energy_mlp import energy_mlp, reference
from fastimpute.ops.network import Network

SHARED_LIMIT = 227 * 1024
FRESH = itertools.count()  # devices on which nothing has been proven yet
bf16_energy = functools.partial(energy_mlp, precision="bf16", backend="cuda")


@pytest.fixture(scope="module")
def emulated(emulated_cuda: Path) -> ctypes.CDLL:
    return cuda_emulation.functions(emulated_cuda)


def by_groups(
    emulated: ctypes.CDLL, network: Network, x: Tensor, *, groups: int = 2, blocks: int = 1
) -> tuple[Tensor, Tensor]:
    """log p and score, the rows' ends and what lies between the rows left alone."""
    (rows, dim), stride = x.shape, x.shape[1] + 5
    wide = torch.full((rows, stride), math.nan)
    wide[:, :dim] = x
    log_p, score = torch.full((rows + 3,), math.nan), torch.full((rows + 1, stride), math.nan)
    weights = (ctypes.c_void_p * 6)(*(tensor.data_ptr() for tensor in network[:6]))

    def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
        return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())

    emulated.emulate_energy_group(
        groups,
        *map(ctypes.c_int64, (blocks, rows, dim)),
        weights,
        pointer(network.modulation),
        ctypes.c_int64(network.modulation.shape[0]),
        *map(pointer, (network.modulation_index, wide, log_p, score)),
        ctypes.c_int64(stride),
    )
    assert bool(log_p[rows:].isnan().all())
    assert bool(score[rows].isnan().all())
    assert bool(score[:, dim:].isnan().all())
    return log_p[:rows], score[:rows, :dim].contiguous()


# Groups of a block, blocks, particles, D, modulations.
SHAPES = [
    (1, 1, 1, 24, 1),
    (2, 1, 3, 7, 1),
    (2, 1, 31, 40, 2),
    (2, 2, 33, 84, 1),
    (1, 2, 129, 24, 3),
    (2, 1, 129, 168, 3),
]


@pytest.mark.parametrize(("groups", "blocks", "rows", "dim", "modulations"), SHAPES)
def test_value_and_score_are_as_close_as_torch_in_bfloat16(
    emulated: ctypes.CDLL, groups: int, blocks: int, rows: int, dim: int, modulations: int
) -> None:
    network = to_dtype(random_network("energy", dim, modulations=modulations, particles=rows), torch.float32)
    x = torch.randn(rows, dim)
    got = by_groups(emulated, network, x, groups=groups, blocks=blocks)
    exact = reference(x.double(), *to_dtype(network, torch.float64))
    peer = reference(x, *network, precision="bf16")
    for name, value, truth, other in zip(("log_p", "score"), got, exact, peer, strict=True):
        assert_close(name, value, truth, other, "bf16")


def test_a_row_has_the_same_bits_in_any_group_and_block(emulated: ctypes.CDLL) -> None:
    network, x = to_dtype(random_network("energy", 24), torch.float32), torch.randn(150, 24)
    whole = by_groups(emulated, network, x)
    parts = [by_groups(emulated, network, part, groups=1) for part in x.split([70, 80])]
    for together, *apart in zip(whole, *parts, strict=True):
        assert same_bits(together, torch.cat(apart))


def layout(emulated: ctypes.CDLL, dim: int, rows: int) -> tuple[int, int, int]:
    """Warps, steps of 16 inputs and bytes of a block on a device of 132 multiprocessors."""
    out = (ctypes.c_int * 3)()
    emulated.group_layout(ctypes.c_int64(dim), ctypes.c_int64(rows), 132, SHARED_LIMIT, out)
    return out[0], out[1], out[2]


def test_both_matrices_fit_into_shared_memory_up_to_176_cells(emulated: ctypes.CDLL) -> None:
    for dim in (1, 24, 32, 33, 84, 96, 97, 168, 176):
        warps, steps, used = layout(emulated, dim, 1 << 20)
        assert warps == 8
        assert steps == next(held for held in (2, 6, 11) if dim <= 16 * held)
        assert used == (256 + 16 * steps) * 512 <= SHARED_LIMIT
    assert layout(emulated, 177, 1 << 20) == (0, 0, 0)


def test_few_rows_are_spread_over_more_multiprocessors(emulated: ctypes.CDLL) -> None:
    assert layout(emulated, 84, 64 * 132)[0] == 4
    assert layout(emulated, 84, 64 * 132 + 1)[0] == 8


# ---- who chooses it --------------------------------------------------------------------------------------------------


@pytest.fixture
def module(emulated: ctypes.CDLL, emulated_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The emulated `_cuda` on a Hopper that nobody has seen before."""
    loaded = cuda_emulation.module(emulated_cuda)
    monkeypatch.setattr(_native, "cuda", lambda: loaded)
    monkeypatch.setitem(backends.DEVICES, "cuda", "cpu")
    monkeypatch.setitem(backends._PROBES, "cuda", lambda: backends.Availability(True, "emulated"))
    emulated.emulate_hopper(next(FRESH), False)
    yield loaded
    emulated.emulate_hopper(-1, False)


def test_groups_serve_once_they_agree_with_warps(module: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    network, x = to_dtype(random_network("energy", 20), torch.float32), torch.randn(9, 20)
    assert module.energy_body(20, False, False) == "wgmma"
    log_p, score = bf16_energy(x, *network)
    module.permit_wgmma(False)
    try:
        assert module.energy_body(20, False, False) == "mma.sync"
        by_warps = bf16_energy(x, *network)
    finally:
        module.permit_wgmma(True)
    assert not same_bits(score, by_warps[1])
    torch.testing.assert_close((log_p, score), by_warps, atol=2e-2, rtol=2e-2)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("dim", "gaussian", "hvp"), [(177, False, False), (20, True, False), (20, False, True)])
def test_what_groups_do_not_take_is_left_to_warps(module: ModuleType, dim: int, gaussian: bool, hvp: bool) -> None:
    assert module.energy_body(dim, gaussian, hvp) == "mma.sync"


def test_other_chips_know_only_warps(module: ModuleType, emulated: ctypes.CDLL) -> None:
    emulated.emulate_hopper(-1, False)
    assert module.energy_body(20, False, False) == "mma.sync"


def test_a_device_that_gives_wrong_products_is_left_to_warps_and_told_of_once(
    module: ModuleType, emulated: ctypes.CDLL, capfd: pytest.CaptureFixture[str]
) -> None:
    device = next(FRESH)
    emulated.emulate_hopper(device, True)
    network, x = to_dtype(random_network("energy", 20), torch.float32), torch.randn(5, 20)
    got = bf16_energy(x, *network)
    emulated.emulate_hopper(device, False)
    assert module.energy_body(20, False, False) == "mma.sync"
    assert same_bits(got[1], bf16_energy(x, *network)[1])
    exact, peer = reference(x.double(), *to_dtype(network, torch.float64)), reference(x, *network, precision="bf16")
    assert_close("score", got[1], exact[1], peer[1], "bf16")
    said = capfd.readouterr().err.splitlines()
    expected = f"fastimpute: energy_mlp: wgmma is left out on CUDA device {device}, mma.sync serves: its score is wrong"
    assert said == [expected]


def test_the_benchmark_times_both_bodies(module: ModuleType) -> None:
    problem = spirit_problems.energy(5, 24)
    runs = speed._runs_of(problem, "cuda", "bf16")
    assert list(runs) == ["fastimpute cuda, wgmma", "fastimpute cuda, mma.sync"]
    for run in runs.values():
        run()
    assert module.energy_body(24, False, False) == "wgmma"
    curved = speed._runs_of(spirit_problems.energy(5, 24, hvp=True), "cuda", "bf16")
    assert list(curved) == ["fastimpute cuda, mma.sync"]

"""proximal_recursion on the CUDA backend without a GPU: its blocks on emulated lanes, against float64 and PyTorch."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cuda_emulation
import pytest
import torch
from closeness import assert_within, limit, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops import backends
from fastimpute.ops.proximal_recursion import Patches
from fastimpute.ops.recursion_cuda import most_on_a_cell


@pytest.fixture(scope="module")
def module(emulated_cuda: Path) -> ModuleType:
    return cuda_emulation.module(emulated_cuda)


@pytest.fixture(autouse=True)
def _main_memory_is_the_gpu(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: module)
    monkeypatch.setitem(backends.DEVICES, "cuda", "cpu")
    monkeypatch.setitem(backends._PROBES, "cuda", lambda: backends.Availability(True, "emulated"))


@pytest.fixture
def device(emulated_cuda: Path, module: ModuleType) -> Iterator[ctypes.CDLL]:
    """`emulate_device(multiprocessors, shared memory of a block)` of the device the kernel plans for."""
    functions = cuda_emulation.functions(emulated_cuda)
    yield functions
    functions.emulate_device(2, 227 * 1024)


class Problem:
    """A series with gaps, 21 overlapping patches of sensor pairs, a sensor that none covers, and a network."""

    def __init__(
        self,
        head: str = "direct",
        *,
        window: int = 7,
        modulations: int = 1,
        gaussian: bool = False,
        hidden: int = 256,
    ) -> None:
        self.series, self.missing = torch.randn(40, 5), torch.rand(40, 5) < 0.3
        self.starts = torch.arange(0, 41 - window, 5)
        self.columns = torch.tensor([[0, 1], [1, 2], [3, 0]])
        self.window, self.head = window, head
        self.network = rounded(
            random_network(
                head, 2 * window, hidden, modulations=modulations, particles=len(self.starts), gaussian=gaussian
            )
        )

    @property
    def patches(self) -> Patches:
        return Patches(self.starts, self.columns, self.window)

    def run(self, backend: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Tensor, Tensor]:
        defaults: dict[str, Any] = {"iterations": 2, "eta": 0.02, "group": 8, "head": self.head, "precision": "bf16"}
        if self.head == "direct":
            defaults["sigma"] = 0.2
        if options.get("log_ref") is not None:
            options["log_ref"] = options["log_ref"].to(dtype)
        arguments = (self.series.to(dtype), self.missing, *self.patches, *to_dtype(self.network, dtype))
        return ops.proximal_recursion(*arguments, backend=backend, **{**defaults, **options})


def check(problem: Problem, slack: float = 1.0, **options: Any) -> None:
    value, log_w = problem.run("cuda", **options)
    exact, exact_log_w = problem.run("torch", torch.float64, **{**options, "precision": "fp32"})
    plain, plain_log_w = problem.run("torch", **options)
    assert_within("series", value, exact, slack * limit(exact, plain, "bf16"))
    assert_within("log_w", log_w, exact_log_w, slack * limit(exact_log_w, plain_log_w, "bf16"))
    assert same_bits(value[~problem.missing], problem.series[~problem.missing])
    covered = torch.zeros_like(problem.missing)
    covered[problem.patches.cells(torch.arange(problem.patches.total))] = True
    assert same_bits(value[~covered], problem.series[~covered])


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no steps": {"iterations": 0},
    "weights": {"rho": 0.5, "tau": 0.2, "bound": 4.0},
    "robust weights": {"rho": 0.05, "robust": True},
    "adam": {"adam": True},
    "dissipation": {"dissipation": True, "seed": 11},
    "all": {"rho": 0.5, "adam": True, "dissipation": True, "robust": True},
    "one group": {"rho": 0.5, "group": 21},
    "groups that fill no warp": {"rho": 0.5, "group": 5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_direct_head_is_as_close_as_torch_in_bfloat16(variant: str) -> None:
    check(Problem(), **VARIANTS[variant])


@pytest.mark.parametrize("gamma", [0.0, 0.01])
@pytest.mark.parametrize("variant", ["plain", "weights"])
def test_the_energy_head_is_as_close_as_torch_in_bfloat16(variant: str, gamma: float) -> None:
    check(Problem("energy"), gamma=gamma, **VARIANTS[variant])


def test_each_window_has_its_own_modulation() -> None:
    check(Problem(modulations=5))


@pytest.mark.parametrize(("head", "gamma"), [("direct", 0.0), ("energy", 0.01)])
def test_the_gaussian_part_joins(head: str, gamma: float) -> None:
    check(Problem(head, gaussian=True), gamma=gamma, rho=0.5)


@pytest.mark.parametrize("rho", [math.inf, 0.5])
def test_reference_measure_per_patch(rho: float) -> None:
    problem = Problem()
    check(problem, log_ref=torch.randn(problem.patches.total), rho=rho)


def test_a_group_larger_than_a_warp_updates_is_shared_by_the_block() -> None:
    problem = Problem()
    problem.starts = torch.arange(0, 34).repeat_interleave(2)
    check(problem, rho=0.5, group=150, iterations=1, robust=True)


@pytest.mark.parametrize(("window", "rho"), [(7, math.inf), (7, 0.5), (30, math.inf)])
def test_bits_depend_on_no_grid_and_no_slab(device: ctypes.CDLL, window: int, rho: float) -> None:
    """Of the network for 60 cells a block of the last device holds a slab at a time, of the others all."""
    problem = Problem(window=window)
    options = {"rho": rho, "log_ref": torch.linspace(-1, 1, problem.patches.total)}
    first = problem.run("cuda", adam=True, **options)
    for multiprocessors, shared in ((1, 227 * 1024), (16, 227 * 1024), (1, 163 * 1024)):
        device.emulate_device(multiprocessors, shared)
        again = problem.run("cuda", adam=True, **options)
        assert same_bits(first[0], again[0])
        assert same_bits(first[1], again[1])


def test_what_diverged_becomes_nan_and_nothing_else() -> None:
    problem = Problem()
    problem.missing[7:9, 1] = True
    problem.series[7, 1], problem.series[8, 1] = 1e30, math.inf
    filled, _ = problem.run("cuda", iterations=0)
    assert bool(filled[7:9, 1].isnan().all())
    rest = torch.ones_like(problem.missing)
    rest[7:9, 1] = False
    torch.testing.assert_close(filled[rest], problem.series[rest])


@pytest.mark.parametrize(("length", "window"), [(30, 1), (30, 6), (9, 9)])
def test_the_patches_on_a_cell_are_never_more_than_the_bound(length: int, window: int) -> None:
    starts = torch.randint(0, length - window + 1, (40,)).sort().values
    patches = Patches(starts, torch.tensor([[0, 1], [2, 0], [0, 2]]), window)
    rows, columns = patches.cells(torch.arange(patches.total))
    on_a_cell = torch.bincount((rows * 3 + columns).flatten())
    assert most_on_a_cell(patches) == int(on_a_cell.max())  # sensor 0 is in every set


def test_nothing_to_do_leaves_the_series() -> None:
    problem = Problem()
    problem.starts = problem.starts[:0]
    filled, log_w = problem.run("cuda")
    assert same_bits(filled, problem.series)
    assert log_w.shape == (0,)


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ({}, {"precision": "fp32"}, "precision is fp32, the kernel takes bf16"),
        ({"hidden": 128}, {}, "hidden width is 128, the kernel takes 256"),
        ({}, {"rho": 0.5, "group": 1025}, "groups have 1025 patches, a block takes up to 1024"),
    ],
)
def test_what_the_kernel_does_not_take_is_refused(kind: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^proximal_recursion: backend 'cuda' cannot serve: {reason}$"):
        Problem(**kind).run("cuda", **options)


def test_equal_weights_take_groups_of_any_size() -> None:
    check(Problem(), group=10**6)

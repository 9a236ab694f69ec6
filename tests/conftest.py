"""Shared fixtures: seeds, poisoned memory, each backend and instruction set of this machine, real data if present."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cuda_emulation
import pytest
import torch
from filelock import FileLock

from fastimpute import _native, ops

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def usable_isas() -> list[str]:
    return list(_native.core().isas()) if _native.why_missing() is None else []


@pytest.fixture(scope="session")
def emulated_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA kernels over emulated lanes, as one shared library, built once for all workers."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with FileLock(folder / "cuda_emulation.lock"):
        library = folder / "_cuda.so"
        return library if library.exists() else cuda_emulation.build(folder)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For loops of many small products: where cores are shared, threads mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floating tensors the package allocates without a value hold NaN, so an unwritten output fails."""

    def poison(name: str) -> None:
        original = getattr(torch, name)

        def allocate(*args: object, **options: object) -> torch.Tensor:
            tensor = original(*args, **options)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.startswith("fastimpute") and tensor.dtype.is_floating_point and tensor.device.type == "cpu":
                tensor.fill_(float("nan"))
            return tensor

        monkeypatch.setattr(torch, name, allocate)

    for name in ("empty", "empty_like"):
        poison(name)


@pytest.fixture(params=usable_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set this machine has, in force while the test runs."""
    with ops.use_isa(request.param):
        yield request.param


def network_kernels() -> list[tuple[str, str]]:
    """Instruction sets and precisions of the vectorised network kernels on this machine."""
    return [
        (isa, precision)
        for isa in usable_isas()
        if isa != "ref"
        for precision in (("fp32", "bf16") if isa == "avx512bf16" else ("fp32",))
    ]


@pytest.fixture(params=network_kernels(), ids="-".join)
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each precision of each vectorised instruction set, that one in force while the test runs."""
    isa, precision = request.param
    with ops.use_isa(isa):
        yield precision


@pytest.fixture(params=["torch", *usable_isas()])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend this machine has, the cpu one once per instruction set."""
    if request.param == "torch":
        yield "torch"
        return
    with ops.use_isa(request.param):
        yield "cpu"


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data_dir() -> Path | None:
    """Where the real data sets lie beside the repository; None where they do not."""
    return DATA if DATA.is_dir() else None

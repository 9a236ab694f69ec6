"""Every op is complete: one name in every folder, a reference, tests, a benchmark and a full docstring."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from pathlib import Path

import pytest
import torch

import fastimpute
from fastimpute import ops
from fastimpute.ops import backends
from fastimpute.ops.registry import BACKENDS, OPS

ROOT = Path(__file__).resolve().parents[1]
IN_EVERY_DOCSTRING = ("Args:", "Returns:", "Raises:", "Example:", "arXiv", "units", "backend", "(n,", "ValueError")

every_op = pytest.mark.parametrize("name", OPS)


def public_function(name: str) -> object:
    return getattr(importlib.import_module(OPS[name].module), name)


@every_op
def test_has_a_contract_a_scalar_reference_and_a_file_per_instruction_set(name: str) -> None:
    folder = ROOT / "csrc" / name
    expected = {f"{name}.h", f"{name}_ref.cpp"}
    if OPS[name].isas:
        expected |= {f"{name}.inl.h", *(f"{name}_{isa}.cpp" for isa in OPS[name].isas)}
    assert expected <= {path.name for path in folder.iterdir()}


@every_op
def test_files_of_an_instruction_set_only_instantiate(name: str) -> None:
    for isa in OPS[name].isas:
        lines = (ROOT / "csrc" / name / f"{name}_{isa}.cpp").read_text().splitlines()
        assert len(lines) <= 40


@every_op
def test_has_an_op_file_tests_and_a_benchmark(name: str) -> None:
    assert (ROOT / "fastimpute" / "ops" / f"{name}.py").is_file()
    assert (ROOT / "tests" / f"test_{name}.py").is_file()
    assert (ROOT / "bench" / f"bench_{name}.py").is_file()


@every_op
def test_has_a_triton_kernel_and_its_tests_exactly_when_triton_serves_it(name: str) -> None:
    serves = "triton" in OPS[name].backends
    tests = ROOT / "tests"
    files = (ROOT / "kernels" / f"{name}.py", tests / "triton_kernels" / f"{name}.py", tests / f"test_triton_{name}.py")
    assert [path.is_file() for path in files] == [serves] * 3


@every_op
def test_has_a_reference_with_the_arguments_of_the_public_function(name: str) -> None:
    reference = inspect.signature(importlib.import_module(OPS[name].module).reference).parameters
    public = inspect.signature(public_function(name)).parameters
    assert [*reference] == [key for key in public if key in reference]
    assert set(public) - set(reference) <= {"backend", "precision", "threads"}


@every_op
def test_docstring_states_shapes_units_errors_source_and_an_example(name: str) -> None:
    text = inspect.getdoc(public_function(name)) or ""
    absent = [word for word in IN_EVERY_DOCSTRING if word not in text and word != "(n,"]
    assert not absent
    shapes = [word for word in ("(n,", "(n, D)", "(T, N)") if word in text]
    assert shapes
    arguments = inspect.signature(public_function(name)).parameters
    assert [argument for argument in arguments if argument not in text] == []


@every_op
def test_is_registered_with_torch(name: str) -> None:
    assert hasattr(torch.ops.fastimpute, name)
    assert getattr(ops, name) is public_function(name)


@every_op
def test_names_its_backends_best_first_with_torch_last(name: str) -> None:
    order = [backend for backend in BACKENDS if backend in OPS[name].backends]
    assert list(OPS[name].backends) == order
    assert order[-1] == "torch"


@every_op
def test_every_backend_is_reported_with_a_reason(name: str) -> None:
    table = fastimpute.backends()[name]
    assert set(table) == set(BACKENDS)
    assert table["torch"].available
    assert all(status.reason for status in table.values())


def test_no_folder_of_kernels_is_left_out_of_the_registry() -> None:
    folders = {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()}
    assert folders - {"common"} == set(OPS)


def test_unknown_backend_names_the_choices() -> None:
    with pytest.raises(
        ValueError, match=r"backend must be one of \('auto', 'cuda', 'triton', 'cpu', 'torch'\), got 'tpu'"
    ):
        backends.probe("tpu")


def test_unknown_instruction_set_names_the_usable_ones() -> None:
    with pytest.raises(ValueError, match="instruction set must be one of"), ops.use_isa("sse9"):
        pass


def test_use_isa_restores_the_previous_one() -> None:
    before = ops.isa()
    with ops.use_isa("ref"):
        assert ops.isa() == "ref"
    assert ops.isa() == before


# Choosing


def serves() -> None:
    return None


@pytest.fixture
def cpu_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_WHY_MISSING", None)
    backends._log_fallback.cache_clear()


@pytest.mark.usefixtures("cpu_is_here")
def test_auto_takes_the_best_backend_that_serves() -> None:
    assert backends.choose("particle_step", "auto", {"x": torch.ones(1)}, {"cpu": serves}) == "cpu"
    assert backends.choose("particle_step", "auto", {}, {"cpu": serves}) == "cpu"


@pytest.mark.usefixtures("cpu_is_here")
def test_auto_asks_no_backend_of_another_device(caplog: pytest.LogCaptureFixture) -> None:
    def unasked() -> str:
        raise AssertionError("the cpu kernels cannot read this tensor, whatever they say")

    with caplog.at_level(logging.INFO, logger="fastimpute"):
        chosen = backends.choose("dit_block", "auto", {"x": torch.ones(1, device="meta")}, {"cpu": unasked})
    assert chosen == "torch"
    assert caplog.messages == ["dit_block runs on the torch backend: it has no kernel for tensors on meta"]


@pytest.mark.usefixtures("cpu_is_here")
@pytest.mark.parametrize(
    ("requested", "tensor", "message"),
    [
        ("cpu", torch.ones(1), "particle_step: backend 'cpu' cannot serve: too wide"),
        ("cpu", torch.ones(1, device="meta"), "cannot serve: the tensors are on meta, its kernels read tensors on cpu"),
        ("tpu", torch.ones(1), "backend must be one of"),
    ],
)
def test_an_explicit_backend_that_cannot_serve_says_why(requested: str, tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backends.choose("particle_step", requested, {"x": tensor}, {"cpu": lambda: "too wide"})


@pytest.fixture
def gpu_is_meta(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """A tensor on the device that stands in for a GPU."""
    for backend in ("cuda", "triton"):
        monkeypatch.setitem(backends.DEVICES, backend, "meta")
    backends._log_fallback.cache_clear()
    return torch.ones(1, device="meta")


GPU_SERVES = {"cpu": serves, "cuda": serves, "triton": serves}


def test_the_compiled_kernels_come_before_triton_on_the_gpu(
    gpu_is_meta: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu_kernels", lambda backend: None)
    assert backends.choose("particle_step", "auto", {"x": gpu_is_meta}, GPU_SERVES) == "cuda"
    assert backends.choose("particle_step", "auto", {"x": torch.ones(1)}, GPU_SERVES) == "cpu"
    monkeypatch.setattr(backends, "_why_no_gpu_kernels", {"cuda": "not built", "triton": None}.get)
    assert backends.choose("particle_step", "auto", {"x": gpu_is_meta}, GPU_SERVES) == "triton"
    narrow = {**GPU_SERVES, "triton": lambda: "too wide"}
    assert backends.choose("particle_step", "auto", {"x": gpu_is_meta}, narrow) == "torch"


def test_what_keeps_the_gpu_kernels_from_serving_is_logged_once(
    gpu_is_meta: torch.Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends, "_why_no_gpu_kernels", lambda backend: f"{backend} is not installed")
    with caplog.at_level(logging.INFO, logger="fastimpute"):
        for _ in range(2):
            assert backends.choose("particle_step", "auto", {"x": gpu_is_meta}, GPU_SERVES) == "torch"
    assert caplog.messages == ["particle_step runs on the torch backend: triton is not installed"]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("version", "complaint", "reason"),
    [
        (None, "", f"torch {torch.__version__} is built without CUDA"),
        ("13.0", "Found no NVIDIA driver. Install one.", "torch finds no CUDA device: Found no NVIDIA driver"),
        ("13.0", "The driver is too old (12.2). Update.", "torch finds no CUDA device: The driver is too old (12.2)"),
        ("13.0", None, "torch finds no CUDA device"),
    ],
)
def test_gpu_kernels_without_a_gpu_say_why(
    version: str | None, complaint: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        if complaint is not None:
            raise RuntimeError(complaint)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "init", init)
    x, missing = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)
    for backend in ("cuda", "triton"):
        assert fastimpute.backends()["particle_step"][backend] == (False, reason)
        with pytest.raises(ValueError, match=f"backend '{backend}' cannot serve: {re.escape(reason)}"):
            ops.particle_step(x, x, torch.ones(1), missing, eta=0.1, backend=backend)


@pytest.mark.parametrize("requested", ["auto", "cpu", "torch"])
def test_tensors_on_several_devices_are_named(requested: str) -> None:
    tensors = {"x": torch.ones(1), "w1": torch.ones(1, device="meta"), "vector": None}
    with pytest.raises(ValueError, match="energy_mlp: tensors must lie on one device, got x on cpu, w1 on meta"):
        backends.choose("energy_mlp", requested, tensors, {"cpu": serves})


def test_public_functions_refuse_tensors_on_several_devices() -> None:
    x, missing = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"particle_step: tensors must lie on one device, got .*mass on meta"):
        ops.particle_step(x, x, torch.ones(1, device="meta"), missing, eta=0.1)

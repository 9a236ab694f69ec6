"""Every op is complete: one name in every folder, a reference, tests, a benchmark and a full docstring."""

from __future__ import annotations

import importlib
import inspect
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
def test_has_a_triton_file_exactly_when_triton_serves_it(name: str) -> None:
    assert (ROOT / "kernels" / f"{name}.py").is_file() == ("triton" in OPS[name].backends)


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

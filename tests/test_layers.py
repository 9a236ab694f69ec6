"""Layers import downwards only, kernels know no torch, and importing the package disturbs nothing."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastimpute import _native

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastimpute"

# Lowest first; a module may import its own layer and those before it. What is not named belongs to the imputers.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"_native", "_core", "_cuda"}),
    frozenset({"ops", "kernels"}),
    frozenset(
        {
            "conformal",
            "crew",
            "diffusion",
            "gp",
            "nn",
            "train",
            "series",
            "patches",
            "masks",
            "metrics",
            "progress",
            "atomic",
            "timestamps",
            "layouts",
            "gaps",
        }
    ),
    frozenset(),
    frozenset({"evaluation", "benchmark", "stream"}),
    frozenset({"io", "distributed", "files", "report"}),
    frozenset({"cli", "__main__"}),
)
IMPUTERS = 3


def layer_of(module: str) -> int:
    part = module.split(".")[1]
    return next((level for level, names in enumerate(LAYERS) if part in names), IMPUTERS)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Modules of the package that a file imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("fastimpute.")}


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_points_back(path: Path) -> None:
    own = layer_of(module_name(path))
    above = {name for name in imports_of(path) if layer_of(name) > own}
    assert not above


def run_python(program: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_loads_no_torch() -> None:
    assert run_python("import sys, fastimpute; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("layer", ["ops", "nn", "train"])
def test_a_layer_loads_nothing_above_itself(layer: str) -> None:
    program = f"import sys, fastimpute.{layer}; print(*[m for m in sys.modules if m.startswith('fastimpute.')])"
    loaded = run_python(program).split()
    assert loaded
    assert max(layer_of(name) for name in loaded) == layer_of(f"fastimpute.{layer}")


def test_ops_import_without_triton() -> None:
    program = "import sys; sys.modules['triton'] = None; import fastimpute.ops; print('ok')"
    assert run_python(program).strip() == "ok"


def test_without_the_compiled_module_ops_run_on_torch_and_say_why() -> None:
    program = """
import sys; sys.modules["fastimpute._core"] = None
import torch, fastimpute
from fastimpute import ops
x, missing = torch.zeros(1, 2), torch.tensor([[True, False]])
arguments = (x, torch.ones(1, 2), torch.ones(1), missing)
print(ops.particle_step(*arguments, eta=0.5).tolist())
print(fastimpute.backends()["particle_step"]["cpu"].reason)
try:
    ops.particle_step(*arguments, eta=0.5, backend="cpu")
except ValueError as error:
    print(error)
"""
    moved, reason, error = run_python(program).splitlines()
    assert moved == "[[0.5, 0.0]]"
    assert "the compiled kernels do not load" in reason
    assert error.startswith("particle_step: backend 'cpu' cannot serve: the compiled kernels do not load")


def test_the_package_keeps_subnormal_numbers() -> None:
    program = """
import sys, torch, fastimpute.ops
torch.zeros(4).exp()
zeros = torch.zeros(64, 64)
fastimpute.ops.particle_step(zeros, zeros, torch.ones(64), zeros == 0, eta=0.1)
print(sys.float_info.min / 2 != 0, bool((torch.tensor(2e-38) / 4) != 0))
"""
    assert run_python(program).split() == ["True", "True"]


def test_fastimpute_cpu_forces_an_instruction_set() -> None:
    program = "from fastimpute import _native; print(_native.core().isas())"
    for isa in _native.core().isas():
        assert run_python(program, FASTIMPUTE_CPU=isa).strip() == f"['{isa}']"


def test_an_unusable_fastimpute_cpu_is_reported() -> None:
    program = "from fastimpute import _native; print(_native.why_missing())"
    reason = run_python(program, FASTIMPUTE_CPU="mmx")
    assert "FASTIMPUTE_CPU" in reason
    assert "got 'mmx'" in reason


def test_kernels_include_no_torch_and_only_the_binding_knows_python() -> None:
    for path in (ROOT / "csrc").rglob("*.*"):
        text = path.read_text() if path.suffix in {".h", ".cpp", ".cu", ".cuh"} else ""
        assert "torch/" not in text, path
        assert "ATen" not in text, path
        assert "pybind11" not in text or path.name.startswith("bind"), path


def objects() -> list[Path]:
    """Object files of a development build, where there is one; sanitizers add symbols of their own."""
    build = ROOT / "build"
    return sorted(path for path in build.rglob("csrc/**/*.o") if "sanitize" not in path.relative_to(build).parts)


def test_only_files_of_an_instruction_set_use_it() -> None:
    baseline = [path for path in objects() if not path.stem.split(".")[0].endswith(("_avx2", "_avx512", "_avx512bf16"))]
    if shutil.which("objdump") is None or not baseline:
        return
    for path in baseline:
        listing = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True).stdout
        assert "%ymm" not in listing, path
        assert "%zmm" not in listing, path


def test_files_of_an_instruction_set_leave_no_shared_function_behind() -> None:
    """A weak symbol from an AVX file could replace the baseline's copy at link time and crash older processors."""
    special = [path for path in objects() if path.stem.split(".")[0].endswith(("_avx2", "_avx512", "_avx512bf16"))]
    if shutil.which("nm") is None:
        return
    for path in special:
        symbols = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout
        weak = [line for line in symbols.splitlines() if len(line) > 17 and line[17] in "WV"]
        foreign = [line for line in weak if not any(f"fastimpute::{isa}" in line for isa in ("avx2", "avx512"))]
        assert not foreign, f"{path}: {foreign}"

"""The CUDA kernels' bodies over emulated lanes, built once: a library for ctypes, and the module `_cuda` itself."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pybind11

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ("common/errors.cpp", "common/noise.cpp", "spt_weights/spt_weights_checks.cpp",
          "particle_step/particle_step_checks.cpp", "energy_mlp/energy_body_cuda.cpp",
          "proximal_recursion/checks.cpp", "proximal_recursion/recursion_plan_cuda.cpp",
          "diffusion_step/diffusion_step_checks.cpp", "ball_quantile/ball_quantile_checks.cpp",
          "unrolled_attention/unrolled_attention_checks.cpp",
          "unrolled_attention/unrolled_attention_checks_cuda.cpp",
          "gaussian_conditional/gaussian_conditional_checks.cpp",
          "gaussian_whitening/gaussian_whitening_checks.cpp")  # fmt: skip

# Shared memory a block may have, bytes.
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90a": 227 * 1024}


def build(folder: Path) -> Path:
    """Compiles tests/cuda and the binding into one shared library."""
    csrc = ROOT / "csrc"
    library = folder / "_cuda.so"
    own = sorted((ROOT / "tests" / "cuda").glob("*.cpp"))
    packs, bindings = csrc.glob("*/*_pack_cuda.cpp"), csrc.glob("bind*_cuda.cpp")
    sources = [*own, *sorted(bindings), *sorted(packs), *(csrc / name for name in CHECKS)]
    places = (csrc, ROOT / "tests" / "cuda", pybind11.get_include(), sysconfig.get_paths()["include"])
    includes = [part for place in places for part in ("-I", str(place))]
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    subprocess.run(["c++", *flags, *includes, *map(str, sources), "-o", str(library)], check=True)
    return library


def functions(library: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(library))


def module(library: Path) -> ModuleType:
    """`_cuda` whose device is main memory."""
    loader = importlib.machinery.ExtensionFileLoader("_cuda", str(library))
    spec = importlib.util.spec_from_loader("_cuda", loader)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded)
    return loaded

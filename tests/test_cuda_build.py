"""CUDA kernels without a GPU: what nvcc makes of them, and their bodies run lane by lane on the host.

Nothing here shows that a kernel runs on a GPU, nor how fast. The bodies are compiled as plain C++ over emulated lanes
(tests/cuda/emulated_lane.h), so wrong indices, formulas and meeting points show.
"""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops.particle_step import AdamState, Noise
from fastimpute.ops.particle_step import reference as step_reference
from fastimpute.ops.spt_weights import reference as weights_reference

ROOT = Path(__file__).resolve().parents[1]
KERNELS = sorted((ROOT / "csrc").glob("*/*.cu"))
TOOLKIT = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
# Shared memory a block may have, bytes.
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90a": 227 * 1024}
CODES = [f"-gencode=arch=compute_{code},code=sm_{code}" for code in ("80", "90a")]

needs_nvcc = pytest.mark.skipif(TOOLKIT is None, reason="no CUDA compiler on this machine: nothing to compile with")


# ---- emulated lanes --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("emulated") / "emulated_ops.so"
    sources = sorted((ROOT / "tests" / "cuda").glob("*.cpp")) + sorted((ROOT / "csrc").glob("*/*_pack_cuda.cpp"))
    includes = ["-I", str(ROOT / "csrc"), "-I", str(ROOT / "tests" / "cuda")]
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    errors = str(ROOT / "csrc" / "common" / "errors.cpp")
    subprocess.run(["c++", *flags, *includes, *map(str, sources), errors, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


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


# ---- what nvcc makes of them -----------------------------------------------------------------------------------------


class Resources(NamedTuple):
    """What ptxas reports of one kernel."""

    code: str
    name: str
    registers: int
    spilled: int
    stack: int
    shared: int


class Compiled(NamedTuple):
    path: Path
    kernels: list[Resources]


REPORT = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<code>sm_\w+)'\n.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r"ptxas info *: Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def resources(report: str) -> list[Resources]:
    found = []
    for match in REPORT.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        spilled = int(match["stores"]) + int(match["loads"])
        numbers = (int(match["registers"]), spilled, int(match["stack"]), int(shared[1]) if shared else 0)
        found.append(Resources(match["code"], match["name"], *numbers))
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Compiled]:
    """Objects for both chips, each source compiled once, and what ptxas says of it."""
    folder = tmp_path_factory.mktemp("cuda")
    done: dict[str, Compiled] = {}

    def compile_once(op: str) -> Compiled:
        if op not in done:
            path = folder / f"{op}.o"
            source = ROOT / "csrc" / op / f"{op}.cu"
            options = [
                "-std=c++20",
                "-O3",
                "--expt-relaxed-constexpr",
                "-I",
                str(ROOT / "csrc"),
                *CODES,
                "-Xptxas",
                "-v",
            ]
            command = [str(TOOLKIT), *options, "-c", str(source), "-o", str(path)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            done[op] = Compiled(path, resources(result.stderr))
        return done[op]

    return compile_once


KERNELS_OF = {"spt_weights": 8, "particle_step": 8}
every_kernel = pytest.mark.parametrize("op", sorted(KERNELS_OF))


def test_every_cuda_source_is_compiled_here() -> None:
    assert {path.stem for path in KERNELS} == set(KERNELS_OF)


@needs_nvcc
@every_kernel
def test_kernels_fit_the_chips_without_spilling(compiled: Callable[[str], Compiled], op: str) -> None:
    kernels = compiled(op).kernels
    assert {code: sum(kernel.code == code for kernel in kernels) for code in SHARED_LIMIT} == dict.fromkeys(
        SHARED_LIMIT, KERNELS_OF[op]
    )
    for kernel in kernels:
        assert kernel.spilled == 0, kernel
        assert kernel.stack == 0, kernel
        assert kernel.registers <= 255, kernel
        assert kernel.shared <= SHARED_LIMIT[kernel.code], kernel


def test_without_a_driver_or_a_build_the_reason_is_told_in_words() -> None:
    reason = _native.why_cuda_missing()
    if reason is None:
        assert _native.cuda().why_unusable() is None
        return
    assert re.search("not built|do not load|no CUDA driver|CUDA driver", reason)
    with pytest.raises(RuntimeError, match=r"^fastimpute: .*CUDA"):
        _native.cuda()

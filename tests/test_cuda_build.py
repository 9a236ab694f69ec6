"""CUDA kernels without a GPU: what nvcc makes of them. Nothing here shows that a kernel runs on a GPU, nor how fast."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cuda_emulation import SHARED_LIMIT

from fastimpute import _native

ROOT = Path(__file__).resolve().parents[1]
KERNELS = sorted((ROOT / "csrc").glob("*/*.cu"))
TOOLKIT = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
CODES = [f"-gencode=arch=compute_{code},code=sm_{code}" for code in ("80", "90a")]

needs_nvcc = pytest.mark.skipif(TOOLKIT is None, reason="no CUDA compiler on this machine: nothing to compile with")


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
    report: str
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

    def compile_once(name: str) -> Compiled:
        if name not in done:
            path = folder / f"{name}.o"
            source = next(kernel for kernel in KERNELS if kernel.stem == name)
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
            done[name] = Compiled(path, result.stderr, resources(result.stderr))
        return done[name]

    return compile_once


KERNELS_OF = {
    "ball_quantile": 8,
    "diffusion_step": 8,
    "energy_group": 3,
    "energy_mlp": 2,
    "gaussian_conditional": 2,
    "gaussian_whitening": 2,
    "particle_step": 8,
    "proximal_recursion": 4,
    "score_mlp": 1,
    "spt_weights": 8,
    "unrolled_attention": 8,
}
every_kernel = pytest.mark.parametrize("source", sorted(KERNELS_OF))


def test_every_cuda_source_is_compiled_here() -> None:
    assert {path.stem for path in KERNELS} == set(KERNELS_OF)


@needs_nvcc
@pytest.mark.slow
@every_kernel
def test_kernels_fit_the_chips_without_spilling(compiled: Callable[[str], Compiled], source: str) -> None:
    kernels = compiled(source).kernels
    assert {code: sum(kernel.code == code for kernel in kernels) for code in SHARED_LIMIT} == dict.fromkeys(
        SHARED_LIMIT, KERNELS_OF[source]
    )
    for kernel in kernels:
        assert kernel.spilled == 0, kernel
        assert kernel.stack == 0, kernel
        assert kernel.registers <= 255, kernel
        assert kernel.shared <= SHARED_LIMIT[kernel.code], kernel


def disassembler() -> str | None:
    """cuobjdump of the toolkit, or the one the triton package carries."""
    folders = [str(Path(str(TOOLKIT)).parent), "/usr/local/cuda/bin"]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.submodule_search_locations is not None:
        folders += [f"{place}/backends/nvidia/bin" for place in triton.submodule_search_locations]
    return shutil.which("cuobjdump") or shutil.which("cuobjdump", path=os.pathsep.join(folders))


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize(("op", "directions"), [("energy_mlp", 2), ("score_mlp", 1)])
def test_the_network_runs_on_tensor_cores(compiled: Callable[[str], Compiled], op: str, directions: int) -> None:
    tool = disassembler()
    if tool is None:  # the intermediate code tells as much, but for what the assembler might leave out
        source = ROOT / "csrc" / op / f"{op}.cu"
        options = ["-std=c++20", "--expt-relaxed-constexpr", "-I", str(ROOT / "csrc"), "-arch=sm_80", "-ptx", "-o", "-"]
        listing = subprocess.run(
            [str(TOOLKIT), *options, str(source)], capture_output=True, text=True, check=True
        ).stdout
        products = listing.count("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
        assert products >= KERNELS_OF[op] * directions * 64
        return
    path = compiled(op).path
    listing = subprocess.run([tool, "-sass", str(path)], capture_output=True, text=True, check=True).stdout
    functions = listing.split("Function : ")[1:]
    assert len(functions) == 2 * KERNELS_OF[op]
    for function in functions:
        # A product with W1 and one with W2 each way, 32 tiles (W1's way back: 2) of one step each; with H v twice that.
        products = function.count("HMMA.16816.F32.BF16")
        assert products >= (directions + 1) * 32, function.split()[0]
        assert function.count("LDSM.16.M88.4") >= 32, function.split()[0]
        assert function.count("LDSM.16.MT88.4") >= (1, 16)[directions - 1], function.split()[0]
        assert "LDL" not in function, function.split()[0]
        assert "STL" not in function, function.split()[0]


@needs_nvcc
@pytest.mark.slow
def test_products_of_warpgroups_are_in_flight_together(compiled: Callable[[str], Compiled]) -> None:
    """The assembler waits for each of them where it cannot give them the registers they ask for, and says so."""
    built = compiled("energy_group")
    assert re.findall(r"\(C75\d\d\).*", built.report) == []
    tool = disassembler()
    if tool is None:
        return
    listing = subprocess.run([tool, "-sass", str(built.path)], capture_output=True, text=True, check=True).stdout
    functions = [part for part in listing.split("Function : ")[1:] if "HGMMA" in part]
    assert len(functions) == KERNELS_OF["energy_group"]  # none on sm_80
    for steps in (2, 6, 11):
        function = next(part for part in functions if f"ILi{steps}E" in part.split()[0])
        # W1's steps of 16 inputs and W2's forward, W2's and W1's back: transposed; one wait for all steps of a product.
        assert function.count("HGMMA.64x256x16.F32.BF16") == steps + 2 * 16
        assert function.count(f"HGMMA.64x{16 * steps}x16.F32.BF16") == 16
        assert function.count(".tnspB") == 2 * 16
        assert len(re.findall(r"HGMMA[^;]*gsb0", function)) == 4
        assert "LDL" not in function
        assert "STL" not in function


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "accesses"),
    [
        ("diffusion_step", [(2, 1), (3, 1), (8, 4), (12, 4)]),
        ("ball_quantile", [(8, 1), (8, 1), (16, 1), (16, 1)]),  # as many loads as a lane holds samples: each once
    ],
)
def test_whole_vectors_move_in_accesses_of_16_bytes(op: str, accesses: list[tuple[int, int]]) -> None:
    """Loads and stores of each kernel for aligned rows; the other half of the kernels has none."""
    source = ROOT / "csrc" / op / f"{op}.cu"
    options = ["-std=c++20", "--expt-relaxed-constexpr", "-I", str(ROOT / "csrc"), "-arch=sm_80", "-ptx", "-o", "-"]
    listing = subprocess.run([str(TOOLKIT), *options, str(source)], capture_output=True, text=True, check=True).stdout
    counts = [
        tuple(len(re.findall(rf"{way}\.global\.v4\.[a-z]+32", kernel)) for way in ("ld", "st"))
        for kernel in listing.split(".entry ")[1:]
    ]
    assert sorted(counts) == [(0, 0)] * len(accesses) + accesses


@needs_nvcc
@pytest.mark.slow
def test_registers_of_products_in_flight_are_left_alone(compiled: Callable[[str], Compiled]) -> None:
    """From the fence to the wait nothing else writes their operands or sums."""
    tool = disassembler()
    if tool is None:
        return
    path = compiled("energy_group").path
    listing = subprocess.run([tool, "-sass", str(path)], capture_output=True, text=True, check=True).stdout
    flights = re.findall(r"WARPGROUP\.ARRIVE(.*?)WARPGROUP\.DEPBAR", listing, re.DOTALL)
    assert len(flights) == 4 * KERNELS_OF["energy_group"]
    for flight in flights:
        products = re.findall(r"HGMMA\.64x(\d+)x16\S* R(\d+), R(\d+)", flight)
        taken = {int(first) + k for width, first, _ in products for k in range(int(width) // 2)}
        taken |= {int(operand) + k for _, _, operand in products for k in range(4)}
        others = "\n".join(line for line in flight.splitlines() if "HGMMA" not in line)
        results = re.findall(r"\*/ +(?:@!?U?P\d )?([A-Z]\S+) +R(\d+)", others)
        pairs = ("WIDE", ".64", "CS2R")
        written = {int(first) + k for name, first in results for k in range(1 + any(pair in name for pair in pairs))}
        assert products
        assert not taken & written


def test_no_kernel_adds_floats_atomically() -> None:
    """Sums whose order depends on the schedule would differ from run to run; those of integers do not."""
    calls = []
    for path in sorted((ROOT / "csrc").rglob("*.cu*")):
        calls += [(path.name, call) for call in re.findall(r"\batomic\w*\([^;]*;", path.read_text())]
        assert "red.global" not in path.read_text(), path
    assert {name for name, _ in calls} == {"device.cuh"}
    assert all("static_cast<unsigned long long>" in call for _, call in calls)


def test_without_a_driver_or_a_build_the_reason_is_told_in_words() -> None:
    reason = _native.why_cuda_missing()
    if reason is None:
        assert _native.cuda().why_unusable() is None
        return
    assert re.search("not built|do not load|no CUDA driver|CUDA driver", reason)
    with pytest.raises(RuntimeError, match=r"^fastimpute: .*CUDA"):
        _native.cuda()

"""CUDA kernels without a GPU: what nvcc makes of them, and their bodies run lane by lane on the host.

Nothing here shows that a kernel runs on a GPU, nor how fast. The bodies are compiled as plain C++ over emulated lanes
(tests/cuda/emulated_lane.h), so wrong indices, formulas and meeting points show.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cuda_emulation
import pytest
import torch
from closeness import assert_close, same_bits
from networks import random_network, to_dtype
from torch import Tensor

from fastimpute import _native
from fastimpute.ops.energy_mlp import reference as energy_reference
from fastimpute.ops.network import Network
from fastimpute.ops.particle_step import AdamState, Noise
from fastimpute.ops.particle_step import reference as step_reference
from fastimpute.ops.score_mlp import reference as score_reference
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

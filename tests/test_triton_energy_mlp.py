"""energy_mlp's Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import random_network, to_dtype
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels.energy_mlp import configuration, energy_mlp_kernel, state_tiles
from fastimpute.kernels.matrix import padded
from fastimpute.ops.energy_mlp import _triton_refusal

FLOATS = ("x", "b1", "b2", "w3", "b3", "modulation", "log_p", "score", "state")
SMALL = tuple(f"{name}_ptr" for name in ("w1", "b1", "w2", "b2", "w3", "b3", "modulation", "precision", "mean"))
# The instructions of the tensor cores, by capability.
MATRIX = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def compiled(
    capability: int, element: str, *, hvp: bool, dim: int = 168, hidden: int = 256, gaussian: bool = False,
    indexed: bool = False, **sizes: int,
) -> Build:  # fmt: skip
    tiles = configuration(2 if element == "bf16" else 4, hvp)
    pointers = dict.fromkeys(FLOATS, "fp32") | dict.fromkeys(("w1", "w2", "operand"), element)
    optional = {"curved": hvp, "index": indexed, "precision": gaussian, "mean": gaussian, "vector": False}
    pointers |= {name: "i64" if name == "index" else "fp32" for name, present in optional.items() if present}
    constants: dict[str, Any] = {f"{name}_ptr": None for name, present in optional.items() if not present}
    constants |= {
        "D": dim, "PADDED": padded(dim), "H": hidden, "ROWS": tiles.rows, "COLUMNS": tiles.columns,
        "HIDDEN": tiles.hidden, "CHUNK": tiles.chunk, "STATES": state_tiles(hvp), **sizes,
    }  # fmt: skip
    named = {f"{name}_ptr": kind for name, kind in pointers.items()}
    return build(energy_mlp_kernel, capability, named, constants, warps=tiles.warps, stages=tiles.stages)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("energy_mlp", place)


@pytest.mark.parametrize(
    ("element", "capability"), [*(("bf16", capability) for capability in CAPABILITIES), ("fp32", 80), ("fp32", 90)]
)
def test_fits_the_chip_without_spills(element: str, capability: int) -> None:
    found = compiled(capability, element, hvp=False)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    if element == "bf16":
        assert found.tensor_core_instructions() == {MATRIX[capability]}
    else:
        assert found.tensor_core_instructions() == set()  # full float32: no tf32


@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_hvp_with_everything_else_fits_hopper(element: str) -> None:
    found = compiled(90, element, hvp=True, gaussian=True, indexed=True)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[90]
    assert found.narrow_offsets(*(name for name in SMALL if name != "modulation_ptr")) == []


@pytest.mark.parametrize("hidden", [64, 128])
def test_other_widths_compile(hidden: int) -> None:
    assert compiled(90, "bf16", hvp=False, hidden=hidden, dim=7).stack == 0


def test_sizes_of_one_which_triton_compiles_in() -> None:
    assert compiled(90, "fp32", hvp=False, dim=1, hidden=64, rows=1, x_stride=1).registers > 0


def test_rows_are_found_by_64_bit_offsets() -> None:
    found = compiled(90, "bf16", hvp=False)
    assert found.narrow_offsets(*SMALL) == []
    assert found.narrow_offsets() != []  # those of the weights have 32, so that the check sees them


def test_what_the_kernel_does_not_take_is_refused() -> None:
    network = to_dtype(random_network("energy", 5, hidden=64), torch.float32)
    x = torch.randn(3, 5)
    assert _triton_refusal(x, None, network) is None
    assert "x is torch.float64" in (_triton_refusal(x.double(), None, network) or "")
    wide = to_dtype(random_network("energy", 5, hidden=96), torch.float32)
    assert _triton_refusal(x, None, wide) == "hidden width is 96, the kernel takes 64 or 128 or 256"
    trained = network._replace(w1=network.w1.clone().requires_grad_())
    assert "require gradients" in (_triton_refusal(x, None, trained) or "")
    assert _triton_refusal(x[:, :0], None, network._replace(w1=network.w1[:, :0])) == "the particles have no cells"

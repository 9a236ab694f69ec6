"""proximal_recursion's Triton kernels: run, and as the compilers see them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import random_network, to_dtype
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels import energy_mlp, particle_loop
from fastimpute.kernels import proximal_recursion as kernels
from fastimpute.kernels.matrix import padded
from fastimpute.kernels.spt_weights import GROUP_MOST
from fastimpute.ops.proximal_recursion import _triton_refusal
from fastimpute.ops.recursion_arguments import Settings

SIZES = {"D": 84, "WIDTH": 7, "SETS": 3}
KERNELS: dict[str, tuple[Any, kernels.Configuration, dict[str, Any]]] = {
    "gather": (kernels.gather_kernel, kernels.GATHER, {**SIZES, "BLOCK": kernels.GATHER.rows}),
    "any missing": (
        kernels.any_missing_kernel,
        kernels.ANY_MISSING,
        {**SIZES, "ROWS": kernels.ANY_MISSING.rows, "COLUMNS": kernels.ANY_MISSING.columns},
    ),
    "direction": (
        kernels.direction_kernel,
        kernels.DIRECTION,
        {"D": 84, "ROWS": kernels.DIRECTION.rows, "COLUMNS": kernels.DIRECTION.columns},
    ),
    "average": (
        kernels.average_kernel,
        kernels.AVERAGE,
        {"SENSORS": 21, "WINDOW": 12, "WIDTH": 7, "SETS": 3, "BLOCK": kernels.AVERAGE.rows},
    ),
}
ELEMENTS = (
    dict.fromkeys(("series", "x", "direction", "curved", "score_sq", "mass"), "fp32")
    | dict.fromkeys(("missing", "hidden", "found"), "i1")
    | dict.fromkeys(("starts", "columns", "patch", "place", "owner", "owner_end"), "i64")
    | dict.fromkeys(("carried", "carry"), "fp64")
)
SMALL = tuple(f"{name}_ptr" for name in ("w1", "b1", "w2", "b2", "w3", "b3", "precision", "mean"))


def compiled(name: str, capability: int, *absent: str, **sizes: int) -> Build:
    kernel, tiles, constants = KERNELS[name]
    pointers = {argument: ELEMENTS[argument[:-4]] for argument in kernel.arg_names if argument.endswith("_ptr")}
    named = {argument: kind for argument, kind in pointers.items() if argument not in absent}
    return build(kernel, capability, named, {**constants, **dict.fromkeys(absent), **sizes}, warps=tiles.warps)


def compiled_loop(capability: int, element: str, head: str, *, hvp: bool = False, every: bool = False) -> Build:
    """The loop at the width and dimension of the network's own tests; `every`: with all that is optional."""
    size = 2 if element == "bf16" else 4
    tiles = particle_loop.configuration(size, head == "direct", hvp)
    pointers = dict.fromkeys(("x", "mass", "b1", "b2", "b3", "modulation", "log_p", "direction", "state"), "fp32")
    pointers |= dict.fromkeys(("w1", "w2", "operand"), element) | {"hidden": "i1"}
    pointers["w3"] = element if head == "direct" else "fp32"
    optional = dict.fromkeys(("index", "precision", "mean", "m", "v", "corrections", "keys"), every)
    optional |= {"sigma": head == "direct", "curved": hvp}
    kinds = {"index": "i64", "keys": "i64"}
    pointers |= {name: kinds.get(name, "fp32") for name, present in optional.items() if present}
    constants: dict[str, Any] = {f"{name}_ptr": None for name, present in optional.items() if not present}
    constants |= {
        "D": 168, "PADDED": padded(168), "H": 256, "ROWS": tiles.rows, "COLUMNS": tiles.columns,
        "HIDDEN": tiles.hidden, "CHUNK": tiles.chunk, "SENSORS": 7, "BLOCK": particle_loop.STEP_BLOCK,
        "STATES": 1 if head == "direct" else energy_mlp.state_tiles(hvp),
    }  # fmt: skip
    named = {f"{name}_ptr": kind for name, kind in pointers.items()}
    kernel = particle_loop.particle_loop_kernel
    return build(kernel, capability, named, constants, warps=tiles.warps, stages=tiles.stages)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("proximal_recursion", place)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", KERNELS)
def test_nothing_spills_and_offsets_have_64_bits(name: str, capability: int) -> None:
    found = compiled(name, capability)
    assert found.stack == 0
    assert found.narrow_offsets() == []


@pytest.mark.parametrize(
    ("capability", "element", "head", "hvp"),
    [(80, "bf16", "direct", False), (90, "bf16", "energy", True), (100, "fp32", "direct", False)],
)
def test_the_loop_fits_the_chip_with_everything(capability: int, element: str, head: str, hvp: bool) -> None:
    found = compiled_loop(capability, element, head, hvp=hvp, every=True)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    assert bool(found.tensor_core_instructions()) == (element == "bf16")
    assert found.narrow_offsets(*SMALL) == []


@pytest.mark.parametrize(
    ("name", "absent", "ones"),
    [
        ("gather", ("patch_ptr",), ("first_patch", "cells", "series_stride", "missing_stride", "D", "WIDTH", "SETS")),
        ("any missing", (), ("patches", "missing_stride", "D", "WIDTH", "SETS")),
        ("direction", ("curved_ptr",), ("rows", "D")),
        ("average", ("place_ptr",), ("last_row", "last_window", "last_place", "halvings", "SENSORS", "WINDOW")),
    ],
)
def test_sizes_of_one_and_absent_parts_compile(name: str, absent: tuple[str, ...], ones: tuple[str, ...]) -> None:
    assert compiled(name, 90, *absent, **dict.fromkeys(ones, 1)).stack == 0


def test_what_the_kernels_do_not_take_is_refused() -> None:
    network = to_dtype(random_network("energy", 6, hidden=64), torch.float32)
    series = torch.zeros(5, 2)

    def refusal(series: Any, network: Any = network, log_ref: Any = None, eta_w: float = 0.2, group: int = 8) -> Any:
        numbers = ("energy", 1.0, 1, 0.1, 0.0, eta_w, 0.1, 8.0, group, False, False, False, 0)
        return _triton_refusal(series, network, log_ref, Settings(*numbers))

    assert refusal(series) is None
    assert refusal(series, group=GROUP_MOST + 1) == "group is 16385, the kernels take up to 16384"
    assert refusal(series, group=GROUP_MOST + 1, eta_w=0.0) is None
    assert "series is torch.float64" in refusal(series.double())
    assert "log_ref is torch.float64" in refusal(series, log_ref=torch.zeros(3).double())
    assert "gradients are required" in refusal(series.clone().requires_grad_())
    assert "require gradients" in refusal(series, network._replace(w1=network.w1.clone().requires_grad_()))
    wide = to_dtype(random_network("energy", 6, hidden=96), torch.float32)
    assert refusal(series, wide) == "hidden width is 96, the kernel takes 64 or 128 or 256"

"""gaussian_conditional's Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels import gaussian_conditional as kernel
from fastimpute.kernels.cholesky import DIM_MOST, configuration
from fastimpute.kernels.masked import lanes
from fastimpute.ops.gaussian_conditional import _triton_refusal

POINTERS = {
    "x": "fp32", "missing": "i1", "mean": "fp64", "matrices": "fp64", "filled": "fp32", "deviation": "fp32",
    "status": "i32", "scratch": "fp64", "cells": "i32",
}  # fmt: skip
REGISTERS = 65536  # of a multiprocessor


def compiled(capability: int, dim: int, *, spread: bool, way: int = 58, **sizes: int) -> Build:
    tiles = configuration(dim)
    pointers = {f"{name}_ptr": kind for name, kind in POINTERS.items() if spread or name != "deviation"}
    constants: dict[str, Any] = {} if spread else {"deviation_ptr": None}
    constants |= {
        "D": dim, "WAY": way, "LANES": lanes(dim), "TILES": kernel.most_tiles(dim, way), "TILE": tiles.tile,
        **sizes,
    }  # fmt: skip
    return build(
        kernel.gaussian_conditional_kernel, capability, pointers, constants, warps=tiles.warps, stages=tiles.stages
    )


def check_fits(found: Build, capability: int, dim: int) -> None:
    tiles = configuration(dim)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability] // tiles.programs
    assert found.registers * 32 * tiles.warps * tiles.programs <= REGISTERS
    assert "mma.sync" in found.ptx
    assert found.narrow_offsets("mean_ptr", "matrices_ptr") == []


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("gaussian_conditional", place)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_fits_the_chip_without_spills_on_tensor_cores(capability: int) -> None:
    check_fits(compiled(capability, 168, spread=True), capability, 168)


def test_larger_tiles_fit_hopper() -> None:
    found = compiled(90, DIM_MOST, spread=True, way=-1)
    check_fits(found, 90, DIM_MOST)
    assert found.narrow_offsets() != []  # those into the matrix have 32 bits, so that the check sees them


def test_the_mean_alone_with_sizes_of_one_which_triton_compiles_in() -> None:
    assert compiled(90, 1, spread=False, way=100, rows=1, x_stride=1, missing_stride=1).registers > 0


def test_what_the_kernel_does_not_take_is_refused() -> None:
    one = {"x": torch.zeros(1, DIM_MOST)}
    assert _triton_refusal(one) is None
    assert _triton_refusal({"x": one["x"].double()}) is None
    assert "x is torch.float16" in (_triton_refusal({"x": one["x"].half()}) or "")
    wide = {"x": torch.zeros(1, DIM_MOST + 1)}
    assert _triton_refusal(wide) == "windows have 513 cells, the kernel takes up to 512"
    assert "gradients are required" in (_triton_refusal({"x": one["x"].requires_grad_()}) or "")

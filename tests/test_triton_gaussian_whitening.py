"""gaussian_whitening's Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

import pytest
import torch
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels.cholesky import DIM_MOST, configuration
from fastimpute.kernels.gaussian_whitening import gaussian_whitening_kernel
from fastimpute.kernels.masked import lanes
from fastimpute.ops.gaussian_whitening import _triton_refusal

POINTERS = {
    "x": "fp32", "missing": "i1", "mean": "fp64", "precision": "fp64", "filled": "fp32", "deviation": "fp32",
    "cells": "i64", "real": "i1", "factor": "fp32", "inverse": "fp32", "status": "i32", "scratch": "fp64",
    "list": "i32",
}  # fmt: skip

REGISTERS = 65536  # of a multiprocessor


def compiled(capability: int, dim: int, **sizes: int) -> Build:
    tiles = configuration(dim)
    pointers = {f"{name}_ptr": kind for name, kind in POINTERS.items()}
    constants = {"D": dim, "LANES": lanes(dim), "TILE": tiles.tile, **sizes}
    return build(gaussian_whitening_kernel, capability, pointers, constants, warps=tiles.warps, stages=tiles.stages)


def check_fits(found: Build, capability: int, dim: int) -> None:
    tiles = configuration(dim)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability] // tiles.programs
    assert found.registers * 32 * tiles.warps * tiles.programs <= REGISTERS
    assert "mma.sync" in found.ptx
    assert found.narrow_offsets("precision_ptr") == []


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("gaussian_whitening", place)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_fits_the_chip_without_spills_on_tensor_cores(capability: int) -> None:
    check_fits(compiled(capability, 168), capability, 168)


def test_larger_tiles_fit_hopper() -> None:
    check_fits(compiled(90, DIM_MOST), 90, DIM_MOST)


def test_sizes_of_one_which_triton_compiles_in() -> None:
    assert compiled(90, 1, rows=1, most=1, x_stride=1, missing_stride=1, mean_stride=1).registers > 0


def test_what_the_kernel_does_not_take_is_refused() -> None:
    one = torch.zeros(1, DIM_MOST)
    assert _triton_refusal({"x": one}) is None
    assert _triton_refusal({"x": one.double()}) is None
    assert "x is torch.float16" in (_triton_refusal({"x": one.half()}) or "")
    wide = torch.zeros(1, DIM_MOST + 1)
    assert _triton_refusal({"x": wide}) == "windows have 513 cells, the kernel takes up to 512"
    assert "gradients are required" in (_triton_refusal({"x": one.requires_grad_()}) or "")

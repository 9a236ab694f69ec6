"""diffusion_step's Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton_builds import CAPABILITIES, PLACES, Build, build, run_kernel_tests

from fastimpute.kernels.diffusion_step import CONFIGURATIONS, diffusion_step_kernel
from fastimpute.ops.diffusion_step import _triton_refusal

every_gpu = pytest.mark.parametrize("capability", CAPABILITIES)
every_variant = pytest.mark.parametrize("variant", CONFIGURATIONS)
FLOATING = ("v_ptr", "denoised_ptr", "previous_ptr", "v_new_ptr")
STRIDES = ("V_STRIDE", "DENOISED_STRIDE", "PREVIOUS_STRIDE", "MISSING_STRIDE")


def compiled(
    variant: str, capability: int, dim: int = 84, stride: int = 84, element: str = "fp32", **sizes: int
) -> Build:
    pointers = {**dict.fromkeys(FLOATING, element), "missing_ptr": "i1", "keys_ptr": "i64"}
    absent = {"plain": ("keys_ptr",), "noise": ()}[variant]
    warps = CONFIGURATIONS[variant]
    width = 4 if element == "fp32" else 8
    constants: dict[str, Any] = {
        **dict.fromkeys(absent),
        **dict.fromkeys(STRIDES, stride),
        "D": dim,
        "SENSORS": 7,
        "VECTOR": width,
        "WIDTH": width if dim % width == 0 else 1,
        "BLOCK": 32 * warps * width,
        **sizes,
    }
    pointers = {name: kind for name, kind in pointers.items() if name not in absent}
    return build(diffusion_step_kernel, capability, pointers, constants, warps=warps)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("diffusion_step", place)


@every_gpu
@every_variant
def test_nothing_spills_and_offsets_have_64_bits(variant: str, capability: int) -> None:
    found = compiled(variant, capability)
    assert found.stack == 0
    assert found.shared == 0
    assert found.narrow_offsets() == []


@pytest.mark.parametrize(
    ("variant", "capability", "element", "dim", "stride"),
    [
        ("plain", 80, "fp32", 84, 84),
        ("plain", 90, "fp32", 84, 96),
        ("plain", 100, "fp32", 7, 7),
        ("plain", 90, "bf16", 168, 168),
        ("noise", 90, "fp32", 84, 96),
        ("noise", 90, "bf16", 168, 168),
    ],
)
def test_accesses_are_16_bytes_wide(variant: str, capability: int, element: str, dim: int, stride: int) -> None:
    found = compiled(variant, capability, dim, stride, element)
    assert found.stack == 0
    assert found.ptx.count("ld.global.v4.b32") == 3  # v, denoised and previous
    assert found.ptx.count("st.global.v4.b32") == 1


def test_rows_without_whole_vectors_are_served_too() -> None:
    assert compiled("noise", 90, 7, 9, "fp16", VECTOR=1).stack == 0


def test_float64_and_gradients_are_refused() -> None:
    one = torch.zeros(1, 1)
    assert _triton_refusal({"v": one, "previous": None}) is None
    assert "v is torch.float64" in (_triton_refusal({"v": one.double()}) or "")
    assert "gradients are required" in (_triton_refusal({"v": one.requires_grad_()}) or "")

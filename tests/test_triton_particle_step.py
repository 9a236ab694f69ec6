"""particle_step's Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

from typing import Any

import pytest
from triton_builds import CAPABILITIES, PLACES, Build, build, run_kernel_tests

from fastimpute.kernels.particle_step import CONFIGURATIONS, particle_step_kernel

every_gpu = pytest.mark.parametrize("capability", CAPABILITIES)
every_variant = pytest.mark.parametrize("variant", CONFIGURATIONS)


def compiled(
    variant: str, capability: int, dim: int = 84, stride: int = 84, element: str = "fp32", **sizes: int
) -> Build:
    pointers = dict.fromkeys(("x_ptr", "direction_ptr", "mass_ptr", "x_new_ptr", "m_ptr", "v_ptr"), element)
    pointers |= {"missing_ptr": "i1", "keys_ptr": "i64"}
    absent = {"plain": ("m_ptr", "v_ptr", "keys_ptr"), "adam": ("keys_ptr",), "noise": ("m_ptr", "v_ptr")}[variant]
    block, warps = CONFIGURATIONS[variant]
    strides = dict.fromkeys(("X_STRIDE", "DIRECTION_STRIDE", "MISSING_STRIDE", "M_STRIDE", "V_STRIDE"), stride)
    constants: dict[str, Any] = {
        **dict.fromkeys(absent),
        **strides,
        "D": dim,
        "SENSORS": 7,
        "VECTOR": 4,
        "BLOCK": block,
        **sizes,
    }
    return build(
        particle_step_kernel,
        capability,
        {name: kind for name, kind in pointers.items() if name not in absent},
        constants,
        warps=warps,
    )


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("particle_step", place)


@every_gpu
@every_variant
def test_nothing_spills_and_offsets_have_64_bits(variant: str, capability: int) -> None:
    found = compiled(variant, capability)
    assert found.stack == 0
    assert found.shared == 0
    assert found.narrow_offsets() == []


@every_gpu
@pytest.mark.parametrize(("dim", "stride"), [(84, 84), (84, 96), (7, 7)])
def test_accesses_are_16_bytes_wide(capability: int, dim: int, stride: int) -> None:
    ptx = compiled("adam", capability, dim, stride).ptx
    assert ptx.count("st.global.v4.b32") == 3  # x, m and v
    assert ptx.count("ld.global.v4.b32") == 4  # x, direction, m and v


def test_sizes_of_one_which_triton_compiles_in() -> None:
    assert compiled("noise", 90, 1, 1, SENSORS=1, VECTOR=1, vectors=1).stack == 0


def test_takes_bfloat16() -> None:
    assert compiled("plain", 90, element="bf16").stack == 0

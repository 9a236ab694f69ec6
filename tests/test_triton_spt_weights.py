"""spt_weights' Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

import pytest
import torch
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels.spt_weights import GROUP_MOST, configuration, spt_weights_kernel
from fastimpute.ops.spt_weights import _triton_refusal


def compiled(capability: int, group: int, *, robust: bool = False, **sizes: int) -> Build:
    groups, lanes, warps = configuration(group)
    pointers = dict.fromkeys(("log_w_ptr", "log_p_ptr", "score_sq_ptr", "log_w_new_ptr", "mass_ptr"), "fp32")
    constants = {"log_ref_ptr": None, "ROBUST": robust, "VECTOR": 4, "GROUPS": groups, "LANES": lanes, **sizes}
    return build(spt_weights_kernel, capability, pointers, constants, warps=warps)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("spt_weights", place)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(("group", "robust"), [(32, False), (512, True), (GROUP_MOST, False)])
def test_nothing_spills_and_offsets_have_64_bits(capability: int, group: int, robust: bool) -> None:
    found = compiled(capability, group, robust=robust)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    assert found.narrow_offsets() == []


@pytest.mark.parametrize("group", [32, 512, 4096])
def test_each_array_is_read_and_written_once_16_bytes_at_a_time(group: int) -> None:
    groups, lanes, warps = configuration(group)
    vectors_of_a_thread = groups * lanes // (32 * warps) // 4
    ptx = compiled(90, group).ptx
    assert ptx.count("ld.global.v4.b32") == 3 * vectors_of_a_thread
    assert ptx.count("st.global.v4.b32") == 2 * vectors_of_a_thread


def test_sizes_of_one_which_triton_compiles_in() -> None:
    assert compiled(90, 4, robust=True, row_vectors=1, group_vectors=1).stack == 0


def test_longer_groups_are_refused() -> None:
    one = {"log_w": torch.zeros(1)}
    assert _triton_refusal(one, GROUP_MOST) is None
    assert _triton_refusal(one, GROUP_MOST + 1) == "group is 16385, the kernel takes up to 16384"
    assert "torch.float64" in (_triton_refusal({"log_w": torch.zeros(1).double()}, 1) or "")

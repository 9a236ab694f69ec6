"""spt_weights' Triton kernel: interpreted, and as the compilers see it."""

from __future__ import annotations

import pytest
import torch
from triton_builds import CAPABILITIES, SHARED_MOST, Build, build, run_interpreted

from fastimpute.kernels.spt_weights import GROUP_MOST, configuration, spt_weights_kernel
from fastimpute.ops.spt_weights import _triton_refusal


def compiled(capability: int, group: int, *, robust: bool = False) -> Build:
    groups, lanes, warps = configuration(group)
    pointers = dict.fromkeys(("log_w_ptr", "log_p_ptr", "score_sq_ptr", "log_w_new_ptr", "mass_ptr"), "fp32")
    constants = {"log_ref_ptr": None, "ROBUST": robust, "VECTOR": 4, "GROUPS": groups, "LANES": lanes}
    return build(spt_weights_kernel, capability, pointers, constants, warps=warps)


def test_runs_interpreted() -> None:
    run_interpreted("spt_weights")


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


def test_longer_groups_are_refused() -> None:
    one = {"log_w": torch.zeros(1)}
    assert _triton_refusal(one, GROUP_MOST) is None
    assert _triton_refusal(one, GROUP_MOST + 1) == "group is 16385, the kernel takes up to 16384"
    assert "torch.float64" in (_triton_refusal({"log_w": torch.zeros(1).double()}, 1) or "")

"""ball_quantile's Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

import pytest
import torch
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels.ball_quantile import SAMPLES_MOST, ball_quantile_kernel, configuration
from fastimpute.ops.ball_quantile import _triton_refusal


def compiled(capability: int, samples: int, dim: int = 84, vector: int = 4, element: str = "fp32") -> Build:
    lanes, columns, warps = configuration(samples, dim, vector)
    pointers = {**dict.fromkeys(("samples_ptr", "centre_ptr", "radius_ptr"), element), "missing_ptr": "i1"}
    constants = {"D": dim, "VECTOR": vector, "SAMPLES": lanes, "COLUMNS": columns}
    return build(ball_quantile_kernel, capability, pointers, constants, warps=warps)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("ball_quantile", place)


def check_resources(found: Build, capability: int) -> None:
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    assert found.narrow_offsets() == []


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("samples", "vector", "element"), [(100, 4, "fp32"), (1000, 8, "bf16"), (SAMPLES_MOST, 1, "fp32")]
)
def test_nothing_spills_and_offsets_have_64_bits(capability: int, samples: int, vector: int, element: str) -> None:
    check_resources(compiled(capability, samples, vector=vector, element=element), capability)


@pytest.mark.parametrize("samples", [20, 200, 500, SAMPLES_MOST])
def test_samples_are_read_once_16_bytes_at_a_time(samples: int) -> None:
    found, layout = compiled(90, samples), configuration(samples, 84, 4)
    check_resources(found, 90)
    cells_of_a_thread = layout.samples * layout.columns // (32 * layout.warps)
    assert found.ptx.count("ld.global.v4.b32") == cells_of_a_thread // 4 + 1  # and the first sample


@pytest.mark.parametrize(("samples", "dim"), [(9, 1), (500, 83)])
def test_rows_without_whole_vectors_are_served_too(samples: int, dim: int) -> None:
    check_resources(compiled(90, samples, dim, vector=1, element="fp16"), 90)


def test_float64_gradients_and_more_samples_are_refused() -> None:
    most = torch.zeros(SAMPLES_MOST, 1, 1)
    assert _triton_refusal(most) is None
    assert "samples is torch.float64" in (_triton_refusal(most.double()) or "")
    more = torch.zeros(SAMPLES_MOST + 1, 1, 1)
    assert _triton_refusal(more) == "samples are 2049 to a window, the kernel takes up to 2048"
    assert "gradients are required" in (_triton_refusal(most.requires_grad_()) or "")

"""unrolled_attention's Triton kernel: run, and as the compilers see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels.unrolled_attention import configuration, scratch_size, unrolled_attention_kernel
from fastimpute.ops.unrolled_attention import _triton_refusal

FLOATS = ("v", "x", "lag_table", "alpha", "sigma", "score", "filled", "scratch")
# Of a size that does not grow with the number of sequences.
SMALL = tuple(f"{name}_ptr" for name in ("lag_table", "mean", "basis", "variance", "decay", "weight"))


def compiled(
    capability: int, frames: int = 96, channels: int = 8, *, cg: bool, length: bool = False, modes: bool = False,
    **sizes: int,
) -> Build:  # fmt: skip
    """modes: with a mean and a channel covariance."""
    tiles = configuration(frames, channels)
    pointers = dict.fromkeys(FLOATS, "fp32") | {"missing": "i1"}
    optional = dict.fromkeys(("mean", "basis", "variance"), modes) | dict.fromkeys(("outer", "inner"), not cg)
    optional |= dict.fromkeys(("decay", "weight"), length)
    pointers |= {name: "fp32" for name, present in optional.items() if present}
    constants: dict[str, Any] = {f"{name}_ptr": None for name, present in optional.items() if not present}
    constants |= {
        "T": frames, "D": channels, "ROWS": tiles.rows, "FRAMES": tiles.frames, "CHANNELS": tiles.channels,
        "SCRATCH": scratch_size(tiles), **sizes,
    }  # fmt: skip
    named = {f"{name}_ptr": kind for name, kind in pointers.items()}
    return build(unrolled_attention_kernel, capability, named, constants, warps=tiles.warps, stages=1)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("unrolled_attention", place)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_fits_the_chip_without_spills(capability: int) -> None:
    found = compiled(capability, cg=True, length=True, modes=True)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    assert found.tensor_core_instructions() == set()  # full float32: no tf32
    assert found.narrow_offsets(*SMALL) == []
    assert found.narrow_offsets() != []  # those of the tables have 32 bits, so that the check sees them


def test_given_steps_fit_and_rates_are_found_by_64_bit_offsets() -> None:
    found = compiled(90, cg=False, length=True, modes=True)
    assert found.stack == 0
    assert found.narrow_offsets(*SMALL) == []


def test_sizes_of_one_which_triton_compiles_in() -> None:
    assert compiled(90, 1, 1, cg=False, sequences=1, v_stride=1, x_stride=1, missing_stride=1).stack == 0


def test_what_the_kernel_does_not_take_is_refused() -> None:
    def refusal(frames: int, channels: int, dtype: torch.dtype = torch.float32) -> str | None:
        return _triton_refusal({"v": torch.zeros(2, frames, channels, dtype=dtype)}, None, None)

    assert refusal(128, 32) is None
    assert refusal(256, 16) is None
    assert refusal(257, 1) == "the sequences have 257 frames, the kernel takes up to 256"
    assert refusal(96, 33) == "the sequences of 96 frames have 33 channels, the kernel takes up to 32"
    assert "v is torch.float64" in (refusal(8, 1, torch.float64) or "")
    trained = torch.ones(1, 4, 2, requires_grad=True)
    assert "gradients are required" in (_triton_refusal({"v": torch.zeros(2, 8, 1)}, trained, trained) or "")

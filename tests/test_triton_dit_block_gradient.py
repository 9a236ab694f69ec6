"""dit_block_gradient's Triton kernels: run, as the compilers see them, and when they serve."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_dit_block import case
from torch import Tensor
from triton_builds import PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute import ops
from fastimpute.kernels import attention_gradient, dit_block_gradient
from fastimpute.kernels.dit_weight_gradient import squares
from fastimpute.ops import backends
from fastimpute.ops.dit_block import Block, gradient_refusal

ATTENTION = ("attended", "by_queries", "by_keys", "by_bias")
HEAVIEST = ("by_keys", "mlp_back")
ROWS = ("mlp_back", "input_back", "weight_products", "weight_sums", "modulation_sums")
# Arguments that no number of rows makes large.
WEIGHTS = tuple(f"{kind}_{part}_ptr" for kind in "wb" for part in ("qkv", "proj", "up", "down"))
OPTIONAL = ("bias_ptr", "memory_ptr", "absent_ptr")


def compiled(which: str, capability: int, *, hidden: int = 64, bare: bool = False, **constants: Any) -> Build:
    module = attention_gradient if which in ATTENTION else dit_block_gradient
    kernel = getattr(module, f"{which}_kernel")
    inner = 4 * hidden
    constants = {
        "H": hidden, "SIZE": 16, "INNER": inner, "SQUARES": squares(hidden, inner),
        "FURTHER": True, "MEMORY": True, **dict.fromkeys(OPTIONAL if bare else ()), **constants,
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    pointers = {name: "i1" if name == "absent_ptr" else "fp32" for name in kernel.arg_names if name.endswith("_ptr")}
    once = which in ("by_queries", "by_bias") or (which == "by_keys" and constants["SIZE"] == 16)
    return build(kernel, capability, pointers, constants, warps=4, stages=1 if once else 2)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("dit_block_gradient", place)


@pytest.mark.parametrize(
    ("which", "capability"),
    [*((which, 90) for which in (*ATTENTION, *ROWS)), *((which, other) for which in HEAVIEST for other in (80, 100))],
)
def test_fits_the_chip_without_spills(which: str, capability: int) -> None:
    found = compiled(which, capability)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    assert found.tensor_core_instructions() == set()  # no tf32
    assert found.narrow_offsets(*WEIGHTS) == []


@pytest.mark.parametrize("which", HEAVIEST)
def test_the_widest_fits_hopper(which: str) -> None:
    assert compiled(which, 90, hidden=128, SIZE=32).stack == 0


@pytest.mark.parametrize("which", ["attended", "by_keys"])
def test_without_what_is_optional(which: str) -> None:
    ones = {"first": 0, "tokens": 1, "memory_tokens": 0, "memory_rows": 1, "bias_rows": 1}
    assert compiled(which, 90, bare=True, MEMORY=False, FURTHER=False, hidden=32, **ones).stack == 0


def refusal(**change: Any) -> str:
    example = case(2, 9, **{"hidden": 32, "heads": 2, **change})
    block = Block(*example.arguments()[:10])
    return gradient_refusal(block, example.heads, example.bias, example.memory) or ""


def test_what_the_kernels_do_not_take_is_refused() -> None:
    assert refusal() == ""
    assert refusal(hidden=96, heads=3) == "hidden width is 96, the gradient's kernel takes 32 or 64 or 128"
    assert refusal(hidden=256, heads=4) == "hidden width is 256, the gradient's kernel takes 32 or 64 or 128"
    assert refusal(heads=4) == "head size is 8, the gradient's kernel takes 16 or 32"
    assert refusal(inner=40) == "the MLP's width is 40, the kernel takes multiples of 32"
    assert "289 tokens in a sequence or its memory" in refusal(memory=289)


@pytest.fixture
def gpu_is_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's "meta" device stands in for the GPU."""
    monkeypatch.setitem(backends.DEVICES, "triton", "meta")
    monkeypatch.setattr(backends, "_why_no_gpu_kernels", lambda backend: None)


@pytest.mark.usefixtures("gpu_is_meta")
def test_a_block_on_a_gpu_is_differentiated_by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    example = case(2, 9, 32, 2, memory=3)
    leaves = [part.to("meta").requires_grad_() if isinstance(part, Tensor) and part.is_floating_point() else part
              for part in example.arguments()]  # fmt: skip
    leaves[12] = None
    out = ops.dit_block(*leaves)
    assert "fastimpute" in type(out.grad_fn).__name__
    wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    found = torch.autograd.grad(out, wanted, torch.empty_like(out))
    assert [part.shape for part in found] == [leaf.shape for leaf in wanted]


@pytest.mark.usefixtures("gpu_is_meta")
def test_a_block_too_wide_for_the_gradient_stays_with_pytorch() -> None:
    tokens, *rest = (part.to("meta") if isinstance(part, Tensor) else part for part in case(2, 9, 256, 4).arguments())
    assert "fastimpute" not in type(ops.dit_block(tokens.requires_grad_(), *rest).grad_fn).__name__

"""dit_block's Triton kernels: run, and as the compilers see them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.kernels import attention
from fastimpute.kernels import dit_block as kernels
from fastimpute.nn.dit_block import DiTBlock
from fastimpute.ops.dit_block import Block, _triton_refusal

KERNELS = {
    "input": kernels.dit_block_input_kernel,
    "attention": attention.attention_kernel,
    "projection": kernels.dit_block_projection_kernel,
    "mlp": kernels.dit_block_mlp_kernel,
}
FLOATS = ("x", "modulation", "b", "b_up", "b_down", "out")
OPERANDS = ("w", "w_up", "w_down", "qkv", "operand")
WEIGHTS = tuple(f"{name}_ptr" for name in ("w", "b", "w_up", "b_up", "w_down", "b_down"))
# The instructions of the tensor cores, by capability; batched products are always `mma.sync`.
MATRIX = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def compiled(
    name: str, capability: int, element: str, hidden: int = 64, *, heads: int = 4, shared: bool = True,
    everything: bool = False, **sizes: int,
) -> Build:  # fmt: skip
    """One of the kernels; everything: with mask and memory."""
    operand_size = 2 if element == "bf16" else 4
    widths = kernels.layout(hidden, heads, 4 * hidden, operand_size)
    tiles, pieces = kernels.configuration(widths.padded, operand_size, shared), kernels.PIECES[operand_size]
    pointers = {f"{name}_ptr": "fp32" for name in (*FLOATS, "bias")} | {f"{name}_ptr": element for name in OPERANDS}
    constants: dict[str, Any] = {
        "H": hidden, "HP": widths.padded, "HEADS": heads, "SIZE": widths.size, "PART": widths.part,
        "INNER": widths.inner, "SHARED": shared, "ROWS": tiles.rows, "SLAB": tiles.slab,
        "COLUMNS": tiles.columns, "PIECES": pieces.pieces, "KEYS": pieces.keys,
        "QUERIES": kernels.queries(288, widths.size, operand_size), "FEATURES": min(pieces.features, widths.size),
        "bias_query_stride": 1, **sizes,
    }  # fmt: skip
    if everything:
        pointers |= {"absent_ptr": "i1", "memory_ptr": "fp32"}
    else:
        constants |= {"absent_ptr": None, "memory_ptr": None}
    if not tiles.slab:
        constants["operand_ptr"] = None
        del pointers["operand_ptr"]
    kernel = KERNELS[name]
    cut = pieces if name == "attention" else tiles
    return build(
        kernel,
        capability,
        {key: value for key, value in pointers.items() if key in kernel.arg_names},
        {key: value for key, value in constants.items() if key in kernel.arg_names},
        warps=cut.warps,
        stages=cut.stages,
    )


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("dit_block", place)


@pytest.mark.parametrize("name", ["attention", "mlp"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_fits_the_chip_without_spills(name: str, capability: int) -> None:
    found = compiled(name, capability, "bf16")
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    assert found.tensor_core_instructions() == {"mma.sync" if name == "attention" else MATRIX[capability]}


@pytest.mark.parametrize("name", KERNELS)
def test_with_own_modulation_and_everything_else_it_fits_hopper(name: str) -> None:
    found = compiled(name, 90, "bf16", 256, shared=False, everything=True)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[90]
    assert found.tensor_core_instructions() == {"mma.sync" if name == "attention" else MATRIX[90]}
    assert found.narrow_offsets(*WEIGHTS) == []
    assert name == "attention" or found.narrow_offsets() != []  # those of the weights have 32, so the check sees them


def test_large_tiles_of_wide_tokens_fit_hopper() -> None:
    assert compiled("mlp", 90, "bf16", 256).stack == 0


@pytest.mark.parametrize("name", ["attention", "mlp"])
def test_float32_products_are_no_tf32(name: str) -> None:
    found = compiled(name, 90, "fp32")
    assert found.stack == 0
    assert found.tensor_core_instructions() == set()


def test_sizes_of_one_which_triton_compiles_in() -> None:
    assert compiled("attention", 90, "bf16", bias_key_stride=1).stack == 0


def refused(hidden: int = 64, heads: int = 4, tokens: int = 3, inner: int | None = None, memory: int = 0) -> str | None:
    weights = [part.detach() for part in DiTBlock(hidden, heads).weights()]
    if inner is not None:
        weights[4:7] = torch.zeros(inner, hidden), torch.zeros(inner), torch.zeros(hidden, inner)
    block = Block(torch.zeros(2, tokens, hidden), torch.zeros(1, 6, hidden), *weights)
    return _triton_refusal(block, heads, None, torch.zeros(1, memory, 2 * hidden) if memory else None)


def test_what_the_kernels_do_not_take_is_refused() -> None:
    assert refused() is None
    assert refused(256, 16, 288, memory=288) is None
    assert refused(288, 9) == "hidden width is 288, the kernel takes multiples of 32 up to 256"
    assert refused(48) == "hidden width is 48, the kernel takes multiples of 32 up to 256"
    assert refused(heads=16) == "head size is 4, the kernel takes multiples of 8 up to 64"
    assert refused(128, 1) == "head size is 128, the kernel takes multiples of 8 up to 64"
    assert refused(inner=40) == "the MLP's width is 40, the kernel takes multiples of 32"
    assert refused(tokens=289) == "289 tokens in a sequence or its memory, the kernel takes up to 288"
    assert refused(memory=289) == "289 tokens in a sequence or its memory, the kernel takes up to 288"


def test_where_gradients_are_required_the_gradients_kernel_must_serve_too() -> None:
    block = Block(torch.zeros(2, 3, 64), torch.zeros(1, 6, 64), *DiTBlock(64, 4).weights())
    assert _triton_refusal(block, 4, None, None) is None
    assert _triton_refusal(block, 8, None, None) == "head size is 8, the gradient's kernel takes 16 or 32"
    with torch.no_grad():
        assert _triton_refusal(block, 8, None, None) is None


def test_other_dtypes_are_refused() -> None:
    block = Block(torch.zeros(2, 3, 64), torch.zeros(1, 6, 64), *DiTBlock(64, 4).weights())
    with torch.no_grad():
        wide = Block._make(part.double() for part in block)
        assert "tokens is torch.float64" in (_triton_refusal(wide, 4, None, None) or "")

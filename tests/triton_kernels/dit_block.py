"""The Triton kernels of dit_block: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels import dit_block as kernel
from fastimpute.ops.dit_block import Block, _triton, reference
from fastimpute.ops.dit_pack import DitTritonPack, dit_triton_pack


def case(
    sequences: int, tokens: int, hidden: int = 32, heads: int = 2, *, inner: int = 32, shared: int = 1,
    bias: bool = True, mask: bool = False, memory: int = 0,
) -> list[Any]:  # fmt: skip
    """Arguments of the op in float32; `shared` rows of what sequences share."""

    def linear(outputs: int, inputs: int) -> list[Tensor]:
        return [torch.randn(outputs, inputs) / inputs**0.5, 0.1 * torch.randn(outputs)]

    layers = ((3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner))
    return [
        torch.randn(sequences, tokens, hidden),
        0.5 * torch.randn(shared, 6, hidden),
        *(tensor for layer in layers for tensor in linear(*layer)),
        heads,
        torch.randn(shared, heads, tokens, tokens + memory) if bias else None,
        torch.rand(sequences, tokens) < 0.4 if mask else None,
        torch.randn(shared, memory, 2 * hidden) if memory else None,
    ]


def exact(arguments: list[Any]) -> Tensor:
    """The block in float64."""
    floating = [isinstance(part, Tensor) and part.dtype == torch.float32 for part in arguments]
    return reference(*(part.double() if wide else part for part, wide in zip(arguments, floating, strict=True)))


def check(arguments: list[Any]) -> None:
    assert_close("tokens", _triton(*arguments, "fp32"), exact(arguments), reference(*arguments))


@pytest.mark.parametrize("tokens", [1, 3, 31, 33])
def test_matches_float64_at_every_number_of_tokens(tokens: int) -> None:
    check(case(2, tokens))


@pytest.mark.parametrize(("sequences", "tokens"), [(0, 5), (3, 0)])
def test_nothing_in_nothing_out(sequences: int, tokens: int) -> None:
    assert _triton(*case(sequences, tokens), "fp32").shape == (sequences, tokens, 32)


@pytest.mark.parametrize(("hidden", "heads", "inner"), [(64, 1, 32), (96, 12, 64), (96, 2, 32)])
def test_matches_float64_at_every_width(hidden: int, heads: int, inner: int) -> None:
    check(case(1, 2, hidden, heads, inner=inner))


@pytest.mark.parametrize(
    "options",
    [{"bias": False}, {"mask": True}, {"memory": 17, "mask": True}, {"bias": False, "memory": 3}, {"shared": 4}],
)
def test_optional_parts(options: dict[str, Any]) -> None:
    check(case(4, 5, **options))


def test_sequence_i_reads_row_i_modulo_their_number() -> None:
    arguments = case(6, 3, shared=3, memory=4)
    arguments[1] = torch.randn(2, 6, 32)
    check(arguments)


def test_a_sequence_without_any_key_gets_no_attention() -> None:
    arguments = case(2, 5)
    arguments[12] = torch.ones(2, 5, dtype=torch.bool)
    once = _triton(*arguments, "fp32")
    arguments[3] = arguments[3] + 100 * (torch.arange(96) >= 64)  # values that would show
    assert torch.equal(_triton(*arguments, "fp32"), once)


def test_large_scores_do_not_overflow() -> None:
    arguments = case(1, 5)
    expected = _triton(*arguments, "fp32")
    arguments[11] = arguments[11] + 1e4
    # A constant in the bias cancels in the softmax, up to the float32 spacing of 1e4.
    torch.testing.assert_close(_triton(*arguments, "fp32"), expected, rtol=1e-2, atol=1e-2)


def half(arguments: list[Any], *, count: int) -> Tensor:
    """Through the kernels with float16 operands, `count` sequences a launch; fails where they write beside the output
    or their scratch."""
    block, (heads, bias, absent, memory) = Block(*arguments[:10]), arguments[10:]
    sequences, tokens, hidden = block.tokens.shape
    widths = kernel.layout(hidden, heads, block.inner, 2)
    tiles = kernel.configuration(widths.padded, 2, len(block.modulation) == 1)
    rows = -(-count * tokens // tiles.rows) * tiles.rows
    out, qkv = Guarded(sequences, tokens, hidden), Guarded(rows, 3 * widths.part, dtype=torch.float16)
    kernel.launch(
        block.tokens, block.modulation, DitTritonPack.of(block.weights(), torch.float16, widths), bias, absent, memory,
        out.inside, (qkv.inside, None), widths=widths, tiles=tiles, count=count,
        windows=1 if bias is None else len(bias),
    )  # fmt: skip
    assert out.guards_untouched()
    assert qkv.guards_untouched()
    return out.inside


@pytest.mark.parametrize(
    ("hidden", "heads", "options"),
    [
        (32, 2, {"tokens": 33}),
        (32, 2, {"tokens": 3, "memory": 35, "mask": True, "shared": 2}),
        (96, 2, {"tokens": 17, "inner": 96}),
        (256, 4, {"tokens": 2, "shared": 2}),
    ],
)
def test_16_bit_operands_match_a_reference_that_rounds_them(hidden: int, heads: int, options: dict[str, Any]) -> None:
    arguments = case(4, hidden=hidden, heads=heads, **options)
    value, right = half(arguments, count=4), exact(arguments)
    rough = reference(*arguments, precision="bf16")  # eight times as coarse as float16
    assert_close("tokens", value, right, rough, "bf16")
    assert float((value.double() - right).abs().max()) < 0.25 * float((rough.double() - right).abs().max())


def test_slices_through_the_scratch_do_not_change_the_bits() -> None:
    arguments = case(6, 3, shared=2, memory=3)
    whole = half(arguments, count=6)
    for count in (4, 1):
        assert same_bits(half(arguments, count=count), whole)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_any_split_of_the_sequences_gives_the_same_bits(precision: str) -> None:
    arguments = case(7, 5, mask=True, memory=3)

    def run(begin: int, end: int) -> Tensor:
        part = [*arguments]
        part[0], part[12] = arguments[0][begin:end], arguments[12][begin:end]
        return _triton(*part, "fp32") if precision == "fp32" else half(part, count=end - begin)

    whole = run(0, 7)
    for begin, end in itertools.pairwise((0, 1, 3, 7)):
        assert same_bits(run(begin, end), whole[begin:end])


def test_a_slice_is_whole_rounds_of_windows_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "SCRATCH_BYTES", 100 * 10)
    assert kernel.slices(1000, 10, 1, 10) == 10
    assert kernel.slices(1000, 10, 4, 10) == 8
    assert kernel.slices(1000, 10, 20, 10) == 10
    assert kernel.slices(3, 10, 1, 10) == 3
    assert kernel.slices(11, 10, 1, 10) == 6
    assert kernel.slices(1000, 10**6, 1, 10) == 1


def test_layouts_do_not_change_the_bits() -> None:
    arguments = case(3, 4, shared=3, memory=2)
    expected = _triton(*arguments, "fp32")
    spread = torch.full((3, 2, 10, 6), math.nan)
    spread[:, :, :6, :4] = arguments[11].transpose(2, 3)
    apart = [
        part if part is None or isinstance(part, int) else torch.stack([part, part], -1)[..., 0] for part in arguments
    ]
    apart[0] = among_nan(arguments[0].flatten(0, 1)).unflatten(0, (3, 4))
    apart[11] = spread[:, :, :6, :4].transpose(2, 3)
    apart[13] = arguments[13].transpose(0, 1).contiguous().transpose(0, 1)
    assert same_bits(_triton(*apart, "fp32"), expected)


def test_a_mask_reads_its_own_rows_when_it_is_strided() -> None:
    arguments = case(3, 5, mask=True)
    expected = _triton(*arguments, "fp32")
    arguments[12] = among_nan(arguments[12])
    assert same_bits(_triton(*arguments, "fp32"), expected)


def test_weights_are_packed_once_until_they_change() -> None:
    weights = Block(*case(1, 1)[:10]).weights()
    widths = kernel.layout(32, 2, 32, 2)
    first = dit_triton_pack(weights, "bf16", widths)
    assert dit_triton_pack(weights, "bf16", widths) is first
    weights[7].zero_()
    again = dit_triton_pack(weights, "bf16", widths)
    assert again is not first
    assert not bool(again.b_down.any())


def test_padding_is_packed_as_zeros() -> None:
    weights = [torch.ones_like(weight) for weight in Block(*case(1, 1, 96, 4, inner=32)[:10]).weights()]
    widths = kernel.layout(96, 4, 32, 2)
    assert widths == kernel.Layout(hidden=96, padded=128, heads=4, size=32, part=128, inner=64)
    pack = DitTritonPack.of(weights, torch.bfloat16, widths)
    assert [int((part != 0).sum()) for part in pack] == [int(weight.sum()) for weight in weights]
    heads = pack.w_proj.unflatten(1, (4, 32))
    assert not bool(heads[..., 24:].any() | heads[96:].any())

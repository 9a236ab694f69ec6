"""dit_block: the transformer block against float64, against PyTorch's own attention, and against itself."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import pytest
import torch
from closeness import assert_within, limit, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fastimpute import _native, ops
from fastimpute.nn.dit_block import DiTBlock
from fastimpute.ops.dit_block import reference
from fastimpute.ops.dit_pack import dit_pack

TOKENS = (1, 2, 3, 7, 15, 16, 17, 31, 33, 48, 64, 65, 96, 127, 129, 288)
op = torch.ops.fastimpute.dit_block.default


class Case(NamedTuple):
    """Arguments of the op in float32; `rows` of what the sequences share."""

    tokens: Tensor
    modulation: Tensor
    weights: list[Tensor]
    heads: int
    bias: Tensor | None
    mask: Tensor | None
    memory: Tensor | None

    def arguments(self, dtype: torch.dtype = torch.float32) -> tuple[object, ...]:
        def cast(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or tensor.dtype == torch.bool else tensor.to(dtype)

        parts = [cast(part) for part in (self.tokens, self.modulation, *self.weights)]
        return (*parts, self.heads, cast(self.bias), self.mask, cast(self.memory))

    def rows(self, begin: int, end: int) -> Case:
        """Some of the sequences; what they share must have one row."""
        mask = None if self.mask is None else self.mask[begin:end]
        return self._replace(tokens=self.tokens[begin:end], mask=mask)


def case(
    sequences: int = 2,
    tokens: int = 48,
    hidden: int = 64,
    heads: int = 4,
    *,
    shared: int = 1,
    bias: bool = True,
    mask: bool = False,
    memory: int = 0,
    inner: int | None = None,
) -> Case:
    generator = torch.Generator().manual_seed(tokens + hidden + memory)
    inner = 4 * hidden if inner is None else inner

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def linear(outputs: int, inputs: int) -> list[Tensor]:
        return [normal(outputs, inputs) / inputs**0.5, 0.1 * normal(outputs)]

    layers = ((3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner))
    return Case(
        normal(sequences, tokens, hidden),
        0.5 * normal(shared, 6, hidden),
        [tensor for layer in layers for tensor in linear(*layer)],
        heads,
        normal(shared, heads, tokens, tokens + memory) if bias else None,
        torch.rand(sequences, tokens, generator=generator) < 0.4 if mask else None,
        normal(shared, memory, 2 * hidden) if memory else None,
    )


@functools.cache
def exact(example_key: tuple[tuple[str, object], ...]) -> tuple[Case, Tensor, dict[str, Tensor]]:
    """A case with its float64 result and plain PyTorch's in the kernels' precisions."""
    example = case(**dict(example_key))
    plain = {name: reference(*example.arguments(), precision=name) for name in ("fp32", "bf16")}
    return example, reference(*example.arguments(torch.float64)), plain


def check(precision: str = "fp32", backend: str = "cpu", **options: object) -> None:
    example, wanted, plain = exact(tuple(sorted(options.items())))
    value = ops.dit_block(*example.arguments(), backend=backend, precision=precision)
    assert_within("tokens", value, wanted, limit(wanted, plain[precision], precision))


@pytest.mark.parametrize("tokens", TOKENS)
def test_matches_float64_at_every_number_of_tokens(precision: str, tokens: int) -> None:
    check(precision, tokens=tokens, hidden=32)


@pytest.mark.parametrize(("hidden", "heads"), [(32, 4), (64, 1), (96, 4), (128, 8), (256, 16), (320, 5), (512, 8)])
def test_matches_float64_at_every_width(precision: str, hidden: int, heads: int) -> None:
    check(precision, tokens=19, hidden=hidden, heads=heads)


@pytest.mark.parametrize("memory", [1, 7, 8, 33, 288])
def test_attends_to_the_memory(precision: str, memory: int) -> None:
    check(precision, tokens=17, hidden=32, memory=memory, mask=True)


@pytest.mark.parametrize("options", [{"bias": False}, {"mask": True}, {"inner": 96}, {"bias": False, "memory": 5}])
def test_optional_parts(backend: str, options: dict[str, object]) -> None:
    check(backend=backend, sequences=4, tokens=21, hidden=32, **options)


def test_reference_is_the_block_written_out() -> None:
    example = case(3, 9, 32, 4, shared=3)
    x, modulation, w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down, heads, bias, _, _ = example.arguments(
        torch.float64
    )
    gain1, shift1, gate1, gain2, shift2, gate2 = (part[:, None] for part in modulation.unbind(1))
    normal = functional.layer_norm(x, (32,)) * (1 + gain1) + shift1
    parts = functional.linear(normal, w_qkv, b_qkv).reshape(3, 9, 3, heads, 8)
    out = torch.zeros(3, 9, 32, dtype=torch.float64)
    for head in range(heads):
        query, key, value = parts[:, :, 0, head], parts[:, :, 1, head], parts[:, :, 2, head]
        weights = torch.softmax(query @ key.transpose(1, 2) / 8**0.5 + bias[:, head], -1)
        out[:, :, 8 * head : 8 * head + 8] = weights @ value
    x = x + gate1 * functional.linear(out, w_proj, b_proj)
    normal = functional.layer_norm(x, (32,)) * (1 + gain2) + shift2
    up = functional.gelu(functional.linear(normal, w_up, b_up), approximate="tanh")
    expected = x + gate2 * functional.linear(up, w_down, b_down)
    torch.testing.assert_close(reference(*example.arguments(torch.float64)), expected, rtol=1e-11, atol=1e-11)


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    example = case(4, 9, 24, 3, shared=2, mask=True, memory=5, inner=20)
    arguments = example.arguments(torch.float64)
    torch.testing.assert_close(op(*arguments, "fp32"), reference(*arguments), rtol=1e-11, atol=1e-11)


def test_memory_keys_are_tokens_nobody_asks_for(backend: str) -> None:
    """Keys and values moved from the sequence to the memory give the same attention."""
    example = case(1, 12, 32, bias=False, mask=False)
    normal = functional.layer_norm(example.tokens, (32,)) * (1 + example.modulation[:, 0]) + example.modulation[:, 1]
    keys = functional.linear(normal, example.weights[0], example.weights[1])[:, 7:, 32:]
    whole = ops.dit_block(*example.arguments(), backend=backend)
    part = example._replace(tokens=example.tokens[:, :7], memory=keys)
    torch.testing.assert_close(ops.dit_block(*part.arguments(), backend=backend), whole[:, :7], rtol=1e-4, atol=1e-5)


def test_a_masked_token_is_as_good_as_absent(backend: str) -> None:
    example = case(2, 12, 32)
    mask = torch.zeros(2, 12, dtype=torch.bool)
    mask[:, 8:] = True
    masked = ops.dit_block(*example._replace(mask=mask).arguments(), backend=backend)
    short = example._replace(tokens=example.tokens[:, :8], bias=example.bias[:, :, :8, :8])
    torch.testing.assert_close(masked[:, :8], ops.dit_block(*short.arguments(), backend=backend), rtol=1e-4, atol=1e-5)


def test_a_sequence_without_any_key_gets_no_attention(backend: str) -> None:
    example = case(2, 5, 32)._replace(mask=torch.ones(2, 5, dtype=torch.bool))
    weights = [*example.weights]
    weights[1] = weights[1].clone()
    weights[1][64:] += 100  # values that would show
    once = ops.dit_block(*example.arguments(), backend=backend)
    assert bool(once.isfinite().all())
    assert torch.equal(ops.dit_block(*example._replace(weights=weights).arguments(), backend=backend), once)


def test_sequence_i_reads_row_i_modulo_their_number(backend: str) -> None:
    example = case(6, 10, 32, shared=3, memory=4)
    together = ops.dit_block(*example.arguments(), backend=backend)
    repeated = example._replace(
        modulation=example.modulation.repeat(2, 1, 1),
        bias=example.bias.repeat(2, 1, 1, 1),
        memory=example.memory.repeat(2, 1, 1),
    )
    torch.testing.assert_close(ops.dit_block(*repeated.arguments(), backend=backend), together)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(9)))
def test_without_bias_the_order_of_the_tokens_does_not_matter(order: list[int]) -> None:
    example = case(2, 9, 32, bias=False)
    value = ops.dit_block(*example.arguments(), backend="cpu")
    shuffled = ops.dit_block(*example._replace(tokens=example.tokens[:, order]).arguments(), backend="cpu")
    torch.testing.assert_close(shuffled, value[:, order], rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow(precision: str) -> None:
    example = case(2, 20, 32)
    for shift in (1e4, -1e4):
        value = ops.dit_block(
            *example._replace(bias=example.bias + shift).arguments(), backend="cpu", precision=precision
        )
        # A constant in the bias cancels in the softmax, up to the float32 spacing of 1e4.
        expected = ops.dit_block(*example.arguments(), backend="cpu", precision=precision)
        torch.testing.assert_close(value, expected, rtol=1e-2, atol=3e-2)


def test_any_split_of_the_sequences_gives_the_same_bits(precision: str) -> None:
    example = case(7, 37, 64, mask=True, memory=11)
    whole = ops.dit_block(*example.arguments(), backend="cpu", precision=precision)
    for begin, end in itertools.pairwise((0, 1, 3, 7)):
        part = ops.dit_block(*example.rows(begin, end).arguments(), backend="cpu", precision=precision)
        assert same_bits(part, whole[begin:end])


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(precision: str) -> None:
    example = case(9, 37, 64, mask=True, memory=11)
    twice = ops.dit_block(*example.arguments(), backend="cpu", precision=precision)
    torch.set_num_threads(1)
    assert same_bits(ops.dit_block(*example.arguments(), backend="cpu", precision=precision), twice)


def test_layouts_do_not_change_the_bits(isa: str) -> None:
    example = case(3, 9, 32, shared=3, memory=4)
    expected = ops.dit_block(*example.arguments(), backend="cpu")
    wide = torch.full((3, 9, 40), float("nan"))
    wide[:, :, 3:35] = example.tokens
    spread = torch.full((3, 5, 15, 10), float("nan")).transpose(2, 3)
    spread[:, :4, :9, :13] = example.bias
    strided = example._replace(
        tokens=wide[:, :, 3:35],
        bias=spread[:, :4, :9, :13],
        memory=example.memory.transpose(0, 1).contiguous().transpose(0, 1),
        weights=[torch.stack([weight, weight], -1)[..., 0] for weight in example.weights],
    )
    assert same_bits(ops.dit_block(*strided.arguments(), backend="cpu"), expected)


def test_writes_nothing_beyond_its_output(isa: str) -> None:
    example = case(2, 9, 32, bias=False)
    out = torch.full((4, 9, 32), 7.0)
    _native.core().dit_block(
        dit_pack(example.weights, 4, "fp32"), 1, 2, 9, example.tokens.data_ptr(),
        (example.modulation.data_ptr(), 1), (0, 1, 0, 0, 0), 0, (0, 1, 0), out[1:].data_ptr(),
    )  # fmt: skip
    assert bool((out[[0, 3]] == 7).all())
    assert same_bits(out[1:3], ops.dit_block(*example.arguments(), backend="cpu"))


@pytest.mark.parametrize(("sequences", "tokens"), [(0, 9), (3, 0)])
def test_nothing_in_nothing_out(isa: str, sequences: int, tokens: int) -> None:
    example = case(sequences, tokens, 32)
    assert ops.dit_block(*example.arguments(), backend="cpu").shape == (sequences, tokens, 32)


def test_new_weights_are_seen(precision: str) -> None:
    block = DiTBlock(32, 4)
    tokens, modulation = torch.randn(2, 9, 32), torch.randn(1, 6, 32)
    for change in (lambda: None, lambda: block.up.weight.mul_(2), lambda: block.up.weight.data.numpy().fill(0.25)):
        with torch.no_grad():
            change()
            value = ops.dit_block(tokens, modulation, *block.weights(), 4, backend="cpu", precision=precision)
            expected = reference(tokens, modulation, *block.weights(), 4)
        torch.testing.assert_close(value, expected, rtol=0.05, atol=0.3 if precision == "bf16" else 1e-3)


def test_reference_passes_gradcheck() -> None:
    example = case(2, 3, 8, 2, memory=2, mask=True)
    arguments = list(example.arguments(torch.float64))
    for i in (0, 1, 2, 11, 13):
        arguments[i] = arguments[i].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda *inputs: reference(*inputs), tuple(arguments))


def test_opcheck() -> None:
    example = case(2, 9, 32, mask=True, memory=3)
    torch.library.opcheck(op, (*example.arguments(), "fp32"))


def test_compiles_without_graph_breaks() -> None:
    example = case(2, 9, 32)
    compiled = torch.compile(
        lambda x: ops.dit_block(x, *example.arguments()[1:]) * 2, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(example.tokens), ops.dit_block(*example.arguments()) * 2)


NAMES = (
    *("tokens", "modulation", "w_qkv", "b_qkv", "w_proj", "b_proj", "w_up", "b_up", "w_down", "b_down", "heads"),
    *("attention_bias", "token_mask", "memory"),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": torch.zeros(3, 32)}, r"tokens must have shape \('any', 'any', 'any'\), got \(3, 32\)"),
        ({"modulation": torch.zeros(1, 4, 32)}, r"modulation must have shape \('any', 6, 32\), got \(1, 4, 32\)"),
        ({"modulation": torch.zeros(2, 6, 32)}, "modulation must have a number of rows that divides n = 3, got 2"),
        ({"heads": 5}, "heads must divide hidden = 32, got 5"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"w_down": torch.zeros(32, 64)}, r"w_down must have shape \(32, 128\), got \(32, 64\)"),
        ({"attention_bias": torch.zeros(1, 4, 5, 5)}, r"attention_bias must have shape \('any', 4, 5, 8\), got"),
        ({"memory": torch.zeros(0, 3, 64)}, "memory must have a number of rows that divides n = 3, got 0"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    arguments = dict(zip(NAMES, case(3, 5, 32, memory=3).arguments(), strict=True)) | change
    with pytest.raises(ValueError, match=f"dit_block: {message}"):
        ops.dit_block(**arguments)


def test_a_mask_that_is_not_bool_is_refused() -> None:
    example = case(3, 5, 32)._replace(mask=torch.zeros(3, 5))
    with pytest.raises(TypeError, match=r"dit_block: token_mask must be torch\.bool, got torch\.float32"):
        ops.dit_block(*example.arguments())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"hidden": 48}, "hidden width is 48, the kernel takes multiples of 32 up to 512"),
        ({"hidden": 128, "heads": 1}, "head size is 128, the kernel takes multiples of 8 up to 64"),
        ({"hidden": 32, "heads": 8}, "head size is 4, the kernel takes multiples of 8 up to 64"),
        ({"hidden": 32, "inner": 40}, "the MLP's width is 40, the kernel takes multiples of 32"),
        ({"hidden": 32, "tokens": 289}, "289 tokens in a sequence or its memory, the kernel takes up to 288"),
    ],
)
def test_sizes_the_kernel_lacks_run_on_torch(options: dict[str, int], reason: str) -> None:
    example = case(**{"tokens": 3, **options})
    assert ops.dit_block(*example.arguments()).shape == example.tokens.shape
    with pytest.raises(ValueError, match=f"dit_block: backend 'cpu' cannot serve: {reason}"):
        ops.dit_block(*example.arguments(), backend="cpu")

"""dit_block_gradient: the gradient of the transformer block against float64 autograd, and against itself."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dit_block import Case, case
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.nn.dit_block import DiTBlock
from fastimpute.ops.dit_block_gradient import BlockGradients, reference

op = torch.ops.fastimpute.dit_block_gradient.default


def direction(example: Case) -> Tensor:
    return torch.randn(example.tokens.shape, generator=torch.Generator().manual_seed(5))


def gradients(example: Case, backend: str = "cpu") -> BlockGradients:
    return ops.dit_block_gradient(direction(example), *example.arguments(), backend=backend)


def same(left: BlockGradients, right: BlockGradients) -> bool:
    pairs = zip(left, right, strict=True)
    return all(same_bits(a, b) if a is not None else b is None for a, b in pairs)


def check(example: Case, backend: str = "cpu") -> None:
    exact = reference(direction(example).double(), *example.arguments(torch.float64))
    plain = reference(direction(example), *example.arguments())
    for name, value, right, rough in zip(
        BlockGradients._fields, gradients(example, backend), exact, plain, strict=True
    ):
        if right is None:
            assert value is None
        else:
            assert_close(name, value, right, rough)


@pytest.mark.parametrize("tokens", [1, 2, 7, 15, 16, 17, 33, 48, 64, 65, 72, 127])
def test_matches_float64_at_every_number_of_tokens(isa: str, tokens: int) -> None:
    check(case(tokens=tokens, hidden=32))


@pytest.mark.parametrize(("hidden", "heads"), [(32, 4), (64, 1), (96, 4), (128, 8), (320, 5)])
def test_matches_float64_at_every_width(isa: str, hidden: int, heads: int) -> None:
    check(case(tokens=19, hidden=hidden, heads=heads))


def test_matches_float64_at_the_largest_sizes() -> None:
    check(case(1, 288, 512, 8, memory=288))


@pytest.mark.parametrize("memory", [1, 7, 8, 33])
def test_reaches_the_memory(isa: str, memory: int) -> None:
    check(case(tokens=17, hidden=32, memory=memory, mask=True))


@pytest.mark.parametrize("options", [{"bias": False}, {"mask": True}, {"inner": 96}, {"bias": False, "memory": 5}])
def test_optional_parts(backend: str, options: dict[str, object]) -> None:
    check(case(sequences=4, tokens=21, hidden=32, **options), backend)


@pytest.mark.parametrize(("sequences", "shared"), [(1, 1), (6, 3), (12, 1), (24, 12), (40, 20)])
def test_what_sequences_share_gets_the_sum_over_them(isa: str, sequences: int, shared: int) -> None:
    check(case(sequences, 9, 32, shared=shared, memory=3))


def test_rows_may_be_shared_differently(isa: str) -> None:
    example = case(12, 9, 32, shared=12, memory=3)
    check(example._replace(bias=example.bias[:3], memory=example.memory[:4], modulation=example.modulation[:6]))


def test_autograd_of_the_block_calls_it(isa: str) -> None:
    example = case(4, 9, 32, shared=2, mask=True, memory=3)
    leaves = [part.requires_grad_() if isinstance(part, Tensor) and part.is_floating_point() else part
              for part in example.arguments()]  # fmt: skip
    out = ops.dit_block(*leaves, backend="cpu")
    found = torch.autograd.grad(
        out, [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad], direction(example)
    )
    wanted = [part for part in gradients(case(4, 9, 32, shared=2, mask=True, memory=3)) if part is not None]
    assert all(same_bits(left, right) for left, right in zip(found, wanted, strict=True))


def test_in_either_precision_it_is_the_gradient_of_the_float32_block(precision: str) -> None:
    example = case(4, 9, 32)
    tokens = example.tokens.requires_grad_()
    out = ops.dit_block(*example.arguments(), backend="cpu", precision=precision)
    (found,) = torch.autograd.grad(out, tokens, direction(example))
    assert same_bits(found, gradients(example).tokens)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    block = DiTBlock(32, 4)
    tokens = torch.randn(2, 9, 32)
    block(tokens, torch.randn(1, 32)).sum().backward()
    assert block.up.weight.grad is not None
    assert tokens.grad is None


@settings(max_examples=15, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_is_linear_in_the_direction(a: float, b: float) -> None:
    example = case(2, 9, 32, memory=3)
    left, right = torch.randn(2, 2, 9, 32).unbind(0)

    def along(way: Tensor) -> BlockGradients:
        return ops.dit_block_gradient(way, *example.arguments(), backend="cpu")

    for one, other, both in zip(along(left), along(right), along(a * left + b * right), strict=True):
        torch.testing.assert_close(both, a * one + b * other, rtol=1e-3, atol=1e-3)


def test_a_step_along_the_gradient_changes_the_block_as_it_says(isa: str) -> None:
    example = case(2, 9, 32, memory=3)
    way, found = direction(example), gradients(example)

    def value(step: float) -> Tensor:
        weights = [part.double() + step * change for part, change in zip(example.weights, found[2:10], strict=True)]
        moved = (example.tokens, example.modulation, *weights, 4, example.bias, None, example.memory)
        block = [part.double() if isinstance(part, Tensor) else part for part in moved]
        return (ops.dit_block(*block, backend="torch") * way).sum()

    expected = sum(part.double().square().sum() for part in found[2:10])
    step = 1e-4 / float(expected) ** 0.5
    torch.testing.assert_close((value(step) - value(-step)) / (2 * step), expected, rtol=1e-4, atol=0)


def test_an_absent_token_has_no_say_in_others(isa: str) -> None:
    example = case(2, 9, 32)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[:, 6:] = True
    way = direction(example).index_fill(1, torch.arange(6, 9), 0.0)
    found = ops.dit_block_gradient(way, *example._replace(mask=mask).arguments(), backend="cpu")
    assert bool((found.tokens[:, 6:] == 0).all())
    assert bool((found.attention_bias[:, :, :, 6:] == 0).all())


def test_a_sequence_without_any_key_has_finite_gradients(isa: str) -> None:
    check(case(2, 5, 32)._replace(mask=torch.ones(2, 5, dtype=torch.bool)))


def test_large_scores_do_not_overflow(isa: str) -> None:
    example = case(2, 20, 32)
    for shift in (1e4, -1e4):
        assert all(part is None or bool(part.isfinite().all())
                   for part in gradients(example._replace(bias=example.bias + shift)))  # fmt: skip


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    example = case(20, 17, 32, shared=10, mask=True, memory=11)
    twice = gradients(example)
    torch.set_num_threads(1)
    assert same(gradients(example), twice)


def test_layouts_do_not_change_the_bits(isa: str) -> None:
    example = case(3, 9, 32, shared=3, memory=4)
    strided = example._replace(
        tokens=torch.stack([example.tokens, example.tokens], -1)[..., 0],
        bias=example.bias.transpose(2, 3).contiguous().transpose(2, 3),
        memory=example.memory.transpose(0, 1).contiguous().transpose(0, 1),
        weights=[torch.stack([weight, weight], -1)[..., 0] for weight in example.weights],
    )
    assert same(gradients(strided), gradients(example))


def test_writes_nothing_beyond_its_outputs(isa: str) -> None:
    example = case(3, 9, 32, memory=5)
    expected = gradients(example)
    guard = 32
    shapes = [part.shape for part in (*expected[:10], expected.attention_bias.transpose(2, 3), expected.memory)]
    outputs = [torch.full((shape.numel() + 2 * guard,), 7.0) for shape in shapes]
    bias, weights, way = example.bias.transpose(2, 3).contiguous(), example.weights, direction(example)
    _native.core().dit_block_gradient(
        ops.isa(), 1, (32, 4, 128), tuple(weight.data_ptr() for weight in weights), 3, 9, example.tokens.data_ptr(),
        (example.modulation.data_ptr(), 1), (bias.data_ptr(), 1, bias.stride(0), bias.stride(1), bias.stride(2)), 0,
        (example.memory.data_ptr(), 1, 5), way.data_ptr(), tuple(out[guard:].data_ptr() for out in outputs),
    )  # fmt: skip
    assert all(bool((out[:guard] == 7).all() and (out[-guard:] == 7).all()) for out in outputs)
    assert same_bits(outputs[11][guard:-guard].view(shapes[11]), expected.memory)
    assert same_bits(outputs[10][guard:-guard].view(shapes[10]).transpose(2, 3), expected.attention_bias)


def test_nothing_to_differentiate() -> None:
    example = case(0, 9, 32)
    tokens = example.tokens.requires_grad_()
    ops.dit_block(*example.arguments()).sum().backward()
    assert tokens.grad.shape == (0, 9, 32)
    assert gradients(example, "auto").w_up.abs().max() == 0


def test_a_second_derivative_is_refused() -> None:
    example = case(2, 9, 32)
    tokens = example.tokens.requires_grad_()
    out = ops.dit_block(*example.arguments(), backend="cpu")
    (first,) = torch.autograd.grad(out.sum(), tokens, create_graph=True)
    with pytest.raises(RuntimeError, match="a second derivative needs backend='torch'"):
        first.sum().backward()


def test_opcheck() -> None:
    example = case(2, 9, 32, mask=True, memory=3)
    torch.library.opcheck(op, (direction(example), *example.arguments()))


def test_a_compiled_training_step_has_no_graph_break() -> None:
    example = case(2, 9, 32)
    tokens = example.tokens.requires_grad_()
    compiled = torch.compile(
        lambda x: ops.dit_block(x, *example.arguments()[1:]) * 2, fullgraph=True, backend="aot_eager"
    )
    (found,) = torch.autograd.grad(compiled(tokens).sum(), tokens)
    (expected,) = torch.autograd.grad((ops.dit_block(*example.arguments()) * 2).sum(), tokens)
    torch.testing.assert_close(found, expected)


def test_a_direction_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dit_block_gradient: out_gradient must have shape \(2, 9, 32\), got"):
        ops.dit_block_gradient(torch.zeros(2, 9, 31), *case(2, 9, 32).arguments())


def test_errors_of_the_block_are_said_in_its_own_name() -> None:
    example = case(2, 9, 32)._replace(heads=5)
    with pytest.raises(ValueError, match="dit_block_gradient: heads must divide hidden = 32, got 5"):
        gradients(example)


def test_doubles_are_refused_by_the_kernel() -> None:
    example = case(2, 9, 32)
    with pytest.raises(ValueError, match="the kernels take float32"):
        ops.dit_block_gradient(direction(example).double(), *example.arguments(torch.float64), backend="cpu")

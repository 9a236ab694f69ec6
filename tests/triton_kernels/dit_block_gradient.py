"""The Triton kernels of dit_block_gradient: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.dit_block import case
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels import dit_block_gradient as kernel
from fastimpute.kernels.dit_weight_gradient import squares
from fastimpute.kernels.weight_gradient import SLICE, STORED
from fastimpute.ops.dit_block_gradient import BlockGradients, _read, _triton, reference


def direction(arguments: list[Any]) -> Tensor:
    return torch.randn(arguments[0].shape)


def found(way: Tensor, arguments: list[Any]) -> BlockGradients:
    return _read(_triton(way, *arguments), arguments[11], arguments[13])


def check(arguments: list[Any]) -> None:
    way = direction(arguments)
    double = [part.double() if isinstance(part, Tensor) and part.is_floating_point() else part for part in arguments]
    answers = found(way, arguments), reference(way.double(), *double), reference(way, *arguments)
    for name, value, right, plain in zip(BlockGradients._fields, *answers, strict=True):
        if right is None:
            assert value is None
        elif not bool(right.any()):  # with a single key the scores do not matter: a difference of equal numbers
            assert float(value.abs().max()) < 1e-6
        else:
            assert_close(name, value, right, plain)


def same(left: BlockGradients, right: BlockGradients) -> bool:
    pairs = zip(left, right, strict=True)
    return all(same_bits(a, b) if a is not None else b is None for a, b in pairs)


@pytest.mark.parametrize("tokens", [1, 3, 17])
def test_matches_float64_at_every_number_of_tokens(tokens: int) -> None:
    check(case(2, tokens))


@pytest.mark.parametrize(("hidden", "heads", "inner"), [(64, 2, 32), (64, 4, 96), (128, 4, 32)])
def test_matches_float64_at_every_width(hidden: int, heads: int, inner: int) -> None:
    check(case(1, 2, hidden, heads, inner=inner))


@pytest.mark.parametrize(
    "options",
    [{"bias": False}, {"mask": True}, {"memory": 17, "mask": True}, {"bias": False, "memory": 3}, {"shared": 4}],
)
def test_optional_parts(options: dict[str, Any]) -> None:
    check(case(4, 5, **options))


def shared_differently() -> list[Any]:
    arguments = case(6, 3, shared=3, memory=4)
    arguments[1], arguments[11] = torch.randn(2, 6, 32), arguments[11][:1]
    return arguments


def test_what_sequences_share_gets_the_sum_over_them() -> None:
    check(shared_differently())


def test_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = shared_differently()
    layout = kernel.Layout.of(32, 32, 2)
    monkeypatch.setattr(kernel, "SCRATCH_BYTES", 4 * 4 * 3 * sum(layout))
    assert kernel.slices(6, 3, layout) == 3
    assert kernel.slices(5, 3, layout) == 3
    assert kernel.slices(6, 100, layout) == 1
    arguments[1] = arguments[1][:1].expand(6, -1, -1).contiguous()  # its own modulation for each
    check(arguments)


def test_a_sequence_without_any_key_gets_finite_gradients() -> None:
    arguments = case(2, 5)
    arguments[12] = torch.ones(2, 5, dtype=torch.bool)
    check(arguments)


def test_large_scores_do_not_overflow() -> None:
    arguments = case(2, 5)
    arguments[11] = arguments[11] + 1e4
    assert all(part is None or bool(part.isfinite().all()) for part in found(direction(arguments), arguments))


def test_layouts_do_not_change_the_bits() -> None:
    arguments = case(3, 4, shared=3, memory=2, mask=True)
    way = direction(arguments)
    apart = [
        part if part is None or isinstance(part, int) else torch.stack([part, part], -1)[..., 0] for part in arguments
    ]
    apart[0] = among_nan(arguments[0].flatten(0, 1)).unflatten(0, (3, 4))
    apart[11] = arguments[11].transpose(2, 3).contiguous().transpose(2, 3)
    apart[12] = among_nan(arguments[12])
    strided = among_nan(way.flatten(0, 1)).unflatten(0, (3, 4))
    assert same(found(strided, apart), found(way, arguments))


def test_an_empty_memory_is_none() -> None:
    arguments = case(2, 3)
    way = direction(arguments)
    with_empty = found(way, [*arguments[:13], torch.zeros(1, 0, 64)])
    assert with_empty.memory is not None
    assert with_empty.memory.shape == (1, 0, 64)
    assert same(with_empty._replace(memory=None), found(way, arguments))


def test_any_order_of_the_sequences_gives_each_its_bits() -> None:
    arguments = case(3, 3, mask=True)
    way, order = direction(arguments), torch.tensor([2, 0, 1])
    turned = [*arguments]
    turned[0], turned[12] = arguments[0][order], arguments[12][order]
    assert same_bits(found(way[order], turned).tokens, found(way, arguments).tokens[order])


def test_writes_nothing_beside_outputs_and_scratch() -> None:
    arguments = case(2, 5, memory=3)
    x, modulation, *weights, heads, bias, _, memory = arguments
    layout, way = kernel.Layout.of(32, 32, heads), direction(arguments)
    count = kernel.slices(2, 5, layout)
    rows, blocks = kernel.capacity(count, 5), squares(32, 32)
    shapes = [part.shape for part in (x, modulation, *weights, bias.transpose(2, 3), memory)]
    outputs = [Guarded(*shape) for shape in shapes]
    scratch = [Guarded(rows * columns) for columns in layout]
    between = [Guarded(count, 5, 32), Guarded(rows // SLICE * blocks * STORED)]
    inside = [[part.inside for part in group] for group in (outputs, scratch, between)]
    kernel.launch(way, x, modulation, weights, bias, None, memory, *inside, heads=heads, count=count)
    assert all(part.guards_untouched() for part in (*outputs, *scratch, *between))
    inside[0][10] = inside[0][10].transpose(2, 3)
    assert same(BlockGradients(*inside[0]), found(way, arguments))

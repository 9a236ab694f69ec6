"""The Triton kernels of score_matching: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import assert_close, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels import score_matching as kernel
from fastimpute.kernels.matrix import padded
from fastimpute.kernels.weight_gradient import SLICE, STORED
from fastimpute.ops.score_matching import LossGradients, _triton, reference


def step(rows: int, dim: int, hidden: int = 64, conditions: int = 1, *, weighted: bool = False) -> list[Any]:
    """Arguments of the op in float32, their values such that float64 holds them too."""
    network = to_dtype(rounded(random_network("direct", dim, hidden, modulations=conditions)), torch.float32)
    weight = torch.rand(rows) + 0.5 if weighted else None
    return [torch.randn(rows, dim), torch.randn(rows, dim), *network[:7], weight]


def found(example: list[Any]) -> LossGradients:
    return LossGradients(*_triton(*example, None, "fp32"))


def exact(example: list[Any]) -> LossGradients:
    return reference(*(None if part is None else part.double() for part in example))


def check(example: list[Any]) -> None:
    answers = zip(LossGradients._fields, found(example), exact(example), reference(*example), strict=True)
    for name, value, right, plain in answers:
        assert_close(name, value, right, plain)


def same(left: LossGradients, right: LossGradients) -> bool:
    return all(same_bits(one.flatten(), other.flatten()) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("rows", [1, 3, 31, 33, 129])
def test_matches_float64(rows: int) -> None:
    check(step(rows, 7, weighted=rows == 31))


@pytest.mark.parametrize("dim", [1, 33])
def test_any_number_of_cells(dim: int) -> None:
    check(step(5, dim))


@pytest.mark.parametrize("conditions", [4, 44])
def test_runs_that_share_a_condition_may_cross_any_border(conditions: int) -> None:
    check(step(44, 3, conditions=conditions, weighted=True))


def test_a_wider_network() -> None:
    check(step(4, 7, 128, 2))


def test_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "SLICES_MOST", 1)
    assert kernel.sizes(140, 5, 64, 4).capacity == 128
    for conditions in (1, 7):  # one run over both chunks, and runs of 20 of which one crosses
        check(step(140, 5, conditions=conditions))


def test_rows_with_gaps_are_read_where_they_lie() -> None:
    example = step(9, 7, conditions=3, weighted=True)
    apart = torch.stack([example[9], torch.full_like(example[9], torch.nan)], 1)[:, 0]
    strided = [among_nan(example[0]), among_nan(example[1], 5), *example[2:9], apart]
    assert same(found(strided), found(example))


def test_nan_in_a_row_reaches_the_loss_and_no_other_runs_modulation() -> None:
    example = step(8, 5, conditions=4)
    clean = found(example)
    example[0][3, 2] = torch.nan
    spoilt = found(example)
    assert bool(spoilt.loss.isnan())
    assert bool(spoilt.modulation[1].isnan().all())
    others = [0, 2, 3]
    assert same_bits(spoilt.modulation[others], clean.modulation[others])


def test_weights_of_one_change_nothing() -> None:
    example = step(4, 5, conditions=4)
    assert same(found([*example[:9], torch.ones(4)]), found(example))


def launched(example: list[Any], operands: torch.dtype) -> tuple[list[Any], list[Guarded]]:
    """Gradients by the kernels alone, with NaN beside outputs and scratch and in them beforehand."""
    x, target, *weights, modulation, weight = example
    (rows, dim), hidden = x.shape, len(weights[0])
    extent = kernel.sizes(rows, dim, hidden, operands.itemsize)
    columns = padded(dim)
    outputs = [Guarded(*shape) for shape in [(), *(part.shape for part in (*weights, modulation))]]
    scratch = [
        Guarded(hidden * (2 * columns + hidden), dtype=operands),
        Guarded(extent.capacity * (4 * hidden + 2 * columns), dtype=operands),
        Guarded(extent.capacity * 4 * hidden),
        Guarded(extent.slots * extent.squares * STORED),
        Guarded(extent.tiles),
    ]
    inside = [part.inside for part in outputs]
    of_scratch = tuple(part.inside for part in scratch)
    kernel.launch(x, target, weight, tuple(weights), modulation, tuple(inside), of_scratch, extent=extent)
    return inside, [*outputs, *scratch]


def test_writes_nothing_beside_outputs_and_scratch() -> None:
    example = step(37, 5)
    values, guarded = launched(example, torch.float32)
    assert all(part.guards_untouched() for part in guarded)
    assert same(LossGradients(*values), found(example))


def test_16_bit_operands_match_a_reference_that_rounds_them() -> None:
    example = step(18, 24, conditions=3, weighted=True)
    values, guarded = launched(example, torch.float16)
    assert all(part.guards_untouched() for part in guarded)
    rough = reference(*example, precision="bf16")  # eight times as coarse as float16
    for name, value, right, plain in zip(LossGradients._fields, values, exact(example), rough, strict=True):
        assert_close(name, value, right, plain, "bf16")
        if name != "loss":  # one number may be near by chance
            assert worst(value, right) < 0.5 * worst(plain, right)


def worst(value: Tensor, right: Tensor) -> float:
    return float((value.double() - right).abs().max())


def test_the_scratch_of_long_batches_stays_as_it_is() -> None:
    long = kernel.sizes(10**6, 84, 256, 4)
    assert long.capacity == kernel.sizes(10**7, 84, 256, 4).capacity
    assert long.slots * SLICE == long.capacity
    assert kernel.sizes(512, 84, 256, 4) == kernel.Sizes(capacity=512, slots=4, tiles=32, squares=112)
    assert kernel.sizes(512, 8000, 256, 4).slots >= 1

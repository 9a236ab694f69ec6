"""score_matching: loss and gradients of a training step against float64 autograd and against themselves."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
from closeness import assert_within, limit, same_bits
from conftest import usable_isas
from hypothesis import given
from hypothesis import strategies as st
from networks import random_network, rounded, to_dtype
from torch import Tensor
from torch.nn import functional

from fastimpute import _native, ops
from fastimpute.ops.score_matching import LossGradients, reference

ROWS = (1, 2, 3, 7, 31, 33, 127, 129, 1023)
DIMS = (1, 7, 24, 84, 144, 168, 480, 2048)
op = torch.ops.fastimpute.score_matching.default


class Step(NamedTuple):
    """The arguments of the op."""

    x: Tensor
    target: Tensor
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor
    b3: Tensor
    modulation: Tensor
    weight: Tensor | None

    def double(self) -> Step:
        return Step(*(None if part is None else part.double() for part in self))


def step(rows: int, dim: int, hidden: int = 256, conditions: int = 1, *, weighted: bool = False) -> Step:
    torch.manual_seed(rows + dim + hidden)
    network = to_dtype(rounded(random_network("direct", dim, hidden, modulations=conditions)), torch.float32)
    weight = torch.rand(rows) + 0.5 if weighted else None
    return Step(torch.randn(rows, dim), torch.randn(rows, dim), *network[:7], weight)


@functools.cache
def answers(*size: int, weighted: bool = False) -> tuple[Step, LossGradients, LossGradients]:
    """A step, its exact loss and gradients, and plain PyTorch's in float32."""
    example = step(*size, weighted=weighted)
    return example, reference(*example.double()), reference(*example)


def check(*size: int, weighted: bool = False, backend: str = "cpu", threads: int = 1) -> None:
    example, exact, plain = answers(*size, weighted=weighted)
    got = ops.score_matching(*example, backend=backend, threads=threads)
    for name, value, right, single in zip(LossGradients._fields, got, exact, plain, strict=True):
        assert_within(name, value, right, limit(right, single))


def same(left: LossGradients, right: LossGradients) -> bool:
    return all(same_bits(one.flatten(), other.flatten()) for one, other in zip(left, right, strict=True))


@pytest.fixture(params=[isa for isa in usable_isas() if isa != "ref"])
def vector_isa(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each vectorised instruction set of this machine, in force while the test runs."""
    with ops.use_isa(request.param):
        yield


@pytest.mark.usefixtures("vector_isa")
@pytest.mark.parametrize("rows", ROWS)
def test_matches_float64_at_every_number_of_rows(rows: int) -> None:
    check(rows, 24, 64)


@pytest.mark.usefixtures("vector_isa")
@pytest.mark.parametrize("dim", DIMS)
def test_matches_float64_at_every_dimension(dim: int) -> None:
    check(37, dim, weighted=True)


@pytest.mark.parametrize("hidden", [32, 96, 512, 1024])
def test_other_widths(backend: str, hidden: int) -> None:
    check(35, 24, hidden, backend=backend)


@pytest.mark.parametrize("conditions", [1, 2, 3, 7, 15, 30, 70, 210, 1050])
def test_runs_that_share_a_condition_may_cross_any_border(backend: str, conditions: int) -> None:
    check(1050, 7, 32, conditions, weighted=True, backend=backend)


def test_reference_is_autograd_of_the_plain_network() -> None:
    example = step(12, 7, 64, 3, weighted=True).double()
    x, target, *parts, weight = example
    w1, b1, w2, b2, w3, b3, modulation = leaves = [part.requires_grad_() for part in parts]
    gain1, shift1, gain2, shift2 = modulation.repeat_interleave(4, 0).unbind(1)
    h1 = functional.silu(functional.layer_norm(x @ w1.T + b1, (64,)) * (1 + gain1) + shift1)
    h2 = functional.silu(functional.layer_norm(h1 @ w2.T + b2, (64,)) * (1 + gain2) + shift2)
    loss = (weight[:, None] * (h2 @ w3.T + b3 - target) ** 2).mean()
    torch.testing.assert_close(
        tuple(reference(*example)), (loss.detach(), *torch.autograd.grad(loss, leaves)), rtol=1e-11, atol=1e-13
    )


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    example = step(24, 7, 64, 3, weighted=True).double()
    torch.testing.assert_close(op(*example, 1, "fp32"), tuple(reference(*example)), rtol=1e-11, atol=1e-13)


def test_the_gradient_predicts_the_loss_of_a_small_step() -> None:
    example = step(64, 24, 64, 4).double()
    before = ops.score_matching(*example, backend="torch")
    rate = 1e-4
    moved = [part - rate * gradient for part, gradient in zip(example[2:9], before[1:], strict=True)]
    after = ops.score_matching(*example[:2], *moved, None, backend="torch").loss
    expected = -rate * sum(float(gradient.square().sum()) for gradient in before[1:])
    assert float(after - before.loss) == pytest.approx(expected, rel=1e-2)


@pytest.mark.usefixtures("vector_isa")
@given(rows=st.integers(1, 24), run=st.sampled_from([1, 5, 16]), dim=st.integers(1, 40))
def test_weights_of_one_change_nothing(rows: int, run: int, dim: int) -> None:
    example = step(rows * run, dim, 32, rows)
    weighted = example._replace(weight=torch.ones(rows * run))
    assert same(ops.score_matching(*example, backend="cpu"), ops.score_matching(*weighted, backend="cpu"))


@pytest.mark.usefixtures("vector_isa")
@pytest.mark.parametrize("size", [(512, 84, 256, 32), (1100, 24, 64, 4)])
def test_any_number_of_threads_gives_the_same_bits(size: tuple[int, ...]) -> None:
    example = step(*size)
    once = ops.score_matching(*example, backend="cpu", threads=1)
    for threads in (2, 3, 7):
        assert same(ops.score_matching(*example, backend="cpu", threads=threads), once)


def test_callers_side_by_side_do_not_disturb_each_other() -> None:
    examples = [step(96 * count, 24, 64, 6) for count in (1, 2, 3, 4)]
    alone = [ops.score_matching(*example, backend="cpu", threads=1) for example in examples]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: ops.score_matching(*examples[i % 4], backend="cpu", threads=3), range(80)))
    assert all(same(step, alone[i % 4]) for i, step in enumerate(together))


def test_reads_only_the_rows_of_strided_inputs(isa: str) -> None:
    example = step(33, 24, 64, 3)
    expected = ops.score_matching(*example, backend="cpu")
    wide = torch.full((2, 33, 40), float("nan"))
    wide[0, :, 5:29], wide[1, :, 5:29] = example.x, example.target
    for x, target in (
        (wide[0, :, 5:29], wide[1, :, 5:29]),
        (example.x.T.contiguous().T, example.target.T.contiguous().T),
    ):
        assert same(ops.score_matching(x, target, *example[2:], backend="cpu"), expected)


def test_writes_nothing_beyond_its_outputs(isa: str) -> None:
    example = step(45, 23, 32, 3)
    guard, shapes = 24, [(1,), *(part.shape for part in example[2:9])]
    outputs = [torch.full((torch.Size(shape).numel() + guard,), 7.0) for shape in shapes]
    _native.core().score_matching(
        isa, 1, (32, 23, *(part.data_ptr() for part in example[2:8]), 0, 0), 45, example.x.data_ptr(), 23,
        example.target.data_ptr(), 23, 0, example.modulation.data_ptr(), 3, tuple(part.data_ptr() for part in outputs),
    )  # fmt: skip
    assert all(bool((part[-guard:] == 7).all()) for part in outputs)
    assert same_bits(outputs[1][:-guard].view(32, 23), ops.score_matching(*example, backend="cpu").w1)


def test_nan_in_a_row_reaches_the_loss(backend: str) -> None:
    example = step(9, 24, 64)
    example.x[4, 3] = float("nan")
    assert bool(ops.score_matching(*example, backend=backend).loss.isnan())


def test_the_registered_op_has_no_gradient_of_its_own() -> None:
    example = step(5, 24, 32)
    values = op(*example._replace(w1=example.w1.requires_grad_()), 1, "fp32")
    with pytest.raises(RuntimeError, match="score_matching: it returns gradients"):
        values[0].backward()


def test_opcheck() -> None:
    torch.library.opcheck(op, (*step(9, 24, 32, 3, weighted=True), 1, "fp32"))


def test_compiles_without_graph_breaks() -> None:
    example = step(9, 24, 32)
    compiled = torch.compile(
        lambda x: ops.score_matching(x, *example[1:], backend="cpu").w2 * 2, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(example.x), ops.score_matching(*example, backend="cpu").w2 * 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(0, 5)}, ValueError, "number of rows of x must be at least 1, got 0"),
        ({"target": torch.zeros(4, 5)}, ValueError, r"target must have shape \(6, 5\), got \(4, 5\)"),
        ({"w3": torch.zeros(32)}, ValueError, r"w3 must have shape \(5, 32\), got \(32,\)"),
        ({"modulation": torch.zeros(4, 4, 32)}, ValueError, "rows of modulation must divide the 6 rows of x, got 4"),
        ({"weight": torch.zeros(5)}, ValueError, r"weight must have shape \(6,\), got \(5,\)"),
        ({"b1": torch.zeros(32).double()}, TypeError, "b1 must be torch.float32, got torch.float64"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {**step(6, 5, 32, 2)._asdict(), **change}
    with pytest.raises(error, match=f"score_matching: {message}"):
        ops.score_matching(**arguments)


def test_half_precision_rounds_operands_only(backend: str) -> None:
    example, exact, _ = answers(35, 24, 32, 5)
    rough = ops.score_matching(*example, backend="torch", precision="bf16")
    for name, value, right in zip(LossGradients._fields, rough, exact, strict=True):
        assert value.dtype == torch.float32
        assert 2**-14 < float((value - right).norm() / right.norm()) < 2**-5, name
    if backend == "cpu":
        with pytest.raises(ValueError, match="precision is 'bf16', the cpu kernel takes 'fp32'"):
            ops.score_matching(*example, backend="cpu", precision="bf16")
        with pytest.raises(RuntimeError, match="the cpu kernel takes precision 'fp32', got 'bf16'"):
            op(*example, 1, "bf16")


def test_an_unsuitable_width_says_what_the_kernels_take() -> None:
    with pytest.raises(ValueError, match="hidden width is 20, the kernels take multiples of 32 up to 1024"):
        ops.score_matching(*step(6, 5, 20), backend="cpu")

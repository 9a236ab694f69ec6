"""The Triton kernel of unrolled_attention: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import assert_close, same_bits
from test_unrolled_attention import PATTERNS, closed_form, problem, single, table
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels import unrolled_attention as kernel
from fastimpute.ops.channel_modes import exponential_links
from fastimpute.ops.rates import Rates
from fastimpute.ops.unrolled_attention import SOLVERS, _triton, reference

SIZES: dict[str, Any] = {"iterations": 2, "inner_iterations": 4, "solver": "cg", "length": None}


def run(given: dict[str, Any], rates: Rates | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """The kernel in float32."""
    arguments = {"mean": None, "channel_covariance": None, **single(given)}
    mean, channels = arguments.pop("mean"), arguments.pop("channel_covariance")
    outer, inner = (None, None) if rates is None else rates
    return _triton(*arguments.values(), mean, channels, outer, inner, *{**SIZES, **options}.values())


def check(given: dict[str, Any], rates: Rates | None = None, **options: Any) -> None:
    options = {**SIZES, **options}
    exact = reference(**given, rates=rates, **options)
    plain = reference(**single(given), rates=rates, **options)
    for name, value, right, rough in zip(("score", "mean"), run(given, rates, **options), exact, plain, strict=True):
        assert_close(name, value, right, rough)


@pytest.mark.parametrize("length", [None, 3.0], ids=["plain", "preconditioned"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_matches_float64(solver: str, length: float | None) -> None:
    check(problem(9, 11, 3), solver=solver, length=length)


@pytest.mark.parametrize("n", [0, 1, 3, 31, 33])
def test_matches_float64_at_every_number_of_sequences(n: int) -> None:
    check(problem(n, 6, 2, plain=True), solver="chebyshev", iterations=2, inner_iterations=2)


@pytest.mark.parametrize(("frames", "channels"), [(1, 1), (2, 33), (16, 1), (33, 7), (130, 3)])
def test_matches_float64_at_every_shape(frames: int, channels: int) -> None:
    check(problem(3, frames, channels), length=3.0, iterations=1)


@pytest.mark.parametrize(("rows", "inner_rows"), [(7, 1), (1, 7)])
def test_given_rates_of_each_sequence_or_of_all(rows: int, inner_rows: int) -> None:
    rates = Rates(0.1 * torch.rand(rows, 3, 2), 0.1 * torch.rand(inner_rows, 4, 2))
    check(problem(7, 9, 3), rates, solver="gd", iterations=3)


@pytest.mark.parametrize("solver", ["cg", "gd"])
@pytest.mark.parametrize(("iterations", "inner_iterations"), [(0, 3), (2, 0), (1, 1)])
def test_few_iterations_or_none(solver: str, iterations: int, inner_iterations: int) -> None:
    check(problem(3, 6, 2), solver=solver, iterations=iterations, inner_iterations=inner_iterations)


@pytest.mark.parametrize("pattern", ["P1", "P4"])
def test_mean_of_the_paper_is_exact_to_a_hundredth_of_its_spread(pattern: str) -> None:
    gamma, missing = table(96, 256.0, 1e-6), torch.zeros(96, dtype=torch.bool)
    missing[PATTERNS[pattern]] = True
    x = torch.randn(2, 96, 3, dtype=torch.float64).cumsum(1) / 16
    _, exact, deviation = closed_form(x, x, missing, gamma, 1.0, 0.1)
    scales = torch.ones(2, 2, dtype=torch.float64).unbind()
    arguments = dict(zip(("v", "x", "missing", "lag_table", "alpha", "sigma"),
                         (x, x, missing.repeat(2, 1), gamma, *scales), strict=True))  # fmt: skip
    _, mean = run(arguments, iterations=0, inner_iterations=2, length=256.0)
    assert float(((mean[:, missing] - exact).abs() / deviation[:, None]).max()) < 0.01


def test_what_is_not_known_is_not_read_and_what_is_known_keeps_its_bits() -> None:
    given = problem(5, 7, 3)
    expected = run(given)
    hidden = given["missing"][..., None]
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    x, v = torch.where(hidden, nan, given["x"]), torch.where(hidden, given["v"], nan)
    score, mean = run(given | {"x": x, "v": v})
    assert same_bits(score, expected[0])
    assert same_bits(mean, expected[1])
    seen = ~given["missing"]
    assert same_bits(mean[seen], given["x"].float()[seen])
    assert not bool(score[seen].any())


def test_the_noisy_values_are_not_needed_for_the_mean_alone() -> None:
    given = problem(3, 6, 2)
    expected = run(given, iterations=0, solver="gd")
    nothing = torch.full_like(given["v"], torch.nan)
    score, mean = run(given | {"v": nothing}, iterations=0, solver="gd")
    assert same_bits(mean, expected[1])
    assert not bool(score.any())


@pytest.mark.parametrize("solver", ["cg", "gd"])
def test_any_split_of_the_sequences_gives_the_same_bits(solver: str) -> None:
    given = problem(11, 17, 20)  # three tiles for two programs
    rates = None if solver == "cg" else Rates(torch.full((1, 1, 2), 0.3), torch.full((1, 3, 2), 0.2))
    options = {"solver": solver, "iterations": 1, "inner_iterations": 3, "length": 3.0}
    whole = run(given, rates, **options)
    for part in (slice(0, 1), slice(1, 6), slice(6, 11)):
        rows = {name: given[name][part] for name in ("v", "x", "missing", "alpha", "sigma")}
        for value, of_all in zip(run(given | rows, rates, **options), whole, strict=True):
            assert same_bits(value, of_all[part])


def test_sequences_with_gaps_are_read_where_they_lie() -> None:
    given = problem(5, 7, 3)
    expected = run(given, length=2.0)
    for name in ("v", "x"):
        given[name] = among_nan(given[name].float().flatten(1)).unflatten(1, (7, 3))
    given["missing"] = among_nan(given["missing"])
    given["lag_table"] = given["lag_table"].repeat_interleave(2)[::2]
    for value, right in zip(run(given, length=2.0), expected, strict=True):
        assert same_bits(value, right)


def test_writes_only_its_outputs_and_its_scratch() -> None:
    given = single(problem(5, 7, 3, plain=True))
    tiles = kernel.configuration(7, 3)
    outputs = Guarded(5, 7, 3), Guarded(5, 7, 3)
    scratch = Guarded(kernel.scratch_size(tiles))
    v, x, missing, lag_table, alpha, sigma = given.values()
    kernel.launch(
        (v.flatten(1), x.flatten(1), missing), (lag_table, None, None, None), (alpha, sigma), (None, None),
        exponential_links(7, 3.0, v.device), tuple(output.inside for output in outputs), scratch.inside,
        iterations=2, inner_iterations=2, programs=1, tiles=tiles,
    )  # fmt: skip
    for output in outputs:
        assert bool(output.inside.isfinite().all())
        assert output.guards_untouched()
    assert scratch.guards_untouched()


def test_channels_that_are_no_covariance_are_refused() -> None:
    given = problem(2, 5, 2)
    with pytest.raises(ValueError, match="channel_covariance must be positive definite, each variance above 0, got -1"):
        run(given | {"channel_covariance": -torch.eye(2, dtype=torch.float64)})

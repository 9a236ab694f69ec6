"""unrolled_attention's CUDA kernel over emulated lanes: main memory stands in for the GPU's."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import cuda_emulation
import pytest
import torch
from closeness import assert_close, same_bits
from test_unrolled_attention import PATTERNS, closed_form, problem, single, table
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute import _native, ops
from fastimpute.ops import backends
from fastimpute.ops.channel_modes import exponential_links
from fastimpute.ops.rates import Rates
from fastimpute.ops.unrolled_attention import SOLVERS, reference

SIZES: dict[str, Any] = {"iterations": 2, "inner_iterations": 4, "solver": "cg", "length": None}


@pytest.fixture(scope="module")
def module(emulated_cuda: Path) -> ModuleType:
    return cuda_emulation.module(emulated_cuda)


@pytest.fixture(autouse=True)
def _main_memory_is_the_gpu(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: module)
    monkeypatch.setitem(backends.DEVICES, "cuda", "cpu")
    monkeypatch.setitem(backends._PROBES, "cuda", lambda: backends.Availability(True, "emulated"))


def run(given: dict[str, Any], rates: Rates | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """The kernel in float32."""
    return ops.unrolled_attention(**single(given), rates=rates, backend="cuda", **{**SIZES, **options})


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


@pytest.mark.parametrize("n", [0, 1, 3, 31, 33, 129])
def test_matches_float64_at_every_number_of_sequences(n: int) -> None:
    check(problem(n, 6, 2, plain=True), solver="chebyshev", inner_iterations=2)


# Each way to share frames among lanes, its last frame there or not; a sequence in a part of a warp, in one, in several.
@pytest.mark.parametrize(
    ("frames", "channels"),
    [(1, 1), (16, 5), (17, 17), (48, 1), (63, 9), (64, 2), (95, 8), (96, 33), (97, 3), (150, 5), (193, 9), (256, 1)],
)
def test_matches_float64_at_every_shape(frames: int, channels: int) -> None:
    check(problem(3, frames, channels), length=3.0, iterations=1, inner_iterations=2)


@pytest.mark.parametrize(("rows", "inner_rows"), [(7, 1), (1, 7)])
def test_given_rates_of_each_sequence_or_of_all(rows: int, inner_rows: int) -> None:
    rates = Rates(0.1 * torch.rand(rows, 3, 2), 0.1 * torch.rand(inner_rows, 4, 2))
    check(problem(7, 9, 3), rates, solver="gd", iterations=3)


@pytest.mark.parametrize("solver", ["cg", "gd"])
@pytest.mark.parametrize(("iterations", "inner_iterations"), [(0, 3), (2, 0), (1, 1)])
def test_few_iterations_or_none(solver: str, iterations: int, inner_iterations: int) -> None:
    check(problem(3, 6, 2), solver=solver, iterations=iterations, inner_iterations=inner_iterations)


@pytest.mark.parametrize("solver", ["cg", "chebyshev"])
def test_many_iterations_stay_as_close_as_fresh_residuals(solver: str) -> None:
    """The kernel follows residuals by recurrence, given rates included, where PyTorch forms them anew."""
    check(problem(2, 24, 2), solver=solver, iterations=20, inner_iterations=60)


@pytest.mark.parametrize("pattern", ["P1", "P4"])
def test_mean_of_the_paper_is_exact_to_a_hundredth_of_its_spread(pattern: str) -> None:
    gamma, missing = table(96, 256.0, 1e-6), torch.zeros(96, dtype=torch.bool)
    missing[PATTERNS[pattern]] = True
    x = torch.randn(2, 96, 3, dtype=torch.float64).cumsum(1) / 16
    _, exact, deviation = closed_form(x, x, missing, gamma, 1.0, 0.1)
    ones = torch.ones(2, dtype=torch.float64)
    given = {"v": x, "x": x, "missing": missing.repeat(2, 1), "lag_table": gamma, "alpha": ones, "sigma": ones}
    _, mean = run(given, iterations=0, inner_iterations=2, length=256.0)
    assert float(((mean[:, missing] - exact).abs() / deviation[:, None]).max()) < 0.01


def test_score_of_the_paper_is_as_close_as_torch() -> None:
    given = problem(3, 96, 8, plain=True) | {"lag_table": table(96, 256.0, 1e-6)}
    for row, pattern in enumerate(("P1", "P2", "P4")):
        given["missing"][row] = False
        given["missing"][row, PATTERNS[pattern]] = True
    given["x"] = given["x"].cumsum(1) / 16
    given["v"] = given["x"] + 0.1 * given["v"]
    given["sigma"] = torch.full((3,), 0.1, dtype=torch.float64)
    check(given, iterations=15, inner_iterations=2, length=256.0)


def test_what_is_not_known_is_not_read_and_what_is_known_keeps_its_bits() -> None:
    given = problem(5, 7, 3)
    expected = run(given, length=2.0)
    hidden = given["missing"][..., None]
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    x, v = torch.where(hidden, nan, given["x"]), torch.where(hidden, given["v"], nan)
    score, mean = run(given | {"x": x, "v": v}, length=2.0)
    assert same_bits(score, expected[0])
    assert same_bits(mean, expected[1])
    seen = ~given["missing"]
    assert same_bits(mean[seen], given["x"].float()[seen])
    assert not bool(score[seen].any())


def test_the_noisy_values_are_not_needed_for_the_mean_alone() -> None:
    given = problem(3, 6, 2)
    expected = run(given, iterations=0)
    score, mean = run(given | {"v": torch.full_like(given["v"], torch.nan)}, iterations=0)
    assert same_bits(mean, expected[1])
    assert not bool(score.any())


@pytest.mark.parametrize(("solver", "channels"), [("cg", 3), ("gd", 3), ("cg", 20)])
def test_any_split_of_the_sequences_gives_the_same_bits(solver: str, channels: int) -> None:
    given = problem(11, 17, channels)
    rates = None if solver == "cg" else Rates(torch.full((1, 1, 2), 0.3), torch.full((1, 3, 2), 0.2))
    options = {"solver": solver, "iterations": 1, "inner_iterations": 3, "length": 3.0}
    whole = run(given, rates, **options)
    for part in (slice(0, 1), slice(1, 6), slice(6, 11)):
        rows = {name: given[name][part] for name in ("v", "x", "missing", "alpha", "sigma")}
        for value, of_all in zip(run(given | rows, rates, **options), whole, strict=True):
            assert same_bits(value, of_all[part])


def test_sequences_with_gaps_are_read_where_they_lie() -> None:
    given = single(problem(5, 7, 3))
    expected = run(given, length=2.0)
    for name in ("v", "x"):
        given[name] = among_nan(given[name].flatten(1)).unflatten(1, (7, 3))
    given["missing"] = among_nan(given["missing"])
    given["lag_table"] = given["lag_table"].repeat_interleave(2)[::2]
    for value, right in zip(run(given, length=2.0), expected, strict=True):
        assert same_bits(value, right)


def test_writes_only_its_outputs(module: ModuleType) -> None:
    v, x, missing, lag_table, alpha, sigma = single(problem(5, 7, 3, plain=True)).values()
    outputs = Guarded(5, 7, 3), Guarded(5, 7, 3)
    module.unrolled_attention(
        0, (5, 7, 3), (v.data_ptr(), 21, x.data_ptr(), 21, missing.data_ptr(), 7),
        (lag_table.data_ptr(), alpha.data_ptr(), sigma.data_ptr(), 0, 0, 0), (0, 0, 2, 0, 0, 2),
        tuple(part.data_ptr() for part in exponential_links(7, 3.0, v.device)),
        *(output.inside.data_ptr() for output in outputs),
    )  # fmt: skip
    for output in outputs:
        assert bool(output.inside.isfinite().all())
        assert output.guards_untouched()


def test_what_the_kernel_does_not_take_is_refused(module: ModuleType) -> None:
    assert module.unrolled_attention_refusal(96, 64) is None
    assert module.unrolled_attention_refusal(256, 32) is None
    reason = "the sequences have 257 frames, the kernel takes up to 256"
    assert module.unrolled_attention_refusal(257, 1) == reason
    with pytest.raises(ValueError, match=f"^unrolled_attention: backend 'cuda' cannot serve: {reason}$"):
        run(problem(1, 257, 1))
    reason = "the sequences of 96 frames have 65 channels, the kernel takes up to 64"
    assert module.unrolled_attention_refusal(96, 65) == reason
    given = problem(2, 5, 2)
    with pytest.raises(ValueError, match=r"cannot serve: v is torch\.float64, the kernels take float32"):
        ops.unrolled_attention(**given, backend="cuda")
    with pytest.raises(ValueError, match="channel_covariance must be positive definite, each variance above 0, got -1"):
        run(given | {"channel_covariance": -torch.eye(2, dtype=torch.float64)})


def test_the_binding_checks_what_it_is_given(module: ModuleType) -> None:
    nothing = (0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="unrolled_attention: frames must be at least 0, got -1"):
        module.unrolled_attention(0, (1, -1, 1), nothing, nothing, nothing, (0, 0), 0, 0)
    with pytest.raises(ValueError, match="links must be decay and weight, or none, got one of both"):
        module.unrolled_attention(0, (0, 1, 1), nothing, nothing, nothing, (8, 0), 0, 0)

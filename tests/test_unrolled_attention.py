"""unrolled_attention: Theorem 1's transformer, its dense form, the closed form it converges to, and its kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops.lag_heads import head_matrix, lag_selectors, transformer
from fastimpute.ops.rates import Rates, spectral_rates, spectrum
from fastimpute.ops.unrolled_attention import SOLVERS, reference

PATTERNS = {
    "P1": [*range(80, 96)],
    "P2": [*range(20, 24), *range(44, 48), *range(68, 72), *range(92, 96)],
    "P3": [5, 6, 17, 18, 29, 30, 31, 32, 45, 46, 57, 58, 69, 70, 81, 82],
    "P4": [3, 9, 15, 16, 22, 28, 34, 40, 41, 47, 53, 59, 65, 71, 78, 85],
}
KAPPA = {"P1": 415.40, "P2": 29.57, "P3": 9.47, "P4": 3.00}
op = torch.ops.fastimpute.unrolled_attention.default
solvers = pytest.mark.parametrize("solver", SOLVERS)


def table(frames: int, length: float, nugget: float, dtype: torch.dtype = torch.float64) -> Tensor:
    gamma = torch.exp(-torch.arange(frames, dtype=torch.float64) / length)
    gamma[:1] += nugget
    return gamma.to(dtype)


def covariance(channels: int) -> Tensor:
    factor = torch.randn(channels, channels, dtype=torch.float64)
    return factor @ factor.T / channels + 2.0 * torch.eye(channels, dtype=torch.float64)


def problem(n: int, frames: int, channels: int, *, plain: bool = False) -> dict[str, Any]:
    """Arguments in float64 on a well-conditioned process; every third sequence has the mask of the first."""
    missing = torch.rand(n, frames) < 0.3
    missing[::3] = missing[:1].clone()
    if n > 2:
        missing[1], missing[2] = True, False
    arguments: dict[str, Any] = {
        "v": torch.randn(n, frames, channels, dtype=torch.float64),
        "x": torch.randn(n, frames, channels, dtype=torch.float64),
        "missing": missing,
        "lag_table": table(frames, 2.0, 1.0),
        "alpha": 0.5 + 0.5 * torch.rand(n, dtype=torch.float64),
        "sigma": 0.5 + torch.rand(n, dtype=torch.float64),
    }
    if not plain:
        arguments |= {
            "mean": torch.randn(frames, channels, dtype=torch.float64),
            "channel_covariance": covariance(channels),
        }
    return arguments


def single(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same in float32."""
    return {
        name: value.float() if isinstance(value, Tensor) and value.dtype == torch.float64 else value
        for name, value in arguments.items()
    }


def closed_form(v: Tensor, x: Tensor, missing: Tensor, gamma: Tensor, alpha: float, sigma: float) -> tuple[Tensor, ...]:
    """Score, conditional mean and standard deviation at the missing frames of sequences with one mask."""
    hidden, seen = torch.nonzero(missing)[:, 0], torch.nonzero(~missing)[:, 0]
    full = head_matrix(gamma)
    gain = torch.linalg.solve(full[seen][:, seen], full[seen][:, hidden]).T
    spread = full[hidden][:, hidden] - gain @ full[seen][:, hidden]
    mean = gain @ x[:, seen]
    noisy = alpha**2 * spread + sigma**2 * torch.eye(len(hidden), dtype=torch.float64)
    return -torch.linalg.solve(noisy, v[:, hidden] - alpha * mean), mean, spread.diag().sqrt()


# The construction


def test_four_relu_heads_per_lag_pick_the_pairs_of_that_lag() -> None:
    position = torch.arange(97)
    lags = (position[:, None] - position).abs()
    assert torch.equal(lag_selectors(97), (lags == position[:, None, None]).double())
    assert torch.equal(lag_selectors(97, torch.float32), (lags == position[:, None, None]).float())


def test_heads_of_all_lags_are_the_toeplitz_matrix() -> None:
    gamma = torch.randn(12, dtype=torch.float64)
    torch.testing.assert_close(torch.einsum("mik,m->ik", lag_selectors(12), gamma), head_matrix(gamma))


def test_dense_form_equals_the_transformer_of_theorem_1() -> None:
    given = problem(5, 9, 2)
    theta, eta = 0.1875, 0.375
    rates = Rates(torch.tensor([[[eta, 0.0]] * 4]).double(), torch.tensor([[[theta, 0.0]] * 6]).double())
    given |= {"alpha": 0.8, "sigma": 0.6, "mean": None}
    sizes = {"iterations": 4, "inner_iterations": 6}
    score, mean = reference(**given, rates=rates, solver="gd", **sizes)
    del given["mean"]
    literal_score, literal_mean = transformer(**given, theta=theta, eta=eta, **sizes)
    torch.testing.assert_close(score, literal_score, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mean, literal_mean, rtol=1e-9, atol=1e-9)


@solvers
def test_converges_to_the_closed_form(solver: str) -> None:
    gamma, missing = table(20, 2.0, 0.5), torch.rand(20) < 0.4
    v, x = torch.randn(2, 3, 20, 2, dtype=torch.float64)
    score, mean = reference(
        v, x, missing.expand(3, 20), gamma, 0.9, 0.3, solver=solver, iterations=60, inner_iterations=60
    )
    exact_score, exact_mean, _ = closed_form(v, x, missing, gamma, 0.9, 0.3)
    torch.testing.assert_close(score[:, missing], exact_score, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mean[:, missing], exact_mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_spectrum_gives_the_published_condition_numbers(pattern: str) -> None:
    missing = torch.zeros(1, 96, dtype=torch.bool)
    missing[:, PATTERNS[pattern]] = True
    bounds = spectrum(missing, table(96, 256.0, 1e-6))[0]
    assert float(bounds[3] / bounds[2]) == pytest.approx(KAPPA[pattern], abs=0.01)


@pytest.mark.parametrize(("solver", "kappa_of"), [("gd", 1.0), ("chebyshev", 0.5)])
@pytest.mark.parametrize("pattern", ["P3", "P4"])
def test_error_falls_at_the_rate_the_condition_number_predicts(pattern: str, solver: str, kappa_of: float) -> None:
    """(kappa - 1) / (kappa + 1) per step, with the square root of kappa for chebyshev."""
    missing = torch.zeros(96, dtype=torch.bool)
    missing[PATTERNS[pattern]] = True
    gamma = table(96, 256.0, 1e-6)
    v, x = torch.randn(2, 4, 96, 1, dtype=torch.float64)
    exact = closed_form(v, x, missing, gamma, 1.0, 0.01)[0]
    bounds = spectrum(missing[None], gamma)[0]
    kappa = float((bounds[3] + 1e-4) / (bounds[2] + 1e-4)) ** kappa_of
    masks = missing.expand(4, 96)
    errors = []
    for steps in (10, 20):
        outer = spectral_rates(solver, bounds[None], torch.ones(1), torch.tensor([0.01]), steps, 0).outer
        inner = spectral_rates("chebyshev", spectrum(masks[:1], gamma, length=256.0), *torch.ones(2, 1), 0, 20).inner
        score, _ = reference(
            v, x, masks, gamma, 1.0, 0.01, None, None, Rates(outer, inner), solver=solver, iterations=steps,
            inner_iterations=20, length=256.0,
        )  # fmt: skip
        errors.append(float((score[:, missing] - exact).norm()))
    rate = (errors[1] / errors[0]) ** 0.1
    assert rate == pytest.approx((kappa - 1) / (kappa + 1), rel=0.1)


@pytest.mark.parametrize(("solver", "length", "steps"), [("cg", 256.0, 2), ("cg", 100.0, 4), ("chebyshev", 100.0, 10)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_preconditioned_mean_is_exact_to_a_hundredth_of_its_spread_in_float32(
    isa: str, pattern: str, solver: str, length: float, steps: int
) -> None:
    gamma = table(96, 256.0, 1e-6)
    missing = torch.zeros(96, dtype=torch.bool)
    missing[PATTERNS[pattern]] = True
    x = torch.linalg.cholesky(head_matrix(gamma)) @ torch.randn(4, 96, 8, dtype=torch.float64)
    _, exact, deviation = closed_form(x, x, missing, gamma, 1.0, 0.1)
    _, mean = ops.unrolled_attention(
        x.float(), x.float(), missing.repeat(4, 1), gamma.float(), 1.0, 0.1, solver=solver, length=length,
        iterations=0, inner_iterations=steps, backend="cpu",
    )  # fmt: skip
    assert float(((mean[:, missing] - exact).abs() / deviation[:, None]).max()) < 0.01


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 12), st.integers(1, 3), st.sampled_from(SOLVERS), st.integers(0, 2**31))
def test_score_and_mean_shift_with_the_data(frames: int, channels: int, solver: str, seed: int) -> None:
    """Adding c to x and the mean, and alpha c to v, moves the conditional mean by c and leaves the score."""
    torch.manual_seed(seed)
    given_ = problem(4, frames, channels)
    sizes = {"iterations": 3, "inner_iterations": 5, "solver": solver}
    score, mean = reference(**given_, **sizes)
    shift = torch.randn(frames, channels, dtype=torch.float64)
    moved = {**given_, "x": given_["x"] + shift, "mean": given_["mean"] + shift}
    moved["v"] = given_["v"] + given_["alpha"][:, None, None] * shift
    shifted_score, shifted_mean = reference(**moved, **sizes)
    torch.testing.assert_close(shifted_score, score, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(shifted_mean, mean + shift, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 14), st.floats(1.0, 50.0), st.integers(0, 2**31))
def test_preconditioner_of_the_right_length_solves_the_exponential_kernel_at_once(
    frames: int, length: float, seed: int
) -> None:
    torch.manual_seed(seed)
    given_ = problem(3, frames, 2) | {"lag_table": table(frames, length, 0.0)}
    once = reference(**given_, solver="cg", iterations=0, inner_iterations=1, length=length)[1]
    often = reference(**given_, solver="cg", iterations=0, inner_iterations=3, length=length)[1]
    torch.testing.assert_close(once, often, rtol=1e-6, atol=1e-6)


def test_observed_frames_keep_their_bits_and_have_no_score(backend: str) -> None:
    given = single(problem(6, 7, 3))
    score, mean = ops.unrolled_attention(**given, backend=backend)
    seen = ~given["missing"]
    assert same_bits(mean[seen], given["x"][seen])
    assert not bool(score[seen].any())


def test_values_where_they_cannot_be_known_are_not_read(backend: str) -> None:
    given = single(problem(6, 7, 3))
    expected = ops.unrolled_attention(**given, backend=backend)
    hidden = given["missing"][..., None]
    nan = torch.tensor(float("nan"))
    poisoned = given | {"x": torch.where(hidden, nan, given["x"]), "v": torch.where(hidden, given["v"], nan)}
    for value, want in zip(ops.unrolled_attention(**poisoned, backend=backend), expected, strict=True):
        assert same_bits(value, want)


def test_nothing_observed_gives_the_mean_and_nothing_missing_gives_x(backend: str) -> None:
    given = single(problem(3, 6, 2))
    _, mean = ops.unrolled_attention(**given, backend=backend)
    assert torch.equal(mean[1], given["mean"])
    assert torch.equal(mean[2], given["x"][2])


def test_a_solved_sequence_stays_finite(backend: str) -> None:
    given = single(problem(4, 5, 2))
    score, mean = ops.unrolled_attention(**given, iterations=60, inner_iterations=60, solver="cg", backend=backend)
    assert bool(score.isfinite().all())
    assert bool(mean.isfinite().all())


# The kernels


def check(given: dict[str, Any], backend: str = "cpu", **options: Any) -> None:
    """Against float64, within twice the error of PyTorch in float32."""
    # Short of convergence, cg multiplies a rounding error by more in one precision than in another.
    options = {"iterations": 5, "inner_iterations": 30 if options.get("solver") == "cg" else 12, **options}
    exact = reference(**given, **options)
    plain = reference(**single(given), **options)
    outputs = ops.unrolled_attention(**single(given), backend=backend, **options)
    for name, value, want, torch_value in zip(("score", "mean"), outputs, exact, plain, strict=True):
        assert_close(name, value, want, torch_value)


@pytest.mark.parametrize("length", [None, 3.0], ids=["plain", "preconditioned"])
@solvers
@pytest.mark.parametrize("shape", [(9, 11, 3), (33, 8, 1), (4, 31, 16), (3, 16, 17), (2, 9, 70), (7, 1, 2)], ids=str)
def test_matches_float64(isa: str, shape: tuple[int, int, int], solver: str, length: float | None) -> None:
    check(problem(*shape), solver=solver, length=length)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 31, 33, 127, 129])
def test_matches_float64_at_every_number_of_sequences(isa: str, n: int) -> None:
    check(problem(n, 6, 2, plain=True), solver="chebyshev")


@pytest.mark.parametrize("frames", [2, 3, 7, 96, 129])
def test_matches_float64_at_every_length(isa: str, frames: int) -> None:
    check(problem(5, frames, 8), solver="cg")


def test_torch_backend_matches_float64() -> None:
    check(problem(9, 11, 3), backend="torch")


@solvers
@pytest.mark.parametrize("length", [None, 3.0], ids=["plain", "preconditioned"])
def test_scalar_oracle_in_double_equals_the_reference(solver: str, length: float | None) -> None:
    given = problem(7, 9, 3)
    sizes = {"iterations": 4, "inner_iterations": 12, "solver": solver, "length": length}
    oracle = op(*given.values(), None, None, *sizes.values(), "cpu")
    torch.testing.assert_close(oracle, reference(**given, **sizes), rtol=1e-8, atol=1e-8)


def test_rates_may_differ_between_sequences_and_iterations(isa: str) -> None:
    given = problem(7, 9, 3)
    rates = Rates(0.1 * torch.rand(7, 4, 2), 0.1 * torch.rand(1, 6, 2))
    check(given, solver="gd", rates=rates, iterations=4, inner_iterations=6)


@solvers
def test_sequences_do_not_see_each_other(isa: str, solver: str) -> None:
    given = single(problem(41, 10, 3))
    options = {"solver": solver, "iterations": 3, "inner_iterations": 4, "length": 3.0, "backend": "cpu"}
    whole = ops.unrolled_attention(**given, **options)
    for part in (slice(0, 1), slice(5, 18), slice(18, 41)):
        rows = {name: given[name][part] for name in ("v", "x", "missing", "alpha", "sigma")}
        alone = ops.unrolled_attention(**given | rows, **options)
        assert all(same_bits(left[part], right) for left, right in zip(whole, alone, strict=True))


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    given = single(problem(203, 12, 3))
    twice = ops.unrolled_attention(**given, backend="cpu")
    torch.set_num_threads(1)
    once = ops.unrolled_attention(**given, backend="cpu")
    assert all(same_bits(left, right) for left, right in zip(once, twice, strict=True))


def test_strided_inputs(isa: str) -> None:
    given = single(problem(9, 7, 3))
    expected = ops.unrolled_attention(**given, backend="cpu")
    for name in ("v", "x"):
        wide = torch.full((9, 11, 3), float("nan"))
        wide[:, :7] = given[name]
        given[name] = wide[:, :7]
    given["missing"] = torch.cat([given["missing"], given["missing"]], 1)[:, :7]
    given["lag_table"] = given["lag_table"].repeat_interleave(2)[::2]
    strided = ops.unrolled_attention(**given, backend="cpu")
    assert all(same_bits(left, right) for left, right in zip(expected, strided, strict=True))


def test_writes_nothing_beyond_its_outputs(isa: str) -> None:
    given = single(problem(5, 7, 3, plain=True))
    score, mean = torch.full((5 * 21 + 16,), 7.0), torch.full((5 * 21 + 16,), 7.0)
    v, x, missing, gamma, alpha, sigma = (given[name].data_ptr() for name in list(given)[:6])
    _native.core().unrolled_attention(
        isa, 1, (5, 7, 3), (v, 21, x, 21, missing, 7), (gamma, alpha, sigma, 0, 0, 0), (0, 0, 3, 0, 0, 3), 0.0,
        score.data_ptr(), mean.data_ptr(),
    )  # fmt: skip
    for output in (score, mean):
        assert bool((output[5 * 21 :] == 7).all())
        assert bool(output[: 5 * 21].isfinite().all())


# The op


def test_gradients_take_the_torch_backend() -> None:
    given = single(problem(4, 6, 2))
    given["lag_table"].requires_grad_()
    score, mean = ops.unrolled_attention(**given, iterations=2, inner_iterations=3)
    (score.sum() + mean.sum()).backward()
    assert given["lag_table"].grad is not None
    with pytest.raises(ValueError, match="gradients are required"):
        ops.unrolled_attention(**given, backend="cpu")


def test_gradients_in_the_table_and_the_rates_are_those_of_finite_differences() -> None:
    given = problem(3, 5, 2)
    outer, inner = 0.3 * torch.rand(1, 2, 2, dtype=torch.float64), 0.3 * torch.rand(1, 3, 2, dtype=torch.float64)
    lag_table, channels = given.pop("lag_table"), given.pop("channel_covariance")

    def run(lag_table: Tensor, channels: Tensor, outer: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        return reference(
            **given, lag_table=lag_table, channel_covariance=channels, rates=Rates(outer, inner), solver="gd",
            iterations=2, inner_iterations=3,
        )  # fmt: skip

    inputs = [tensor.clone().requires_grad_() for tensor in (lag_table, channels, outer, inner)]
    assert torch.autograd.gradcheck(run, inputs)


def test_opcheck() -> None:
    given = single(problem(5, 6, 2))
    for solver in SOLVERS:
        torch.library.opcheck(op, (*given.values(), None, None, 2, 3, solver, 3.0, "cpu"))


def test_compiles_without_graph_breaks() -> None:
    given = single(problem(5, 6, 2))
    v = given.pop("v")
    score = torch.compile(
        lambda v: ops.unrolled_attention(v, **given, solver="chebyshev")[0] + 1, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(score(v), ops.unrolled_attention(v, **given, solver="chebyshev")[0] + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 4)}, r"x must have shape \(2, 4, 3\), got \(2, 3, 4\)"),
        ({"lag_table": torch.ones(5)}, r"lag_table must have shape \(4,\), got \(5,\)"),
        ({"sigma": -1.0}, "sigma must be at least 0, got -1.0"),
        ({"alpha": torch.ones(3)}, r"alpha must have shape \(2,\), got \(3,\)"),
        ({"solver": "newton"}, r"solver must be one of \('gd', 'chebyshev', 'cg'\), got 'newton'"),
        ({"length": 0.0}, "length must be greater than 0, got 0.0"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"rates": Rates(torch.ones(1, 16, 2), torch.ones(1, 32, 2))}, "rates must be None for solver 'cg'"),
        (
            {"rates": Rates(torch.ones(5, 16, 2), torch.ones(1, 32, 2)), "solver": "gd"},
            "rates.outer must have 1 or 2 rows, got 5",
        ),
        (
            {"lag_table": torch.ones(4), "solver": "gd"},
            "lag_table must be positive definite, got eigenvalues from",
        ),
        ({"channel_covariance": -torch.eye(3)}, "channel_covariance must be positive definite"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, Any], message: str) -> None:
    zeros = torch.zeros(2, 4, 3)
    missing = torch.tensor([[False, True, False, False]] * 2)
    arguments = {"v": zeros, "x": zeros, "missing": missing, "lag_table": table(4, 2.0, 0.1).float()}
    arguments |= {"alpha": 1.0, "sigma": 0.1, **change}
    with pytest.raises(ValueError, match=f"unrolled_attention: {message}"):
        ops.unrolled_attention(**arguments)

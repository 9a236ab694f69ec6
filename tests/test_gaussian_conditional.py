"""gaussian_conditional: the laws of conditional Gaussians, and its kernels against float64."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops.gaussian_conditional import reference

SIZES = (0, 1, 2, 3, 7, 31, 33, 127, 129, 1023)
DIMS = (1, 7, 24, 84, 144)
op = torch.ops.fastimpute.gaussian_conditional.default


def gaussian(dim: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """mean (D,) and a well-conditioned covariance (D, D), double."""
    factor = torch.randn(dim, 2 * dim, dtype=torch.float64)
    covariance = scale * (factor @ factor.T / dim + 0.05 * torch.eye(dim, dtype=torch.float64))
    return torch.randn(dim, dtype=torch.float64), covariance


def windows(size: int, dim: int, rate: float = 0.4) -> tuple[Tensor, Tensor]:
    """x (n, D) with NaN where missing (n, D)."""
    missing = torch.rand(size, dim) < rate
    return torch.randn(size, dim).masked_fill(missing, float("nan")), missing


def check(size: int, dim: int, rate: float, given_as: str, backend: str = "cpu") -> None:
    mean, covariance = gaussian(dim)
    x, missing = windows(size, dim, rate)
    matrices = {"covariance": {"covariance": covariance}, "precision": {"precision": torch.linalg.inv(covariance)}}
    outputs = ops.gaussian_conditional(x, missing, mean, **matrices[given_as], backend=backend)
    exact = reference(x.double(), missing, mean, covariance)
    plain = reference(x, missing, mean.float(), covariance)
    for name, value, want, torch_value in zip(("filled", "deviation"), outputs, exact, plain, strict=True):
        shown = [part.masked_fill(~missing, 0) for part in (value, want, torch_value)]
        assert_close(name, *shown)
    assert same_bits(outputs[0][~missing], x[~missing])
    assert not outputs[1][~missing].any()


@pytest.mark.parametrize("given_as", ["covariance", "precision"])
@pytest.mark.parametrize("rate", [0.1, 0.45, 0.9, 1.0])
@pytest.mark.parametrize("dim", DIMS)
def test_matches_float64_at_every_width_and_share(isa: str, dim: int, rate: float, given_as: str) -> None:
    check(7, dim, rate, given_as)


@pytest.mark.parametrize("size", SIZES)
def test_matches_float64_at_every_number_of_windows(isa: str, size: int) -> None:
    check(size, 7, 0.4, "covariance")


def test_matches_float64_at_great_width() -> None:
    check(2, 2048, 0.1, "covariance")
    check(2, 480, 0.95, "precision")


def test_torch_backend_matches_float64() -> None:
    check(33, 24, 0.4, "precision", backend="torch")


@pytest.mark.parametrize("spread", [True, False])
def test_scalar_oracle_in_double_equals_the_reference(spread: bool) -> None:
    for rate in (0.2, 0.9):
        mean, covariance = gaussian(19)
        x, missing = windows(9, 19, rate)
        x = x.nan_to_num().double()
        outputs = op(x, missing, mean, covariance, None, 0.01, spread, 1, "cpu")
        torch.testing.assert_close(outputs, reference(x, missing, mean, covariance, noise=0.01, spread=spread))


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_without_the_spread_the_mean_is_the_same(isa: str, rate: float) -> None:
    mean, covariance = gaussian(50)
    x, missing = windows(20, 50, rate)
    filled, _ = ops.gaussian_conditional(x, missing, mean, covariance, backend="cpu")
    alone, deviation = ops.gaussian_conditional(x, missing, mean, covariance, spread=False, backend="cpu")
    torch.testing.assert_close(alone[missing], filled[missing])
    assert not deviation.any()


def test_two_cells_by_hand(backend: str) -> None:
    covariance = torch.tensor([[4.0, 1.0], [1.0, 2.0]])
    x, missing = torch.tensor([[3.0, 7.0]]), torch.tensor([[False, True]])
    filled, deviation = ops.gaussian_conditional(x, missing, torch.tensor([1.0, -1.0]), covariance, backend=backend)
    torch.testing.assert_close(filled, torch.tensor([[3.0, -1.0 + 0.25 * 2.0]]))
    torch.testing.assert_close(deviation, torch.tensor([[0.0, 1.75**0.5]]))


def test_nothing_observed_gives_the_mean_and_the_marginal_spread(backend: str) -> None:
    mean, covariance = gaussian(11)
    x, missing = torch.full((2, 11), float("nan")), torch.ones(2, 11, dtype=torch.bool)
    filled, deviation = ops.gaussian_conditional(x, missing, mean, covariance, backend=backend)
    torch.testing.assert_close(filled, mean.float().expand(2, 11))
    torch.testing.assert_close(deviation, covariance.diagonal().sqrt().float().expand(2, 11))


def test_nothing_missing_changes_nothing(backend: str) -> None:
    mean, covariance = gaussian(5)
    x = torch.randn(3, 5)
    filled, deviation = ops.gaussian_conditional(
        x, torch.zeros(3, 5, dtype=torch.bool), mean, covariance, backend=backend
    )
    assert same_bits(filled, x)
    assert not deviation.any()


dims = st.integers(1, 40)
seeds = st.integers(0, 2**31)
rates = st.sampled_from([0.1, 0.5, 0.8])


@settings(deadline=None, max_examples=30)
@given(dims, seeds, rates, st.floats(0.1, 10))
def test_scaling_the_data_scales_mean_and_spread(dim: int, seed: int, rate: float, scale: float) -> None:
    torch.manual_seed(seed)
    mean, covariance = gaussian(dim)
    x, missing = windows(5, dim, rate)
    filled, deviation = ops.gaussian_conditional(x, missing, mean, covariance)
    larger = ops.gaussian_conditional(scale * x, missing, scale * mean, scale**2 * covariance)
    torch.testing.assert_close(larger[0][missing], scale * filled[missing], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(larger[1][missing], scale * deviation[missing], rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(dims, seeds, rates)
def test_one_more_observation_never_widens_the_spread(dim: int, seed: int, rate: float) -> None:
    torch.manual_seed(seed)
    mean, covariance = gaussian(dim)
    x, missing = windows(4, dim, rate)
    x = x.nan_to_num()
    fewer = missing & (torch.rand(4, dim) < 0.7)
    _, before = ops.gaussian_conditional(x, missing, mean, covariance)
    _, after = ops.gaussian_conditional(x, fewer, mean, covariance)
    assert bool((after <= before * (1 + 1e-5)).all())


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 30), seeds)
def test_observing_the_conditional_mean_of_a_cell_moves_no_other(dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    mean, covariance = gaussian(dim)
    x, missing = windows(3, dim, 0.5)
    filled, _ = ops.gaussian_conditional(x, missing, mean, covariance)
    fewer = missing.clone()
    fewer[:, 0] = False
    again, _ = ops.gaussian_conditional(filled, fewer, mean, covariance)
    torch.testing.assert_close(again, filled, rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 30), seeds, rates)
def test_permuting_the_cells_permutes_the_answer(dim: int, seed: int, rate: float) -> None:
    torch.manual_seed(seed)
    mean, covariance = gaussian(dim)
    x, missing = windows(6, dim, rate)
    order = torch.randperm(dim)
    plain = ops.gaussian_conditional(x, missing, mean, covariance)
    moved = ops.gaussian_conditional(x[:, order], missing[:, order], mean[order], covariance[order][:, order])
    for left, right in zip(plain, moved, strict=True):
        torch.testing.assert_close(left[:, order], right, rtol=1e-4, atol=1e-4)


def test_deviations_are_those_of_the_errors(backend: str) -> None:
    mean, covariance = gaussian(12)
    truth = (mean + torch.randn(4000, 12, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T).float()
    missing = torch.rand(1, 12).expand(4000, 12) < 0.5
    filled, deviation = ops.gaussian_conditional(truth, missing, mean, covariance, backend=backend)
    standard = ((filled - truth)[missing] / deviation[missing]).view(4000, -1)
    assert float(standard.mean().abs()) < 0.05
    assert float((standard.std(0) - 1).abs().max()) < 0.06


def test_noise_is_variance_added_to_every_cell(backend: str) -> None:
    mean, covariance = gaussian(9)
    x, missing = windows(5, 9)
    noisy = covariance + 0.3 * torch.eye(9, dtype=torch.float64)
    for matrices in ({"covariance": covariance}, {"precision": torch.linalg.inv(covariance)}):
        ours = ops.gaussian_conditional(x, missing, mean, **matrices, noise=0.3, backend=backend)
        for left, right in zip(ours, ops.gaussian_conditional(x, missing, mean, noisy, backend=backend), strict=True):
            torch.testing.assert_close(left[missing], right[missing])


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    mean, covariance = gaussian(40)
    x, missing = windows(500, 40)
    once = ops.gaussian_conditional(x, missing, mean, covariance, backend="cpu", threads=1)
    twice = ops.gaussian_conditional(x, missing, mean, covariance, backend="cpu", threads=2)
    assert all(same_bits(left, right) for left, right in zip(once, twice, strict=True))


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_a_window_does_not_see_the_others(isa: str, rate: float) -> None:
    mean, covariance = gaussian(33)
    x, missing = windows(1, 33, rate)
    mask = missing.expand(150, 33)
    many = torch.randn(150, 33)
    many[77] = x[0]
    alone = ops.gaussian_conditional(x, missing, mean, covariance, backend="cpu")
    among = ops.gaussian_conditional(many, mask, mean, covariance, backend="cpu")
    assert all(same_bits(left[0], right[77]) for left, right in zip(alone, among, strict=True))


def test_strided_inputs(isa: str) -> None:
    mean, covariance = gaussian(8)
    x, missing = windows(6, 8)
    wide = torch.full((6, 20), float("nan"))
    wide[:, 3:11] = x
    expected = ops.gaussian_conditional(x, missing, mean, covariance, backend="cpu")
    for view in (wide[:, 3:11], x.T.contiguous().T):
        strided = ops.gaussian_conditional(view, missing, mean, covariance, backend="cpu")
        assert all(same_bits(left, right) for left, right in zip(expected, strided, strict=True))


def test_writes_nothing_beyond_its_outputs(isa: str) -> None:
    mean, covariance = gaussian(7)
    x, missing = windows(5, 7)
    filled, deviation = torch.full((6, 9), 7.0), torch.full((6, 9), 7.0)
    _native.core().gaussian_conditional(
        isa, 1, 5, 7, x.data_ptr(), 7, missing.data_ptr(), 7, mean.data_ptr(), covariance.data_ptr(), 0,
        filled.data_ptr(), 9, deviation.data_ptr(), 9,
    )  # fmt: skip
    for output in (filled, deviation):
        assert bool((output[:5, 7:] == 7).all())
        assert bool((output[5] == 7).all())


def test_gradients_take_the_torch_backend() -> None:
    mean, covariance = gaussian(6)
    x, missing = windows(3, 6)
    x.nan_to_num_().requires_grad_()
    filled, _ = ops.gaussian_conditional(x, missing, mean, covariance)
    filled.sum().backward()
    assert x.grad is not None
    assert not x.grad[missing].any()
    with pytest.raises(ValueError, match="gradients are required"):
        ops.gaussian_conditional(x, missing, mean, covariance, backend="cpu")


def test_reference_gradient_by_finite_differences() -> None:
    mean, covariance = gaussian(5)
    x, missing = windows(2, 5)
    x = x.nan_to_num().double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, mean: reference(x, missing, mean, covariance)[0], (x, mean.requires_grad_())
    )


def test_opcheck() -> None:
    mean, covariance = gaussian(9)
    x, missing = windows(4, 9)
    torch.library.opcheck(op, (x.nan_to_num(), missing, mean, covariance, None, 0.0, True, 1, "cpu"))


def test_compiles_without_graph_breaks() -> None:
    mean, covariance = gaussian(9)
    x, missing = windows(4, 9)
    x.nan_to_num_()
    fill = torch.compile(
        lambda x: ops.gaussian_conditional(x, missing, mean, covariance)[0] + 1, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(fill(x), ops.gaussian_conditional(x, missing, mean, covariance)[0] + 1)


@pytest.mark.parametrize("kind", ["covariance", "precision"])
def test_a_singular_matrix_is_reported_with_window_cell_and_cure(backend: str, kind: str) -> None:
    matrix = torch.eye(4)
    matrix[1:3, 1:3] = 1.0
    missing = torch.zeros(3, 4, dtype=torch.bool)
    missing[0, 0] = missing[2, :] = True
    missing[:, 0] = True
    if kind == "covariance":
        missing[2] = torch.tensor([True, True, False, False])
    x = torch.zeros(3, 4)
    with pytest.raises(
        ValueError, match=rf"{kind} must be positive definite, but in window \d the pivot of cell 2 .*noise"
    ):
        ops.gaussian_conditional(x, missing, torch.zeros(4), **{kind: matrix}, backend=backend)
    if kind == "covariance":
        filled, _ = ops.gaussian_conditional(x, missing, torch.zeros(4), matrix, noise=1e-3, backend=backend)
        assert bool(filled.isfinite().all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariance": None}, "covariance must be given, or precision, got neither"),
        ({"covariance": torch.eye(3)}, r"covariance must have shape \(2, 2\), got \(3, 3\)"),
        ({"mean": torch.zeros(3)}, r"mean must have shape \(2,\), got \(3,\)"),
        ({"noise": -1.0}, "noise must be at least 0, got -1.0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"x": torch.zeros(2)}, r"x must have shape \('any', 'any'\), got \(2,\)"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    good = {
        "x": torch.zeros(1, 2),
        "missing": torch.zeros(1, 2, dtype=torch.bool),
        "mean": torch.zeros(2),
        "covariance": torch.eye(2),
    }
    with pytest.raises(ValueError, match=f"gaussian_conditional: {message}"):
        ops.gaussian_conditional(**{**good, **change})


def test_a_mask_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(TypeError, match=r"missing must be torch.bool"):
        ops.gaussian_conditional(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(2), torch.eye(2))

"""gaussian_whitening: the laws of white coordinates, and its kernels against float64."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops import WhitenedWindows
from fastimpute.ops.gaussian_whitening import reference

op = torch.ops.fastimpute.gaussian_whitening.default


def gaussian(dim: int) -> tuple[Tensor, Tensor]:
    """mean (D,) and a well-conditioned precision (D, D), double."""
    root = torch.randn(dim, 2 * dim, dtype=torch.float64)
    return torch.randn(dim, dtype=torch.float64), root @ root.T / dim + 0.05 * torch.eye(dim, dtype=torch.float64)


def windows(size: int, dim: int, rate: float = 0.4) -> tuple[Tensor, Tensor]:
    """x (n, D) with NaN where missing (n, D); as many cells are missing as chance will have it."""
    missing = torch.rand(size, dim) < rate * 2 * torch.rand(size, 1)
    return torch.randn(size, dim).masked_fill(missing, float("nan")), missing


def check(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor, backend: str = "cpu") -> WhitenedWindows:
    """Every output within the error of plain PyTorch in float32; returns them."""
    white = ops.gaussian_whitening(x, missing, mean, precision, backend=backend)
    exact = reference(x.double(), missing, mean, precision)
    plain = reference(x, missing, mean.float(), precision.float())
    assert torch.equal(white.cells, exact.cells)
    assert torch.equal(white.real, exact.real)
    assert same_bits(white.filled[~missing], x[~missing])
    assert not white.deviation[~missing].any()
    shown = [part._replace(filled=part.filled.masked_fill(~missing, 0)) for part in (white, exact, plain)]
    for name in ("filled", "deviation", "factor", "inverse"):
        assert_close(name, *(getattr(part, name) for part in shown))
    return white


@pytest.mark.parametrize("rate", [0.1, 0.45, 1.0])
@pytest.mark.parametrize("dim", [1, 2, 7, 24, 25, 84, 200])
def test_matches_float64_at_every_width_and_share(isa: str, dim: int, rate: float) -> None:
    check(*windows(7, dim, rate), *gaussian(dim))


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 9, 15, 16, 17, 23, 24, 25, 33, 63, 64, 65, 127, 128, 129])
def test_matches_float64_at_every_number_of_missing_cells(isa: str, count: int) -> None:
    missing = torch.zeros(2, 140, dtype=torch.bool)
    for row in missing:
        row[torch.randperm(140)[:count]] = True
    check(torch.randn(2, 140), missing, *gaussian(140))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 31, 33])
def test_matches_float64_at_every_number_of_windows(isa: str, size: int) -> None:
    check(*windows(size, 19), *gaussian(19))


def test_matches_float64_at_great_width(isa: str) -> None:
    check(*windows(2, 600, 0.45), *gaussian(600))


def test_torch_backend_matches_float64() -> None:
    check(*windows(9, 24), *gaussian(24), backend="torch")


@pytest.mark.parametrize("means", [1, 6])
def test_a_row_of_means_serves_all_windows_and_as_many_as_windows_one_each(isa: str, means: int) -> None:
    _, precision = gaussian(13)
    check(*windows(6, 13), torch.randn(means, 13, dtype=torch.float64), precision)


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    mean, precision = gaussian(19)
    x, missing = windows(9, 19)
    x = x.double().nan_to_num()
    expected = reference(x, missing, mean, precision)
    *parts, factors = op(x, missing, mean, precision, expected.cells.shape[1], 1, "cpu")
    torch.testing.assert_close(WhitenedWindows(*parts, *factors), expected)


def test_two_cells_by_hand(backend: str) -> None:
    covariance = torch.tensor([[4.0, 1.0], [1.0, 2.0]])
    x, missing = torch.tensor([[3.0, 7.0]]), torch.tensor([[False, True]])
    mean = torch.tensor([1.0, -1.0])
    white = ops.gaussian_whitening(x, missing, mean, torch.linalg.inv(covariance), backend=backend)
    torch.testing.assert_close(white.filled, torch.tensor([[3.0, -1.0 + 0.25 * 2.0]]))
    torch.testing.assert_close(white.deviation, torch.tensor([[0.0, 1.75**0.5]]))
    torch.testing.assert_close(white.inverse, torch.tensor([[[1.75**0.5]]]))
    assert white.cells.tolist() == [[1]]
    assert white.real.tolist() == [[True]]


def test_nothing_missing_leaves_no_cells(backend: str) -> None:
    mean, precision = gaussian(5)
    x = torch.randn(3, 5)
    white = ops.gaussian_whitening(x, torch.zeros(3, 5, dtype=torch.bool), mean, precision, backend=backend)
    assert same_bits(white.filled, x)
    assert not white.deviation.any()
    assert (white.cells.shape, white.factor.shape, white.inverse.shape) == ((3, 0), (3, 0, 0), (3, 0, 0))


def test_nothing_observed_gives_the_mean_and_the_whole_factor(backend: str) -> None:
    mean, precision = gaussian(11)
    missing = torch.ones(2, 11, dtype=torch.bool)
    white = ops.gaussian_whitening(torch.full((2, 11), float("nan")), missing, mean, precision, backend=backend)
    torch.testing.assert_close(white.filled, mean.float().expand(2, 11))
    torch.testing.assert_close(white.factor[1], torch.linalg.cholesky(precision).float())


def test_cells_beyond_the_missing_ones_are_observed_ones_in_order(backend: str) -> None:
    missing = torch.tensor([[True, False, True, True, False], [False, False, False, True, False], [False] * 5])
    white = ops.gaussian_whitening(torch.zeros(3, 5), missing, *gaussian(5), backend=backend)
    assert white.cells.tolist() == [[0, 2, 3], [3, 0, 1], [0, 1, 2]]
    assert white.real.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    for matrix in (white.factor, white.inverse):
        assert torch.equal(matrix[1, 1:], torch.eye(3)[1:])
        assert torch.equal(matrix[2], torch.eye(3))
        assert not matrix.triu(1).any()


dims = st.integers(1, 40)
seeds = st.integers(0, 2**31)
rates = st.sampled_from([0.1, 0.5, 0.8])


@settings(deadline=None, max_examples=30)
@given(dims, seeds, rates)
def test_the_factor_squares_to_the_missing_block(dim: int, seed: int, rate: float) -> None:
    torch.manual_seed(seed)
    mean, precision = gaussian(dim)
    white = ops.gaussian_whitening(*windows(4, dim, rate), mean, precision)
    for cells, real, factor in zip(white.cells, white.real, white.factor.double(), strict=True):
        block = torch.where(real[:, None] & real, precision[cells][:, cells], torch.eye(len(cells)).double())
        torch.testing.assert_close(factor @ factor.T, block, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(dims, seeds, rates)
def test_the_inverse_undoes_the_factor(dim: int, seed: int, rate: float) -> None:
    torch.manual_seed(seed)
    white = ops.gaussian_whitening(*windows(4, dim, rate), *gaussian(dim))
    unit = torch.eye(white.cells.shape[1], dtype=torch.float64).expand(white.factor.shape)
    torch.testing.assert_close(white.factor.double() @ white.inverse.double(), unit, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(dims, seeds, rates)
def test_mean_and_spread_are_those_of_gaussian_conditional(dim: int, seed: int, rate: float) -> None:
    torch.manual_seed(seed)
    mean, precision = gaussian(dim)
    x, missing = windows(4, dim, rate)
    white = ops.gaussian_whitening(x, missing, mean, precision)
    for left, right in zip(white, ops.gaussian_conditional(x, missing, mean, precision=precision), strict=False):
        torch.testing.assert_close(left[missing], right[missing], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    mean, precision = gaussian(40)
    x, missing = windows(60, 40)
    once = ops.gaussian_whitening(x, missing, mean, precision, backend="cpu", threads=1)
    twice = ops.gaussian_whitening(x, missing, mean, precision, backend="cpu", threads=2)
    assert all(same_bits(left, right) for left, right in zip(once, twice, strict=True))


def test_a_window_does_not_see_the_others(isa: str) -> None:
    mean, precision = gaussian(33)
    x, missing = windows(20, 33)
    together = ops.gaussian_whitening(x, missing, mean, precision, backend="cpu")
    for window in range(20):
        alone = ops.gaussian_whitening(x[window : window + 1], missing[window : window + 1], mean, precision)
        count = alone.cells.shape[1]
        assert same_bits(alone.filled[0], together.filled[window])
        assert same_bits(alone.deviation[0], together.deviation[window])
        assert same_bits(alone.factor[0], together.factor[window, :count, :count])
        assert same_bits(alone.inverse[0], together.inverse[window, :count, :count])


def test_strided_inputs(isa: str) -> None:
    mean, precision = gaussian(8)
    x, missing = windows(6, 8)
    wide = torch.full((6, 20), float("nan"))
    wide[:, 3:11] = x
    expected = ops.gaussian_whitening(x, missing, mean, precision, backend="cpu")
    for view, matrix in ((wide[:, 3:11], precision.mT), (x.T.contiguous().T, precision.repeat(2, 2)[:8, :8])):
        strided = ops.gaussian_whitening(view, missing.T.contiguous().T, mean, matrix, backend="cpu")
        assert all(same_bits(left, right) for left, right in zip(expected, strided, strict=True))


@pytest.mark.parametrize("dim", [5, 30])
def test_writes_nothing_beyond_its_outputs(isa: str, dim: int) -> None:
    mean, precision = gaussian(dim)
    x, missing = windows(3, dim)
    missing[2] = True  # the last window fills its factors to the last element
    sizes = (3 * dim, 3 * dim, 3 * dim, 3 * dim, 3 * dim * dim, 3 * dim * dim)
    kinds = (torch.float32, torch.float32, torch.int64, torch.uint8, torch.float32, torch.float32)
    outputs = [torch.full((size + 32,), 77, dtype=kind) for size, kind in zip(sizes, kinds, strict=True)]
    begins = tuple(output.data_ptr() + 16 * output.element_size() for output in outputs)
    _native.core().gaussian_whitening(
        isa, 1, (3, dim, dim), (x.data_ptr(), dim), (missing.data_ptr(), dim), (mean.data_ptr(), 0),
        precision.data_ptr(), begins,
    )  # fmt: skip
    for output in outputs:
        assert bool((output[:16] == 77).all())
        assert bool((output[-16:] == 77).all())


def test_more_missing_cells_than_announced_are_refused(isa: str) -> None:
    mean, precision = gaussian(3)
    with pytest.raises(ValueError, match="gaussian_whitening: most must be that of all windows, got 1"):
        op(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), mean, precision, 1, 1, "cpu")


def test_gradients_take_the_torch_backend() -> None:
    mean, precision = gaussian(6)
    x, missing = windows(3, 6)
    x.nan_to_num_().requires_grad_()
    white = ops.gaussian_whitening(x, missing, mean, precision)
    white.filled.sum().backward()
    assert x.grad is not None
    assert not x.grad[missing].any()
    with pytest.raises(ValueError, match="gradients are required"):
        ops.gaussian_whitening(x, missing, mean, precision, backend="cpu")


def test_reference_gradient_by_finite_differences() -> None:
    mean, precision = gaussian(5)
    x, missing = windows(2, 5)
    x = x.nan_to_num().double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, mean: reference(x, missing, mean, precision).filled, (x, mean.requires_grad_())
    )


def test_opcheck() -> None:
    mean, precision = gaussian(9)
    x, missing = windows(4, 9)
    torch.library.opcheck(op, (x.nan_to_num(), missing, mean, precision, int(missing.sum(1).max()), 1, "cpu"))


def test_a_matrix_that_is_not_positive_definite_is_reported_with_window_and_cell(backend: str) -> None:
    matrix = torch.eye(4)
    matrix[1:3, 1:3] = 1.0
    missing = torch.tensor([[True, False, False, False], [True, True, True, False]])
    with pytest.raises(ValueError, match=r"precision must be positive definite, but in window 1 the pivot of cell 2 "):
        ops.gaussian_whitening(torch.zeros(2, 4), missing, torch.zeros(4), matrix, backend=backend)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": torch.eye(3)}, r"precision must have shape \(2, 2\), got \(3, 3\)"),
        ({"mean": torch.zeros(3)}, r"mean must have shape \(2,\), got \(3,\)"),
        ({"mean": torch.zeros(3, 2)}, r"mean must have shape \(1, 2\), got \(3, 2\)"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"x": torch.zeros(2)}, r"x must have shape \('any', 'any'\), got \(2,\)"),
        ({"missing": torch.zeros(1, 3, dtype=torch.bool)}, r"missing must have shape \(1, 2\), got \(1, 3\)"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    good = {
        "x": torch.zeros(1, 2),
        "missing": torch.zeros(1, 2, dtype=torch.bool),
        "mean": torch.zeros(2),
        "precision": torch.eye(2),
    }
    with pytest.raises(ValueError, match=f"gaussian_whitening: {message}"):
        ops.gaussian_whitening(**{**good, **change})


def test_a_mask_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(TypeError, match=r"missing must be torch.bool"):
        ops.gaussian_whitening(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(2), torch.eye(2))

"""The Triton kernel of gaussian_whitening: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import GUARD, Guarded, among_nan

from fastimpute.kernels.cholesky import CONFIGURATIONS
from fastimpute.kernels.gaussian_whitening import launch, scratch_of
from fastimpute.kernels.masked import lanes
from fastimpute.ops import WhitenedWindows
from fastimpute.ops.gaussian_whitening import _triton, most_missing, reference


def gaussian(dim: int) -> tuple[Tensor, Tensor]:
    """mean (D,) and a well-conditioned precision (D, D), double."""
    root = torch.randn(dim, 2 * dim, dtype=torch.float64)
    return torch.randn(dim, dtype=torch.float64), root @ root.T / dim + 0.05 * torch.eye(dim, dtype=torch.float64)


def windows(size: int, dim: int, rate: float = 0.4) -> tuple[Tensor, Tensor]:
    """x (n, D) with NaN where missing (n, D)."""
    missing = torch.rand(size, dim) < rate
    return torch.randn(size, dim).masked_fill(missing, math.nan), missing


def whiten(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor) -> WhitenedWindows:
    *parts, factors = _triton(x, missing, mean, precision, most_missing(missing), 0)
    return WhitenedWindows(*parts, *factors)


def check(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor) -> None:
    white = whiten(x, missing, mean, precision)
    exact = reference(x.double(), missing, mean, precision)
    plain = reference(x, missing, mean.float(), precision.float())
    assert torch.equal(white.cells, exact.cells)
    assert torch.equal(white.real, exact.real)
    assert same_bits(white.filled[~missing], x[~missing])
    assert not bool(white.deviation[~missing].any() | white.factor.triu(1).any() | white.inverse.triu(1).any())
    shown = [part._replace(filled=part.filled.masked_fill(~missing, 0)) for part in (white, exact, plain)]
    for name in ("filled", "deviation", "factor", "inverse"):
        assert_close(name, *(getattr(part, name) for part in shown))


@pytest.mark.parametrize("rows", [0, 1, 3, 31, 33])
def test_matches_float64(rows: int) -> None:
    check(*windows(rows, 5), *gaussian(5))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_matches_float64_at_every_number_of_missing_cells(count: int) -> None:
    missing = torch.zeros(2, 40, dtype=torch.bool)
    missing[0, torch.randperm(40)[:count]] = True
    missing[1, 3:20] = True
    check(torch.randn(2, 40), missing, *gaussian(40))


def test_larger_tiles_match_float64() -> None:
    dim = CONFIGURATIONS[0][0] + 3
    check(torch.randn(1, dim), (torch.arange(dim) % 7 == 0)[None], *gaussian(dim))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_windows_of_which_nothing_or_everything_is_missing(share: float) -> None:
    check(*windows(2, 17, share), *gaussian(17))


@pytest.mark.parametrize("means", [1, 3])
def test_a_row_of_means_serves_all_windows_and_as_many_as_windows_one_each(means: int) -> None:
    check(*windows(3, 7), torch.randn(means, 7, dtype=torch.float64), gaussian(7)[1])


def test_computes_in_double() -> None:
    mean, precision = gaussian(20)
    x, missing = windows(2, 20)
    exact = reference(x.double(), missing, mean, precision)
    for value, right in zip(whiten(x.double(), missing, mean, precision), exact, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-12)


def test_rows_with_gaps_are_read_where_they_lie() -> None:
    mean, precision = gaussian(7)
    x, missing = windows(3, 7)
    expected = whiten(x, missing, mean, precision)
    strided = whiten(among_nan(x), among_nan(missing), mean, precision.T.contiguous().T)
    assert all(same_bits(value, right) for value, right in zip(strided, expected, strict=True))


def test_a_window_does_not_see_the_others() -> None:
    mean, precision = gaussian(20)
    x, missing = windows(5, 20)
    together = whiten(x, missing, mean, precision)
    alone = whiten(x[3:4], missing[3:4], mean, precision)
    count = alone.cells.shape[1]
    assert same_bits(alone.filled[0], together.filled[3])
    assert same_bits(alone.deviation[0], together.deviation[3])
    assert same_bits(alone.factor[0], together.factor[3, :count, :count])
    assert same_bits(alone.inverse[0], together.inverse[3, :count, :count])


def test_writes_and_reads_nothing_beside_what_is_its_own() -> None:
    mean, precision = gaussian(20)
    x, missing = windows(3, 20)
    most = most_missing(missing)
    floats = Guarded(3, 20), Guarded(3, 20), Guarded(3, most, most), Guarded(3, most, most)
    cells = torch.full((3 * most + 2 * GUARD,), -7)
    real = torch.ones(3 * most + 2 * GUARD, dtype=torch.bool)
    numbers = Guarded(scratch_of(20, most), dtype=torch.float64)
    listed = torch.full((lanes(20) + 2 * GUARD,), -7, dtype=torch.int32)
    status = torch.full((3 + 2 * GUARD,), -7, dtype=torch.int32)
    filled, deviation, factor, inverse = (part.inside for part in floats)
    shown = cells[GUARD:-GUARD].view(3, most), real[GUARD:-GUARD].view(3, most)
    launch(
        x, missing, mean[None], precision, (filled, deviation, *shown, factor, inverse), status[GUARD:-GUARD],
        (numbers.inside, listed[GUARD:-GUARD]), programs=1,
    )  # fmt: skip
    expected = whiten(x, missing, mean, precision)
    for value, right in zip((filled, deviation, *shown, factor, inverse), expected, strict=True):
        assert same_bits(value, right)
    assert all(part.guards_untouched() for part in (*floats, numbers))
    assert bool(real[:GUARD].all() and real[-GUARD:].all() and (status == -7).all())
    assert all(bool((part[:GUARD] == -7).all() and (part[-GUARD:] == -7).all()) for part in (cells, listed))


def test_a_precision_that_is_not_positive_definite_is_reported_with_window_and_cell() -> None:
    precision = torch.eye(4)
    precision[1:3, 1:3] = 1.0
    missing = torch.tensor([[True, True, False, False], [True, False, False, True], [True, True, True, True]])
    with pytest.raises(ValueError, match=r"positive definite, but in window 2 the pivot of cell 2 is not positive"):
        whiten(torch.zeros(3, 4), missing, torch.zeros(4), precision)


def test_fewer_cells_than_a_window_misses_are_refused() -> None:
    missing = torch.tensor([[True, False, False], [True, False, True]])
    with pytest.raises(ValueError, match="most must be that of all windows, got 1"):
        _triton(torch.zeros(2, 3), missing, torch.zeros(3), torch.eye(3), 1, 0)
    with pytest.raises(ValueError, match="most must be at most 3, got 4"):
        _triton(torch.zeros(2, 3), missing, torch.zeros(3), torch.eye(3), 4, 0)

"""The Triton kernel of gaussian_conditional: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import GUARD, Guarded, among_nan

from fastimpute.kernels import gaussian_conditional as kernel
from fastimpute.kernels.cholesky import CONFIGURATIONS, DIM_MOST, configuration
from fastimpute.kernels.masked import lanes
from fastimpute.ops.gaussian_conditional import _run_triton, _triton, reference

GIVEN = {"both": (True, True), "covariance": (True, False), "precision": (False, True)}


def gaussian(dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """mean (D,), covariance and precision (D, D), double."""
    factor = torch.randn(dim, 2 * dim, dtype=torch.float64)
    covariance = factor @ factor.T / dim + 0.05 * torch.eye(dim, dtype=torch.float64)
    return torch.randn(dim, dtype=torch.float64), covariance, torch.linalg.inv(covariance)


def windows(size: int, dim: int, rate: float = 0.4) -> tuple[Tensor, Tensor]:
    """x (n, D) with NaN where missing (n, D)."""
    missing = torch.rand(size, dim) < rate
    return torch.randn(size, dim).masked_fill(missing, math.nan), missing


def check(x: Tensor, missing: Tensor, given: str = "both", *, spread: bool = True) -> None:
    mean, covariance, precision = gaussian(x.shape[1])
    matrices = [part if there else None for part, there in zip((covariance, precision), GIVEN[given], strict=True)]
    outputs = _run_triton(x, missing, mean, *matrices, spread)
    exact = reference(x.double(), missing, mean, covariance, spread=spread)
    plain = reference(x, missing, mean.float(), covariance, spread=spread)
    for name, value, right, rough in zip(("filled", "deviation"), outputs, exact, plain, strict=True):
        assert_close(name, *(part.masked_fill(~missing, 0) for part in (value, right, rough)))
    assert same_bits(outputs[0][~missing], x[~missing])
    assert not bool(outputs[1][~missing].any())


@pytest.mark.parametrize("rows", [0, 1, 3, 31, 33])
def test_matches_float64(rows: int) -> None:
    check(*windows(rows, 5))


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("spread", [True, False])
def test_every_way_of_several_tiles_matches_float64(given: str, spread: bool) -> None:
    missing = torch.rand(2, 40) < torch.tensor([[0.35], [0.75]])
    check(torch.randn(2, 40), missing, given, spread=spread)


@pytest.mark.parametrize("given", ["covariance", "precision"])
def test_larger_tiles_match_float64(given: str) -> None:
    dim = CONFIGURATIONS[0][0] + 3
    missing = (torch.arange(dim) % 7 == 0)[None]
    check(torch.randn(1, dim), missing if given == "precision" else ~missing, given)


@pytest.mark.parametrize("given", ["covariance", "precision"])
@pytest.mark.parametrize("spread", [True, False])
def test_windows_of_which_everything_or_nothing_is_missing(given: str, spread: bool) -> None:
    x, missing = torch.full((2, 17), math.nan), torch.ones(2, 17, dtype=torch.bool)
    missing[0], x[0] = False, torch.randn(17)
    check(x, missing, given, spread=spread)


def test_computes_in_double() -> None:
    mean, covariance, precision = gaussian(20)
    x, missing = windows(2, 20)
    outputs = _run_triton(x.double(), missing, mean, covariance, precision, True)
    for value, right in zip(outputs, reference(x.double(), missing, mean, covariance), strict=True):
        torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-12)


def test_rows_with_gaps_are_read_where_they_lie() -> None:
    matrices = gaussian(7)
    x, missing = windows(3, 7)
    expected = _run_triton(x, missing, *matrices, True)
    strided = _run_triton(among_nan(x), among_nan(missing), *matrices, True)
    assert all(same_bits(value, right) for value, right in zip(strided, expected, strict=True))


@pytest.mark.parametrize("spread", [True, False])
def test_any_split_of_the_rows_gives_the_same_bits(spread: bool) -> None:
    matrices = gaussian(20)
    x, missing = windows(6, 20, 0.5)
    whole = _run_triton(x, missing, *matrices, spread)
    parts = [_run_triton(x[part], missing[part], *matrices, spread) for part in (slice(0, 1), slice(1, 6))]
    for index in range(2):
        assert same_bits(torch.cat([part[index] for part in parts]), whole[index])


@pytest.mark.parametrize("spread", [True, False])
def test_writes_and_reads_nothing_beside_what_is_its_own(spread: bool) -> None:
    mean, covariance, precision = gaussian(20)
    x, missing = windows(3, 20, 0.5)
    way = kernel.way_of(True, True, spread)
    filled, deviation = Guarded(3, 20), Guarded(3, 20)
    deviation.inside.zero_()
    status = torch.full((3 + 2 * GUARD,), -7, dtype=torch.int32)
    numbers = Guarded(kernel.scratch_of(20, way, spread), dtype=torch.float64)
    cells = torch.full((lanes(20) + 2 * GUARD,), -7, dtype=torch.int32)
    kernel.launch(
        x, missing, mean, torch.stack([precision, covariance]), filled.inside, deviation.inside if spread else None,
        status[GUARD:-GUARD], (numbers.inside, cells[GUARD:-GUARD]), way=way, programs=1,
    )  # fmt: skip
    expected = _run_triton(x, missing, mean, covariance, precision, spread)
    assert same_bits(filled.inside, expected[0])
    assert same_bits(deviation.inside, expected[1])
    assert all(part.guards_untouched() for part in (filled, deviation, numbers))
    assert bool((status == -7).all())
    assert bool((cells[:GUARD] == -7).all() and (cells[-GUARD:] == -7).all())


@pytest.mark.parametrize("kind", ["covariance", "precision"])
def test_a_singular_matrix_is_reported_with_window_and_cell(kind: str) -> None:
    matrix = torch.eye(4)
    matrix[1:3, 1:3] = 1.0
    missing = torch.tensor([[True, False, False, False], [True, False, False, False], [True, True, True, True]])
    if kind == "covariance":
        missing = torch.tensor([[True, True, False, False], [True, False, False, True], [True, True, True, True]])
    window = 1 if kind == "covariance" else 2
    given = (matrix, None) if kind == "covariance" else (None, matrix)
    x = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=f"{kind} must be positive definite, but in window {window} .* cell 2 is not"):
        _triton(x, missing, torch.zeros(4), *given, 0.0, True, 0)


def test_noise_makes_a_singular_covariance_serve() -> None:
    x, missing = torch.ones(1, 3), torch.tensor([[True, False, False]])
    filled, deviation = _triton(x, missing, torch.zeros(3), torch.ones(3, 3), None, 0.5, True, 0)
    torch.testing.assert_close(filled[0, 0], torch.tensor(0.8))
    torch.testing.assert_close(deviation[0, 0], torch.tensor((1.5 - 0.8) ** 0.5))


@pytest.mark.parametrize("spread", [True, False])
def test_the_scratch_holds_what_any_mask_needs(spread: bool) -> None:
    for way in (-1, kernel.SHARE[spread], 100):
        for dim in (1, 2, 17, 50, 257, DIM_MOST):
            rows = max(dim - count if 100 * count > way * dim else count for count in range(1, dim + 1))
            tile = configuration(dim).tile
            assert rows <= kernel.most_tiles(dim, way) * tile <= max(rows, 1) + tile

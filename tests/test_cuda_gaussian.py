"""The CUDA kernels of Gaussian windows over emulated lanes: main memory stands in for the GPU's."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cuda_emulation
import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute import _native, ops
from fastimpute.ops import WhitenedWindows, backends
from fastimpute.ops.gaussian_conditional import _run_cuda, reference
from fastimpute.ops.gaussian_whitening import _cuda as gaussian_whitening_cuda
from fastimpute.ops.gaussian_whitening import most_missing
from fastimpute.ops.gaussian_whitening import reference as whitening_reference

GIVEN = {"both": (True, True), "covariance": (True, False), "precision": (False, True)}


@pytest.fixture(scope="module")
def module(emulated_cuda: Path) -> ModuleType:
    return cuda_emulation.module(emulated_cuda)


@pytest.fixture(autouse=True)
def _main_memory_is_the_gpu(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: module)
    monkeypatch.setitem(backends.DEVICES, "cuda", "cpu")
    monkeypatch.setitem(backends._PROBES, "cuda", lambda: backends.Availability(True, "emulated"))


@pytest.fixture
def little_shared_memory(emulated_cuda: Path, module: ModuleType) -> Iterator[None]:
    """Of the device: windows with more than 8 cells to factorise wait in its memory."""
    functions: ctypes.CDLL = cuda_emulation.functions(emulated_cuda)
    functions.emulate_device(2, 4096)
    yield
    functions.emulate_device(2, 227 * 1024)


def gaussian(dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """mean (D,), covariance and precision (D, D), double."""
    factor = torch.randn(dim, 2 * dim, dtype=torch.float64)
    covariance = factor @ factor.T / dim + 0.05 * torch.eye(dim, dtype=torch.float64)
    return torch.randn(dim, dtype=torch.float64), covariance, torch.linalg.inv(covariance)


def windows(size: int, dim: int, rate: float = 0.4) -> tuple[Tensor, Tensor]:
    """x (n, D) with NaN where missing (n, D)."""
    missing = torch.rand(size, dim) < rate
    return torch.randn(size, dim).masked_fill(missing, math.nan), missing


# ---- gaussian_conditional --------------------------------------------------------------------------------------------


def check(x: Tensor, missing: Tensor, given: str = "both", *, spread: bool = True) -> None:
    mean, covariance, precision = gaussian(x.shape[1])
    matrices = [part if there else None for part, there in zip((covariance, precision), GIVEN[given], strict=True)]
    outputs = _run_cuda(x, missing, mean, *matrices, spread)
    exact = reference(x.double(), missing, mean, covariance, spread=spread)
    plain = reference(x, missing, mean.float(), covariance, spread=spread)
    for name, value, right, rough in zip(("filled", "deviation"), outputs, exact, plain, strict=True):
        assert_close(name, *(part.masked_fill(~missing, 0) for part in (value, right, rough)))
    assert same_bits(outputs[0][~missing], x[~missing])
    assert not bool(outputs[1][~missing].any())


@pytest.mark.parametrize("rows", [0, 1, 3, 31, 33, 129])
def test_conditional_matches_float64(rows: int) -> None:
    check(*windows(rows, 5))


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("spread", [True, False])
def test_conditional_matches_float64_both_ways(given: str, spread: bool) -> None:
    missing = torch.rand(3, 44) < torch.tensor([[0.3], [0.5], [0.75]])
    check(torch.randn(3, 44), missing, given, spread=spread)


@pytest.mark.parametrize(("dim", "share"), [(1, 1.0), (8, 0.5), (65, 0.3), (100, 0.3), (200, 0.15)])
def test_conditional_matches_float64_with_any_number_of_warps(dim: int, share: float) -> None:
    missing = torch.rand(2, dim) < share
    check(torch.randn(2, dim), missing)


@pytest.mark.parametrize("given", ["covariance", "precision"])
def test_conditional_of_windows_of_which_everything_or_nothing_is_missing(given: str) -> None:
    x, missing = torch.full((2, 17), math.nan), torch.ones(2, 17, dtype=torch.bool)
    missing[0], x[0] = False, torch.randn(17)
    check(x, missing, given)


@pytest.mark.usefixtures("little_shared_memory")
@pytest.mark.parametrize("given", ["covariance", "precision"])
def test_conditional_matches_float64_beyond_shared_memory(module: ModuleType, given: str) -> None:
    assert module.gaussian_conditional_scratch(1, 30, *GIVEN[given]) > 0
    missing = torch.rand(5, 30) < torch.tensor([[0.05], [0.3], [0.5], [0.9], [1.0]])
    check(torch.randn(5, 30), missing, given)


def test_conditional_has_the_same_bits_on_chip_and_beyond(emulated_cuda: Path) -> None:
    matrices = gaussian(30)
    x, missing = windows(4, 30)
    on_chip = _run_cuda(x, missing, *matrices, True)
    functions = cuda_emulation.functions(emulated_cuda)
    functions.emulate_device(2, 4096)
    beyond = _run_cuda(x, missing, *matrices, True)
    functions.emulate_device(2, 227 * 1024)
    assert all(same_bits(value, right) for value, right in zip(beyond, on_chip, strict=True))


def test_conditional_computes_in_double() -> None:
    mean, covariance, precision = gaussian(20)
    x, missing = windows(2, 20)
    outputs = _run_cuda(x.double(), missing, mean, covariance, precision, True)
    for value, right in zip(outputs, reference(x.double(), missing, mean, covariance), strict=True):
        torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-12)


def test_conditional_reads_rows_with_gaps_where_they_lie() -> None:
    matrices = gaussian(7)
    x, missing = windows(3, 7)
    expected = _run_cuda(x, missing, *matrices, True)
    strided = _run_cuda(among_nan(x), among_nan(missing), *matrices, True)
    assert all(same_bits(value, right) for value, right in zip(strided, expected, strict=True))


def test_conditional_has_the_same_bits_for_any_split_of_the_rows() -> None:
    matrices = gaussian(20)
    x, missing = windows(6, 20, 0.5)
    whole = _run_cuda(x, missing, *matrices, True)
    parts = [_run_cuda(x[part], missing[part], *matrices, True) for part in (slice(0, 1), slice(1, 6))]
    for index in range(2):
        assert same_bits(torch.cat([part[index] for part in parts]), whole[index])


@pytest.mark.usefixtures("little_shared_memory")
@pytest.mark.parametrize("spread", [True, False])
def test_conditional_writes_only_what_is_its_own(module: ModuleType, spread: bool) -> None:
    mean, covariance, precision = gaussian(20)
    x, missing = windows(3, 20, 0.5)
    filled, deviation, status = Guarded(3, 20), Guarded(3, 20), torch.full((9,), -7, dtype=torch.int32)
    size = module.gaussian_conditional_scratch(3, 20, True, True)
    scratch = Guarded(size // 8, dtype=torch.float64)
    module.gaussian_conditional(
        0, status[3:].data_ptr(), scratch.inside.data_ptr(), size, 3, 20, x.data_ptr(), 20, missing.data_ptr(), 20,
        mean.data_ptr(), covariance.data_ptr(), precision.data_ptr(), filled.inside.data_ptr(), 20,
        deviation.inside.data_ptr() if spread else 0, 20,
    )  # fmt: skip
    expected = _run_cuda(x, missing, mean, covariance, precision, spread)
    assert same_bits(filled.inside, expected[0])
    assert bool(deviation.inside.isnan().all()) if not spread else same_bits(deviation.inside, expected[1])
    assert all(part.guards_untouched() for part in (filled, deviation, scratch))
    assert bool((status == -7).all())


@pytest.mark.parametrize("kind", ["covariance", "precision"])
def test_conditional_reports_a_singular_matrix_with_window_and_cell(kind: str) -> None:
    matrix = torch.eye(4)
    matrix[1:3, 1:3] = 1.0
    missing = torch.tensor([[True, False, False, False], [True, False, False, False], [True, True, True, True]])
    if kind == "covariance":
        missing = torch.tensor([[True, True, False, False], [True, False, False, True], [True, True, True, True]])
    window = 1 if kind == "covariance" else 2
    with pytest.raises(ValueError, match=f"{kind} must be positive definite, but in window {window} .* cell 2 is not"):
        ops.gaussian_conditional(torch.zeros(3, 4), missing, torch.zeros(4), **{kind: matrix}, backend="cuda")


def test_noise_makes_a_singular_covariance_serve() -> None:
    x, missing = torch.ones(1, 3), torch.tensor([[True, False, False]])
    filled, deviation = ops.gaussian_conditional(
        x, missing, torch.zeros(3), torch.ones(3, 3), noise=0.5, backend="cuda"
    )
    torch.testing.assert_close(filled[0, 0], torch.tensor(0.8))
    torch.testing.assert_close(deviation[0, 0], torch.tensor((1.5 - 0.8) ** 0.5))


def test_what_the_conditional_kernel_does_not_take_is_refused() -> None:
    def run(x: Tensor) -> None:
        dim = x.shape[1]
        ops.gaussian_conditional(x, torch.zeros(x.shape) > 0, torch.zeros(dim), torch.eye(dim), backend="cuda")

    with pytest.raises(ValueError, match="cannot serve: windows have 1025 cells, the kernel takes up to 1024"):
        run(torch.zeros(1, 1025))
    with pytest.raises(ValueError, match=r"cannot serve: x is torch\.float16, the kernels take"):
        run(torch.zeros(1, 3).half())
    with pytest.raises(ValueError, match="cannot serve: gradients are required"):
        run(torch.zeros(1, 3, requires_grad=True))


# ---- gaussian_whitening ----------------------------------------------------------------------------------------------


def whiten(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor) -> WhitenedWindows:
    return ops.gaussian_whitening(x, missing, mean, precision, backend="cuda")


def check_whitening(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor) -> None:
    white = whiten(x, missing, mean, precision)
    exact = whitening_reference(x.double(), missing, mean, precision)
    plain = whitening_reference(x, missing, mean.float(), precision.float())
    assert torch.equal(white.cells, exact.cells)
    assert torch.equal(white.real, exact.real)
    assert same_bits(white.filled[~missing], x[~missing])
    assert not bool(white.deviation[~missing].any() | white.factor.triu(1).any() | white.inverse.triu(1).any())
    shown = [part._replace(filled=part.filled.masked_fill(~missing, 0)) for part in (white, exact, plain)]
    for name in ("filled", "deviation", "factor", "inverse"):
        assert_close(name, *(getattr(part, name) for part in shown))


@pytest.mark.parametrize("rows", [0, 1, 3, 31, 33, 129])
def test_whitening_matches_float64(rows: int) -> None:
    mean, _, precision = gaussian(5)
    check_whitening(*windows(rows, 5), mean, precision)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 33])
def test_whitening_matches_float64_at_every_number_of_missing_cells(count: int) -> None:
    mean, _, precision = gaussian(40)
    missing = torch.zeros(2, 40, dtype=torch.bool)
    missing[0, torch.randperm(40)[:count]] = True
    missing[1, 3:20] = True
    check_whitening(torch.randn(2, 40), missing, mean, precision)


@pytest.mark.parametrize("dim", [100, 200])
def test_whitening_matches_float64_with_any_number_of_warps(dim: int) -> None:
    mean, _, precision = gaussian(dim)
    check_whitening(*windows(2, dim, 0.15), mean, precision)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_whitening_of_windows_of_which_nothing_or_everything_is_missing(share: float) -> None:
    mean, _, precision = gaussian(17)
    check_whitening(*windows(2, 17, share), mean, precision)


@pytest.mark.usefixtures("little_shared_memory")
def test_whitening_matches_float64_beyond_shared_memory(module: ModuleType) -> None:
    assert module.gaussian_whitening_scratch(1, 30, 30) > 0
    mean, _, precision = gaussian(30)
    missing = torch.rand(4, 30) < torch.tensor([[0.05], [0.3], [0.9], [1.0]])
    check_whitening(torch.randn(4, 30), missing, mean, precision)


@pytest.mark.parametrize("means", [1, 3])
def test_a_row_of_means_serves_all_windows_and_as_many_as_windows_one_each(means: int) -> None:
    check_whitening(*windows(3, 7), torch.randn(means, 7, dtype=torch.float64), gaussian(7)[2])


def test_whitening_computes_in_double() -> None:
    mean, _, precision = gaussian(20)
    x, missing = windows(2, 20)
    exact = whitening_reference(x.double(), missing, mean, precision)
    for value, right in zip(whiten(x.double(), missing, mean, precision), exact, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-12)


def test_whitening_reads_rows_with_gaps_where_they_lie() -> None:
    mean, _, precision = gaussian(7)
    x, missing = windows(3, 7)
    expected = whiten(x, missing, mean, precision)
    strided = whiten(among_nan(x), among_nan(missing), mean, precision.T.contiguous().T)
    assert all(same_bits(value, right) for value, right in zip(strided, expected, strict=True))


def test_a_whitened_window_does_not_see_the_others() -> None:
    mean, _, precision = gaussian(20)
    x, missing = windows(5, 20)
    together, alone = whiten(x, missing, mean, precision), whiten(x[3:4], missing[3:4], mean, precision)
    count = alone.cells.shape[1]
    assert same_bits(alone.filled[0], together.filled[3])
    assert same_bits(alone.deviation[0], together.deviation[3])
    assert same_bits(alone.factor[0], together.factor[3, :count, :count])
    assert same_bits(alone.inverse[0], together.inverse[3, :count, :count])


@pytest.mark.usefixtures("little_shared_memory")
def test_whitening_writes_only_what_is_its_own(module: ModuleType) -> None:
    mean, _, precision = gaussian(20)
    x, missing = windows(3, 20, 0.5)
    most = most_missing(missing)
    floats = Guarded(3, 20), Guarded(3, 20), Guarded(3, most, most), Guarded(3, most, most)
    cells, real = torch.full((3 * most + 8,), -7), torch.full((3 * most + 8,), 7, dtype=torch.uint8)
    status, size = torch.full((9,), -7, dtype=torch.int32), module.gaussian_whitening_scratch(3, 20, most)
    scratch = Guarded(size // 8, dtype=torch.float64)
    filled, deviation, factor, inverse = (part.inside.data_ptr() for part in floats)
    module.gaussian_whitening(
        0, status[3:].data_ptr(), scratch.inside.data_ptr(), size, (3, 20, most), (x.data_ptr(), 20),
        (missing.data_ptr(), 20), (mean.data_ptr(), 0), precision.data_ptr(),
        (filled, deviation, cells[4:].data_ptr(), real[4:].data_ptr(), factor, inverse),
    )  # fmt: skip
    for part, right in zip(floats, [whiten(x, missing, mean, precision)[i] for i in (0, 1, 4, 5)], strict=True):
        assert same_bits(part.inside, right)
    assert all(part.guards_untouched() for part in (*floats, scratch))
    for part, value in ((cells, -7), (real, 7)):
        assert bool((part[:4] == value).all() and (part[-4:] == value).all())
        assert not bool((part[4:-4] == value).any())
    assert bool((status == -7).all())


def test_whitening_reports_a_singular_precision_with_window_and_cell() -> None:
    matrix = torch.eye(4)
    matrix[1:3, 1:3] = 1.0
    missing = torch.tensor([[True, False, False, False], [True, False, False, False], [True, True, True, True]])
    with pytest.raises(ValueError, match="must be positive definite, but in window 2 the pivot of cell 2 is not"):
        whiten(torch.zeros(3, 4), missing, torch.zeros(4), matrix)


def test_more_missing_cells_than_the_outputs_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="most must be that of all windows, got 1"):
        gaussian_whitening_cuda(torch.zeros(1, 3), torch.ones(1, 3) > 0, torch.zeros(3), torch.eye(3), 1, 0)


def test_windows_too_large_to_whiten_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot serve: windows have 1025 cells, the kernel takes up to 1024"):
        whiten(torch.zeros(1, 1025), torch.zeros(1, 1025) > 0, torch.zeros(1025), torch.eye(1025))


# ---- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [163 * 1024, 227 * 1024])
def test_windows_of_any_size_leave_room_for_themselves(emulated_cuda: Path, shared: int) -> None:
    functions = cuda_emulation.functions(emulated_cuda)
    for dim in (1, 7, 84, 96, 97, 168, 192, 193, 336, 504, 1024):
        layout = (ctypes.c_int64 * 5)()
        functions.factor_layout(dim, shared, layout)
        warps, blocks, tiles, shared_bytes, scratch = layout
        assert shared_bytes * blocks + 1024 * blocks <= shared + 1024
        assert warps * blocks <= 16
        assert tiles >= 1
        assert (scratch > 0) == (8 * tiles < dim)

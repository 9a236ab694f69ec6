"""The Triton kernel of ball_quantile: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels.ball_quantile import SAMPLES_MOST, configuration, launch
from fastimpute.ops.ball_quantile import _triton, order_statistic, reference

PRECISION = {torch.float32: "fp32", torch.float16: "bf16"}


def inputs(samples: int, windows: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Samples that agree where nothing is missing, as those of an imputer do."""
    missing = torch.rand(windows, dim) < 0.4
    return (torch.randn(windows, dim) + torch.randn(samples, windows, dim) * missing).to(dtype), missing


def run(samples: Tensor, missing: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Centre and radius, nothing written beside them."""
    _, windows, dim = samples.shape
    centre, radius = Guarded(windows, dim, dtype=samples.dtype), Guarded(windows, dtype=samples.dtype)
    launch(samples, missing, centre.inside, radius.inside, rank=rank)
    assert centre.guards_untouched()
    assert radius.guards_untouched()
    return centre.inside, radius.inside


def check(samples: Tensor, missing: Tensor, level: float) -> None:
    centre, radius = run(samples, missing, order_statistic(samples.shape[0], level))
    exact, plain = reference(samples.double(), missing, level), reference(samples, missing, level)
    assert_close("centre", centre, exact[0], plain[0], PRECISION[samples.dtype])
    assert_close("radius", radius, exact[1], plain[1], PRECISION[samples.dtype])
    assert same_bits(centre[~missing], samples[0][~missing])


@pytest.mark.parametrize(("windows", "dim"), [(0, 5), (1, 1), (3, 7), (31, 24), (33, 33)])
def test_matches_float64(windows: int, dim: int) -> None:
    check(*inputs(9, windows, dim), 0.8)


@pytest.mark.parametrize("count", [2, 3, 31, 33, 128, 129, 1001, SAMPLES_MOST])
def test_matches_float64_for_any_number_of_samples(count: int) -> None:
    check(*inputs(count, 2, 13), 0.5)


@pytest.mark.parametrize("dim", [83, 84, 480])
def test_columns_are_taken_some_at_a_time(dim: int) -> None:
    check(*inputs(40, 2, dim), 0.9)
    check(*inputs(300, 1, dim), 0.9)


@pytest.mark.parametrize("dim", [7, 24, 160])
def test_half_precision(dim: int) -> None:
    check(*inputs(20, 3, dim, torch.float16), 0.9)


@pytest.mark.parametrize("count", [6, 140])
def test_every_rank_finds_its_distance(count: int) -> None:
    samples, missing = inputs(count, 1, 5)
    missing[0, 0] = True
    distances = torch.where(missing, samples - samples.mean(0), 0).norm(dim=2).sort(0).values * (count / (count - 1))
    for rank in range(1, count + 1, 1 if count < 10 else 37):
        _, radius = run(samples, missing, rank)
        torch.testing.assert_close(radius, distances[rank - 1])


@pytest.mark.parametrize("count", [8, 140])
def test_equal_distances_count_each(count: int) -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(count // 2).view(count, 1, 1)
    _, radius = run(signs, torch.ones(1, 1, dtype=torch.bool), count // 2)
    torch.testing.assert_close(radius, torch.full((1,), count / (count - 1)))


@pytest.mark.parametrize("count", [20, 200])
def test_nothing_missing_has_no_radius(count: int) -> None:
    samples, missing = inputs(count, 3, 18)
    _, radius = run(samples, torch.zeros_like(missing), count)
    assert torch.equal(radius, torch.zeros(3))
    assert torch.equal(run(samples[..., :0], missing[:, :0], count)[1], torch.zeros(3))


@pytest.mark.parametrize("count", [20, 200])
def test_a_nan_spoils_its_window_alone(count: int) -> None:
    samples, missing = inputs(count, 3, 18)
    missing[1, 4] = True
    samples[7, 1, 4] = math.nan
    _, radius = run(samples, missing, count // 2)
    assert radius.isnan().tolist() == [False, True, False]


def test_observed_cells_keep_nan_and_signs_of_zero_and_touch_nothing_else() -> None:
    samples, missing = inputs(20, 9, 24)
    expected = run(samples, missing, 19)
    samples[1:, ~missing] = math.nan
    samples[0, ~missing & (torch.rand(9, 24) < 0.5)] = math.nan
    samples[0, ~missing & (torch.rand(9, 24) < 0.3)] = -0.0
    centre, radius = run(samples, missing, 19)
    assert same_bits(centre, torch.where(missing, expected[0], samples[0]))
    assert same_bits(radius, expected[1])


@pytest.mark.parametrize("dim", [37, 84])
def test_bits_do_not_depend_on_how_windows_are_cut(dim: int) -> None:
    samples, missing = inputs(20, 9, dim)
    whole = run(samples, missing, 19)
    for rows in (slice(0, 1), slice(1, 9)):
        for given in (samples[:, rows], samples[:, rows].clone()):
            part = run(given, missing[rows], 19)
            assert same_bits(part[0], whole[0][rows])
            assert same_bits(part[1], whole[1][rows])


def test_strided_samples_are_read_where_they_lie() -> None:
    samples, missing = inputs(20, 9, 12)
    check(among_nan(samples.view(180, 12)).unflatten(0, (20, 9)), among_nan(missing), 0.9)
    check(samples.transpose(0, 1).contiguous().transpose(0, 1), missing, 0.9)
    check(samples[:, :1].expand(20, 9, 12), missing, 0.9)


def test_the_op_hands_strided_tensors_over() -> None:
    samples, missing = inputs(20, 9, 12)
    expected = run(samples, missing, 19)
    found = _triton(samples.mT.contiguous().mT, missing.T.contiguous().T, 19)
    assert same_bits(found[0], expected[0])
    assert same_bits(found[1], expected[1])


def test_every_number_of_samples_fits_its_lanes() -> None:
    for vector in (1, 4, 8):
        for samples in (2, 16, 17, 1025, SAMPLES_MOST):
            for dim in (0, 1, 5, 2048):
                layout = configuration(samples, dim, vector)
                assert layout.samples >= samples
                assert layout.columns % vector == 0
                assert layout.samples * layout.columns <= 32 * 32 * layout.warps

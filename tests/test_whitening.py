"""White coordinates of what a base leaves open."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from fastimpute import gp
from fastimpute.bases import GaussianBase, LinearBase, Whitening
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table

CELLS = 12


def gaussian(seed: int, windows: int = 5) -> tuple[Whitening, torch.Tensor, torch.Tensor, torch.Tensor]:
    """White coordinates of random windows, their values, the covariance behind them, and its mean."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(CELLS, CELLS, generator=generator, dtype=torch.float64)
    covariance = root @ root.T / CELLS + 0.1 * torch.eye(CELLS, dtype=torch.float64)
    mean = torch.randn(CELLS, generator=generator, dtype=torch.float64)
    values = torch.randn(windows, CELLS, generator=generator)
    missing = torch.rand(windows, CELLS, generator=generator) < 0.5
    return Whitening.gaussian(values, missing, mean, torch.linalg.inv(covariance)), values, covariance, mean


@given(st.integers(0, 1000), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_outward_undoes_inward(seed: int, draws: int) -> None:
    white, _, _, _ = gaussian(seed)
    y = torch.where(white.missing, torch.randn(draws, *white.missing.shape), 0.0)
    x = white.mean + white.outward(y.view(-1, CELLS)).view(y.shape)
    back = torch.stack([white.inward(one) for one in x])
    torch.testing.assert_close(back, y, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_white_noise_comes_out_with_the_conditional_moments(seed: int) -> None:
    white, values, covariance, mean = gaussian(seed)
    for window in range(len(values)):
        m, o = white.missing[window], ~white.missing[window]
        if not (m.any() and o.any()):
            continue
        gain = covariance[m][:, o] @ torch.linalg.inv(covariance[o][:, o])
        wanted_mean = mean[m] + gain @ (values[window, o].double() - mean[o])
        wanted = covariance[m][:, m] - gain @ covariance[o][:, m]
        steps = white.outward(torch.eye(CELLS).repeat_interleave(len(values), 0)).view(CELLS, len(values), CELLS)
        reached = steps[:, window][:, m].double()  # the columns of L^-T
        torch.testing.assert_close(reached.T @ reached, wanted, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(white.mean[window, m].double(), wanted_mean, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(white.deviation[window, m].double(), wanted.diagonal().sqrt(), atol=2e-4, rtol=2e-4)


def test_it_agrees_with_the_exact_conditional_of_the_laboratory() -> None:
    kernel, pattern = gp.kernel(), gp.pattern("P2")
    exact = gp.Conditional(kernel, pattern)
    values = torch.randn(3, len(kernel), dtype=torch.float64)
    white = Whitening.gaussian(
        values.float(), pattern.expand(3, -1), torch.zeros(len(kernel), dtype=torch.float64), torch.linalg.inv(kernel)
    )
    mean = values[:, ~pattern].float().double() @ exact.gain.T
    torch.testing.assert_close(white.mean[:, pattern].double(), mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(white.deviation[0, pattern].double(), exact.deviation, atol=1e-4, rtol=1e-4)


def test_observed_cells_stay_bit_for_bit_and_their_coordinates_are_zero() -> None:
    white, values, _, _ = gaussian(3)
    observed = ~white.missing
    assert same_bits(white.mean[observed], values[observed])
    assert not white.inward(torch.randn_like(values))[observed].any()
    assert not white.outward(torch.randn_like(values))[observed].any()
    assert not white.deviation[observed].any()


def test_what_is_said_of_a_cell_is_its_departure_in_units_of_its_deviation() -> None:
    white, values, _, _ = gaussian(6)
    said = torch.randn(2 * len(values), values.shape[1])
    expected = torch.where(white.missing, said.view(2, *values.shape) * white.deviation, 0.0).view(said.shape)
    torch.testing.assert_close(white.outward(white.correction(said)), expected, atol=1e-4, rtol=1e-3)


def test_outward_differentiates() -> None:
    white, values, _, _ = gaussian(4)
    y = torch.randn_like(values).requires_grad_()
    gradient = torch.autograd.grad(white.outward(y).sum(), y)[0]
    assert bool((gradient[white.missing] != 0).all())
    assert not gradient[~white.missing].any()


@pytest.mark.parametrize("kind", [LinearBase, GaussianBase])
def test_bases_whiten_what_they_condition(kind: type[LinearBase] | type[GaussianBase]) -> None:
    rng = np.random.default_rng(0)
    truth = np.cumsum(rng.normal(size=(300, 2)), 0)
    series = Series.read(np.where(rng.random(truth.shape) < 0.3, np.nan, truth))
    table = patch_table(Patches(10, 2, np.arange(2)[None]), series, Cycles())
    base = kind.fit(series, series.missing, table)
    patches = torch.arange(4)
    values, missing = torch.randn(4, 20), torch.rand(4, 20) < 0.5
    mean, deviation = base.condition(values, missing, patches)
    white = base.whiten(values, missing, patches)
    torch.testing.assert_close(white.mean, mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(white.deviation, deviation, atol=1e-4, rtol=1e-3)
    unit = torch.where(missing, white.inward(white.mean + white.outward(torch.ones(4, 20))), 1.0)
    torch.testing.assert_close(unit, torch.ones(4, 20), atol=1e-3, rtol=1e-3)

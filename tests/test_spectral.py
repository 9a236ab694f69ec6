import numpy as np
import pytest
import torch

from fastimpute.gaps import linear
from fastimpute.spectral import SpectralModel, band_edges, coarse_to_fine, vecchia_precision


def moving_average(steps: int, sensors: int, seed: int = 0) -> np.ndarray:
    """Smooth series driven by one common force and an own one."""
    rng = np.random.default_rng(seed)
    force = np.repeat(rng.normal(size=(steps + 20, 1)), sensors, 1) + 0.3 * rng.normal(size=(steps + 20, sensors))
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / 3.0) ** 2)
    smooth = np.stack([np.convolve(force[:, j], kernel, "valid")[:steps] for j in range(sensors)], 1)
    return (smooth / smooth.std(0)).astype(np.float32)


def hermitian(bands: int, sensors: int) -> torch.Tensor:
    raw = torch.randn(bands, sensors, 3 * sensors, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    cross = raw @ raw.mH
    level = torch.diagonal(cross, dim1=1, dim2=2).real.sqrt()
    return cross / (level[:, :, None] * level[:, None, :])


def test_bands_cover_all_bins_and_grow() -> None:
    edges = band_edges(1000, 5, 1.2, 100)
    widths = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == 1000
    assert (np.diff(widths[:-1]) >= 0).all()
    assert widths.min() >= 5


def test_the_order_visits_every_sensor_once() -> None:
    assert sorted(coarse_to_fine(hermitian(3, 7).abs().mean(0))) == list(range(7))


def test_regressions_on_all_sensors_give_the_inverse() -> None:
    coherence = hermitian(4, 6)
    precision, factor = vecchia_precision(coherence, 5)
    torch.testing.assert_close(precision, torch.linalg.inv(coherence), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(factor @ factor.mH, coherence, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_few_regressors_still_give_a_consistent_positive_model(count: int) -> None:
    precision, factor = vecchia_precision(hermitian(4, 8), count)
    assert (torch.linalg.eigvalsh(precision) > 0).all()
    eye = torch.eye(8, dtype=torch.complex64).expand(4, -1, -1)
    torch.testing.assert_close(precision @ (factor @ factor.mH), eye, rtol=1e-3, atol=1e-3)


def test_conjugate_gradients_match_the_dense_conditional_mean() -> None:
    series = moving_average(60, 2)
    missing = np.random.default_rng(1).random(series.shape) < 0.3
    model = SpectralModel(60, 2)
    model.begin(linear(series, missing), missing)
    filled = model.fill(iterations=400, tolerance=1e-6)
    size = model.length * 2
    unit = torch.eye(size).view(size, model.length, 2)
    dense = model._per_band(model.spectra.precision, unit).reshape(size, size).double()
    hidden = model.hidden.reshape(-1)
    known = torch.zeros(size, dtype=torch.float64)
    known[~hidden] = model.state.reshape(-1)[~hidden].double()
    exact = -torch.linalg.solve(dense[hidden][:, hidden], dense[hidden] @ known)
    full = known.clone()
    full[hidden] = exact
    np.testing.assert_allclose(filled, full.view(model.length, 2)[:60].numpy(), atol=5e-3)


@pytest.mark.parametrize("gaps", ["points", "blocks"])
def test_em_beats_straight_lines(gaps: str) -> None:
    series = moving_average(600, 5)
    missing = np.zeros(series.shape, bool)
    rng = np.random.default_rng(2)
    if gaps == "points":
        missing = rng.random(series.shape) < 0.4
    else:
        for _ in range(40):
            row, sensor = rng.integers(570), rng.integers(5)
            missing[row : row + 25, sensor] = True
    lines = linear(series, missing)
    filled = SpectralModel(600, 5).fit(lines, missing, steps=5)
    np.testing.assert_array_equal(filled[~missing], series[~missing])
    assert np.abs(filled - series)[missing].mean() < 0.6 * np.abs(lines - series)[missing].mean()


def test_draws_spread_as_the_errors_do() -> None:
    rng = np.random.default_rng(6)
    series = moving_average(2000, 4) + 0.3 * rng.normal(size=(2000, 4)).astype(np.float32)
    missing = np.random.default_rng(3).random(series.shape) < 0.5
    model = SpectralModel(2000, 4)
    filled = model.fit(linear(series, missing), missing, steps=6)
    error = (filled - series)[missing].std()
    spread = model.spread()
    assert not spread[~missing].any()
    assert 0.6 < spread[missing].std() / error < 1.6


def test_restored_cells_come_back_bit_identical() -> None:
    series = moving_average(300, 3)
    missing = np.random.default_rng(4).random(series.shape) < 0.3
    held = ~missing & (np.random.default_rng(5).random(series.shape) < 0.1)
    model = SpectralModel(300, 3)
    model.fit(linear(series, missing | held), missing | held)
    model.restore(series, missing)
    np.testing.assert_array_equal(model.fill()[~missing], series[~missing])


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="steps"):
        SpectralModel(1, 3)

"""Stationary Gaussian model of the whole series: one cross-spectral matrix per frequency band, fitted by EM.

A series of N sensors is seen as a circular Gaussian process. Its Fourier coefficients at different frequencies are
independent, x_f ~ CN(0, S_b) for f in band b, so that the precision operator is diagonal in frequency: applying it
costs one FFT, one N x N product per frequency and one inverse FFT. The conditional mean of the missing cells solves
P_mm x_m = -P_mo x_o by conjugate gradients; every lag and every sensor enters, without windows.

EM: the E-step takes the conditional mean and one conditional draw (a draw of the model, minus its own conditional mean
given its values at the observed cells), the M-step averages both periodograms. Coherences are pooled over neighbouring
bands and, for many sensors, S_b^-1 is built sensor by sensor from regressions on the few most coherent sensors before
it in a coarse-to-fine order (a Vecchia factor), which needs far fewer observations than a full N x N matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from torch import Tensor

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

PAD = 64  # hidden steps that close the circle between the end and the beginning
JITTER = 1e-6
PUSH = 0.5  # EM is slow across long gaps: the mean goes half a step further


@dataclass(frozen=True)
class SpectralOptions:
    """How a cross-spectrum is regularised.

    Attributes:
        neighbours: sensors in each sensor's regression; None takes max(4, T // 400).
        first_band: bins of the lowest band; bands grow by `growth` up to `widest` bins.
        pooling: strength of the pooled coherence, in bins; three bins per sensor come on top.
        level_pooling: strength, in bins, of the mean spectral shape of all sensors.
        shrinkage: weight of the diagonal in each coherence matrix.
    """

    neighbours: int | None = None
    first_band: int = 5
    growth: float = 1.2
    widest: int = 150
    pooling: float = 100.0
    level_pooling: float = 6.0
    shrinkage: float = 0.001


@dataclass(frozen=True)
class Spectra:
    """Per band: precision S^-1 (B, N, N) and factor F with F F^H = S; diagonal (N,) of the precision in time."""

    precision: Tensor
    factor: Tensor
    diagonal: Tensor


def band_edges(bins: int, first: int, growth: float, widest: int) -> list[int]:
    """Edges 0 = e_0 < ... < e_B = bins of bands whose widths grow geometrically up to `widest`."""
    edges, width = [0], float(first)
    while edges[-1] < bins:
        edges.append(min(bins, edges[-1] + int(width)))
        width = min(width * growth, float(max(widest, first)))
    if len(edges) > 2 and edges[-1] - edges[-2] < first:
        edges.pop(-2)
    return edges


def coarse_to_fine(relation: Tensor) -> list[int]:
    """Order of sensors: the most central first, then always the one least related to those already placed."""
    first = int(relation.sum(1).argmax())
    order, best = [first], relation[first].clone()
    best[first] = torch.inf
    for _ in range(len(relation) - 1):
        sensor = int(best.argmin())
        order.append(sensor)
        best = torch.maximum(best, relation[sensor])
        best[sensor] = torch.inf
    return order


def parents(relation: Tensor, order: list[int], count: int) -> tuple[Tensor, Tensor]:
    """The `count` sensors most related to each one among those before it: indices (N, count) and their validity."""
    sensors = len(order)
    index = torch.zeros(sensors, count, dtype=torch.long)
    valid = torch.zeros(sensors, count, dtype=torch.bool)
    placed = torch.tensor(order)
    for position in range(1, sensors):
        before, sensor = placed[:position], order[position]
        chosen = before[torch.argsort(relation[sensor, before], descending=True, stable=True)[:count]]
        index[sensor, : len(chosen)] = chosen
        valid[sensor, : len(chosen)] = True
    return index, valid


def vecchia_precision(coherence: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Precision matrices and sampling factors from regressions on `count` parents.

    Args:
        coherence: (B, N, N) Hermitian, unit diagonal.
        count: regressors per sensor; N - 1 reproduces the inverse of `coherence`.

    Returns:
        precision (B, N, N) and factor (B, N, N) with factor @ factor^H = precision^-1.
    """
    bands, sensors, _ = coherence.shape
    relation = coherence.abs().square().mean(0)
    order = coarse_to_fine(relation)
    index, valid = parents(relation, order, count)
    rows = torch.arange(sensors)[:, None]
    inner = coherence[:, index[:, :, None], index[:, None, :]]
    both = valid[:, :, None] & valid[:, None, :]
    inner = torch.where(both, inner, torch.eye(count, dtype=coherence.dtype))
    cross = torch.where(valid, coherence[:, index, rows], 0)
    slopes = torch.cholesky_solve(cross[..., None], torch.linalg.cholesky(inner))[..., 0]
    left = (1 - (slopes.conj() * cross).sum(-1).real).clamp_min(JITTER)
    whiten = torch.eye(sensors, dtype=coherence.dtype).repeat(bands, 1, 1)
    # index_put with accumulation: unused parents all point at sensor 0 with slope zero
    where = (torch.arange(bands)[:, None, None], rows[None], index[None])
    whiten.index_put_(where, -torch.where(valid, slopes.conj(), 0), accumulate=True)
    scaled = whiten / left.sqrt()[:, :, None]
    precision = scaled.mH @ scaled
    placed = torch.tensor(order)
    unit = torch.eye(sensors, dtype=coherence.dtype).expand(bands, -1, -1)
    inverse = torch.linalg.solve_triangular(whiten[:, placed][:, :, placed], unit, upper=False)
    factor = torch.zeros_like(whiten)
    factor[:, placed[:, None], placed[None]] = inverse
    return precision, factor * left.sqrt()[:, None, :]


class SpectralModel:
    """Stationary Gaussian imputer of a series (T, N); the mean is taken to be zero (subtract a calendar mean first).

    Example:
        >>> t = np.arange(400)[:, None]
        >>> series = np.sin(2 * np.pi * (t + np.arange(3)) / 25).astype(np.float32)
        >>> missing = np.random.default_rng(0).random(series.shape) < 0.3
        >>> model = SpectralModel(400, 3)
        >>> filled = model.fit(np.where(missing, 0, series).astype(np.float32), missing)
        >>> bool(np.abs(filled - series)[missing].mean() < 0.1)
        True
    """

    def __init__(self, steps: int, sensors: int, options: SpectralOptions | None = None, seed: int = 0) -> None:
        if steps < 2 or sensors < 1:
            raise ValueError(f"steps, sensors: expected at least 2 and 1, got {steps} and {sensors}")
        self.options = options or SpectralOptions()
        self.steps, self.sensors = steps, sensors
        # an even length: irfft of n // 2 + 1 bins gives n values back
        self.length = 2 * scipy.fft.next_fast_len((steps + min(PAD, steps) + 1) // 2, real=True)
        opt = self.options
        self.edges = band_edges(self.length // 2 + 1, opt.first_band, opt.growth, opt.widest)
        wanted = max(4, steps // 400) if opt.neighbours is None else opt.neighbours
        self.neighbours = min(wanted, sensors - 1)
        # the same white noise in every step: the draw then moves little and each solve starts near its end
        self.noise = torch.randn(1, self.length, sensors, generator=torch.Generator().manual_seed(seed))
        # conjugate gradients: more of them where one is cheap
        self.iterations = int(np.clip(1.5e5 / np.sqrt(steps * sensors * (sensors + 50)), 20, 80))
        self.state = torch.zeros(self.length, sensors)  # the filling on the circle
        self.deviation = torch.zeros(self.length, sensors)
        self.hidden = torch.ones(self.length, sensors, dtype=torch.bool)

    # ---- E-step -------------------------------------------------------------------------------------------------
    def _per_band(self, matrices: Tensor, series: Tensor) -> Tensor:
        """Apply one (N, N) matrix per band to series (R, length, N)."""
        spectrum = torch.fft.rfft(series, dim=1, norm="ortho")
        out = torch.empty_like(spectrum)
        for band in range(len(matrices)):
            low, high = self.edges[band], self.edges[band + 1]
            out[:, low:high] = spectrum[:, low:high] @ matrices[band].mT
        applied: Tensor = torch.fft.irfft(out, n=self.length, dim=1, norm="ortho")
        return applied

    def _solve(self, series: Tensor, iterations: int, tolerance: float) -> Tensor:
        """Conditional means of the hidden cells by conjugate gradients from the guess in place: (R, length, N)."""
        free = self.hidden.to(series.dtype)
        precision, scale = self.spectra.precision, free / self.spectra.diagonal
        x = series.clone()
        residual = -self._per_band(precision, x) * free
        z = residual * scale
        direction, power = z, (residual * z).sum((1, 2), keepdim=True)
        goal = power * tolerance**2
        for _ in range(iterations):
            image = self._per_band(precision, direction) * free
            step = power / (direction * image).sum((1, 2), keepdim=True).clamp_min(1e-30)
            x += step * direction
            residual -= step * image
            z = residual * scale
            fresh = (residual * z).sum((1, 2), keepdim=True)
            if bool((fresh <= goal).all()):
                break
            direction = z + fresh / power.clamp_min(1e-30) * direction
            power = fresh
        return x

    def _draw(self) -> Tensor:
        return self._per_band(self.spectra.factor, self.noise)[0]

    # ---- M-step -------------------------------------------------------------------------------------------------
    def _estimate(self, series: Tensor) -> Spectra:
        """Cross-spectra from the summed periodograms of series (R, length, N)."""
        opt, bands = self.options, len(self.edges) - 1
        spectrum = torch.fft.rfft(series, dim=1, norm="ortho")
        counts = torch.tensor([self.edges[b + 1] - self.edges[b] for b in range(bands)], dtype=torch.float32)
        cross = torch.empty(bands, self.sensors, self.sensors, dtype=torch.complex64)
        for band in range(bands):
            part = spectrum[:, self.edges[band] : self.edges[band + 1]].reshape(-1, self.sensors)
            cross[band] = part.mT @ part.conj() / counts[band]
        level = torch.diagonal(cross, dim1=1, dim2=2).real.clamp_min(1e-8).sqrt()
        coherence = self._pool(cross / (level[:, :, None] * level[:, None, :]), counts)
        level = self._pool_levels(level, counts)
        eye = torch.eye(self.sensors, dtype=coherence.dtype)
        coherence = (1 - opt.shrinkage) * coherence + opt.shrinkage * eye
        if self.neighbours < self.sensors - 1:
            precision, factor = vecchia_precision(coherence, self.neighbours)
        else:
            factor = torch.linalg.cholesky(coherence)
            precision = torch.cholesky_inverse(factor)
        precision = precision / (level[:, :, None] * level[:, None, :])
        weight = (counts / counts.sum())[:, None]
        diagonal = (torch.diagonal(precision, dim1=1, dim2=2).real * weight).sum(0)
        return Spectra(precision, factor * level[:, :, None], diagonal)

    def _pool(self, coherence: Tensor, counts: Tensor) -> Tensor:
        """Blend each band's coherence with the real part of those at nearby frequencies."""
        opt = self.options
        centres = torch.log(torch.tensor([(a + b) / 2 + 1.0 for a, b in zip(self.edges, self.edges[1:], strict=False)]))
        kernel = torch.exp(-0.5 * ((centres[:, None] - centres[None]) / 0.7).square()) * counts
        kernel = kernel / kernel.sum(1, keepdim=True)
        pooled = (kernel @ coherence.real.flatten(1)).view(coherence.shape)
        strength = opt.pooling + 3 * self.sensors
        share = (strength / (strength + counts))[:, None, None]
        return (1 - share) * coherence + share * pooled

    def _pool_levels(self, level: Tensor, counts: Tensor) -> Tensor:
        """Shrink each sensor's log spectrum towards the mean shape of all sensors."""
        share = (self.options.level_pooling / (self.options.level_pooling + counts))[:, None]
        log_level = level.log()
        centre = (log_level * counts[:, None]).sum(0) / counts.sum()
        shape = log_level - centre
        return torch.exp((1 - share) * shape + share * shape.mean(1, keepdim=True) + centre)

    # ---- public -------------------------------------------------------------------------------------------------
    def begin(self, values: Floats, missing: Mask) -> None:
        """Take a first filling (T, N) and the spectra of it; hidden steps of the circle start as a straight line."""
        share = torch.linspace(0, 1, self.length - self.steps + 2)[1:-1, None]
        series = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        self.state = torch.cat([series, (1 - share) * series[-1] + share * series[0]])
        self.hidden = torch.ones(self.length, self.sensors, dtype=torch.bool)
        self.hidden[: self.steps] = torch.from_numpy(missing)
        self.previous = self.state
        self.spectra = self._estimate(self.state[None])

    def expect(self, iterations: int | None = None, tolerance: float = 1e-3) -> Floats:
        """E-step: conditional mean of the missing cells under the present spectra, (T, N), and one conditional draw."""
        draw = self._draw()
        pair = torch.stack([self.state, draw - self.deviation])
        self.previous = self.state
        self.state, mean = self._solve(pair, iterations or self.iterations, tolerance)
        self.deviation = torch.where(self.hidden, draw - mean, torch.zeros(()))
        return self._filling()

    def maximise(self) -> None:
        """M-step: spectra of the conditional mean and the draw's deviation from it."""
        self.spectra = self._estimate(torch.stack([self.state + PUSH * (self.state - self.previous), self.deviation]))

    def restore(self, values: Floats, missing: Mask) -> None:
        """See other cells than before (say, those held out for a trial); spectra stay."""
        series = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        self.hidden[: self.steps] = torch.from_numpy(missing)
        self.state[: self.steps] = torch.where(self.hidden[: self.steps], self.state[: self.steps], series)

    def fill(self, iterations: int | None = None, tolerance: float = 1e-3) -> Floats:
        """Conditional mean of the missing cells under the present spectra, (T, N)."""
        self.state = self._solve(self.state[None], iterations or 2 * self.iterations, tolerance)[0]
        return self._filling()

    def fit(self, values: Floats, missing: Mask, *, steps: int = 4, iterations: int | None = None) -> Floats:
        """EM from the filling in `values` (numbers, not NaN, at missing cells), then the conditional mean, (T, N).

        Observed cells come back bit-identical.
        """
        self.begin(values, missing)
        for _ in range(steps):
            self.expect(iterations)
            self.maximise()
        return self.fill(iterations)

    def _filling(self) -> Floats:
        return self.state[: self.steps].numpy().copy()

    def spread(self) -> Floats:
        """Deviation of the last draw from the conditional mean, (T, N): zero at observed cells."""
        return self.deviation[: self.steps].numpy().copy()

"""What held-out cells say of a trained denoiser: how much of it to believe, and how wide its draws have to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastimpute import metrics
from fastimpute.bases import Base, Filling, fill
from fastimpute.bases.choose import score
from fastimpute.conformal import Calibration, cell_scores, distance_class, sharpest_by_class
from fastimpute.denoising import Denoising
from fastimpute.diffusion.schedule import plan
from fastimpute.draws import Draws, Moments
from fastimpute.gaps import Mask, hold_out, hold_out_stretches
from fastimpute.regions import region_scores, tiles
from fastimpute.series import Series
from fastimpute.train.windows import PatchTable

MOST_STRETCHES, SHARE_OF_STRETCHES = 120, 4  # a quarter of the windows
ENOUGH_REGIONS = 60
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of what the network says
DRAWS, EVALUATIONS = 16, 8
MOST_WINDOWS = 2000  # drawn for the widths: more would take long and change nothing
LEAST_ROWS = 40  # windows side by side that are drawn nevertheless: regions need some of each


class HeldOut(NamedTuple):
    """Observed cells (T, N) that neither base nor network sees.

    thin: spread over the series; dense: in a few windows only, for the regions, none of the thin ones.
    """

    thin: Mask
    dense: Mask

    @property
    def union(self) -> Mask:
        """(T, N), all of them."""
        return self.thin | self.dense


class Calibrated(NamedTuple):
    """Of a denoiser.

    intervals: scores of cells; scale: (classes,), by how much draws have to be widened around their mean, by distance
    to the nearest observation; regions: (m,), scores of windows.
    """

    intervals: Calibration
    scale: NDArray[np.float32]
    regions: NDArray[np.float32]

    @classmethod
    def pooled(cls, several: Sequence[Calibrated], seed: int) -> Calibrated:
        """Of models alike, each of which saw none of its own held-out cells."""
        scores = np.concatenate([one.intervals.scores for one in several])
        classes = np.concatenate([one.intervals.classes for one in several])
        scale = np.asarray(np.mean([one.scale for one in several], 0, dtype=np.float32))
        return cls(Calibration.fit(scores, classes, seed), scale, np.concatenate([one.regions for one in several]))

    def over(self, factor: float) -> Calibrated:
        """The same widths over a base whose deviations are smaller by a factor."""
        intervals = Calibration(self.intervals.scores * np.float32(factor), self.intervals.classes)
        return Calibrated(intervals, self.scale * np.float32(factor), self.regions)


class Trial(NamedTuple):
    """What a model makes of held-out cells (T, N), and how its draws of some of them depart from that."""

    held: Mask
    drawn: Mask
    classes: NDArray[np.int64]
    filling: Filling
    departures: Moments

    @property
    def spread(self) -> NDArray[np.float64]:
        """(T, N), root mean square of the departures."""
        return np.asarray(np.sqrt(self.departures.square))

    def regions(self, series: Series, rows: NDArray[np.int64], scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of the windows that have drawn cells, draws widened by `scale`."""
        widened = self.departures.widened(scale[self.classes])
        return region_scores(self.filling.mean + widened.mean, widened.deviation, series.values, self.drawn, rows)


def hold_out_all(series: Series, window: int, seed: int) -> HeldOut:
    """Cells to hide from everything that is fitted."""
    rows = tiles(series, window)
    dense = hold_out_stretches(series.missing, rows, min(len(rows) // SHARE_OF_STRETCHES, MOST_STRETCHES), seed)
    return HeldOut(hold_out(series.missing, seed=seed) & ~dense, dense)


def some_rows(rows: NDArray[np.int64], length: int, count: int, seed: int) -> NDArray[np.bool_]:
    """Rows (T,) of some of the windows (W, 2): `count` of them, or all where there are fewer."""
    chosen = np.zeros(length, bool)
    for first, stop in rows[np.random.default_rng(seed).permutation(len(rows))[:count]]:
        chosen[first:stop] = True
    return chosen


def believe(series: Series, held: Mask, model: Denoising, table: PatchTable) -> dict[str, tuple[float, float, float]]:
    """Scale what the network adds, to the mean and to the spread, by what fills the held-out cells best.

    Returns:
        Held-out (MAE, MSE, CRPS), standardised, of the base and of the network as trained; empty without such cells.
    """
    if not held.any():
        return {}
    hidden = series.missing | held
    base, net = (fill(one, series, hidden, table) for one in (model.base, model))
    means = {share: base.mean + share * (net.mean - base.mean) for share in SHARES}
    reference = metrics.mae(base.mean, series.values, held), metrics.mse(base.mean, series.values, held)

    def loss(share: float) -> float:
        mae, mse = metrics.mae(means[share], series.values, held), metrics.mse(means[share], series.values, held)
        return mae / max(reference[0], 1e-12) + mse / max(reference[1], 1e-12)

    share = min(SHARES, key=loss)

    def sharpness(spread_share: float) -> float:
        deviation = base.deviation ** (1 - spread_share) * net.deviation**spread_share
        return metrics.crps_gaussian(means[share], deviation, series.values, held)

    with torch.no_grad():
        for layer, factor in ((model.net.write, share), (model.net.write_spread, min(SHARES, key=sharpness))):
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)
    return {"base": score(base, series, held), "network": score(net, series, held)}


def calibrate(
    series: Series,
    held_out: HeldOut,
    model: Denoising,
    table: PatchTable,
    wide: PatchTable,
    seed: int,
) -> Calibrated:
    """Scores of a model that saw none of the cells it is judged on.

    A network that has seen cells, hidden though they were now and then, fills them better than others: on blocks of
    ETTh1 its error is .15 there and .17 elsewhere. Further masks over cells it was trained on would promise too much.

    Args:
        series: what is to be filled.
        held_out: of `hold_out_all`.
        model: bound to the series and `table`; base and network saw none of the held-out cells.
        table: windows of the mean.
        wide: windows of the draws.
        seed: of the draws and of what is kept.
    """
    drawing = Denoising(model.base.bind(series, wide), model.net, model.workers, model.precision)
    rows, steps = tiles(series, table.window), plan(EVALUATIONS)

    def trial(held: Mask, asked: Mask) -> Trial:
        hidden = series.missing | held
        departures = Draws(drawing, series, hidden, asked, wide, DRAWS, steps, seed).moments()
        return Trial(held, asked, distance_class(hidden), fill(model, series, hidden, table), departures)

    count = max(LEAST_ROWS, round(len(rows) * MOST_WINDOWS / wide.count))
    some = held_out.thin & some_rows(rows, len(series.values), count, seed)[:, None]
    thin, dense = trial(held_out.thin, some), trial(held_out.dense, held_out.dense)
    scale = sharpest_by_class(
        cell_scores(thin.filling.mean, thin.spread, series.values, thin.drawn), thin.classes[thin.drawn]
    )
    regions = dense.regions(series, rows, scale)
    if len(regions) < ENOUGH_REGIONS:  # those of the thin mask hold a little too often, which is better than none
        regions = np.concatenate([regions, thin.regions(series, rows, scale)])
    scores = [cell_scores(*one.filling, series.values, one.held) for one in (thin, dense)]
    classes = [one.classes[one.held] for one in (thin, dense)]
    return Calibrated(Calibration.fit(np.concatenate(scores), np.concatenate(classes), seed), scale, regions)


def narrowing(before: Base, after: Base, series: Series, table: PatchTable) -> float:
    """By how much a base that has seen more doubts the missing cells less than before; at least 1.

    Scores were taken over deviations of the one: over those of the other the same scores would promise too much.
    """
    if not series.missing.any():
        return 1.0
    wide, narrow = (fill(base, series, series.missing, table).deviation for base in (before, after))
    return max(1.0, float(wide[series.missing].mean() / narrow[series.missing].mean()))

"""The filling that an imputer begins from: candidates fitted without some held-out cells, judged and blended on these.

Candidates: straight lines, a day and week profile, low rank across the sensors, and stationary Gaussian models of the
whole series (fastimpute.spectral) in its own units, scaled by the spread of each phase of the day, on normal scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from fastimpute.blend import Blend, Trial, scores
from fastimpute.crew import crew
from fastimpute.gaps import Floats, Mask, gap_distance, hold_out, linear
from fastimpute.low_rank import low_rank, soft_impute
from fastimpute.normal_scores import NormalScores
from fastimpute.profile import Period, calendar_mean, calendar_scale, detect_period, profile
from fastimpute.spectral import Spectra, SpectralModel

__all__ = ["Blend", "Period", "Start", "choose_start", "detect_period", "gap_distance", "hold_out", "linear", "profile"]

MOST_STEPS = 7  # EM steps of a spectral candidate
REFIT_STEPS = 2  # more of them, once it sees the held-out cells
LEAST_ROWS = 24  # shorter series get lines and profiles only
MOST_CELLS = 6_000_000  # larger ones too
MOST_SENSORS = 512

Item = TypeVar("Item")
Result = TypeVar("Result")


class SpectralCandidate:
    """One spectral model of a transformed series: values -> normal scores (if asked) -> minus mean, over scale."""

    def __init__(self, values: Floats, hidden: Mask, period: Period, *, scaled: bool, normal: bool, seed: int) -> None:
        self.map = NormalScores(values, hidden) if normal else None
        self.hidden = hidden
        table = self._forward(values)
        self.mean = calendar_mean(table, hidden, period)
        residual = np.where(hidden, 0, table - self.mean).astype(np.float32)
        self.scale = calendar_scale(residual, hidden, period) if scaled else np.ones((1, 1), np.float32)
        first = linear(residual / self.scale, hidden)
        if period.day is not None:
            damping = np.exp(-(gap_distance(hidden) - 1) / 6.0).astype(np.float32)
            first = np.where(hidden, first * damping, first)
        self.model = SpectralModel(values.shape[0], values.shape[1], seed=seed)
        self.model.begin(first, hidden)
        self.best = np.inf
        self.trials: dict[str, Floats] = {}
        self.kept: tuple[Spectra, torch.Tensor] | None = None

    def advance(self, values: Floats, holdout: Mask, reference: tuple[float, float], most: int = MOST_STEPS) -> None:
        """EM steps while the held-out error (MAE and MSE over the reference's) falls; the best step is kept."""
        for _ in range(most):
            if self.kept is not None:
                self.model.maximise()
            spectra = self.model.spectra
            filled = self._outputs(self.model.expect(), self.hidden)
            loss = min(judge(scores(one, values, holdout), reference) for one in filled.values())
            better = loss < 0.998 * self.best
            if loss < self.best or self.kept is None:
                self.best, self.trials, self.kept = loss, filled, (spectra, self.model.state.clone())
            if not better:
                break

    def refit(self, values: Floats, missing: Mask) -> dict[str, Floats]:
        """Fillings with the held-out cells restored, a few EM steps on from the spectra kept."""
        assert self.kept is not None
        self.model.spectra, self.model.state = self.kept[0], self.kept[1].clone()
        self.model.restore(((self._forward(values) - self.mean) / self.scale).astype(np.float32), missing)
        for _ in range(REFIT_STEPS):
            self.model.expect()
            self.model.maximise()
        return self._outputs(self.model.fill(), missing)

    def _forward(self, values: Floats) -> Floats:
        return values if self.map is None else self.map.forward(values)

    def _outputs(self, filled: Floats, missing: Mask) -> dict[str, Floats]:
        table = filled * self.scale + self.mean
        if self.map is None:
            return {"": table}
        spread = _class_spread(self.model.spread(), missing) * self.scale
        return {"": self.map.backward(table), "-mean": self.map.backward_mean(table, spread)}


class LowRankCandidate:
    """Soft-impute at the threshold with the least held-out error."""

    def __init__(self, values: Floats, hidden: Mask, holdout: Mask, reference: tuple[float, float]) -> None:
        self.best, self.threshold = np.inf, 0
        for index, filled in enumerate(soft_impute(values, hidden)):
            loss = judge(scores(filled, values, holdout), reference)
            if loss < self.best:
                self.best, self.threshold, self.trials = loss, index, {"": filled}
            elif loss > 1.1 * self.best:
                break

    def refit(self, values: Floats, missing: Mask) -> dict[str, Floats]:
        """The filling with the held-out cells restored, at the same threshold."""
        return {"": low_rank(values, missing, self.threshold)}


Candidate = SpectralCandidate | LowRankCandidate


def _class_spread(deviation: Floats, missing: Mask) -> Floats:
    """Standard deviation of a draw by distance to the nearest observation, (T, N)."""
    rank = np.minimum(np.log2(np.maximum(gap_distance(missing), 1)).astype(np.int64), 8)
    square = np.bincount(rank[missing], np.square(deviation[missing]), 9)
    count = np.maximum(np.bincount(rank[missing], minlength=9), 1)
    return np.where(missing, np.sqrt(square / count)[rank], 0).astype(np.float32)


def judge(score: tuple[float, float], reference: tuple[float, float]) -> float:
    """MAE and MSE relative to a reference's, averaged."""
    return 0.5 * (score[0] / max(reference[0], 1e-9) + score[1] / max(reference[1], 1e-12))


@dataclass
class Start:
    """A start and all that led to it; every table is (T, N) float32, observed cells as given.

    Attributes:
        filled: the blend, fitted on all observed cells.
        trial: the same blend fitted without the held-out cells.
        holdout: the cells held out, observed ones.
        candidates: name -> filling made without the held-out cells.
        finals: name -> filling made with all observed cells.
        scores: name -> (MAE, MSE) on the held-out cells, "blend" among them.
        name: the best single candidate.
        period: the cycles found or given.
        blend: the weights.
    """

    filled: Floats
    trial: Floats
    holdout: Mask
    candidates: dict[str, Floats]
    finals: dict[str, Floats]
    scores: dict[str, tuple[float, float]]
    name: str
    period: Period
    blend: Blend


def choose_start(
    values: Floats, missing: Mask, period: int | None = None, week: int | None = None, seed: int = 0
) -> Start:
    """Fit the candidates without some observed cells, blend them on these, fit again with all.

    Args:
        values: (T, N) standardised; numbers at missing cells are ignored.
        missing: (T, N), True where missing.
        period: steps per day, None to look for it.
        week: steps per week, used with `period`.
        seed: of the cells held out and of the draws in EM.

    Returns:
        Start; results do not depend on the number of threads.

    Example:
        >>> t = np.arange(300)[:, None]
        >>> series = np.sin(2 * np.pi * (t + np.arange(3)) / 24).astype(np.float32)
        >>> missing = np.random.default_rng(0).random(series.shape) < 0.2
        >>> start = choose_start(series, missing)
        >>> start.period.day, bool(np.abs(start.filled - series).max() < 0.5)
        (24, True)
    """
    values = np.where(missing, 0, values).astype(np.float32)
    cycles = Period(period, week) if period is not None else detect_period(values, missing)
    holdout = hold_out(missing, seed=seed)
    hidden = missing | holdout
    candidates = {"linear": linear(values, hidden)}
    reference = scores(candidates["linear"], values, holdout)
    if cycles.day is not None:
        candidates["profile"] = profile(values, hidden, cycles)
    with crew() as workers:
        run = workers.map
        models = _fitted_candidates(values, hidden, holdout, cycles, seed, reference, run)
        for name, model in models.items():
            candidates |= {name + suffix: filled for suffix, filled in model.trials.items()}
        blend = Blend.fit([Trial(candidates, holdout, hidden)], values)
        finals = {"linear": linear(values, missing)}
        if "profile" in candidates:
            finals["profile"] = profile(values, missing, cycles)
        refits = run(lambda model: model.refit(values, missing), models.values())
        for name, refitted in zip(models, refits, strict=True):
            finals |= {name + suffix: filled for suffix, filled in refitted.items()}
    trial = blend.apply(candidates, hidden, values)
    judged = {name: scores(filled, values, holdout) for name, filled in candidates.items()}
    best = min(judged, key=lambda name: judge(judged[name], reference))
    judged["blend"] = scores(trial, values, holdout)
    filled = blend.apply(finals, missing, values)
    return Start(filled, trial, holdout, candidates, finals, judged, best, cycles, blend)


def _fitted_candidates(
    values: Floats,
    hidden: Mask,
    holdout: Mask,
    period: Period,
    seed: int,
    reference: tuple[float, float],
    run: Callable[..., list[Any]],
) -> dict[str, Candidate]:
    steps, sensors = values.shape
    if steps < LEAST_ROWS or sensors > MOST_SENSORS or values.size > MOST_CELLS or not holdout.any():
        return {}
    means = [Period()] if period.day is None else [Period(), period]

    def begin(cycle: Period) -> SpectralCandidate:
        model = SpectralCandidate(values, hidden, cycle, scaled=False, normal=False, seed=seed)
        model.advance(values, holdout, reference, most=2)
        return model

    plain = run(begin, means)
    chosen = min(range(len(means)), key=lambda index: plain[index].best)
    cycle = means[chosen]

    def finish(kind: str) -> Candidate:
        if kind == "low-rank":
            return LowRankCandidate(values, hidden, holdout, reference)
        if kind == "spectral":
            model: SpectralCandidate = plain[chosen]
        else:
            normal = kind == "spectral-scores"
            model = SpectralCandidate(values, hidden, cycle, scaled=not normal, normal=normal, seed=seed)
        model.advance(values, holdout, reference)
        return model

    kinds = ["spectral", "spectral-scores", "low-rank"] + (["spectral-scaled"] if cycle.day is not None else [])
    return dict(zip(kinds, run(finish, kinds), strict=True))

"""Which base a series asks for: each is fitted without some observed cells and judged on these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fastimpute import metrics
from fastimpute.bases.base import Arrays, Base
from fastimpute.bases.cycle import NO_PERIOD
from fastimpute.bases.gaussian import GaussianBase, IncrementsBase
from fastimpute.bases.lines import LinearBase, ProfileBase
from fastimpute.bases.overlap import Filling, fill
from fastimpute.gaps import Mask
from fastimpute.profile import Period
from fastimpute.series import Series
from fastimpute.train.windows import PatchTable

KINDS: dict[str, type[GaussianBase] | type[LinearBase]] = {
    kind.kind: kind for kind in (LinearBase, ProfileBase, GaussianBase, IncrementsBase)
}
MOST_STEPS = 12  # of EM
REFIT_STEPS = 2  # of EM, on top of those that were chosen
LEAST_WINDOWS = 30  # fewer teach no covariance
LEAST_HELD_OUT = 20  # fewer judge nothing: straight lines
WORTH_A_STEP = 0.998
FAIR_STEPS, HOPELESS = 2, 1.1  # a kind that is so much worse than the best after so many steps is given up


@dataclass(frozen=True)
class Choice:
    """What was chosen and why.

    Attributes:
        base: the best one, fitted without the held-out cells.
        filling: what it makes of the series without them.
        scores: kind -> (MAE, MSE, CRPS) on the held-out cells, standardised.
        steps: of EM that led to it; 0 for a base without.
    """

    base: Base
    filling: Filling
    scores: dict[str, tuple[float, float, float]]
    steps: int = 0


def choose_base(
    series: Series,
    holdout: Mask,
    table: PatchTable,
    *,
    period: Period = NO_PERIOD,
    seed: int = 0,
    kinds: tuple[str, ...] = tuple(KINDS),
) -> Choice:
    """Fit every kind of base without the held-out cells (T, N) and keep the one that fills them best.

    Best is the least mean of MAE, MSE and CRPS, each over that of straight lines; EM stops where it stops helping.

    Raises:
        ValueError: no such kind.

    Example:
        >>> from fastimpute.gaps import hold_out
        >>> choice = choose_base(series, hold_out(series.missing), table)  # doctest: +SKIP
        >>> filling = fill(choice.base, series, series.missing, table)  # doctest: +SKIP
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds: expected some of {', '.join(KINDS)}, got {kinds!r}")
    hidden = series.missing | holdout
    if holdout.sum() < LEAST_HELD_OUT:
        return _unjudged(series, hidden, table, seed)
    lines = LinearBase.fit(series, hidden, table, seed=seed)
    first = fill(lines, series, hidden, table)
    reference = score(first, series, holdout)
    scores: dict[str, tuple[float, float, float]] = {}
    best: tuple[float, Base, Filling, int] | None = None
    for kind in kinds:
        for step, base in enumerate(_candidates(kind, lines, series, hidden, table, period, seed), 1):
            filling = first if base is lines else fill(base, series, hidden, table)
            own = score(filling, series, holdout)
            loss = _loss(own, reference)
            earlier = _loss(scores[kind], reference) if kind in scores else float("inf")
            if loss < earlier:
                scores[kind] = own
            if best is None or loss < best[0]:
                best = loss, base, filling, step if isinstance(base, GaussianBase) else 0
            if loss > WORTH_A_STEP * earlier or (step >= FAIR_STEPS and loss > HOPELESS * best[0]):
                break
    return _unjudged(series, hidden, table, seed) if best is None else Choice(best[1], best[2], scores, best[3])


def refit(base: Base, series: Series, hidden: Mask, table: PatchTable, *, period: Period, seed: int = 0) -> Base:
    """The chosen base, fitted to all but the hidden cells (T, N); EM goes on from it for `REFIT_STEPS`.

    What EM does not see it fills with less and less doubt, step by step: whatever is compared with a refitted base,
    scores for calibration above all, has to come from as many steps.
    """
    kind = KINDS[base.kind]
    if isinstance(base, GaussianBase):
        steps = type(base).climb(series, hidden, table, period=period, seed=seed, last=base)
        return next(islice(steps, REFIT_STEPS - 1, None))
    return kind.fit(series, hidden, table, period=period, seed=seed)


def fit_like(choice: Choice, series: Series, hidden: Mask, table: PatchTable, *, period: Period, seed: int = 0) -> Base:
    """What `refit` would give of a base of this kind that never saw the hidden cells (T, N)."""
    kind = KINDS[choice.base.kind]
    if issubclass(kind, GaussianBase):
        return kind.fit(series, hidden, table, period=period, seed=seed, steps=choice.steps + REFIT_STEPS)
    return kind.fit(series, hidden, table, period=period, seed=seed)


def unpack_base(kind: str, arrays: Arrays, facts: dict[str, Any]) -> Base:
    """Inverse of `Base.pack`, by the base's kind."""
    return KINDS[kind].unpack(arrays, facts)


def score(filling: Filling, series: Series, cells: Mask) -> tuple[float, float, float]:
    """(MAE, MSE, CRPS) over observed cells that were hidden."""
    mean, deviation = filling
    return (
        metrics.mae(mean, series.values, cells),
        metrics.mse(mean, series.values, cells),
        metrics.crps_gaussian(mean, deviation, series.values, cells),
    )


def _loss(own: tuple[float, ...], reference: tuple[float, ...]) -> float:
    return sum(mine / max(theirs, 1e-12) for mine, theirs in zip(own, reference, strict=True)) / len(own)


def _unjudged(series: Series, hidden: Mask, table: PatchTable, seed: int) -> Choice:
    base = LinearBase.fit(series, hidden, table, seed=seed)
    return Choice(base, fill(base, series, hidden, table), {})


def _candidates(
    kind: str, lines: LinearBase, series: Series, hidden: Mask, table: PatchTable, period: Period, seed: int
) -> Iterator[Base]:
    """The bases of a kind that are tried, one after the other: steps of EM where it has any."""
    fitted = KINDS[kind]
    if issubclass(fitted, GaussianBase):
        if table.count >= LEAST_WINDOWS:
            yield from islice(fitted.climb(series, hidden, table, period=period, seed=seed), MOST_STEPS)
    elif not fitted.cyclic:
        yield lines
    elif period.day is not None:
        yield fitted.fit(series, hidden, table, period=period, seed=seed)

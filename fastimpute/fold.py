"""One round of holding out: a start and a ladder fitted with some observed cells hidden, and what they fill."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastimpute.blend import Blend, Trial
from fastimpute.gaps import Floats, Mask, gap_lengths, hold_out
from fastimpute.ladder import Ladder, fit_ladder, refill
from fastimpute.recursion import Plan
from fastimpute.referee import Referee, halves
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches
from fastimpute.start import Start

START = "start"  # the start's name among the fillings that are blended in the end
HELD_OUT_LEAST = 20  # with fewer held-out cells nothing can be chosen by them: the start alone is returned
SURE_GAPS = 15  # held-out gaps that make fitted weights count as much as equal ones
MOST_FOLDS = 2


@dataclass(frozen=True)
class Fold:
    """What one round learned.

    Attributes:
        start_blend: how the start's candidates are combined.
        ladder: the trained ladder; None where too few cells could be held out to train by.
    """

    start_blend: Blend
    ladder: Ladder | None

    def on(self, device: str) -> Fold:
        """The same, filling on another device."""
        return Fold(self.start_blend, None if self.ladder is None else self.ladder.on(device))

    def fill(self, series: Series, start: Start, cycles: Cycles) -> dict[str, Floats]:
        """Its fillings of a series, from that series' start."""
        # Fewer rows than in fit can leave a candidate of the start out; the start's own blend stands in for it.
        known = {name: start.finals.get(name, start.filled) for name in self.start_blend.names}
        return self._offer(self.start_blend.apply(known, series.missing, series.values), series, series.missing, cycles)

    def on_trial(self, series: Series, start: Start, cycles: Cycles) -> tuple[Fold, Trial]:
        """The fold with a blend of the start for this series, and its fillings without the cells that the start held
        out, to be judged on the second half of these."""
        hidden = series.missing | start.holdout
        first, second = halves(start.holdout)
        fold = replace(self, start_blend=Blend.fit([Trial(start.candidates, first, hidden)], series.values))
        begin = fold.start_blend.apply(start.candidates, hidden, series.values)
        return fold, Trial(fold._offer(begin, series, hidden, cycles), second, hidden)

    def _offer(self, begin: Floats, series: Series, hidden: Mask, cycles: Cycles) -> dict[str, Floats]:
        offered = {START: begin}
        return offered if self.ladder is None else offered | refill(self.ladder, series, hidden, begin, cycles)


def fit_fold(
    series: Series,
    start: Start,
    cycles: Cycles,
    choose: Callable[[Series, Floats], tuple[Patches, Plan]],
    report: Callable[[str], None],
) -> tuple[Fold, Trial]:
    """Blend the start and train a ladder without the cells that the start held out.

    One half of them blends the start, the other judges what is made of it: a blend looks better than it is on the
    cells it was fitted on.

    Args:
        series: what is to be filled.
        start: its start, with the cells held out.
        cycles: what the scores are conditioned on.
        choose: patches and plan for a series and its filling.
        report: told about each loop of the ladder.

    Returns:
        The fold, and its fillings without the held-out cells, to be judged on the second half of these.
    """
    hidden = series.missing | start.holdout
    first, second = halves(start.holdout)
    start_blend = Blend.fit([Trial(start.candidates, first, hidden)], series.values)
    trial = start_blend.apply(start.candidates, hidden, series.values)
    offered: dict[str, Floats] = {START: trial}
    ladder = None
    if second.sum() >= HELD_OUT_LEAST:
        patches, plan = choose(series, start_blend.apply(start.finals, series.missing, series.values))
        referee = Referee(series.values, second, trial)
        ladder, climbed = fit_ladder(series, trial, hidden, referee, cycles, patches, plan, report)
        offered |= climbed
    return Fold(start_blend, ladder), Trial(offered, second, hidden)


def folds_wanted(missing: Mask, seed: int) -> int:
    """Rounds until about twice `SURE_GAPS` gaps have judged: few can mislead, and small data is quick to train on.

    Example:
        >>> import numpy as np
        >>> missing = np.zeros((400, 4), dtype=bool)
        >>> missing[100:140] = True
        >>> folds_wanted(missing, seed=0), folds_wanted(np.eye(400, dtype=bool), seed=0)
        (2, 1)
    """
    judged = _judged(missing, seed)
    if judged.sum() < HELD_OUT_LEAST:
        return 1
    wanted = min(MOST_FOLDS, math.ceil(2 * SURE_GAPS / gap_lengths(judged).size))
    enough = all(_judged(missing, seed + number).sum() >= HELD_OUT_LEAST for number in range(1, wanted))
    return wanted if enough else 1


def _judged(missing: Mask, seed: int) -> Mask:
    """The held-out cells that judge the round of a seed."""
    return halves(hold_out(missing, seed=seed))[1]


def cautious_blend(trials: list[Trial], truth: Floats, trusted: tuple[str, ...] = ()) -> Blend:
    """The blend of what the folds offer, drawn towards what is trusted where few held-out gaps stand behind it.

    Args:
        trials: what they offer without the held-out cells.
        truth: (T, N), right at these.
        trusted: names of fillings, all alike; none: all are.
    """
    blend = Blend.fit(trials, truth)
    gaps = sum(gap_lengths(trial.held).size for trial in trials)
    sure = gaps / (gaps + SURE_GAPS)
    prior = np.array([not trusted or name in trusted for name in blend.names], np.float64)
    return Blend(blend.names, sure * blend.weights + (1 - sure) * prior / prior.sum())


def mean_fill(blend: Blend, fillings: Sequence[Mapping[str, Floats]], series: Series) -> Floats:
    """Blend what each fold offers, and average the folds."""
    filled = [blend.apply(offered, series.missing, series.values) for offered in fillings]
    return filled[0] if len(filled) == 1 else np.mean(filled, axis=0, dtype=np.float32)

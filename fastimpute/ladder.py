"""The ladder of noise levels: trained with held-out cells hidden, walked again for the result and for new data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastimpute.crew import crew
from fastimpute.recursion import Plan, Stage, alternate, descend, noise_levels, warm_up
from fastimpute.referee import Referee
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table

WINDOWS, SPIRIT, SPIRIT_MEAN = "windows", "spirit", "spirit, mean"  # the fillings it offers


@dataclass(frozen=True)
class Ladder:
    """A trained ladder.

    Attributes:
        patches: window, stride and columns.
        plan: how it was trained.
        gaussian_stages: rungs without network, a Gaussian EM over the patches.
        stages: a score per loop, up to the last one kept.
        from_gaussian: whether the scores begin where the EM ended, rather than at the start.
        losses: held-out loss after each loop that was kept, relative to the start's.
    """

    patches: Patches
    plan: Plan
    gaussian_stages: tuple[Stage, ...]
    stages: tuple[Stage, ...]
    from_gaussian: bool
    losses: tuple[float, ...]

    def on(self, device: str) -> Ladder:
        """The same, walked on another device."""
        engine = dataclasses.replace(self.plan.engine, device=device)
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, engine=engine))


class _Watch:
    """Follows the ladder on the held-out cells."""

    def __init__(self, referee: Referee, report: Callable[[str], None]) -> None:
        self.referee, self.report = referee, report
        self.stages: list[Stage] = []
        self.fillings: list[NDArray[np.float32]] = []
        self.losses: list[float] = []

    def __call__(self, stage: Stage, filling: NDArray[np.float32]) -> None:
        self.stages.append(stage)
        self.fillings.append(filling)
        self.losses.append(float(self.referee.loss(filling).sum()))
        self.report(f"held-out loss {self.losses[-1]:.3f} of the start's")

    def kept(self) -> int:
        """Loops up to the last one that is not clearly worse than the best: the first ones may well do harm."""
        best = self.fillings[int(np.argmin(self.losses))]
        return 1 + max(
            loop for loop, filling in enumerate(self.fillings) if not self.referee.clearly_worse(filling, best)
        )


def fit_ladder(
    series: Series,
    trial: NDArray[np.float32],
    hidden: NDArray[np.bool_],
    referee: Referee,
    cycles: Cycles,
    patches: Patches,
    plan: Plan,
    report: Callable[[str], None],
) -> tuple[Ladder, dict[str, NDArray[np.float32]]]:
    """Train a ladder with the held-out cells among the hidden ones.

    Returns:
        The ladder, and the fillings it offers (see `refill`) on that occasion.
    """
    table = patch_table(patches, series, cycles)
    offered: dict[str, NDArray[np.float32]] = {}
    rungs: list[Stage] = []
    from_gaussian, begin = False, trial
    watch = _Watch(referee, report)
    with crew() as workers:
        if plan.gaussian:
            offered[WINDOWS], rungs = warm_up(trial, hidden, table, plan, referee, workers)
            from_gaussian = not referee.clearly_worse(offered[WINDOWS], trial)
            begin = offered[WINDOWS] if from_gaussian else trial
        alternate(begin, hidden, table, plan, noise_levels(plan, referee.root_mean_square(begin)), watch, workers)
    kept = watch.kept()
    offered |= _ends(watch.fillings[:kept])
    ladder = Ladder(patches, plan, tuple(rungs), tuple(watch.stages[:kept]), from_gaussian, tuple(watch.losses[:kept]))
    return ladder, offered


def refill(
    ladder: Ladder, series: Series, hidden: NDArray[np.bool_], filled: NDArray[np.float32], cycles: Cycles
) -> dict[str, NDArray[np.float32]]:
    """Fillings of the hidden cells of a series by the trained ladder, from a start: recursion only.

    "windows" is where the Gaussian EM ends, "spirit" the last filling of the ladder, "spirit, mean" the mean of its
    later half: the last is nearer to the median of what could be, the mean nearer to its mean.
    """
    table = patch_table(ladder.patches, series, cycles)
    offered, begin = {}, filled
    with crew() as workers:
        if ladder.gaussian_stages:
            offered[WINDOWS] = descend(ladder.gaussian_stages, filled, hidden, table, ladder.plan, workers)[-1]
            begin = offered[WINDOWS] if ladder.from_gaussian else filled
        return offered | _ends(descend(ladder.stages, begin, hidden, table, ladder.plan, workers))


def _ends(fillings: list[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    return {SPIRIT: fillings[-1], SPIRIT_MEAN: np.mean(fillings[len(fillings) // 2 :], axis=0, dtype=np.float32)}

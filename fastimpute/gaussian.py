"""GaussianImputer: windows as Gaussian vectors, or whatever base the series asks for, with calibrated intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.arguments import check_choice, check_count, seed_of
from fastimpute.bases import Base, Choice, Filling, choose_base, fill, fit_like, refit, unpack_base
from fastimpute.bases.choose import KINDS
from fastimpute.bases.lines import straight_lines
from fastimpute.conformal import Calibration, cell_scores, distance_class
from fastimpute.gaps import Mask, hold_out
from fastimpute.intervals import IntervalImputer
from fastimpute.profile import Period, detect_period
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, choose_columns, patch_table, typical_gap
from fastimpute.train.windows import PatchTable

SHORT_GAP, SHORT_WINDOW, LONG_WINDOW, LEAST_WINDOW = 8.0, 48, 72, 12
SHORT_IN_A_ROW, LONG_IN_A_ROW = 40, 20  # a series holds at least so many windows end to end
WIDEST = 504  # cells of a window
ENOUGH_SCORES = 5000  # of single cells; those of runs depend on each other, so that every mask is worth having
FEWEST_MORE, MOST_MORE = 2, 5  # masks held out one after the other for calibration
EFFORT = 1e9  # windows times cells squared: what refitting for them may cost


@dataclass(frozen=True)
class GaussianState:
    """A fitted GaussianImputer.

    Attributes:
        base: the base chosen, bound to the series of fit.
        window: rows of a window.
        stride: rows between windows.
        columns: (G, k) sensors of a window.
        calibration: scores of held-out cells by distance to the nearest observation.
        scores: held-out (MAE, MSE, CRPS) of every kind of base, standardised.
    """

    base: Base
    window: int
    stride: int
    columns: NDArray[np.int64]
    calibration: Calibration
    scores: dict[str, tuple[float, float, float]]

    def table(self, series: Series) -> PatchTable:
        """The windows of a series.

        Raises:
            ValueError: the series is shorter than a window.
        """
        return patch_table(Patches(self.window, self.stride, self.columns), series, Cycles())


class GaussianImputer(IntervalImputer[GaussianState]):
    """Fill gaps with the conditional mean of Gaussian windows, each given what it observes.

    Mean and covariance of the windows come from EM over the observed cells (seconds on one core), on top of a day and
    week profile where the data has one. Straight lines, profiles and Gaussians with a free level are tried as well;
    held-out observed cells decide. Overlapping windows are averaged. `predict_interval` is calibrated on such cells.

    Args:
        window: rows of a window; None chooses from the lengths of the gaps.
        neighbors: companions of each sensor in a window; None chooses (all sensors together when they are few).
        stride: rows between windows; None chooses.
        base: "auto" (chosen on held-out cells), "gaussian", "increments", "profile" or "linear".
        all_missing: a sensor without any observation: "raise", "mean_of_neighbors" or "keep".
        random_state: seed; the same seed gives the same bits on any number of threads.

    Source: the Gaussian conditional of arXiv 2510.02216, moments by EM.

    Example:
        >>> import fastimpute as fi
        >>> imputer = fi.GaussianImputer(random_state=0).fit(X)  # doctest: +SKIP
        >>> filled, (lower, upper) = imputer.transform(X), imputer.predict_interval(X)  # doctest: +SKIP
    """

    bytes_per_cell = 1300

    def __init__(
        self,
        *,
        window: int | None = None,
        neighbors: int | None = None,
        stride: int | None = None,
        base: str = "auto",
        all_missing: str = "raise",
        random_state: int | None = None,
    ) -> None:
        self.window = window
        self.neighbors = neighbors
        self.stride = stride
        self.base = base
        self.all_missing = all_missing
        self.random_state = random_state

    # ---- hooks of BaseImputer ----------------------------------------------------------------------------------

    def _fit_series(self, series: Series) -> GaussianState:
        self._check()
        seed = seed_of(self.random_state)
        alone = len(series.segments) > 1
        period = Period() if alone else detect_period(series.values, series.missing)
        patches = choose_patches(series, self.window, self.neighbors, self.stride)
        table = patch_table(patches, series, Cycles())
        holdout = hold_out(series.missing, seed=seed)
        kinds = tuple(KINDS) if self.base == "auto" else (self.base,)
        choice = choose_base(series, holdout, table, period=period, seed=seed, kinds=kinds)
        base = refit(choice.base, series, series.missing, table, period=period, seed=seed)
        return GaussianState(
            base=base,
            window=patches.window,
            stride=patches.stride,
            columns=patches.columns,
            calibration=_calibrate(choice, series, table, period, seed),
            scores=choice.scores,
        )

    def _impute_series(self, series: Series, state: GaussianState) -> NDArray[np.float32]:
        return self._fill(series, state).mean

    def _fill(self, series: Series, state: GaussianState) -> Filling:
        long = at_least(series, state.window)
        table = state.table(long)
        mean, deviation = fill(state.base.bind(long, table), long, long.missing, table)
        return Filling(mean[: series.shape[0]], deviation[: series.shape[0]])

    def _spread_series(
        self, series: Series, state: GaussianState, level: float
    ) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]]]:
        mean, deviation = self._fill(series, state)
        return mean, state.calibration.radius(distance_class(series.missing), level) * deviation

    def _pack_state(self, state: GaussianState) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, base = state.base.pack()
        named = {f"base.{name}": array for name, array in arrays.items()}
        kept = {f"calibration.{name}": array for name, array in state.calibration.pack().items()}
        facts = {
            "kind": state.base.kind,
            "base": base,
            "window": state.window,
            "stride": state.stride,
            "scores": state.scores,
        }
        return {**named, **kept, "columns": state.columns}, facts

    def _unpack_state(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> GaussianState:
        def within(prefix: str) -> dict[str, NDArray[Any]]:
            return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}

        return GaussianState(
            base=unpack_base(facts["kind"], within("base."), facts["base"]),
            window=int(facts["window"]),
            stride=int(facts["stride"]),
            columns=arrays["columns"],
            calibration=Calibration.unpack(within("calibration.")),
            scores={name: (float(a), float(b), float(c)) for name, (a, b, c) in facts["scores"].items()},
        )

    # ---- steps -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse settings that cannot work, before anything is computed."""
        check_choice("base", self.base, ("auto", *KINDS))
        check_count("window", self.window, optional=True)
        check_count("stride", self.stride, optional=True)
        check_count("neighbors", self.neighbors, least=0, optional=True)


def choose_patches(series: Series, window: int | None, neighbors: int | None, stride: int | None = None) -> Patches:
    """The windows of a series; what is None is chosen from the data, and no window is longer than a segment."""
    lines = straight_lines(series.values, series.missing, series)
    columns = choose_columns(lines, series.missing, neighbors)
    rows, width = series.shape[0], columns.shape[1]
    shortest = int((series.segments[:, 1] - series.segments[:, 0]).min())
    short = typical_gap(series.missing) < SHORT_GAP
    wanted = min(SHORT_WINDOW, rows // SHORT_IN_A_ROW) if short else min(LONG_WINDOW, rows // LONG_IN_A_ROW)
    wanted = min(max(wanted, LEAST_WINDOW), max(1, WIDEST // width))
    chosen = min(window, shortest) if window else max(1, min(wanted, shortest // 2))
    return Patches(chosen, stride or max(1, chosen // 12), columns)


def at_least(series: Series, rows: int) -> Series:
    """The series, with rows of nothing appended where it has fewer: a window takes them as missing."""
    lacking = rows - series.shape[0]
    if lacking <= 0 or len(series.segments) > 1:
        return series
    return replace(
        series,
        values=np.pad(series.values, ((0, lacking), (0, 0))),
        missing=np.pad(series.missing, ((0, lacking), (0, 0)), constant_values=True),
        segments=np.array([[0, rows]]),
    )


def trial_masks(series: Series, table: PatchTable, seed: int) -> Iterator[Mask]:
    """Masks (T, N) like the gaps of the data, to calibrate on, each to be filled by a base fitted without it.

    Single cells are soon enough; runs depend on each other, and more masks are worth having where a fit costs little.
    """
    points, scores = typical_gap(series.missing) < SHORT_GAP, 0
    for number in range(1 + int(np.clip(EFFORT / (table.count * table.dim**2), FEWEST_MORE, MOST_MORE))):
        if points and scores >= ENOUGH_SCORES:
            return
        held = hold_out(series.missing, seed=seed + number)
        scores += int(held.sum())
        yield held


def _calibrate(choice: Choice, series: Series, table: PatchTable, period: Period, seed: int) -> Calibration:
    """Scores of several masks like the gaps of the data, each filled by a base that was fitted without it.

    Args:
        choice: fitted without the first mask.
        series: what is to be filled.
        table: its windows.
        period: steps per day and week.
        seed: of the masks.
    """
    scores: list[NDArray[Any]] = []
    classes: list[NDArray[Any]] = []
    for number, held in enumerate(trial_masks(series, table, seed)):
        hidden = series.missing | held
        if number:
            fitted = fit_like(choice, series, hidden, table, period=period, seed=seed)
        else:
            fitted = refit(choice.base, series, hidden, table, period=period, seed=seed)
        mean, deviation = fill(fitted, series, hidden, table)
        scores.append(cell_scores(mean, deviation, series.values, held))
        classes.append(distance_class(hidden)[held])
    return Calibration.fit(np.concatenate(scores), np.concatenate(classes), seed)

"""How good is an imputer on this data: hide observed cells, impute, score; linear interpolation always beside it.

The function is `fastimpute.evaluate`; a module of that name would shadow it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute import masks, metrics
from fastimpute.imputer import BaseImputer
from fastimpute.layouts import Layout, Mask, read_layout
from fastimpute.linear import LinearImputer
from fastimpute.progress import cells_per_second
from fastimpute.series import Scaler


@dataclass(frozen=True)
class Scores:
    """Errors over the hidden cells."""

    mae: float
    mse: float
    rmse: float
    mre: float


@dataclass(frozen=True)
class Result:
    """One method on one mask: errors in units of each sensor's deviation and in the user's units, and its time."""

    method: str
    standardised: Scores
    raw: Scores
    seconds: float
    cells_per_second: float

    def __str__(self) -> str:
        return (
            f"{self.method:10}{self.standardised.mae:9.4f}{self.standardised.mse:9.4f}{self.raw.mae:11.4g}"
            f"{self.raw.rmse:11.4g}{self.raw.mre:8.2%}{self.seconds:10.2f}"
            f"  ({cells_per_second(self.cells_per_second, 1.0)})"
        )


@dataclass(frozen=True)
class Report:
    """What `evaluate` found; `print` it, or `as_dict` it for JSON."""

    rows: int
    sensors: int
    pattern: str
    rate: float
    seed: int
    missing_before: int
    hidden: int
    result: Result
    linear: Result

    def as_dict(self) -> dict[str, Any]:
        """The report as plain numbers and strings."""
        return asdict(self)

    def __str__(self) -> str:
        cells = self.rows * self.sensors
        head = (
            f"{self.rows} rows x {self.sensors} sensors, {self.pattern} mask {self.rate:.3g}, seed {self.seed}: "
            f"{self.missing_before / cells:.1%} missing before, {self.hidden / cells:.1%} hidden"
        )
        lines = [head, f"{'':10}{'MAE':>9}{'MSE':>9}{'MAE raw':>11}{'RMSE raw':>11}{'MRE':>8}{'seconds':>10}"]
        return "\n".join([*lines, str(self.result), str(self.linear)])


def raw_scores(truth: NDArray[Any], filled: NDArray[Any], hidden: Mask) -> Scores:
    """Errors over the hidden cells of (T, N) tables, in the units they come in."""
    arguments = filled, truth, hidden
    return Scores(metrics.mae(*arguments), metrics.mse(*arguments), metrics.rmse(*arguments), metrics.mre(*arguments))


def standardised_scores(truth: NDArray[Any], filled: NDArray[Any], hidden: Mask) -> Scores:
    """Errors over the hidden cells, each sensor divided by the deviation of the cells left to the imputer.

    Args:
        truth: (T, N), NaN where not even the truth is known.
        filled: (T, N) in the same units.
        hidden: (T, N), True where a known cell was hidden.

    Raises:
        ValueError: nothing is hidden, or a hidden cell is NaN.
    """
    observed = ~hidden & ~np.isnan(truth)
    scaler = Scaler.fit(truth, ~observed)
    mean = np.where(np.isnan(scaler.mean), 0.0, scaler.mean)
    std = np.where(scaler.std > 0, scaler.std, 1.0)
    return raw_scores((truth - mean) / std, (filled - mean) / std, hidden)


def hide(layout: Layout, pattern: str, rate: float, seed: int) -> Mask:
    """Draw which observed cells (T, N) to hide; a sensor that would lose its last one keeps all of them.

    Raises:
        ValueError: no such pattern, a rate outside [0, 1), or nothing that could be hidden.
    """
    rows, sensors = layout.raw.shape
    samples = len(layout.segments)
    shape = (rows, sensors) if samples == 1 else (samples, rows // samples, sensors)
    observed = ~np.isnan(layout.raw)
    hidden = masks.by_name(pattern)(shape, rate, seed).reshape(rows, sensors) & observed
    hidden[:, (observed & ~hidden).sum(axis=0) == 0] = False
    if not hidden.any():
        raise ValueError(f"a {pattern} mask of rate {rate:g} hides nothing in X of shape {(rows, sensors)}")
    return hidden


def with_hidden(layout: Layout, hidden: Mask) -> Any:
    """The data with those cells NaN too: a float64 frame with its time index, or an array of samples."""
    table = layout.raw.astype(np.float64)
    table[hidden] = np.nan
    if len(layout.segments) > 1:
        return table.reshape(len(layout.segments), -1, table.shape[1])
    return pd.DataFrame(table, index=layout.index, columns=pd.Index(layout.names, tupleize_cols=False))


def impute_and_score(imputer: BaseImputer[Any], layout: Layout, hidden: Mask) -> tuple[Result, NDArray[np.float64]]:
    """Fit a clone to the data without the hidden cells, fill it, score it; the filled table (T, N) comes along."""
    given = with_hidden(layout, hidden)
    begin = time.perf_counter()
    out = imputer.clone().fit_transform(given)
    seconds = time.perf_counter() - begin
    filled = np.asarray(out, dtype=np.float64).reshape(layout.raw.shape)
    truth = layout.raw.astype(np.float64)
    result = Result(
        method=type(imputer).__name__.removesuffix("Imputer").lower(),
        standardised=standardised_scores(truth, filled, hidden),
        raw=raw_scores(truth, filled, hidden),
        seconds=seconds,
        cells_per_second=filled.size / max(seconds, 1e-9),
    )
    return result, filled


@dataclass(frozen=True)
class Comparison:
    """A method and linear interpolation on the same hidden cells, with the tables (T, N) they filled."""

    result: Result
    linear: Result
    filled: NDArray[np.float64]
    linear_filled: NDArray[np.float64]


def compare(imputer: BaseImputer[Any], layout: Layout, hidden: Mask) -> Comparison:
    """`impute_and_score` of a method and of linear interpolation."""
    result, filled = impute_and_score(imputer, layout, hidden)
    linear, linear_filled = impute_and_score(LinearImputer(all_missing=imputer.all_missing), layout, hidden)
    return Comparison(result, linear, filled, linear_filled)


def report(layout: Layout, hidden: Mask, comparison: Comparison, pattern: str, rate: float, seed: int) -> Report:
    """Put a comparison into the form that is printed."""
    rows, sensors = layout.raw.shape
    missing = int(np.isnan(layout.raw).sum())
    outcome = comparison.result, comparison.linear
    return Report(rows, sensors, pattern, rate, seed, missing, int(hidden.sum()), *outcome)


def evaluate(imputer: BaseImputer[Any], X: Any, pattern: str = "point", rate: float = 0.3, seed: int = 0) -> Report:
    """Hide observed cells of X, impute them, score them, with linear interpolation on the same cells beside it.

    A clone of the imputer is fitted to what is left of X, so nothing it learned before, perhaps from the very cells
    that are hidden now, helps it; the imputer itself is not changed.

    Args:
        imputer: any imputer of this package.
        X: as for `fit`; its own missing cells stay missing and are not scored.
        pattern: "point" or "block", see `fastimpute.masks`.
        rate: share of cells to hide.
        seed: of the mask.

    Raises:
        ValueError: see `fit`; no such pattern; or nothing left to hide.

    Example:
        >>> from fastimpute import LinearImputer, simulate
        >>> report = evaluate(LinearImputer(), simulate.traffic(days=1, sensors=8, seed=0).truth, rate=0.2)
        >>> report.result.raw == report.linear.raw
        True
    """
    layout = read_layout(X)
    hidden = hide(layout, pattern, rate, seed)
    return report(layout, hidden, compare(imputer, layout, hidden), pattern, rate, seed)

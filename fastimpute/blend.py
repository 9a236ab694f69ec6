"""Convex blends of fillings, by distance to the nearest observation, fitted on held-out cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize

from fastimpute.gaps import Floats, Mask, gap_distance

DISTANCES = (1, 2, 4, 8, 16)  # lower bounds of the classes
PRIOR_CELLS = 300.0  # the weights of a class with so many held-out cells are half those of all cells
ROUNDS = 12


def scores(filled: Floats, truth: Floats, cells: Mask) -> tuple[float, float]:
    """MAE and MSE of a filling over some cells (0, 0 over none)."""
    error = filled[cells].astype(np.float64) - truth[cells]
    return (float(np.abs(error).mean()), float(np.square(error).mean())) if error.size else (0.0, 0.0)


def simplex_fit(candidates: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights >= 0, sum 1, of candidates (K, n) with the least MAE / best MAE + MSE / best MSE.

    Squares reweighted by 1 / |error|; each round is a non-negative least squares problem of K unknowns.
    """
    error = candidates - truth
    best_mae = max(float(np.abs(error).mean(1).min()), 1e-9)
    best_mse = max(float(np.square(error).mean(1).min()), 1e-12)
    count, cells = error.shape
    weights = np.full(count, 1.0 / count)
    for _ in range(ROUNDS):
        now = np.abs(weights @ error)
        importance = 1.0 / best_mse + 1.0 / (best_mae * np.maximum(now, 0.05 * best_mae))
        gram = (error * importance) @ error.T / cells
        gram[np.diag_indices(count)] += 1e-6 * np.trace(gram) / count + 1e-12
        # errors of a blend are the blend of the errors as weights sum to one: minimise w'Gw, then rescale
        root = np.linalg.cholesky(gram).T
        heavy = 1e3 * np.sqrt(np.trace(gram) / count)
        system = np.vstack([root, np.full((1, count), heavy)])
        weights, _ = scipy.optimize.nnls(system, np.append(np.zeros(count), heavy))
        weights = weights / weights.sum()
    return weights


@dataclass(frozen=True)
class Trial:
    """Fillings made without some observed cells.

    Attributes:
        candidates: name -> (T, N) filling.
        held: (T, N), True at the cells to judge them by.
        hidden: (T, N), True at every cell that they could not see (missing or held out).
    """

    candidates: Mapping[str, Floats]
    held: Mask
    hidden: Mask


@dataclass(frozen=True)
class Blend:
    """Weights of named fillings per class of distance to the nearest observation.

    Attributes:
        names: of the fillings, in the order of the weights.
        weights: (classes, K), rows sum to one.
    """

    names: tuple[str, ...]
    weights: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, trials: Sequence[Trial], truth: Floats) -> Blend:
        """Fit on held-out cells, pooled over trials that offer the same candidates.

        Args:
            trials: at least one.
            truth: (T, N), right at the held-out cells.

        Raises:
            ValueError: no trial, no candidate, or trials with different candidates.
        """
        names = tuple(trials[0].candidates) if trials else ()
        if not names or any(tuple(trial.candidates) != names for trial in trials):
            offered = [list(trial.candidates) for trial in trials]
            raise ValueError(f"trials: expected the same fillings, at least one, in every trial, got {offered}")
        table = np.concatenate(
            [np.stack([trial.candidates[name][trial.held] for name in names]) for trial in trials], axis=1
        ).astype(np.float64)
        goal = np.concatenate([truth[trial.held] for trial in trials]).astype(np.float64)
        rows = np.concatenate([_distance_class(trial.hidden, trial.held) for trial in trials])
        if not goal.size or len(names) == 1:
            return cls(names, np.full((len(DISTANCES), len(names)), 1.0 / len(names)))
        shared = simplex_fit(table, goal)
        weights = np.tile(shared, (len(DISTANCES), 1))
        for row in range(len(DISTANCES)):
            own = rows == row
            if (count := int(own.sum())) >= 50:
                share = count / (count + PRIOR_CELLS)
                weights[row] = share * simplex_fit(table[:, own], goal[own]) + (1 - share) * shared
        return cls(names, weights)

    def apply(self, candidates: Mapping[str, Floats], missing: Mask, values: Floats | None = None) -> Floats:
        """Blend at the missing cells; elsewhere `values`, or the first candidate."""
        base = candidates[self.names[0]] if values is None else values
        filled = np.array(base, dtype=np.float32, order="C")
        rows = _distance_class(missing, missing)
        total = np.zeros(len(rows), np.float64)
        for column, name in enumerate(self.names):
            if self.weights[:, column].any():
                total += self.weights[rows, column] * candidates[name][missing]
        filled[missing] = total
        return filled

    def used(self) -> tuple[str, ...]:
        """Names with a weight above zero somewhere."""
        return tuple(name for name, column in zip(self.names, self.weights.T, strict=True) if column.any())

    def to_facts(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"names": list(self.names), "weights": self.weights.tolist()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Blend:
        """Inverse of `to_facts`."""
        return cls(tuple(facts["names"]), np.asarray(facts["weights"], np.float64))


def _distance_class(hidden: Mask, cells: Mask) -> npt.NDArray[np.int64]:
    """Class of distance to the nearest observation of some of the hidden cells."""
    classes: npt.NDArray[np.int64] = np.searchsorted(DISTANCES, gap_distance(hidden)[cells], side="right") - 1
    return classes

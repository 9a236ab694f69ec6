"""Convex blends of fillings, by distance to the nearest observation, fitted on held-out cells."""

from __future__ import annotations

from collections.abc import Mapping
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
class Blend:
    """Weights of named fillings per class of distance to the nearest observation.

    Attributes:
        names: of the fillings, in the order of the weights.
        weights: (classes, K), rows sum to one.
    """

    names: tuple[str, ...]
    weights: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, candidates: Mapping[str, Floats], truth: Floats, holdout: Mask, hidden: Mask) -> Blend:
        """Fit on held-out cells.

        Args:
            candidates: name -> (T, N) filling made without the held-out cells.
            truth: (T, N), right at the held-out cells.
            holdout: (T, N), True at the held-out cells.
            hidden: (T, N), True at every cell that the candidates could not see (missing or held out).

        Raises:
            ValueError: no candidate.
        """
        if not candidates:
            raise ValueError("candidates: expected at least one filling, got none")
        names = tuple(candidates)
        rows = np.searchsorted(DISTANCES, gap_distance(hidden)[holdout], side="right") - 1
        table = np.stack([candidates[name][holdout] for name in names]).astype(np.float64)
        goal = truth[holdout].astype(np.float64)
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
        rows = np.searchsorted(DISTANCES, gap_distance(missing)[missing], side="right") - 1
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

"""Judges fillings on held-out cells, and knows how far chance alone could move the verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Loss = NDArray[np.float64]


class Referee:
    """Compares fillings on held-out cells that none of them has seen.

    The loss of a cell is the mean of |error| and error^2, each relative to a reference filling's mean: MAE and MSE
    count the same. Cells of one gap err together, so that chance is estimated from whole gaps.

    Args:
        values: (T, N) truth at the held-out cells.
        held: (T, N) True at the held-out cells.
        reference: (T, N) filling that sets the scale.

    Example:
        >>> import numpy as np
        >>> truth = np.zeros((6, 1), np.float32)
        >>> held = np.ones((6, 1), bool)
        >>> referee = Referee(truth, held, truth + 1)
        >>> round(float(referee.loss(truth + 1).sum()), 6), referee.clearly_worse(truth + 2, truth + 1)
        (1.0, True)
    """

    def __init__(self, values: NDArray[np.float32], held: NDArray[np.bool_], reference: NDArray[np.float32]) -> None:
        self._held = held.T  # sensor by sensor, so that the cells of a gap follow one another
        self._truth = values.T[self._held].astype(np.float64)
        self._gap = _gap_numbers(held)
        self._mae = self._mse = 1.0
        error = self._error(reference)
        self._mae = max(float(np.abs(error).mean()), 1e-9) if error.size else 1.0
        self._mse = max(float(np.square(error).mean()), 1e-12) if error.size else 1.0

    def loss(self, filled: NDArray[np.float32]) -> Loss:
        """Share of every held-out gap in the mean loss; the sum is the loss."""
        error = self._error(filled)
        cells = 0.5 * (np.abs(error) / self._mae + np.square(error) / self._mse)
        return np.bincount(self._gap, cells / max(error.size, 1)).astype(np.float64)

    def root_mean_square(self, filled: NDArray[np.float32]) -> float:
        """Root mean square error over the held-out cells."""
        return float(np.sqrt(np.square(self._error(filled)).mean()))

    def clearly_worse(self, filled: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
        """Whether the loss of ``filled`` is above that of ``other`` by more than one standard error."""
        difference = self.loss(filled) - self.loss(other)
        chance = np.sqrt(np.square(difference - difference.mean()).sum()) if difference.size else 0.0
        return bool(difference.sum() > chance)

    def _error(self, filled: NDArray[np.float32]) -> NDArray[np.float64]:
        error: NDArray[np.float64] = filled.T[self._held] - self._truth
        return error


def _gap_numbers(held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the gap that each held-out cell belongs to, sensor by sensor."""
    first = held.copy()
    first[1:] &= ~held[:-1]
    numbers: NDArray[np.int64] = np.cumsum(first.T.ravel())[held.T.ravel()] - 1
    return numbers


def halves(held: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split held-out cells into two sets of whole gaps, alternating.

    Example:
        >>> import numpy as np
        >>> [half.ravel().tolist() for half in halves(np.array([[True], [False], [True]]))]
        [[True, False, False], [False, False, True]]
    """
    odd = np.zeros(held.T.shape, dtype=bool)
    odd[held.T] = _gap_numbers(held) % 2 == 1
    second: NDArray[np.bool_] = np.ascontiguousarray(odd.T)
    return held & ~second, second

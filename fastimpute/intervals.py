"""What imputers that know their uncertainty add to `BaseImputer`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.conformal import needed
from fastimpute.imputer import BaseImputer, State
from fastimpute.layouts import read_layout
from fastimpute.series import Series


class IntervalImputer(BaseImputer[State]):
    """An imputer whose missing cells come with intervals; a subclass also writes `_spread_series`."""

    @abstractmethod
    def _spread_series(
        self, series: Series, state: State, level: float
    ) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]]]:
        """What `_impute_series` gives, and half the width (T, N) of intervals at that level, both standardised."""

    def predict_interval(self, X: Any, level: float = 0.95) -> tuple[Any, Any]:
        """Intervals that hold the true values of the missing cells with probability `level`.

        Calibrated on observed cells that were held out in `fit` (by SPIRIT of X, where it has enough), cell by cell: of
        all missing cells about a share `level` lies inside, not of every window all of them.

        Args:
            X: as for `transform`.
            level: between 0 and 1.

        Returns:
            (lower, upper), each of the type of X; observed cells are themselves in both, bit for bit.

        Raises:
            NotFittedError: before fit.
            TypeError, ValueError: as `transform`; or a level that is no number between 0 and 1, or that too few
                held-out cells were left for.
        """
        return self.transform_interval(X, level)[1:]

    def transform_interval(self, X: Any, level: float = 0.95) -> tuple[Any, Any, Any]:
        """What `transform` and `predict_interval` return, for the work of one of them.

        Returns:
            (filled, lower, upper), each of the type of X.

        Raises:
            NotFittedError: before fit.
            TypeError, ValueError: as `predict_interval`.
        """
        self._require_fit()
        needed(level)
        layout = read_layout(X)
        self._check_sensors(layout)
        series = Series.from_layout(layout, self.scaler_)
        if not series.missing.any():
            filled, lower, upper = (layout.restore(np.empty((0, 0)), series.missing) for _ in range(3))
            return filled, lower, upper
        middle, half = self._spread_series(series.select(np.flatnonzero(self.live_)), self.state_, level)
        filled, lower, upper = (
            self._close(layout, series, self.live_, table) for table in (middle, middle - half, middle + half)
        )
        return filled, lower, upper

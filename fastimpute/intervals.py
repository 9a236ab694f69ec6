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
    """An imputer whose missing cells come with intervals; a subclass also writes `_interval_series`."""

    @abstractmethod
    def _interval_series(
        self, series: Series, state: State, level: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Standardised lower and upper ends (T, N) of intervals at that level; at observed cells anything."""

    def predict_interval(self, X: Any, level: float = 0.95) -> tuple[Any, Any]:
        """Intervals that hold the true values of the missing cells with probability `level`.

        Calibrated on observed cells that were held out in `fit`, cell by cell: of all missing cells about a share
        `level` lies inside, not of every window all of them.

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
        self._require_fit()
        needed(level)
        layout = read_layout(X)
        self._check_sensors(layout)
        series = Series.from_layout(layout, self.scaler_)
        if not series.missing.any():
            nothing = np.empty((0, 0))
            return layout.restore(nothing, series.missing), layout.restore(nothing, series.missing)
        lower, upper = self._interval_series(series.select(np.flatnonzero(self.live_)), self.state_, level)
        return self._close(layout, series, self.live_, lower), self._close(layout, series, self.live_, upper)

"""Linear interpolation in time: the baseline that every method has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.imputer import BaseImputer
from fastimpute.series import Series


class LinearImputer(BaseImputer[None]):
    """Straight lines between the observed neighbours in time, the nearest observation at both ends.

    Every sensor by itself; 3-D samples never see one another. A sensor with no observation in a sample gets its mean
    over the data the imputer was fitted on.

    Args:
        all_missing: what to do with a sensor without any observation in fit: "raise", "mean_of_neighbors" (mean of all
            other sensors, row by row) or "keep" (leave its cells NaN).

    Example:
        >>> import numpy as np
        >>> LinearImputer().fit_transform(np.array([[1.0], [np.nan], [3.0]])).ravel().tolist()
        [1.0, 2.0, 3.0]
    """

    bytes_per_cell = 80
    relates_sensors = False

    def __init__(self, *, all_missing: str = "raise") -> None:
        self.all_missing = all_missing

    def _fit_series(self, series: Series) -> None:
        return None

    def _impute_series(self, series: Series, state: None) -> NDArray[np.float32]:
        filled = series.values.copy()
        for start, stop in series.segments:
            _interpolate(filled[start:stop], series.missing[start:stop])
        return filled

    def _pack_state(self, state: None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {}, {}

    def _unpack_state(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        return None


def _interpolate(values: NDArray[np.float32], missing: NDArray[np.bool_]) -> None:
    """Fill the missing cells of values (T, N) in place."""
    rows = np.arange(values.shape[0])
    for column in np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0)):
        absent = missing[:, column]
        values[absent, column] = np.interp(rows[absent], rows[~absent], values[~absent, column])

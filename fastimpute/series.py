"""Series: the one form in which data travels through the package, from the door and back out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.layouts import FloatTable, Layout, Mask, read_layout
from fastimpute.timestamps import Calendar

COLUMNS_AT_ONCE = 256  # bounds the float64 working copy of the scaler


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation per sensor, from its observed cells only.

    Attributes:
        mean: (N,) float64 in the user's units, NaN for a sensor without any observation.
        std: (N,) float64 in the user's units, 0 for a constant sensor, NaN for one without any observation.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, raw: FloatTable, missing: Mask) -> Scaler:
        """Fit on the cells of raw (T, N) where missing (T, N) is False."""
        sensors = raw.shape[1]
        mean, std = np.full(sensors, np.nan), np.full(sensors, np.nan)
        for start in range(0, sensors, COLUMNS_AT_ONCE):
            part = slice(start, start + COLUMNS_AT_ONCE)
            mean[part], std[part] = _moments(raw[:, part].astype(np.float64), ~missing[:, part])
        return cls(mean, std)

    def standardise(self, raw: FloatTable, missing: Mask) -> NDArray[np.float32]:
        """(T, N) float32 with mean 0 and deviation 1 per sensor; 0 where missing."""
        values = np.zeros(raw.shape, dtype=np.float32)
        for start in range(0, raw.shape[1], COLUMNS_AT_ONCE):
            part = slice(start, start + COLUMNS_AT_ONCE)
            std = np.where(self.std[part] > 0, self.std[part], 2.0)
            # Halves, so that the difference of two huge numbers stays finite.
            scaled = (0.5 * raw[:, part].astype(np.float64) - 0.5 * self.mean[part]) / (0.5 * std)
            values[:, part] = np.where(missing[:, part], 0.0, scaled)
        return values

    def unscale(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(T, N) standardised -> (T, N) float64 in the user's units."""
        return self.mean + self.std * values.astype(np.float64)

    def select(self, columns: NDArray[np.intp]) -> Scaler:
        """The scaler of some of the sensors."""
        return Scaler(self.mean[columns], self.std[columns])


def _moments(raw: NDArray[np.float64], observed: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of the observed cells of each column, safe for magnitudes whose squares overflow."""
    count = observed.sum(axis=0)
    zeroed = np.where(observed, raw, 0.0)
    peak = np.abs(zeroed).max(axis=0)
    peak = np.where(peak > 0, peak, 1.0)
    zeroed /= peak
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = zeroed.sum(axis=0) / count
        deviation = np.where(observed, zeroed - mean, 0.0)
        std = np.sqrt((deviation**2).sum(axis=0) / count)
    lowest = np.where(observed, zeroed, np.inf).min(axis=0)
    highest = np.where(observed, zeroed, -np.inf).max(axis=0)
    # A constant sensor must give its own value back, not one that is a rounding error away.
    constant = highest - lowest <= 1e-14
    mean = np.where(constant, lowest, mean)
    std = np.where(constant, 0.0, std)
    empty = count == 0
    return np.where(empty, np.nan, mean * peak), np.where(empty, np.nan, std * peak)


@dataclass(frozen=True)
class Series:
    """What an imputer works on: standardised values, where they are missing, and what is known of the rows.

    Attributes:
        values: (T, N) float32, C-contiguous, mean 0 and deviation 1 over a sensor's observed cells, 0 where missing.
        missing: (T, N) bool, C-contiguous, True where there is nothing.
        segments: (S, 2) int64, row ranges (start, stop) of independent series: no window may cross their borders.
        calendar: phases of the rows, None without time stamps.
        names: N sensor names.
        scaler: between the standardised and the user's units.
        first_row: where the rows begin in a longer series that they were cut from.
    """

    values: NDArray[np.float32]
    missing: Mask
    segments: NDArray[np.int64]
    calendar: Calendar | None
    names: tuple[Hashable, ...]
    scaler: Scaler
    first_row: int = 0

    @classmethod
    def from_layout(cls, layout: Layout, scaler: Scaler | None = None) -> Series:
        """Standardise a layout, with a scaler fitted on its observed cells unless one is given.

        Raises:
            ValueError: an infinite cell, or time stamps that are missing, repeated, unsorted or irregular.
        """
        missing = np.ascontiguousarray(np.isnan(layout.raw))
        _refuse_infinities(layout)
        calendar = None if layout.index is None else Calendar.from_index(layout.index)
        scaler = Scaler.fit(layout.raw, missing) if scaler is None else scaler
        values = scaler.standardise(layout.raw, missing)
        return cls(values, missing, layout.segments, calendar, layout.names, scaler, layout.first_row)

    @classmethod
    def read(cls, X: Any) -> Series:
        """Read and standardise anything `fastimpute.layouts.read_layout` understands.

        Raises:
            TypeError, ValueError: see `read_layout` and `from_layout`.

        Example:
            >>> import numpy as np
            >>> series = Series.read(np.array([[1.0, 10.0], [np.nan, 20.0], [3.0, 30.0]]))
            >>> series.values[:, 0].tolist(), int(series.missing.sum())
            ([-1.0, 0.0, 1.0], 1)
        """
        return cls.from_layout(read_layout(X))

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def digest(self) -> str:
        """Of what is observed, and where."""
        digest = hashlib.blake2b(self.missing.data, digest_size=16)
        digest.update(np.where(self.missing, np.float32(0), self.values).data)
        return digest.hexdigest()

    def select(self, columns: NDArray[np.intp]) -> Series:
        """The series of some of the sensors."""
        return Series(
            values=np.ascontiguousarray(self.values[:, columns]),
            missing=np.ascontiguousarray(self.missing[:, columns]),
            segments=self.segments,
            calendar=self.calendar,
            names=tuple(self.names[column] for column in columns),
            scaler=self.scaler.select(columns),
            first_row=self.first_row,
        )


def _refuse_infinities(layout: Layout) -> None:
    infinite = np.isinf(layout.raw)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise ValueError(
            f"column {layout.names[column]!r} holds an infinity at row {row} ({int(infinite.sum())} in all): "
            "replace infinities by NaN if they mean missing"
        )

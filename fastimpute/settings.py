"""Sizes, neighbours and schedule of SPIRIT, chosen from the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fastimpute.gaps import gap_lengths
from fastimpute.patches import Indices, all_columns, neighbours, window_starts
from fastimpute.profile import Period
from fastimpute.series import Series
from fastimpute.train.windows import PatchTable

ALL_TOGETHER = 10  # up to so many sensors, one patch holds them all
NEIGHBOURS = 3  # companions of a sensor otherwise
SHORT_GAP, SHORT_WINDOW, SHARED_WINDOW, LONG_WINDOW = 8.0, 12, 36, 48
SHARED_WINDOWS_IN_A_ROW = 50  # a patch of all sensors has more to learn than one of a few
FEW_PATCHES = 2_000
WINDOWS_IN_A_ROW = 24  # a series holds at least so many windows end to end
PATCHES_AIMED_AT = 30_000  # the stride grows until there are about so many
SECONDS = {"day": 86_400.0, "week": 7 * 86_400.0, "year": 365.25 * 86_400.0}
HARMONICS = 2
BINS = 48  # of a cycle's phase: conditions repeat, so that training draws several patches of one


@dataclass(frozen=True)
class Cycles:
    """The recurring cycles that condition a score, fixed when it is trained.

    Attributes:
        calendar: of "day", "week", "year", read off the time stamps.
        rows: lengths in rows, for series without time stamps: their row numbers count.
    """

    calendar: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()

    @classmethod
    def of(cls, series: Series, period: Period) -> Cycles:
        """From the time stamps the cycles seen twice, else of the periods found those seen four times."""
        calendar = series.calendar
        if calendar is None or calendar.step_seconds <= 0:
            found = (length for length in (period.day, period.week) if length and 4 * length <= series.shape[0])
            return cls(rows=tuple(found))
        step, span = calendar.step_seconds, calendar.step_seconds * series.shape[0]
        return cls(tuple(name for name, length in SECONDS.items() if 4 * step <= length and 2 * length <= span))

    @property
    def features(self) -> int:
        """Width of the condition they make."""
        return 2 * HARMONICS * (len(self.calendar) + len(self.rows))

    def phases(self, series: Series) -> list[NDArray[np.float64]]:
        """One (T,) array in [0, 1) per cycle.

        Raises:
            ValueError: the cycles need time stamps and the series has none.
        """
        if self.calendar and series.calendar is None:
            raise ValueError(
                "X has no time stamps, and the imputer was fitted on data with them: give X a DatetimeIndex"
            )
        known = [getattr(series.calendar, f"{name}_phase") for name in self.calendar]
        numbers = series.first_row + np.arange(series.shape[0])
        return known + [(numbers % length) / length for length in self.rows]


@dataclass(frozen=True)
class Patches:
    """The shape of the patches: window (rows), stride (rows between windows), columns (G, k) of sensors."""

    window: int
    stride: int
    columns: Indices


def typical_gap(missing: NDArray[np.bool_]) -> float:
    """Mean length of the gap that a missing cell lies in, in rows; 0 without gaps.

    Example:
        >>> typical_gap(np.array([[True], [True], [False], [True]]))
        1.6666666666666667
    """
    lengths = gap_lengths(missing)
    return float((lengths**2).sum() / lengths.sum()) if lengths.size else 0.0


def choose_window(missing: NDArray[np.bool_], segments: NDArray[np.int64]) -> int:
    """Rows of a patch: short where all sensors share it and the gaps are short, else both ends of a gap must fit in.

    Short series get short windows, as many windows have to teach what one looks like.
    """
    rows, sensors = missing.shape
    short_gaps = typical_gap(missing) < SHORT_GAP
    if sensors <= ALL_TOGETHER:
        longest = min(SHARED_WINDOW, max(SHORT_WINDOW, rows // SHARED_WINDOWS_IN_A_ROW))
        wanted = SHORT_WINDOW if short_gaps else longest
    else:
        wanted = min(LONG_WINDOW, max(SHORT_WINDOW, rows // WINDOWS_IN_A_ROW)) if short_gaps else LONG_WINDOW
    shortest = int((segments[:, 1] - segments[:, 0]).min())
    return max(1, min(wanted, shortest // 2))


def choose_columns(filled: NDArray[np.float32], missing: NDArray[np.bool_], count: int | None) -> Indices:
    """Sensors of a patch: all together when they are few, else each with its most correlated neighbours."""
    sensors = filled.shape[1]
    if count is None:
        return all_columns(sensors) if sensors <= ALL_TOGETHER else neighbours(filled, missing, NEIGHBOURS)
    return all_columns(sensors) if count >= sensors - 1 else neighbours(filled, missing, count)


def choose_stride(window: int, rows: int, groups: int) -> int:
    """Rows between windows: every cell in at least three windows, fewer patches where there are many."""
    wanted = math.ceil(rows * groups / PATCHES_AIMED_AT)
    densest = window // 12 if rows * groups < PATCHES_AIMED_AT else window // 6
    return min(max(1, densest, wanted), max(1, window // 3))


def choose_train_steps(dim: int, patches: int) -> int:
    """Optimiser steps per loop: larger patches cost more a step, and few patches are soon learned."""
    return int(np.clip(21_000 // dim, 130, 250) if patches > FEW_PATCHES else np.clip(5_500 // dim, 30, 60))


def starts_of(segments: NDArray[np.int64], window: int, stride: int) -> Indices:
    """First rows of all windows; none crosses the border of a segment."""
    return np.concatenate([start + window_starts(int(stop - start), window, stride) for start, stop in segments])


def patch_table(patches: Patches, series: Series, cycles: Cycles) -> PatchTable:
    """Lay the patches out over a series and number their conditions."""
    shortest = int((series.segments[:, 1] - series.segments[:, 0]).min())
    if shortest < patches.window:
        raise ValueError(f"X: expected at least {patches.window} rows (one window of this model), got {shortest}")
    starts = starts_of(series.segments, patches.window, patches.stride)
    conditions, index = _conditions(cycles.phases(series), starts)
    return PatchTable(starts, patches.columns, patches.window, series.shape[1], conditions, index)


def _conditions(phases: list[NDArray[np.float64]], starts: Indices) -> tuple[torch.Tensor, Indices]:
    """The distinct conditions (m, F) of the window starts and which each has (S,): harmonics of every phase."""
    if not phases:
        return torch.zeros(1, 0), np.zeros(len(starts), dtype=np.int64)
    bins = np.stack([np.floor(phase[starts] * BINS).astype(np.int64) for phase in phases], 1)
    distinct, index = np.unique(bins, axis=0, return_inverse=True)
    angle = 2 * np.pi * (distinct + 0.5) / BINS
    waves = [wave(harmonic * angle) for harmonic in range(1, HARMONICS + 1) for wave in (np.sin, np.cos)]
    return torch.from_numpy(np.concatenate(waves, 1).astype(np.float32)), index.reshape(-1).astype(np.int64)

"""One look at every cell before the work: scale, gaps and damage of each sensor, and a digest of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastimpute.series import Scaler
from fastimpute.stream.strips import read_ahead, strips
from fastimpute.stream.table import Cells, Header, Source
from fastimpute.stream.tiles import Tile, Tiles

CONSTANT = 1e-14  # a sensor whose readings differ by less, in units of the largest, is constant


@dataclass(frozen=True)
class Scan:
    """What one pass over a table found.

    Attributes:
        observed: (B, N) int64, observed cells of every sensor by band.
        mean: (N,) float64, NaN without an observation.
        std: (N,) float64, likewise; 0 for a constant sensor.
        longest_gap: (N,) int64, rows of each sensor's longest gap.
        digest: of all cells.
    """

    observed: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    longest_gap: NDArray[np.int64]
    digest: str

    @property
    def scaler(self) -> Scaler:
        """Of all sensors."""
        return Scaler(self.mean, self.std)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays."""
        return {
            "observed": self.observed,
            "mean": self.mean,
            "std": self.std,
            "longest_gap": self.longest_gap,
            "digest": np.frombuffer(bytes.fromhex(self.digest), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Inverse of `arrays`."""
        digest = arrays["digest"].tobytes().hex()
        return cls(arrays["observed"], arrays["mean"], arrays["std"], arrays["longest_gap"], digest)


def scan(source: Source, tiles: Tiles, strip_bytes: int, watch: Callable[[Cells, slice], None]) -> Scan:
    """Read everything once.

    Args:
        source: the table.
        tiles: its tiling; sums are taken tile by tile, so that they are the same bits wherever it is done.
        strip_bytes: about how much to read at a time.
        watch: sees the cells of every tile and which columns they are, band by band.

    Raises:
        ValueError: an infinite cell, or data that cannot be read.
    """
    moments, gaps = Moments(tiles.sensors), _Gaps(tiles.sensors)
    digest = hashlib.blake2b(digest_size=16)
    observed = np.zeros((tiles.bands, tiles.sensors), np.int64)
    wanted = [
        strip
        for band in range(tiles.bands)
        for strip in strips(list(tiles.of_band(band)), strip_bytes, source.header.floating.itemsize)
    ]
    pieces = [(strip.rows, strip.columns) for strip in wanted]
    for strip, cells in zip(wanted, read_ahead(source, pieces), strict=True):
        for tile in strip.tiles:
            part = np.ascontiguousarray(strip.part(cells, tile))
            refuse_infinities(part, tile, source.header)
            digest.update(part.data)
            missing = np.isnan(part)
            tally = Tally.of(part, missing)
            moments.add(tally, tile.columns)
            observed[tile.band, tile.columns] = tally.count
            gaps.add(missing, tile.columns)
            watch(part, tile.columns)
    mean, std = moments.result()
    return Scan(observed, mean, std, gaps.longest, digest.hexdigest())


def refuse_infinities(cells: Cells, tile: Tile, header: Header) -> None:
    """Refuse an infinite cell among those of a tile.

    Raises:
        ValueError: names its row and its column.
    """
    infinite = np.isinf(cells)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        name = header.names[tile.columns.start + column]
        raise ValueError(
            f"column {name!r} holds an infinity at row {tile.rows.start + row}: "
            "replace infinities by NaN if they mean missing"
        )


@dataclass(frozen=True)
class Tally:
    """What the observed cells of some rows of some sensors add up to.

    Attributes:
        count: (c,) int64, observed cells of each.
        mean: (c,) float64, 0 without any.
        squares: (c,) float64, sum of the squared distances from that mean.
        lowest: (c,) least observed cell, inf without any.
        highest: (c,) likewise.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.floating[Any]]
    lowest: NDArray[np.floating[Any]]
    highest: NDArray[np.floating[Any]]

    @classmethod
    def of(cls, cells: Cells, missing: NDArray[np.bool_]) -> Self:
        """Of cells (r, c), C-contiguous so that they are added in the same order wherever they come from."""
        count: NDArray[np.int64] = (~missing).sum(0)
        mean = np.where(missing, 0.0, cells).sum(0, dtype=np.float64) / np.maximum(count, 1)
        departure = np.where(missing, 0.0, cells - mean)
        squares = np.einsum("rc,rc->c", departure, departure)
        lowest, highest = np.where(missing, np.inf, cells).min(0), np.where(missing, -np.inf, cells).max(0)
        return cls(count, mean, squares, lowest, highest)


class Moments:
    """Mean and deviation of the observed cells of each sensor, merged band by band (Chan, Golub, LeVeque 1983)."""

    def __init__(self, sensors: int) -> None:
        self.count = np.zeros(sensors)
        self.mean, self.squares = np.zeros(sensors), np.zeros(sensors)
        self.lowest, self.highest = np.full(sensors, np.inf), np.full(sensors, -np.inf)

    def add(self, tally: Tally, columns: slice) -> None:
        """Take in some rows of some columns; the result depends on the order of the rows in its last bits."""
        self.lowest[columns] = np.minimum(self.lowest[columns], tally.lowest)
        self.highest[columns] = np.maximum(self.highest[columns], tally.highest)
        before, step = self.count[columns], tally.mean - self.mean[columns]
        share = tally.count / np.maximum(before + tally.count, 1)
        self.squares[columns] += tally.squares + np.square(step) * before * share
        self.mean[columns] += step * share
        self.count[columns] += tally.count

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation, NaN without observations, 0 for a constant sensor, whose mean is its own value."""
        seen = self.count > 0
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        largest = np.maximum(np.abs(self.lowest), np.abs(self.highest))
        constant = seen & (self.highest - self.lowest <= CONSTANT * np.where(seen, largest, 1.0))
        mean = np.where(constant, self.lowest, self.mean)
        std = np.where(constant, 0.0, std)
        return np.where(seen, mean, np.nan), np.where(seen, std, np.nan)


class _Gaps:
    """The longest gap of each sensor, across the bands."""

    def __init__(self, sensors: int) -> None:
        self.longest, self.open = np.zeros(sensors, np.int64), np.zeros(sensors, np.int64)

    def add(self, missing: NDArray[np.bool_], columns: slice) -> None:
        """Take in the next rows of some columns."""
        rows = np.arange(1, len(missing) + 1)[:, None]
        last_seen = np.maximum.accumulate(np.where(missing, 0, rows), axis=0)
        running = np.where(last_seen == 0, rows + self.open[columns], rows - last_seen)
        self.longest[columns] = np.maximum(self.longest[columns], np.where(missing, running, 0).max(0))
        self.open[columns] = np.where(missing[-1], running[-1], 0)

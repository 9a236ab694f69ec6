"""How a table is cut for imputation: the same way whatever memory, workers and files there are.

A tile is a band of rows of a group of sensors. It is filled from its context, the same sensors with a halo of rows on
both sides, and from nothing else. Any number of tiles may then be done at a time, in any order, anywhere: the result
is the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

WIDEST = 64  # sensors of a group
CONTEXT_CELLS = 180_000  # bounds the memory of a tile, and still holds a week of a group at five minutes
LEAST_ROWS = 500  # of a context, where all sensors have to stay together: some windows of any model
DISTRICT = 16  # groups
HALO = 0.1  # of the rows of a context, at either end


@dataclass(frozen=True)
class Tile:
    """One piece of work.

    Attributes:
        band: number of its band of rows.
        group: number of its group of sensors.
        rows: the rows it fills.
        context: the rows it is filled from.
        columns: its sensors.
    """

    band: int
    group: int
    rows: slice
    context: slice
    columns: slice

    @property
    def inner(self) -> slice:
        """Its own rows within the context."""
        first = self.rows.start - self.context.start
        return slice(first, first + self.rows.stop - self.rows.start)

    @property
    def cells(self) -> int:
        """Cells it fills or leaves as they are."""
        rows, columns = range(self.rows.start, self.rows.stop), range(self.columns.start, self.columns.stop)
        return len(rows) * len(columns)

    @property
    def name(self) -> str:
        """Its name in files and messages."""
        return f"{self.band:06d}-{self.group:04d}"


@dataclass(frozen=True)
class Tiles:
    """The tiling of a table.

    Attributes:
        rows: of the table, T.
        sensors: of the table, N.
        bands: number of bands of rows, of equal height but for rounding.
        groups: number of groups of sensors, of equal width but for rounding; up to 16 neighbouring ones are a
            district, within which the sensors are arranged (fastimpute.stream.arrange).
        halo: rows of context at either side of a band.
    """

    rows: int
    sensors: int
    bands: int
    groups: int
    halo: int

    @classmethod
    def of(cls, rows: int, sensors: int, groups: int | None = None) -> Self:
        """The tiling of a table, a function of its shape alone.

        Args:
            rows: T.
            sensors: N.
            groups: None cuts the sensors into as few groups as may be; a model of all of them takes 1.

        Example:
            >>> year = Tiles.of(105_120, 8_600)
            >>> year.bands, year.groups, year.halo
            (47, 135, 281)
        """
        groups = math.ceil(sensors / WIDEST) if groups is None else groups
        context = max(LEAST_ROWS, CONTEXT_CELLS // math.ceil(sensors / groups))
        halo = int(HALO * context)
        return cls(rows, sensors, math.ceil(rows / (context - 2 * halo)), groups, halo)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.bands * self.groups

    def band(self, number: int) -> slice:
        """The rows of a band."""
        return _share(self.rows, self.bands, number)

    def group(self, number: int) -> slice:
        """The columns of a group."""
        return _share(self.sensors, self.groups, number)

    @property
    def districts(self) -> int:
        """Number of districts."""
        return math.ceil(self.groups / DISTRICT)

    def groups_of(self, district: int) -> range:
        """The groups of a district."""
        return range(district * DISTRICT, min((district + 1) * DISTRICT, self.groups))

    def district(self, number: int) -> slice:
        """The columns of a district."""
        groups = self.groups_of(number)
        return slice(self.group(groups[0]).start, self.group(groups[-1]).stop)

    def context(self, band: int) -> slice:
        """The rows of a band with its halo."""
        rows = self.band(band)
        return slice(max(0, rows.start - self.halo), min(self.rows, rows.stop + self.halo))

    def tile(self, band: int, group: int) -> Tile:
        """One tile."""
        return Tile(band, group, self.band(band), self.context(band), self.group(group))

    def of_band(self, band: int) -> Iterator[Tile]:
        """The tiles of a band, from the first sensor on."""
        return (self.tile(band, group) for group in range(self.groups))

    @property
    def context_cells(self) -> int:
        """Cells of the largest context."""
        return min(self.rows, math.ceil(self.rows / self.bands) + 2 * self.halo) * math.ceil(self.sensors / self.groups)


def _share(total: int, parts: int, number: int) -> slice:
    return slice(total * number // parts, total * (number + 1) // parts)

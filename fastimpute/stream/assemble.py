"""From finished tiles to rows of the output: observed cells from the input bit for bit, missing ones from the tiles."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from fastimpute.stream.arrange import ArrangedSource, Order
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.strips import read_ahead
from fastimpute.stream.table import EVERYTHING, Cells
from fastimpute.stream.tiles import Tile, Tiles


def assembled(
    source: ArrangedSource, folder: WorkFolder, tiles: Tiles, pieces: Sequence[slice], tables: int
) -> Generator[list[Cells]]:
    """The rows of each piece, once per table, their columns where they are in the input; to be closed where it is left
    early.

    Args:
        source: the input.
        folder: with all tiles of these rows finished.
        tiles: the tiling.
        pieces: slices of rows, falling behind one another.
        tables: one for the filled table, or three with the ends of its intervals.

    Raises:
        DamagedTile: a tile is not what was written.
        ValueError: the input cannot be read.
    """
    band: _Band | None = None
    with closing(read_ahead(source.table, [(rows, EVERYTHING) for rows in pieces])) as cells_of:
        for rows, cells in zip(pieces, cells_of, strict=True):
            missing = np.isnan(cells)
            filled = [cells, *(cells.copy() for _ in range(tables - 1))]
            first = rows.start
            while first < rows.stop:
                if band is None or band.rows.stop <= first:
                    band = _Band(source, folder, tiles, _band_of(tiles, first))
                last = min(rows.stop, band.rows.stop)
                inside = slice(first - rows.start, last - rows.start)
                band.fill([table[inside] for table in filled], missing[inside], first)
                first = last
            yield filled


def _band_of(tiles: Tiles, row: int) -> int:
    """The number of the band that a row is in."""
    number = row * tiles.bands // tiles.rows
    return number if row < tiles.band(number).stop else number + 1


class _Band:
    """What fills the missing cells of a band."""

    def __init__(self, source: ArrangedSource, folder: WorkFolder, tiles: Tiles, number: int) -> None:
        self.rows = tiles.band(number)
        self._parts = [_Part(source.places(tile.columns), folder, tile) for tile in tiles.of_band(number)]

    def fill(self, tables: Sequence[Cells], missing: NDArray[np.bool_], first: int) -> None:
        """Fill some rows (r, N) of each table, the first of which is row `first`."""
        inside = slice(first - self.rows.start, first - self.rows.start + len(missing))
        for part in self._parts:
            part.fill(tables, missing, inside)


class _Part:
    """What fills those of a tile."""

    def __init__(self, columns: slice | Order, folder: WorkFolder, tile: Tile) -> None:
        filling = folder.read_tile(tile)
        self._columns, self._values = columns, filling.values
        self._starts = np.concatenate([[0], np.cumsum(filling.missing, dtype=np.int64)])

    def fill(self, tables: Sequence[Cells], missing: NDArray[np.bool_], inside: slice) -> None:
        """Fill the rows `inside` the tile."""
        begin, end = self._starts[inside.start], self._starts[inside.stop]
        if begin == end:
            return
        hidden = missing[:, self._columns]
        for table, values in zip(tables, self._values, strict=True):
            own = table[:, self._columns]  # a view of neighbouring columns, a copy of others
            own[hidden] = values[begin:end]
            if not isinstance(self._columns, slice):
                table[:, self._columns] = own

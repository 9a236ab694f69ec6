"""From finished tiles to the output: observed cells from the input bit for bit, missing ones from the tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.strips import read_ahead
from fastimpute.stream.table import EVERYTHING, Cells, Sink, Source
from fastimpute.stream.tiles import Tiles


def assemble(
    source: Source, folder: WorkFolder, tiles: Tiles, sinks: Sequence[Sink], piece_bytes: int
) -> Iterator[int]:
    """Write the tables, row by row; yields the rows of every piece written.

    Args:
        source: the input.
        folder: with all tiles finished.
        tiles: the tiling.
        sinks: one for the filled table, or three with the ends of its intervals.
        piece_bytes: about how much to hold of one table at a time.

    Raises:
        DamagedTile: a tile is not what was written.
        ValueError: the input cannot be read, or an output not written.
    """
    height = max(1, piece_bytes // (tiles.sensors * source.header.floating.itemsize))
    bands = [tiles.band(band) for band in range(tiles.bands)]
    pieces = [
        (slice(first, min(first + height, rows.stop)), EVERYTHING)
        for rows in bands
        for first in range(rows.start, rows.stop, height)
    ]
    cells_of = read_ahead(source, pieces)
    for band, rows in enumerate(bands):
        values = _BandValues(folder, tiles, band)
        for _ in range(rows.start, rows.stop, height):
            cells = next(cells_of)
            for sink, table in zip(sinks, values.fill(cells, len(sinks)), strict=True):
                sink.append(table)
            yield len(cells)


class _BandValues:
    """What fills the missing cells of a band, handed out from the top."""

    def __init__(self, folder: WorkFolder, tiles: Tiles, band: int) -> None:
        self.parts = [(tile.columns, folder.read_tile(tile)) for tile in tiles.of_band(band)]
        self.used = [0] * len(self.parts)

    def fill(self, cells: Cells, count: int) -> list[Cells]:
        """The next rows (r, N), once per table."""
        missing = np.isnan(cells)
        tables = [cells, *(cells.copy() for _ in range(count - 1))]
        for number, (columns, values) in enumerate(self.parts):
            hidden = missing[:, columns]
            first = self.used[number]
            self.used[number] += int(hidden.sum())
            for table, filled in zip(tables, values, strict=True):
                table[:, columns][hidden] = filled[first : self.used[number]]
        return tables

"""Tiles that are read together, and reading them ahead of the work."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastimpute.stream.table import Cells, Source
from fastimpute.stream.tiles import Tile


@dataclass(frozen=True)
class Strip:
    """Neighbouring tiles of one band, read at one go: their chunks in the file are mostly the same.

    Attributes:
        tiles: one or more, from left to right.
    """

    tiles: tuple[Tile, ...]

    @property
    def rows(self) -> slice:
        """The rows of the band."""
        return self.tiles[0].rows

    @property
    def context(self) -> slice:
        """The rows of the band with its halo."""
        return self.tiles[0].context

    @property
    def columns(self) -> slice:
        """From the first sensor of the first tile to the last of the last."""
        return slice(self.tiles[0].columns.start, self.tiles[-1].columns.stop)

    def part(self, cells: Cells, tile: Tile) -> Cells:
        """The columns of one tile among those of the strip."""
        first = tile.columns.start - self.columns.start
        return cells[:, first : first + tile.columns.stop - tile.columns.start]


def strips(tiles: Sequence[Tile], size: int, itemsize: int) -> Iterator[Strip]:
    """Join the tiles of one band into strips of at most about `size` bytes, one tile at least.

    Example:
        >>> from fastimpute.stream.tiles import Tiles
        >>> row = list(Tiles.of(1000, 256).of_band(0))
        >>> [len(strip.tiles) for strip in strips(row, size=3 * 1000 * 64 * 4, itemsize=4)]
        [3, 1]
    """
    begun: list[Tile] = []
    for tile in tiles:
        rows = tile.context.stop - tile.context.start
        width = tile.columns.stop - (begun or [tile])[0].columns.start
        if begun and rows * width * itemsize > size:
            yield Strip(tuple(begun))
            begun = []
        begun.append(tile)
    if begun:
        yield Strip(tuple(begun))


def read_ahead(source: Source, pieces: Sequence[tuple[slice, slice]]) -> Generator[Cells]:
    """The cells of each piece (rows, columns), the next one being read while the caller works on the last.

    To be closed where it is left early (`contextlib.closing`): the thread that reads has to end before the source is
    closed, and not whenever the garbage collector comes by.
    """
    if not pieces:
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(source.read, *pieces[0])
        for following in pieces[1:]:
            cells = coming.result()
            coming = reader.submit(source.read, *following)
            yield cells
        yield coming.result()

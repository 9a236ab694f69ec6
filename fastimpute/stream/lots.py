"""What a worker is given at a time: neighbouring tiles of one band."""

from __future__ import annotations

import itertools
import math

from fastimpute.stream.tiles import Tile, Tiles

LOTS_OF_A_WORKER = 4  # at least, so that none is idle for long at the end

Lot = tuple[Tile, ...]


class LostWorker(ValueError):
    """A worker is gone; what it and the others have done is kept."""


def lots(tiles: Tiles, workers: int) -> list[Lot]:
    """All tiles, from the top, in lots for so many workers: whole bands, or parts of them where these are too few.

    Example:
        >>> week = Tiles.of(2_016, 8_600)
        >>> [len(lots(week, workers)) for workers in (1, 2, 3)]
        [1, 8, 12]
    """
    parts = 1 if workers == 1 else min(tiles.groups, math.ceil(LOTS_OF_A_WORKER * workers / tiles.bands))
    cuts = [tiles.groups * part // parts for part in range(parts + 1)]
    return [
        tuple(tiles.tile(band, group) for group in range(first, last))
        for band in range(tiles.bands)
        for first, last in itertools.pairwise(cuts)
    ]

"""Every tile is dealt out once, from the top, in lots enough for all workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastimpute.stream.lots import LOTS_OF_A_WORKER, lots
from fastimpute.stream.tiles import Tiles

TILINGS = st.builds(Tiles.of, st.integers(1, 40_000), st.integers(1, 2_000))


@given(TILINGS, st.integers(1, 40))
def test_every_tile_is_in_one_lot(tiles: Tiles, workers: int) -> None:
    dealt = [tile for lot in lots(tiles, workers) for tile in lot]
    assert dealt == [tile for band in range(tiles.bands) for tile in tiles.of_band(band)]


@given(TILINGS, st.integers(2, 40))
def test_no_worker_is_idle_while_there_are_tiles(tiles: Tiles, workers: int) -> None:
    assert len(lots(tiles, workers)) >= min(tiles.count, LOTS_OF_A_WORKER * workers)


@given(TILINGS, st.integers(1, 40))
def test_a_lot_is_of_one_band(tiles: Tiles, workers: int) -> None:
    assert all(len({tile.band for tile in lot}) == 1 for lot in lots(tiles, workers))

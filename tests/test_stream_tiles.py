"""How a table is cut: every cell in one tile, whatever its shape; contexts bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastimpute.stream.strips import strips
from fastimpute.stream.tiles import CONTEXT_CELLS, LEAST_ROWS, WIDEST, Tiles

SHAPES = st.tuples(st.integers(1, 3_000_000), st.integers(1, 20_000))


def all_tiles(tiles: Tiles) -> list[tuple[slice, slice]]:
    return [(tile.rows, tile.columns) for band in range(tiles.bands) for tile in tiles.of_band(band)]


@given(st.integers(1, 400), st.integers(1, 300))
def test_every_cell_is_in_exactly_one_tile(rows: int, sensors: int) -> None:
    seen = np.zeros((rows, sensors), np.int64)
    for place in all_tiles(Tiles(rows, sensors, bands=min(rows, 7), groups=min(sensors, 5), halo=3)):
        seen[place] += 1
    assert (seen == 1).all()


@given(SHAPES)
def test_bands_follow_one_another_to_the_last_row(shape: tuple[int, int]) -> None:
    tiles = Tiles.of(*shape)
    bands = [tiles.band(number) for number in range(tiles.bands)]
    assert [bands[0].start, *(band.stop for band in bands)] == [*(band.start for band in bands), shape[0]]
    assert all(band.stop > band.start for band in bands)


@given(SHAPES)
def test_a_context_is_bounded_whatever_the_size(shape: tuple[int, int]) -> None:
    tiles = Tiles.of(*shape)
    widths = [tiles.group(number).stop - tiles.group(number).start for number in range(tiles.groups)]
    assert 1 <= min(widths) <= max(widths) <= WIDEST
    assert tiles.context_cells <= CONTEXT_CELLS


@given(SHAPES)
def test_sensors_that_stay_together_have_rows_enough_for_a_window(shape: tuple[int, int]) -> None:
    tiles = Tiles.of(*shape, groups=1)
    context = tiles.context(tiles.bands // 2)
    assert len(range(context.start, context.stop)) >= min(shape[0], LEAST_ROWS // 2)


@given(SHAPES, st.data())
def test_a_context_holds_its_rows_and_the_halo_that_there_is(shape: tuple[int, int], data: st.DataObject) -> None:
    tiles = Tiles.of(*shape)
    tile = tiles.tile(data.draw(st.integers(0, tiles.bands - 1)), 0)
    assert tile.context.start == max(0, tile.rows.start - tiles.halo)
    assert tile.context.stop == min(shape[0], tile.rows.stop + tiles.halo)
    assert range(tile.context.start, tile.context.stop)[tile.inner] == range(tile.rows.start, tile.rows.stop)


@given(st.integers(1, 5000), st.integers(1, 10**7))
def test_strips_hold_every_tile_of_a_band_once_and_in_order(sensors: int, size: int) -> None:
    band = list(Tiles.of(2000, sensors).of_band(0))
    cut = list(strips(band, size, itemsize=4))
    assert [tile for strip in cut for tile in strip.tiles] == band
    context = len(range(band[0].context.start, band[0].context.stop))
    widths = [len(range(strip.columns.start, strip.columns.stop)) for strip in cut]
    assert all(len(strip.tiles) == 1 or context * width * 4 <= size for strip, width in zip(cut, widths, strict=True))

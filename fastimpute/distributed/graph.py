"""An imputation as a Dask graph: a look at some bands, a scan of all tiles, one fit for each group of sensors, one task
for each tile.

The array is cut into the bands and districts of `fastimpute.stream.tiles`, with their halos, whatever its own chunks
are; the columns of each district are arranged and cut into groups; every step is a map over blocks. Each pass reads the
array anew, so that no pass keeps it in memory for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fastimpute.imputer import BaseImputer
from fastimpute.layouts import clip_to
from fastimpute.stream.arrange import Likeness, Order, arranged_header, bands_looked_at, order_of_district
from fastimpute.stream.fill import fill_tile, tables_of
from fastimpute.stream.models import fit_group, is_dead, sample_band
from fastimpute.stream.runs import Zeros
from fastimpute.stream.scan import Moments, Scan, Tally, refuse_infinities
from fastimpute.stream.table import EVERYTHING, Cells, Header
from fastimpute.stream.tiles import Tiles
from fastimpute.stream.wish import Wish, check_sensors

if TYPE_CHECKING:
    import dask.array as da
    from dask.delayed import Delayed

Blocks = NDArray[np.object_]  # one result of any kind for each block, as Dask carries it


def imputed(cells: da.Array, header: Header, wish: Wish) -> list[da.Array]:
    """The filled table, and the ends of its intervals where the wish has a level; nothing is computed yet.

    Args:
        cells: (T, N) of a floating dtype.
        header: of the table.
        wish: what is asked for; its input, reading and memory do not matter here.
    """
    import dask.array as da
    from dask.delayed import delayed
    from dask.graph_manipulation import checkpoint

    from fastimpute.distributed.passes import read_anew

    tiles = wish.tiles(header)
    about = delayed(
        About(header, tiles, wish, np.arange(tiles.sensors)), traverse=False
    )  # travels once, not every time
    cut = Cut.of(tiles)
    grid = cells.rechunk((cut.heights, cut.districts))
    halo = {0: tiles.halo if tiles.bands > 1 else 0, 1: 0}
    contexts = da.overlap.overlap(grid, halo, {0: "none", 1: "none"})
    arranging = wish.imputer.relates_sensors and tiles.groups > 1
    if arranging:
        about = arranged(grid, about, tiles, wish.seed)
        grid = read_anew(grid, about)
    found = scanned(_grouped(grid, about, cut, arranging), about)
    samples = _grouped(read_anew(contexts, found), about, cut, arranging)
    models = _each_group(_each_tile(samples, _keep_sample, about=about, found=found), _fit, about=about, found=found)
    count = tables_of(wish.level)
    tables = da.map_blocks(
        _fill,
        _grouped(read_anew(contexts, checkpoint(models)), about, cut, arranging),
        models,
        about=about,
        new_axis=0,
        chunks=((count,), cut.heights, cut.groups),
        meta=np.empty((0, 0, 0), cells.dtype),
    )
    if arranging:
        tables = da.map_blocks(_put_back, tables.rechunk({2: cut.districts}), about=about, meta=tables)
    return [tables[number].rechunk(cells.chunks) for number in range(count)]


def arranged(grid: da.Array, about: Delayed, tiles: Tiles, seed: int) -> Delayed:
    """The `About` of an array, its columns in the order that `fastimpute.stream.arrange` finds.

    Args:
        grid: (T, N), its chunks the bands and districts.
        about: with the columns as they are.
        tiles: the tiling.
        seed: of the bands that are looked at.
    """
    from dask.delayed import delayed

    looked_at = grid.blocks[bands_looked_at(tiles, seed)]
    orders = _each_group(_each_tile(looked_at, _look, about=about), _arrange, about=about)
    return delayed(_arranged)(orders, about)


def scanned(grid: da.Array, about: Delayed) -> Delayed:
    """The scan of an array that is cut into tiles; without gaps, zeros and digest, which filling has no use for.

    Args:
        grid: (T, N), its chunks the tiles.
        about: an `About`.
    """
    from dask.delayed import delayed

    moments = _each_group(_each_tile(grid, _tally, about=about), _merge)
    return delayed(_scan)(moments, about)


@dataclass(frozen=True)
class About:
    """What all tasks have in common."""

    header: Header
    tiles: Tiles
    wish: Wish
    order: Order


@dataclass(frozen=True)
class Cut:
    """Chunks along both axes."""

    heights: tuple[int, ...]
    districts: tuple[int, ...]
    groups: tuple[int, ...]

    @classmethod
    def of(cls, tiles: Tiles) -> Self:
        """Where a tiling cuts."""
        return cls(
            _lengths(map(tiles.band, range(tiles.bands))),
            _lengths(map(tiles.district, range(tiles.districts))),
            _lengths(map(tiles.group, range(tiles.groups))),
        )


def _lengths(slices: Iterable[slice]) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in slices)


def _grouped(districts: da.Array, about: Delayed, cut: Cut, arranging: bool) -> da.Array:
    """The columns of each district arranged, and cut into groups."""
    if arranging:
        import dask.array as da

        districts = da.map_blocks(_take, districts, about=about, meta=districts)
    return districts.rechunk({1: cut.groups})


def _each_tile(grid: da.Array, task: Any, **facts: Any) -> da.Array:
    """One result for each block (bands, groups)."""
    bands, groups = grid.numblocks
    chunks = ((1,) * bands, (1,) * groups)
    return grid.map_blocks(task, chunks=chunks, meta=np.empty((0, 0), object), **facts)


def _each_group(results: da.Array, task: Any, **facts: Any) -> da.Array:
    """One result for each column of blocks (1, groups)."""
    gathered = results.rechunk({0: -1})
    chunks = ((1,), gathered.chunks[1])
    return gathered.map_blocks(task, chunks=chunks, meta=np.empty((0, 0), object), **facts)


def _block(result: Any) -> Blocks:
    block = np.empty((1, 1), object)
    block[0, 0] = result
    return block


# ---- what is done on the workers -------------------------------------------------------------------------------------


def _floating(cells: Cells, header: Header) -> Cells:
    """In the dtype and order in which a file's cells are read."""
    return np.ascontiguousarray(cells, header.floating)


def _look(cells: Cells, about: About) -> Blocks:
    return _block(Likeness.of(_floating(cells, about.header)))


def _arrange(likenesses: Blocks, about: About, block_id: tuple[int, int]) -> Blocks:
    parts: list[Likeness] = list(likenesses[:, 0])
    return _block(order_of_district(sum(parts[1:], start=parts[0]), about.tiles, block_id[1]))


def _arranged(orders: Blocks, about: About) -> About:
    order = np.concatenate(list(orders[0]))
    return replace(about, header=arranged_header(about.header, order), order=order)


def _own_order(about: About, district: int) -> Order:
    """Which of the columns of a district comes at each of its places."""
    columns = about.tiles.district(district)
    return about.order[columns] - columns.start


def _take(cells: Cells, about: About, block_id: tuple[int, int]) -> Cells:
    return np.take(cells, _own_order(about, block_id[1]), axis=1)


def _put_back(tables: Cells, about: About, block_id: tuple[int, int, int]) -> Cells:
    return np.take(tables, np.argsort(_own_order(about, block_id[2])), axis=2)


def _tally(cells: Cells, about: About, block_id: tuple[int, int]) -> Blocks:
    own, tile = _floating(cells, about.header), about.tiles.tile(*block_id)
    refuse_infinities(own, tile, about.header)
    missing = np.isnan(own)
    return _block(Tally.of(own, missing, missing.sum(0)))


def _merge(tallies: Blocks) -> Blocks:
    moments = Moments(len(tallies[0, 0].count))
    for tally in tallies[:, 0]:
        moments.add(tally, EVERYTHING)
    return _block((np.stack([tally.count for tally in tallies[:, 0]]), *moments.result()))


def _scan(moments: Blocks, about: About) -> Scan:
    observed, mean, std = (np.concatenate(parts, axis=-1) for parts in zip(*moments[0], strict=True))
    found = Scan(observed, mean, std, longest_gap=np.zeros(len(mean), np.int64), digest="", zeros=Zeros())
    check_sensors(about.wish, about.header, found, about.tiles)
    return found


def _keep_sample(cells: Cells, about: About, found: Scan, block_id: tuple[int, int]) -> Blocks:
    """The cells if they are those to learn from, else nothing."""
    band, group = block_id
    return _block(cells if band == sample_band(found, about.tiles, group, about.wish.seed) else None)


def _fit(samples: Blocks, about: About, found: Scan, block_id: tuple[int, int]) -> Blocks:
    group, wish = block_id[1], about.wish
    if is_dead(found, about.tiles, group):
        return _block(None)
    if wish.model is not None:
        return _block(wish.imputer)
    cells = next(cells for cells in samples[:, 0] if cells is not None)
    sample = _Sample(about.header, _floating(cells, about.header))
    return _block(fit_group(wish.imputer, sample, found, about.tiles, group, wish.seed))


def _fill(cells: Cells, models: Blocks, about: About, block_id: tuple[int, int, int]) -> Cells:
    """(tables, r, c) of a tile from its context."""
    imputer: BaseImputer[Any] | None = models[0, 0]
    tile, level = about.tiles.tile(*block_id[1:]), about.wish.level
    own = cells[tile.inner]
    tables, missing = np.repeat(own[None], tables_of(level), axis=0), np.isnan(own)
    values = fill_tile(imputer, about.header, tile, _floating(cells, about.header), level)
    tables[:, missing] = clip_to(own.dtype, values)
    return tables


class _Sample:
    """The rows to learn from, as if they were read from a table."""

    def __init__(self, header: Header, cells: Cells) -> None:
        self.header, self._cells = header, cells

    def read(self, rows: slice, columns: slice = EVERYTHING) -> Cells:
        return self._cells.copy()

    def elsewhere(self) -> None:
        return None

    def close(self) -> None:
        pass

    def __enter__(self) -> _Sample:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

"""The imputation of one large table: begun or gone on with, done in shares, completed.

A leader calls `begin`, and `complete` of `fastimpute.stream.output`; between them any number of workers, here or on
other machines that see the same folder, call `fit_models` and then `fill_lots` for their shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from fastimpute.imputer import BaseImputer
from fastimpute.saved import load
from fastimpute.stream.arrange import ArrangedSource, order_of
from fastimpute.stream.clock import Clock, Log
from fastimpute.stream.fill import fill_tile
from fastimpute.stream.folder import ARRANGEMENT, SCAN, Filling, Order, WorkFolder
from fastimpute.stream.lots import Lot
from fastimpute.stream.memory import Freed, check_memory, give_back, strip_bytes
from fastimpute.stream.models import fit_group, is_dead
from fastimpute.stream.scan import Scan
from fastimpute.stream.strips import Strip, read_ahead, strips
from fastimpute.stream.table import Cells, Source
from fastimpute.stream.tiles import Tile, Tiles
from fastimpute.stream.wish import Wish, check_data, check_sensors, check_settings

Report = Callable[[str], None]
MODELS_AT_HAND = 4


@dataclass(frozen=True)
class Job:
    """A job under way.

    Attributes:
        source: the input, its columns arranged.
        wish: what is asked for.
        folder: of unfinished work.
        tiles: the tiling.
        found: what the scan found.
        finished_cells: cells of the tiles that an earlier run has done.
        retried: finished tiles that were damaged and are done again.
        clock: where the time goes.
        log: told of every event.
    """

    source: ArrangedSource
    wish: Wish
    folder: WorkFolder
    tiles: Tiles
    found: Scan
    finished_cells: int = 0
    retried: int = 0
    clock: Clock = field(default_factory=Clock)
    log: Log = lambda event: None


def begin(
    table: Source,
    wish: Wish,
    folder: WorkFolder,
    *,
    report: Report,
    look: Callable[[ArrangedSource], Scan],
    clock: Clock,
    log: Log,
) -> Job:
    """Look at the input, and find out what an earlier run has left to do. The folder has to be locked.

    Args:
        table: the input.
        wish: what is asked for.
        folder: of unfinished work.
        report: told what the user should know.
        look: scans the table, where an earlier run has not; see `fastimpute.stream.survey`.
        clock: counts from here.
        log: told of every event.

    Raises:
        ValueError: an earlier run was asked for something else or saw other data; the memory does not suffice; a
            sensor without any observation (with all_missing="raise").
    """
    tiles = wish.tiles(table.header)
    check_memory(wish.memory, tiles, wish.imputer.bytes_per_cell)
    earlier = folder.read_order()
    if earlier is not None:
        check_settings(earlier, wish.order(tiles), folder)
    with clock.spent("scanning"):
        source = _arranged(table, wish, folder, tiles)
    found = _kept_scan(folder, earlier, wish.order(tiles)) or look(source)
    give_back()
    if earlier is not None:
        check_data(earlier, found.digest, folder)
    check_sensors(wish, source.header, found, tiles)
    folder.write_arrays(SCAN, found.arrays())
    folder.write_order(wish.order(tiles, found.digest))
    folder.forget("scan")
    every = [tile for band in range(tiles.bands) for tile in tiles.of_band(band)]
    retried = folder.drop_damaged(iter(every), report)
    finished = [tile for tile in every if folder.finished(tile)]
    if finished:
        report(f"{folder.path}: {len(finished):,} of {tiles.count:,} tiles are there already")
    log(
        {
            "event": "begin",
            "cells": source.header.rows * source.header.sensors,
            "rows": source.header.rows,
            "sensors": source.header.sensors,
            "zeros": asdict(found.zeros),
            "tiles": tiles.count,
            "finished": len(finished),
            "retried": retried,
        }
    )
    done = sum(tile.cells for tile in finished)
    return Job(source, wish, folder, tiles, found, done, retried, clock, log)


def resume(source: ArrangedSource, wish: Wish, folder: WorkFolder, *, clock: Clock, log: Log) -> Job:
    """Join a job that its leader has begun.

    Raises:
        ValueError: there is none in the folder, or it is for something else.
    """
    arrays, order = folder.read_arrays(SCAN), folder.read_order()
    if arrays is None or order is None:
        raise ValueError(f"{folder.path}: no job was begun here; all workers have to see the folder of the output")
    tiles = wish.tiles(source.header)
    check_settings(order, wish.order(tiles), folder)
    return Job(source, wish, folder, tiles, Scan.from_arrays(arrays), clock=clock, log=log)


def fit_models(job: Job, groups: Iterable[int], advance: Callable[[], None]) -> None:
    """Fit and keep the imputers of some groups of sensors."""
    freed = Freed()
    for group in groups:
        place = job.folder.model(group)
        if not place.is_file() and not is_dead(job.found, job.tiles, group):
            with job.clock.spent("fitting"):
                _model(job, group).save(place)
                freed.give_back()
            job.log({"event": "fitted", "group": group})
        advance()


def fill_lots(job: Job, dealt: Iterable[Lot], advance: Callable[[int], None]) -> None:
    """Fill and keep the tiles of some lots that are not done yet: reading, computing and writing side by side.

    Args:
        job: under way, its models fitted.
        dealt: lots of tiles.
        advance: told the cells of every tile done.
    """
    itemsize, size = job.source.header.floating.itemsize, strip_bytes(job.wish.memory)
    left = ([tile for tile in lot if not job.folder.finished(tile)] for lot in dealt)
    wanted = [strip for tiles in left for strip in strips(tiles, size, itemsize)]
    reading = read_ahead(job.source, [(strip.context, strip.columns) for strip in wanted])
    model_of = lru_cache(MODELS_AT_HAND)(lambda group: _kept_model(job, group))
    freed = Freed()
    with closing(reading) as ahead, ThreadPoolExecutor(1) as writer:
        pending: Future[Any] | None = None
        for strip in wanted:
            with job.clock.spent("reading"):
                cells = next(ahead)
            for tile in strip.tiles:
                with job.clock.spent("computing"):
                    filling = _filling(job, model_of(tile.group), tile, _own(strip, cells, tile))
                with job.clock.spent("writing"):
                    if pending is not None:
                        pending.result()
                    pending = writer.submit(_keep, job, tile, filling)
                freed.give_back()
                advance(tile.cells)
        if pending is not None:
            with job.clock.spent("writing"):
                pending.result()


def _own(strip: Strip, cells: Cells, tile: Tile) -> Cells:
    """The cells of one tile's context, in memory of their own."""
    return np.ascontiguousarray(strip.part(cells, tile))


def _filling(job: Job, imputer: BaseImputer[Any] | None, tile: Tile, context: Cells) -> Filling:
    missing = np.count_nonzero(np.isnan(context[tile.inner]), axis=1)
    width = np.min_scalar_type(context.shape[1])
    return Filling(fill_tile(imputer, job.source.header, tile, context, job.wish.level), missing.astype(width))


def _keep(job: Job, tile: Tile, filling: Filling) -> None:
    job.folder.write_tile(tile, filling)
    job.log({"event": "tile", "tile": tile.name, "filled": filling.values.shape[1]})


def _model(job: Job, group: int) -> BaseImputer[Any]:
    """The imputer of a group: the user's own, or one fitted now."""
    template = job.wish.imputer
    if job.wish.model is not None:
        return template
    settings = template.get_params()
    if "checkpoint" not in settings:
        return fit_group(template, job.source, job.found, job.tiles, group, job.wish.seed)
    aside = job.folder.model(group).with_suffix(".checkpoint")
    training = template.clone().set_params(checkpoint=aside)
    fitted = fit_group(training, job.source, job.found, job.tiles, group, job.wish.seed)
    return fitted.set_params(checkpoint=settings["checkpoint"])


def _kept_model(job: Job, group: int) -> BaseImputer[Any] | None:
    if is_dead(job.found, job.tiles, group):
        return None
    imputer = load(job.folder.model(group))
    if "verbose" in imputer.get_params():
        imputer.set_params(verbose=False)
    return imputer


def _arranged(table: Source, wish: Wish, folder: WorkFolder, tiles: Tiles) -> ArrangedSource:
    """The input, its columns in the order that an earlier run has found in the same cells, or in one found now."""
    key = np.frombuffer(wish.order(tiles).fingerprint.encode(), np.uint8)
    kept = folder.read_arrays(ARRANGEMENT)
    if kept is None or not np.array_equal(kept["key"], key):
        alone = not wish.imputer.relates_sensors
        order = np.arange(tiles.sensors) if alone else order_of(table, tiles, wish.seed)
        folder.write_arrays(ARRANGEMENT, {"order": order, "key": key})
    return ArrangedSource.kept(table, folder)


def _kept_scan(folder: WorkFolder, earlier: Order | None, order: Order) -> Scan | None:
    """The scan of an earlier run, if the input has the same stamp still."""
    if earlier is None or earlier.source["stamp"] != order.source["stamp"]:
        return None
    arrays = folder.read_arrays(SCAN)
    return None if arrays is None else Scan.from_arrays(arrays)

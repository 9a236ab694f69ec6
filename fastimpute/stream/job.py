"""The imputation of one large table: begun or gone on with, done in shares, completed.

A leader calls `begin` and `complete`; between them any number of workers, here or on other machines that see the same
folder, call `fit_models` and then `fill_bands` for their shares.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.atomic import flush, flush_all
from fastimpute.imputer import BaseImputer
from fastimpute.saved import load
from fastimpute.stream.arrange import ArrangedSource, RestoringSink, order_of
from fastimpute.stream.assemble import assemble
from fastimpute.stream.clock import Clock
from fastimpute.stream.fill import fill_tile, tables_of
from fastimpute.stream.folder import ARRANGEMENT, SCAN, Order, WorkFolder
from fastimpute.stream.memory import check_memory, give_back, strip_bytes
from fastimpute.stream.models import fit_group, is_dead
from fastimpute.stream.scan import Scan, scan
from fastimpute.stream.strips import Strip, read_ahead, strips
from fastimpute.stream.table import Cells, Header, Sink, Source
from fastimpute.stream.tiles import Tile, Tiles
from fastimpute.stream.wish import Wish, check_data, check_sensors, check_settings

Report = Callable[[str], None]
Log = Callable[[dict[str, Any]], None]
Watch = Callable[[Cells, NDArray[np.int64]], None]
OpenSink = Callable[[Path, Header], Sink]
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
    watch: Watch,
    clock: Clock,
    log: Log,
) -> Job:
    """Look at the input, and find out what an earlier run has left to do. The folder has to be locked.

    Args:
        table: the input.
        wish: what is asked for.
        folder: of unfinished work.
        report: told what the user should know.
        watch: sees every cell, see `scan`; it is told the columns in the table's own order.
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
        source, found = _looked_at(table, wish, folder, earlier, tiles, watch)
        give_back()
    if earlier is not None:
        check_data(earlier, found.digest, folder)
    check_sensors(wish, source.header, found, tiles)
    folder.write_arrays(ARRANGEMENT, {"order": source.order})
    folder.write_arrays(SCAN, found.arrays())
    folder.write_order(wish.order(tiles, found.digest))
    every = [tile for band in range(tiles.bands) for tile in tiles.of_band(band)]
    retried = folder.drop_damaged(iter(every), report)
    finished = [tile for tile in every if folder.finished(tile)]
    if finished:
        report(f"{folder.path}: {len(finished):,} of {tiles.count:,} tiles are there already")
    cells = source.header.rows * source.header.sensors
    log({"event": "begin", "cells": cells, "tiles": tiles.count, "finished": len(finished), "retried": retried})
    done = sum(tile.cells for tile in finished)
    return Job(source, wish, folder, tiles, found, done, retried, clock, log)


def resume(table: Source, wish: Wish, folder: WorkFolder, *, clock: Clock, log: Log) -> Job:
    """Join a job that its leader has begun.

    Raises:
        ValueError: there is none in the folder, or it is for something else.
    """
    arrays, arrangement, order = folder.read_arrays(SCAN), folder.read_arrays(ARRANGEMENT), folder.read_order()
    if arrays is None or arrangement is None or order is None:
        raise ValueError(f"{folder.path}: no job was begun here; all workers have to see the folder of the output")
    tiles = wish.tiles(table.header)
    check_settings(order, wish.order(tiles), folder)
    source = ArrangedSource(table, arrangement["order"])
    return Job(source, wish, folder, tiles, Scan.from_arrays(arrays), clock=clock, log=log)


def fit_models(job: Job, groups: Iterable[int], advance: Callable[[], None]) -> None:
    """Fit and keep the imputers of some groups of sensors."""
    for group in groups:
        place = job.folder.model(group)
        if not place.is_file() and not is_dead(job.found, job.tiles, group):
            with job.clock.spent("fitting"):
                _model(job, group).save(place)
                give_back()
            job.log({"event": "fitted", "group": group})
        advance()


def fill_bands(job: Job, bands: Iterable[int], advance: Callable[[int], None]) -> None:
    """Fill and keep the tiles of some bands that are not done yet: reading, computing and writing side by side.

    Args:
        job: under way, its models fitted.
        bands: numbers of bands.
        advance: told the cells of every tile done.
    """
    itemsize, size = job.source.header.floating.itemsize, strip_bytes(job.wish.memory)
    left = ([tile for tile in job.tiles.of_band(band) if not job.folder.finished(tile)] for band in bands)
    wanted = [strip for tiles in left for strip in strips(tiles, size, itemsize)]
    ahead = read_ahead(job.source, [(strip.context, strip.columns) for strip in wanted])
    model_of = lru_cache(MODELS_AT_HAND)(lambda group: _kept_model(job, group))
    with ThreadPoolExecutor(1) as writer:
        pending: Future[Any] | None = None
        for strip in wanted:
            with job.clock.spent("reading"):
                cells = next(ahead)
            for tile in strip.tiles:
                with job.clock.spent("computing"):
                    values = fill_tile(
                        model_of(tile.group), job.source.header, tile, _own(strip, cells, tile), job.wish.level
                    )
                with job.clock.spent("writing"):
                    if pending is not None:
                        pending.result()
                    pending = writer.submit(_keep, job, tile, values)
                give_back()
                advance(tile.cells)
        if pending is not None:
            with job.clock.spent("writing"):
                pending.result()


def complete(job: Job, targets: list[Path], open_sink: OpenSink, advance: Callable[[int], None]) -> None:
    """Write the output from the finished tiles, put it into its place and remove the folder.

    Args:
        job: with every tile filled.
        targets: the output, and the ends of its intervals if these are asked for.
        open_sink: makes a new table at a path.
        advance: told the cells written.
    """
    assert len(targets) == tables_of(job.wish.level)
    with job.clock.spent("assembling"):
        asides = [job.folder.path / f"{number}{target.suffix}" for number, target in enumerate(targets)]
        for aside in asides:
            _delete(aside)
        header, order = job.source.table.header, job.source.order
        sinks = [RestoringSink(open_sink(aside, header), order) for aside in asides]
        try:
            pieces = assemble(job.source, job.folder, job.tiles, sinks, strip_bytes(job.wish.memory))
            for rows in pieces:
                advance(rows * job.tiles.sensors)
            for sink in sinks:
                sink.close()
            for aside in asides:
                flush_all(aside)
            job.folder.assembled.touch()
            flush(job.folder.path)
        except BaseException as error:
            for sink in sinks:
                sink.__exit__(type(error), error, error.__traceback__)
            if isinstance(error, OSError):
                told = f"{error.strerror or error}; finished tiles are kept in {job.folder.path}"
                raise ValueError(f"cannot write {targets[0]}: {told}") from None
            raise
        put_in_place(job.folder, targets)


def put_in_place(folder: WorkFolder, targets: list[Path]) -> None:
    """Move complete outputs where they belong; also what is left to do when that was broken off."""
    for number, target in enumerate(targets):
        aside = folder.path / f"{number}{target.suffix}"
        if not aside.exists():
            continue
        try:
            if target.is_dir():
                _delete(folder.path / "replaced")
                target.rename(folder.path / "replaced")
            aside.replace(target)
            flush(target.parent)
        except OSError as error:
            raise ValueError(f"cannot write {target}: {error.strerror}; it is complete in {folder.path}") from None
    folder.remove()


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _own(strip: Strip, cells: Cells, tile: Tile) -> Cells:
    """The cells of one tile's context, in memory of their own."""
    return np.ascontiguousarray(strip.part(cells, tile))


def _keep(job: Job, tile: Tile, values: Cells) -> None:
    job.folder.write_tile(tile, values)
    job.log({"event": "tile", "tile": tile.name, "filled": values.shape[1]})


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


def _looked_at(
    table: Source, wish: Wish, folder: WorkFolder, earlier: Order | None, tiles: Tiles, watch: Watch
) -> tuple[ArrangedSource, Scan]:
    """The table, its columns arranged, and what a scan finds in it; from an earlier run, if its stamp is the same."""
    if earlier is not None and earlier.source["stamp"] == wish.order(tiles).source["stamp"]:
        kept, arrangement = folder.read_arrays(SCAN), folder.read_arrays(ARRANGEMENT)
        if kept is not None and arrangement is not None:
            return ArrangedSource(table, arrangement["order"]), Scan.from_arrays(kept)
    order = order_of(table, tiles, wish.seed) if wish.imputer.relates_sensors else np.arange(tiles.sensors)
    source = ArrangedSource(table, order)
    return source, scan(source, tiles, strip_bytes(wish.memory), lambda cells, columns: watch(cells, order[columns]))

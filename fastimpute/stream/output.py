"""The output written from the finished tiles: by one process row after row, or by several wherever the format lets
them; then moved into its place."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastimpute.atomic import flush, flush_all
from fastimpute.progress import progress
from fastimpute.stream.assemble import assembled
from fastimpute.stream.fill import tables_of
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import Job
from fastimpute.stream.memory import strip_bytes
from fastimpute.stream.table import Header, Rows, Sink

OpenSink = Callable[[Path, Header], Sink]
UNIT_STRIPS = 2  # what a unit of rows may take, in the parts of the memory of which there are sixteen
PIECE_BYTES = 2**23  # of a table, at most; the pages of larger ones are new to the process each time, which costs more


@dataclass(frozen=True)
class Output:
    """New tables whose rows are written in any order.

    Attributes:
        job: with every tile filled.
        target: where the output will be, for messages.
        tables: one for the filled table, or three with the ends of its intervals.
    """

    job: Job
    target: Path
    tables: tuple[Rows, ...]

    def shares(self, workers: int) -> list[list[slice]]:
        """All rows, in pieces of whole units that fit the memory, for so many workers: neighbours to each."""
        rows, unit = self.job.source.header.rows, max(table.unit for table in self.tables)
        height = max(1, _piece_height(self.job) // unit)
        units = -(-rows // unit)
        shares = [(units * number // workers, units * (number + 1) // workers) for number in range(workers)]
        return [
            [slice(begin * unit, min(min(begin + height, last) * unit, rows)) for begin in range(first, last, height)]
            for first, last in shares
        ]

    def write(self, pieces: Sequence[slice], advance: Callable[[int], None]) -> None:
        """Write some rows.

        Args:
            pieces: slices of whole units of rows.
            advance: told the cells written.

        Raises:
            ValueError: a damaged tile, an input that cannot be read, or an output that cannot be written.
        """
        job = self.job
        assembling = assembled(job.source, job.folder, job.tiles, pieces, len(self.tables))
        with _kept_tiles(job.folder, self.target), contextlib.closing(assembling) as filled:
            for rows in pieces:
                with job.clock.spent("assembling"):
                    for table, cells in zip(self.tables, next(filled), strict=True):
                        table.write(rows.start, cells)
                job.log(_written(rows))
                advance((rows.stop - rows.start) * job.tiles.sensors)


def complete(
    job: Job,
    targets: list[Path],
    open_sink: OpenSink,
    write: Callable[[Output], None],
    verbose: bool,
) -> None:
    """Write the output from the finished tiles, put it into its place and remove the folder.

    Args:
        job: with every tile filled.
        targets: the output, and the ends of its intervals if these are asked for.
        open_sink: makes a new table at a path.
        write: has all rows written of a format that takes them in any order.
        verbose: show the progress of writing another one on a terminal.

    Raises:
        ValueError: a damaged tile, an input that cannot be read, or an output that cannot be written.
    """
    assert len(targets) == tables_of(job.wish.level)
    asides = [job.folder.path / f"{number}{target.suffix}" for number, target in enumerate(targets)]
    with _kept_tiles(job.folder, targets[0]), contextlib.ExitStack() as failing:
        for aside in asides:
            _delete(aside)
        sinks = [open_sink(aside, job.source.table.header) for aside in asides]
        for sink in sinks:
            failing.push(sink.__exit__)
        rows = [sink.rows(_height(job, UNIT_STRIPS * strip_bytes(job.wish.memory))) for sink in sinks]
        if all(rows):
            write(Output(job, targets[0], tuple(table for table in rows if table is not None)))
        else:
            _append_all(job, sinks, verbose)
        with job.clock.spent("assembling"):
            for sink in sinks:
                sink.close()
            for aside in asides:
                flush_all(aside)
        failing.pop_all()
        job.folder.assembled.touch()
        flush(job.folder.path)
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


@contextlib.contextmanager
def _kept_tiles(folder: WorkFolder, target: Path) -> Iterator[None]:
    """Say of a full disk that the tiles are safe."""
    try:
        yield
    except OSError as error:
        told = f"{error.strerror or error}; finished tiles are kept in {folder.path}"
        raise ValueError(f"cannot write {target}: {told}") from None


def _append_all(job: Job, sinks: Sequence[Sink], verbose: bool) -> None:
    header, height = job.source.header, _piece_height(job)
    cells = header.rows * header.sensors
    pieces = [slice(first, min(first + height, header.rows)) for first in range(0, header.rows, height)]
    assembling = assembled(job.source, job.folder, job.tiles, pieces, len(sinks))
    with (
        contextlib.closing(assembling) as filled,
        progress("writing", cells, cells=cells, verbose=verbose) as advance,
    ):
        for rows in pieces:
            with job.clock.spent("assembling"):
                for sink, table in zip(sinks, next(filled), strict=True):
                    sink.append(table)
            job.log(_written(rows))
            advance((rows.stop - rows.start) * header.sensors)


def _written(rows: slice) -> dict[str, Any]:
    return {"event": "written", "rows": [rows.start, rows.stop]}


def _height(job: Job, size: int) -> int:
    """Rows of so many bytes."""
    header = job.source.header
    return max(1, size // (header.sensors * header.floating.itemsize))


def _piece_height(job: Job) -> int:
    return _height(job, min(PIECE_BYTES, strip_bytes(job.wish.memory)))


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

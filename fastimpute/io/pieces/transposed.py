"""Comma-separated numbers with a row for each sensor and a column for each time step, as transdim ships them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.csv import check_numbers
from fastimpute.io.pieces.npy import ArraySink, MappedTable, Stored, laid_aside, mapped, read_stored, write_pieces
from fastimpute.io.pieces.table import (
    Request,
    piece_rows,
)
from fastimpute.io.sizes import check_claim
from fastimpute.stream.table import Header


@dataclass(frozen=True)
class SensorRows:
    """The file whose rows are sensors.

    Attributes:
        path: the file.
    """

    path: Path


def open_table(path: Path, request: Request) -> MappedTable:
    """Open a table; see `fastimpute.io.source.open_source`."""
    with laid_aside(request.spool, path) as target:
        stored = write_pieces(target, _pieces(path))
        steps, sensors = stored.shape[1], stored.shape[0]
        turned = Stored((steps, sensors), stored.dtype, True, stored.offset)
        header = Header(steps, tuple(range(sensors)), False, stored.dtype, None, ".csv", SensorRows(path))
        return MappedTable(target, header, turned, zeros_as_missing=request.zeros_as_missing, laid_aside=True)


def _pieces(path: Path) -> Iterator[NDArray[np.float64]]:
    try:
        width = pd.read_csv(path, header=None, nrows=1).shape[1]
        check_claim((1, width))
        first = 0
        with pd.read_csv(path, header=None, chunksize=piece_rows(width)) as reader:
            for frame in reader:
                for name in frame.columns:
                    check_numbers(frame[name], first - 1)  # there is no header line
                if frame.shape[1] != width:
                    raise ValueError(f"not a table: {width} cells in the first row, {frame.shape[1]} in row {first}")
                yield frame.to_numpy(dtype=np.float64, na_value=np.nan)
                first += len(frame)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"not a table: {error}") from None


class SensorRowsSink(ArraySink):
    """A sink that turns the table around when all of it is there."""

    def __init__(self, path: Path, header: Header) -> None:
        self._target = path
        super().__init__(path.with_name(f"{path.name}.rows.npy"), header)

    def _finish(self) -> None:
        super()._finish()
        with self.path.open("rb") as file:
            stored = read_stored(file)
        cells = mapped(self.path, stored)
        rows = piece_rows(stored.shape[0])
        with self._target.open("w", newline="", encoding="utf-8") as out:
            for left in range(0, stored.shape[1], rows):
                pd.DataFrame(cells[:, left : left + rows].T).to_csv(out, index=False, header=False)
        del cells
        self.path.unlink()

    def _discard(self) -> None:
        super()._discard()
        self._target.unlink(missing_ok=True)


def create(path: Path, header: Header) -> SensorRowsSink:
    """Begin a table of sensors in rows."""
    return SensorRowsSink(path, header)

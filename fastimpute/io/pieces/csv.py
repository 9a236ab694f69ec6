"""Comma-separated tables, converted once to an array beside; the parser and the writer are those of whole tables."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.csv import check_header, check_numbers
from fastimpute.io.pieces import long, transposed
from fastimpute.io.pieces.npy import MappedTable, laid_aside, write_pieces
from fastimpute.io.pieces.stamps import StampParser, StampTexts
from fastimpute.io.pieces.table import (
    BlockSink,
    Request,
    as_stored,
    check_exact,
    next_of,
    piece_rows,
)
from fastimpute.io.stampforms import UNNAMED, form_of, is_time_name
from fastimpute.stream.table import Header, Sink, Source


@dataclass(frozen=True)
class CsvTable:
    """What a table of numbers does not tell of its file.

    Attributes:
        path: the file, whose time column is read once more when the table is written.
        time: name of that column, None without.
        integers: columns that hold nothing but integers.
    """

    path: Path
    time: str | None
    integers: frozenset[int]


def open_table(path: Path, request: Request) -> Source:
    """Open a table; see `fastimpute.io.source.open_source`."""
    if request.layout == "sensors-in-rows":
        return transposed.open_table(path, request)
    columns = _names(path)
    found = long.columns_of(columns, request)
    if found is not None:
        return long.pivot(long.LongCsv(path, found), request)
    return _lay_aside(path, request, columns)


def create(path: Path, header: Header) -> Sink:
    """Begin a table: one header line, time stamps first."""
    if isinstance(header.origin, long.LongTable):
        return long.create(path, header)
    if isinstance(header.origin, transposed.SensorRows):
        return transposed.create(path, header)
    return CsvSink(path, header)


def _names(path: Path) -> list[str]:
    check_header(path)
    try:
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"not a table: {error}") from None


def _lay_aside(path: Path, request: Request, columns: list[str]) -> MappedTable:
    reader = _WideReader(path, len(columns))
    with laid_aside(request.spool, path) as target:
        stored = write_pieces(target, reader)
        integers = frozenset[int]() if request.zeros_as_missing else reader.integers
        origin = CsvTable(path, reader.time, integers)
        header = Header(stored.shape[0], reader.names, True, stored.dtype, reader.index, ".csv", origin)
        return MappedTable(target, header, stored, zeros_as_missing=request.zeros_as_missing, laid_aside=True)


class _WideReader:
    """Pieces of cells (r, N) of a wide table; what is known of its columns when all are through."""

    def __init__(self, path: Path, width: int) -> None:
        self.names: tuple[Hashable, ...] = ()
        self.time: str | None = None
        self.index: pd.DatetimeIndex | None = None
        self.integers: frozenset[int] = frozenset()
        self._path = path
        self._width = width

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        stamps: StampParser | None = None
        kinds: list[set[str]] = []
        first = 0
        for frame in self._frames():
            if first == 0:
                stamps, self.time = _time_column(frame, self._path)
                self.names = tuple(frame.columns[0 if self.time is None else 1 :])
                kinds = [set() for _ in self.names]
            if stamps is not None:
                stamps.add(frame.iloc[:, 0], first)
            if self.time is not None:
                frame = frame.iloc[:, 1:]
            for name, seen in zip(frame.columns, kinds, strict=True):
                check_numbers(frame[name], first)
                check_exact(frame[name].to_numpy())
                seen.add(frame[name].dtype.kind)
                if "b" in seen and len(seen) > 1:
                    raise ValueError(f"column {name!r} holds truth values as well as numbers")
            yield frame.to_numpy(dtype=np.float64, na_value=np.nan)
            first += len(frame)
        self.index = None if stamps is None else stamps.index()
        if self.index is not None and str(self.time).startswith(UNNAMED):
            self.index = self.index.rename(None)
        self.integers = frozenset(column for column, seen in enumerate(kinds) if seen == {"i"})

    def _frames(self) -> Iterator[pd.DataFrame]:
        try:
            several = self._width > 1  # an empty line of one sensor is a missing cell
            with pd.read_csv(self._path, skip_blank_lines=several, chunksize=piece_rows(self._width)) as reader:
                for frame in reader:
                    if frame.shape[1] != self._width:
                        raise ValueError(f"{self._width} names, but rows of {frame.shape[1]} cells")
                    if len(frame):
                        yield frame
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"not a table: {error}") from None


def _time_column(frame: pd.DataFrame, path: Path) -> tuple[StampParser | None, str | None]:
    """The parser of a date-like first column, and its name; what `timecolumn.split` sets aside gives no time."""
    column = frame.iloc[:, 0]
    name = str(column.name)
    if frame.shape[1] < 2:
        return None, None
    if pd.api.types.is_numeric_dtype(column.dtype) and form_of(column) is None:
        return None, name if is_time_name(name) else None
    stamps = StampParser.of(column, lambda: pd.read_csv(path, usecols=[0]).iloc[:, 0])
    return (stamps, name) if stamps is not None else (None, None)


class CsvSink(BlockSink):
    """A sink of a wide table: the time column as it was read, numbers in the shortest form that reads back the same."""

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path, header, piece_rows(len(header.names)))
        origin = header.origin if isinstance(header.origin, CsvTable) else None
        self._integers = origin.integers if origin is not None else frozenset[int]()
        self._time = None if origin is None or origin.time is None else origin
        self._columns = [str(name) for name in header.names] if not header.named else list(header.names)
        self._stamps = None if header.index is None else StampTexts(header.index)
        self._cells = self._time_cells(len(self._block))
        self._file = path.open("w", newline="", encoding="utf-8")

    def _write(self, first: int, block: NDArray[Any]) -> None:
        frame = pd.DataFrame(block, columns=self._columns, copy=False)
        if self.header.dtype.kind in "iu":
            frame = pd.DataFrame(as_stored(block, self.header.dtype), columns=self._columns, copy=False)
        for column in self._integers:
            frame.isetitem(column, as_stored(block[:, column], np.dtype(np.int64)))
        head = first == 0
        if self._time is not None:
            name = "" if str(self._time.time).startswith(UNNAMED) else self._time.time
            frame.insert(0, name, next_of(self._cells, self._time.path, len(block)).to_numpy())
            frame.to_csv(self._file, index=False, header=head)
        elif self._stamps is not None and self.header.index is not None:
            frame.index = self._stamps[first : first + len(block)]
            label = str(self.header.index.name or "time")
            frame.to_csv(self._file, index_label=label, header=head)
        else:
            frame.to_csv(self._file, index=False, header=head)

    def _time_cells(self, rows: int) -> Generator[pd.Series[Any]]:
        """The time column of the original, if it had one, in pieces of so many rows."""
        if self._time is None:
            return
        with pd.read_csv(self._time.path, usecols=[0], chunksize=rows) as reader:
            for frame in reader:
                yield frame.iloc[:, 0]

    def _release(self) -> None:
        self._cells.close()
        self._file.close()

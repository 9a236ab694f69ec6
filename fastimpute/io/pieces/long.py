"""Long tables, one row a cell: (sensor, time stamp, value). Pivoted once to an array beside, in two passes.

They are written long again, sorted by time stamp, then by sensor in the order of the header.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.pieces.npy import ArrayFile, MappedTable, Stored, check_spool, laid_aside, mapped, reserve
from fastimpute.io.pieces.stamps import StampParser, StampTexts
from fastimpute.io.pieces.table import (
    BlockSink,
    Request,
    check_exact,
    piece_rows,
)
from fastimpute.io.stampforms import form_of
from fastimpute.stream.table import Header

SENSORS = ("sensor_id", "sensor", "station_id", "station", "unique_id", "detector_id", "detector", "detid", "id")
TIMES = ("timestamp", "sample_date", "ds", "time", "date", "datetime")
VALUES = ("value", "y", "speed", "flow", "volume", "occupancy", "occ")
LONG_ROWS = 2**20  # of the file, converted at a time


@dataclass(frozen=True)
class Columns:
    """Names of the three columns, the order they have in the file, and names of the others."""

    sensor: str
    time: str
    value: str
    order: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class LongTable(ABC):
    """A file of (sensor, time stamp, value) rows.

    Attributes:
        path: the file.
        columns: names of its three columns.
        stamps: what writes the time stamps the way they are in the file, see `fastimpute.io.stampforms.own_form`.
    """

    path: Path
    columns: Columns
    stamps: str | None = None

    @abstractmethod
    def pieces(self) -> Iterator[pd.DataFrame]:
        """The three columns, `LONG_ROWS` rows at a time."""


class LongCsv(LongTable):
    """Comma-separated."""

    def pieces(self) -> Iterator[pd.DataFrame]:
        """See `LongTable`."""
        wanted = [self.columns.sensor, self.columns.time, self.columns.value]
        try:
            # Ids keep their leading zeros only as text; a column of them is one type in all pieces.
            kept: dict[Hashable, Any] = {self.columns.sensor: "str"}
            with pd.read_csv(self.path, usecols=wanted, dtype=kept, chunksize=LONG_ROWS) as reader:
                yield from reader
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"not a table: {error}") from None


class LongParquet(LongTable):
    """Parquet."""

    def pieces(self) -> Iterator[pd.DataFrame]:
        """See `LongTable`."""
        import pyarrow.parquet

        wanted = [self.columns.sensor, self.columns.time, self.columns.value]
        with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=LONG_ROWS, columns=wanted):
                yield pd.DataFrame({name: batch.column(name).to_pandas() for name in wanted})


def columns_of(names: list[str], request: Request) -> Columns | None:
    """The columns of a long table, None where the table is wide.

    Raises:
        ValueError: the layout has to be long, and a column is not there or not certain.
    """
    if request.layout == "wide" or (request.layout == "auto" and len(names) != 3):
        return None
    found = [[name for name in names if name.lower() in known] for known in (SENSORS, TIMES, VALUES)]
    if request.choice.key is not None:
        found[2] = [name for name in names if name == request.choice.key]
    if all(len(named) == 1 for named in found):
        sensor, time, value = (named[0] for named in found)
        order = tuple(name for name in names if name in (sensor, time, value))
        return Columns(sensor, time, value, order, tuple(name for name in names if name not in order))
    if request.layout == "auto":
        return None
    raise ValueError(
        "a long table needs one column each for sensor, time stamp and value; "
        f"found {found[0]}, {found[1]}, {found[2]} among {', '.join(names[:20])}: name the value column by its key"
    )


def pivot(table: LongTable, request: Request) -> MappedTable:
    """Lay a long table aside as an array (T, N); rows in the order of time, sensors in the order they appear.

    Raises:
        ValueError: a row without sensor or time stamp, text among the values, a cell that comes more than once.
    """
    sensors, index, stamps = _axes(table)
    rows, columns = len(index), len(sensors)
    check_spool(request.spool, rows, columns, 9)
    with laid_aside(request.spool, table.path) as target:
        stored, repeated = _fill(table, sensors, index, target, request.repair)
        dtype = request.dtype_of(stored.dtype)
        origin = replace(table, stamps=stamps)
        report = tuple(_report(table.columns, repeated))
        header = Header(rows, tuple(sensors), True, dtype, index, table.path.suffix.lower(), origin, report)
        return MappedTable(target, header, stored, zeros_as_missing=request.zeros_as_missing, laid_aside=True)


def _report(columns: Columns, repeated: int) -> Iterator[str]:
    if columns.others:
        yield f"columns of a long table that are left out: {', '.join(columns.others)}"
    if repeated:
        yield f"{repeated} cells came more than once: the first observed value was kept"


def _axes(table: LongTable) -> tuple[pd.Index[Any], pd.DatetimeIndex, str | None]:
    """Sensors in the order they appear, time stamps sorted, and how these are written."""
    sensors: pd.Index[Any] | None = None
    index: pd.DatetimeIndex | None = None
    parser: StampParser | None = None
    first = 0
    for frame in table.pieces():
        ids, times = frame[table.columns.sensor], frame[table.columns.time]
        _refuse_absent(ids, first)
        _refuse_absent(times, first)
        parser = parser or _parser(times)
        new = pd.DatetimeIndex(parser.parse(times, first).unique())
        index = new if index is None else pd.DatetimeIndex(index.append(new).unique())
        here = pd.Index(ids.unique())
        sensors = here if sensors is None else sensors.append(here).unique()
        first += len(frame)
    if sensors is None or index is None or parser is None:
        raise ValueError("it holds no rows")
    return sensors, index.sort_values().rename(table.columns.time), parser.own_form


def _parser(times: pd.Series[Any]) -> StampParser:
    if pd.api.types.is_numeric_dtype(times.dtype) and form_of(times) is None:
        raise ValueError(
            f"column {times.name!r} does not read as time stamps: row 0 holds {times.iloc[0]}; "
            "numbers are taken for seconds since 1970 only, or ms, us, ns, of a time after 1985"
        )
    return StampParser(times)


def _refuse_absent(column: pd.Series[Any], first: int) -> None:
    if column.isna().any():
        row = first + int(column.isna().to_numpy().argmax())
        raise ValueError(f"column {column.name!r} is empty in row {row}")


def _fill(
    table: LongTable, sensors: pd.Index[Any], index: pd.DatetimeIndex, target: Path, repair: bool
) -> tuple[Stored, int]:
    """Write the values to their places in an array of NaN; also how many came more than once."""
    dtype = np.dtype(np.float32 if _is_float32(table) else np.float64)
    stored = _all_missing(target, (len(index), len(sensors)), dtype)
    cells = mapped(target, stored)
    repeated = 0
    with laid_aside(target.parent, table.path) as places:
        taken = mapped(places, reserve(places, (len(index), len(sensors)), np.dtype(np.uint8)))
        for frame, first, rows, columns in _placed(table, sensors, index):
            values = _values(frame[table.columns.value], first)
            twice = _repeated(rows, columns) | (taken[rows, columns] != 0)
            if twice.any() and not repair:
                raise ValueError(_said_twice(frame, int(twice.argmax()), first))
            repeated += int(twice.sum())
            taken[rows, columns] = 1
            wanted = np.flatnonzero(~np.isnan(values) & np.isnan(cells[rows, columns]))
            wanted = wanted[~_repeated(rows[wanted], columns[wanted])]
            cells[rows[wanted], columns[wanted]] = values[wanted]
        del taken
        places.unlink()
    return stored, repeated


def _placed(
    table: LongTable, sensors: pd.Index[Any], index: pd.DatetimeIndex
) -> Iterator[tuple[pd.DataFrame, int, NDArray[np.intp], NDArray[np.intp]]]:
    """Pieces of the file, the row each begins with, and where in the array its cells belong."""
    parser: StampParser | None = None
    first = 0
    for frame in table.pieces():
        parser = parser or _parser(frame[table.columns.time])
        rows = index.get_indexer(parser.parse(frame[table.columns.time], first))
        yield frame, first, rows, sensors.get_indexer(pd.Index(frame[table.columns.sensor]))
        first += len(frame)


def _repeated(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which places came before in the same piece."""
    return pd.DataFrame({"row": rows, "column": columns}).duplicated().to_numpy()


def _said_twice(frame: pd.DataFrame, row: int, first: int) -> str:
    sensor, time, _ = frame.iloc[row]
    return (
        f"row {first + row} gives sensor {sensor!r} at {time} once more: give every cell once, "
        "or have the first observed value kept with --repair"
    )


def _is_float32(table: LongTable) -> bool:
    dtype = next(table.pieces())[table.columns.value].dtype
    return isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize <= 4


def _all_missing(target: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> Stored:
    array = ArrayFile(target, shape[1], dtype)
    piece = np.full((min(shape[0], piece_rows(shape[1])), shape[1]), np.nan, dtype=dtype)
    for first in range(0, shape[0], len(piece)):
        array.append(piece[: shape[0] - first])
    return array.close()


def _values(column: pd.Series[Any], first: int) -> NDArray[np.float64]:
    from fastimpute.io.csv import check_numbers

    check_numbers(column, first)
    check_exact(column.to_numpy())
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


class LongSink(BlockSink):
    """A sink of one row a cell."""

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path, header, piece_rows(4 * len(header.names)))
        assert header.index is not None
        origin: LongTable = header.origin
        self._columns = origin.columns
        self._sensors = pd.Index(header.names)
        self._parquet = path.suffix.lower() == ".parquet"
        same = origin.path.suffix.lower() == path.suffix.lower()
        texts = StampTexts(header.index, origin.stamps if same else None)
        self._stamps = header.index if self._parquet and not (same and origin.stamps) else texts
        self._writer: Any = None
        self._file = path.open("wb")

    def _write(self, first: int, block: NDArray[Any]) -> None:
        times = self._stamps[first : first + len(block)]
        frame = pd.DataFrame(
            {
                self._columns.sensor: self._sensors.append([self._sensors] * (len(block) - 1)),
                self._columns.time: times.repeat(block.shape[1]),
                self._columns.value: block.reshape(-1),
            },
            columns=list(self._columns.order),
            copy=False,
        )
        if self._parquet:
            self._write_group(frame)
        else:
            frame.to_csv(self._file, index=False, header=first == 0)

    def _write_group(self, frame: pd.DataFrame) -> None:
        import pyarrow
        import pyarrow.parquet

        if self._writer is None:
            schema = pyarrow.Schema.from_pandas(frame, preserve_index=False)
            self._writer = pyarrow.parquet.ParquetWriter(self._file, schema)
        table = pyarrow.Table.from_pandas(frame, schema=self._writer.schema, preserve_index=False)
        self._writer.write_table(table, row_group_size=len(frame))

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.close()


def create(path: Path, header: Header) -> LongSink:
    """Begin a long table."""
    return LongSink(path, header)

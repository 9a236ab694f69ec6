"""Parquet tables: row groups are read as they are needed, the last one is kept; huge ones are laid aside first."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.io.pieces import long
from fastimpute.io.pieces.npy import MappedTable, Stored, check_spool, laid_aside, mapped, reserve
from fastimpute.io.pieces.stamps import StampParser
from fastimpute.io.pieces.table import (
    BlockSink,
    Request,
    StoredTable,
    as_stored,
    check_exact,
    next_of,
    piece_rows,
)
from fastimpute.io.sizes import check_claim
from fastimpute.io.stampforms import form_of, is_time_name
from fastimpute.stream.table import Header, Sink, Source, floating

GROUP_CELLS = 2**24  # of a row group that is read at once
WRITTEN_CELLS = 2**23  # of a row group that is written
MOST_GROUP_ROWS = 2**20
SPOOLED_COLUMNS = 64
SPOOLED_ROWS = 2**16


@dataclass(frozen=True)
class ParquetTable:
    """What a table of numbers does not tell of its file.

    Attributes:
        path: the file, whose other columns are read once more when the table is written.
        sensors: names of its columns of cells.
        others: names of its columns that are no sensors: the time stamps, an index.
        dtypes: of each sensor's cells, floating where there is something missing.
    """

    path: Path
    sensors: tuple[str, ...]
    others: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...]


def open_table(path: Path, request: Request) -> Source:
    """Open a table; see `fastimpute.io.source.open_source`."""
    file = _open(path)
    check_claim((file.metadata.num_rows, max(1, file.metadata.num_columns)))
    if file.metadata.num_rows != sum(_group_rows(file)):
        raise ValueError("its row groups do not add up to its rows")
    found = long.columns_of(file.schema_arrow.names, request)
    if found is not None:
        return long.pivot(long.LongParquet(path, found), request)
    header = _header(path, file, request)
    if max(_group_rows(file), default=0) * len(header.names) <= GROUP_CELLS:
        return GroupedTable(path, header, file, request.zeros_as_missing)
    with laid_aside(request.spool, path) as target, file:
        stored = _lay_aside(file, header, target)
        return MappedTable(target, header, stored, zeros_as_missing=request.zeros_as_missing, laid_aside=True)


def create(path: Path, header: Header) -> Sink:
    """Begin a table: row groups of 2**23 cells, at most 2**20 rows."""
    if isinstance(header.origin, long.LongTable):
        return long.create(path, header)
    return ParquetSink(path, header)


def _open(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, memory_map=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"not a readable parquet file: {str(error).splitlines()[0]}") from None


def _group_rows(file: Any) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]


def _header(path: Path, file: Any, request: Request) -> Header:
    if file.metadata.num_rows == 0:
        raise ValueError("it holds no rows")
    names, sensors, others = _columns(file)
    stored = tuple(_stored_dtype(file, name) for name in sensors)
    if request.zeros_as_missing:
        stored = tuple(request.dtype_of(dtype) for dtype in stored)
    index = _index(file, others)
    origin = ParquetTable(path, sensors, others, stored)
    dtype = stored[0] if len(set(stored)) == 1 else np.dtype(np.float64)
    return Header(file.metadata.num_rows, names, not isinstance(names, range), dtype, index, ".parquet", origin)


def _columns(file: Any) -> tuple[tuple[Hashable, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the sensors as pandas has them and as the file has them, and names of the other columns."""
    fields = file.schema_arrow.names
    repeated = (
        next((name for name in fields if fields.count(name) > 1), None) if len(set(fields)) < len(fields) else None
    )
    if repeated is not None:
        raise ValueError(f"column {repeated!r} appears more than once: give every sensor its own name")
    frame = file.schema_arrow.empty_table().to_pandas()
    metadata = file.schema_arrow.pandas_metadata or {}
    others = tuple(name for name in metadata.get("index_columns", ()) if isinstance(name, str))
    names = tuple(frame.columns)
    sensors = tuple(name for name in fields if name not in others)
    if not isinstance(frame.index, pd.DatetimeIndex) and len(sensors) > 1 and _is_time(file, sensors[0]):
        names, sensors, others = names[1:], sensors[1:], (*others, sensors[0])
    if not sensors or len(names) != len(sensors):
        raise ValueError("it holds no columns of cells")
    return names, sensors, others


def _is_time(file: Any, name: str) -> bool:
    """Whether a column holds time stamps, text that begins as one, or numbers under a name of time stamps."""
    import pyarrow.types

    kind = file.schema_arrow.field(name).type
    if pyarrow.types.is_timestamp(kind) or pyarrow.types.is_date(kind):
        return True
    if pyarrow.types.is_integer(kind):
        return is_time_name(name)
    held = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(held) or pyarrow.types.is_large_string(held)):
        return False
    first = next(file.iter_batches(batch_size=1, columns=[name]))
    return StampParser.of(_shown(first, name)) is not None


def _stored_dtype(file: Any, name: str) -> np.dtype[Any]:
    """The dtype of one sensor; float64 for integers of which some are missing."""
    import pyarrow.types

    position = file.schema_arrow.get_field_index(name)
    kind = file.schema_arrow.field(position).type
    if pyarrow.types.is_floating(kind):
        return np.dtype(f"f{kind.bit_width // 8}")
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind)):
        held = "time stamps" if pyarrow.types.is_temporal(kind) else str(kind)
        raise ValueError(f"column {name!r} is not numeric: it holds {held}; drop columns of text")
    groups = range(file.metadata.num_row_groups)
    statistics = [file.metadata.row_group(group).column(_leaf(file, name)).statistics for group in groups]
    complete = all(known is not None and known.has_null_count and known.null_count == 0 for known in statistics)
    whole: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
    return whole if complete else np.dtype(np.float64)


def _noted(schema: Any, changed: set[str]) -> Any:
    """The schema whose notes for pandas call these columns floating: pandas converts to what they say."""
    notes = schema.pandas_metadata
    if not notes or not changed:
        return schema
    for column in notes["columns"]:
        if column.get("field_name", column["name"]) in changed:
            column.update(pandas_type="float64", numpy_type=_floating_name(str(column["numpy_type"])))
    return schema.with_metadata({**schema.metadata, b"pandas": json.dumps(notes).encode()})


def _floating_name(name: str) -> str:
    """The floating dtype of the family that a dtype of pandas belongs to."""
    if name.endswith("[pyarrow]"):
        return "double[pyarrow]"
    return "Float64" if name[0].isupper() or name == "boolean" else "float64"


def _leaf(file: Any, name: str) -> int:
    """Place of a plain column among the leaves of the schema; they are as many where nothing is nested."""
    return int(file.schema_arrow.get_field_index(name))


def _index(file: Any, others: tuple[str, ...]) -> pd.DatetimeIndex | None:
    """The time stamps among the other columns."""
    for name in reversed(others):
        if not _is_time(file, name):
            continue
        parser: StampParser | None = None
        first = 0
        for batch in file.iter_batches(batch_size=2**20, columns=[name]):
            column = _shown(batch, name)
            if pd.api.types.is_numeric_dtype(column.dtype) and form_of(column) is None:
                break
            parser = parser or StampParser.of(column, lambda: _shown(file.read(columns=[name]), name))  # noqa: B023
            if parser is None:
                break
            parser.add(column, first)
            first += len(column)
        if parser is not None:
            index = parser.index()
            return index.rename(None) if name.startswith("__index_level_") else index
    return None


def _shown(batch: Any, name: str) -> pd.Series[Any]:
    column: pd.Series[Any] = batch.column(name).to_pandas()
    return column.rename(name)


def _cells(table: Any, sensors: tuple[str, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Columns of an arrow table or batch by exact name as (r, c), nulls as NaN."""
    cells = np.empty((table.num_rows, len(sensors)), dtype=dtype)
    for position, name in enumerate(sensors):
        column = table.column(name).to_numpy(zero_copy_only=False)
        check_exact(column)
        cells[:, position] = column
    return cells


def _lay_aside(file: Any, header: Header, target: Path) -> Stored:
    """Convert a table whose row groups are too large, some columns at a time."""
    sensors = header.origin.sensors
    dtype = floating(header.dtype)
    check_spool(target.parent, header.rows, len(sensors), dtype.itemsize)
    stored = reserve(target, (header.rows, len(sensors)), dtype)
    cells = mapped(target, stored)
    for left in range(0, len(sensors), SPOOLED_COLUMNS):
        wanted = sensors[left : left + SPOOLED_COLUMNS]
        first = 0
        for batch in file.iter_batches(batch_size=SPOOLED_ROWS, columns=list(wanted)):
            cells[first : first + batch.num_rows, left : left + len(wanted)] = _cells(batch, wanted, dtype)
            first += batch.num_rows
    return stored


class GroupedTable(StoredTable):
    """A table read row group by row group."""

    def __init__(self, path: Path, header: Header, file: Any, zeros_as_missing: bool) -> None:
        super().__init__(path, header, zeros_as_missing)
        self._file = file
        self._starts = np.concatenate([[0], np.cumsum(_group_rows(file))])
        self._lock = threading.Lock()
        self._kept: tuple[tuple[int, int, int], NDArray[Any]] | None = None

    def close(self) -> None:
        """See `Source.close`."""
        super().close()
        self._kept = None
        self._file.close()

    def _stored(self, first: int, last: int, left: int, right: int) -> NDArray[Any]:
        out = np.empty((last - first, right - left), dtype=self.header.floating)
        group = int(np.searchsorted(self._starts, first, side="right")) - 1
        while group < len(self._starts) - 1 and self._starts[group] < last:
            start = int(self._starts[group])
            begin, end = max(first, start), min(last, int(self._starts[group + 1]))
            if begin < end and left < right:
                with self._lock:
                    out[begin - first : end - first] = self._group(group, left, right)[begin - start : end - start]
            group += 1
        return out

    def _group(self, group: int, left: int, right: int) -> NDArray[Any]:
        if self._kept is None or self._kept[0] != (group, left, right):
            self._kept = None
            wanted = self.header.origin.sensors[left:right]
            table = self._file.read_row_group(group, columns=list(wanted), use_threads=False)
            if table.num_rows != self._starts[group + 1] - self._starts[group]:
                raise ValueError(f"row group {group} holds {table.num_rows} rows")
            self._kept = ((group, left, right), _cells(table, wanted, self.header.floating))
        return self._kept[1]


class ParquetSink(BlockSink):
    """A sink of row groups; a table that was read from parquet keeps its schema and its other columns."""

    def __init__(self, path: Path, header: Header) -> None:
        import pyarrow.parquet

        rows = min(MOST_GROUP_ROWS, piece_rows(len(header.names), WRITTEN_CELLS))
        super().__init__(path, header, rows)
        self._origin = header.origin if isinstance(header.origin, ParquetTable) else None
        self._columns = list(header.names) if header.named else [str(name) for name in header.names]
        self._schema = self._new_schema() if self._origin is None else self._old_schema(self._origin)
        self._others = self._other_columns(len(self._block))
        self._file = path.open("wb")
        self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema)

    def _write(self, first: int, block: NDArray[Any]) -> None:
        import pyarrow

        if self._origin is None:
            frame = self._frame(first, block)
            frame.columns = pd.Index(self._schema.names[: len(self._columns)])  # arrow knows names as text
            table = pyarrow.Table.from_pandas(frame, schema=self._schema)
        else:
            names = self._origin.others
            piece = next_of(self._others, self._origin.path, len(block)) if names else None
            others = {} if piece is None else {name: piece.column(name) for name in names}
            sensors = {
                name: pyarrow.array(as_stored(np.ascontiguousarray(block[:, position]), dtype), from_pandas=True)
                for position, (name, dtype) in enumerate(zip(self._origin.sensors, self._origin.dtypes, strict=True))
            }
            arrays = {**others, **sensors}
            table = pyarrow.table([arrays[name] for name in self._schema.names], schema=self._schema)
        self._writer.write_table(table, row_group_size=len(block))

    def _frame(self, first: int, block: NDArray[Any]) -> pd.DataFrame:
        index = None if self.header.index is None else self.header.index[first : first + len(block)]
        return pd.DataFrame(as_stored(block, self.header.dtype), index=index, columns=self._columns)

    def _new_schema(self) -> Any:
        import pyarrow

        empty = self._frame(0, self._block[:0])
        keep = None if self.header.index is not None else False
        return pyarrow.Schema.from_pandas(empty, preserve_index=keep)

    def _old_schema(self, origin: ParquetTable) -> Any:
        import pyarrow

        with _open(origin.path) as file:
            schema = file.schema_arrow
        changed = set()
        for name, dtype in zip(origin.sensors, origin.dtypes, strict=True):
            position = schema.get_field_index(name)
            field = schema.field(position)
            kind = pyarrow.from_numpy_dtype(dtype)
            if field.type != kind:
                changed.add(name)
            schema = schema.set(position, field.with_type(kind).with_nullable(True))
        return _noted(schema, changed)

    def _other_columns(self, rows: int) -> Generator[Any]:
        """The columns of the original that are no sensors, in pieces of exactly so many rows."""
        import pyarrow

        if self._origin is None:
            return
        waiting: Any = None
        with _open(self._origin.path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(self._origin.others)):
                table = pyarrow.Table.from_batches([batch])
                waiting = table if waiting is None else pyarrow.concat_tables([waiting, table])
                while waiting.num_rows >= rows:
                    piece, waiting = waiting.slice(0, rows), waiting.slice(rows)
                    yield piece
        if waiting is not None and waiting.num_rows:
            yield waiting

    def _release(self) -> None:
        self._others.close()
        self._writer.close()
        self._file.close()

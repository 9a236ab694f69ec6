"""Parquet tables, as pandas writes them: time stamps in the index or in the first column."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fastimpute.io import long, timecolumn
from fastimpute.io.pieces.long import LongParquet
from fastimpute.io.sizes import check_claim, check_memory
from fastimpute.io.table import Choice, Table, as_frame


def read(path: Path, choice: Choice) -> Table:
    """Read a table, a long one into a wide frame; see `fastimpute.io.table.Format`."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(path)
        check_claim((metadata.num_rows, max(1, metadata.num_columns)))
        table = long.read(LongParquet, path, pyarrow.parquet.read_schema(path).names, choice)
        if table is not None:
            return table
        check_memory(8 * metadata.num_rows * metadata.num_columns)
        frame = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"not a readable parquet file: {_first_line(error)}") from None
    frame, times = timecolumn.split(frame)
    return Table(frame, ".parquet", times)


def write(path: Path, table: Table) -> None:
    """Write the table, the time column where it was."""
    if long.is_long(table):
        long.write(path, table)
        return
    frame = as_frame(table.data)
    if isinstance(table.origin, timecolumn.TimeColumn):
        frame = table.origin.put_back(frame)
    frame.to_parquet(path)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]

"""Parquet tables, as pandas writes them: time stamps in the index or in the first column."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fastimpute.io import timecolumn
from fastimpute.io.sizes import check_claim, check_memory
from fastimpute.io.table import Choice, Table, as_frame


def read(path: Path, choice: Choice) -> Table:
    """Read a wide table; see `fastimpute.io.table.Format`."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(path)
        check_claim((metadata.num_rows, max(1, metadata.num_columns)))
        check_memory(8 * metadata.num_rows * metadata.num_columns)
        frame = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"not a readable parquet file: {_first_line(error)}") from None
    frame, times = timecolumn.split(frame)
    return Table(frame, ".parquet", times)


def write(path: Path, table: Table) -> None:
    """Write the table, the time column where it was."""
    frame = as_frame(table.data)
    if isinstance(table.origin, timecolumn.TimeColumn):
        frame = table.origin.put_back(frame)
    frame.to_parquet(path)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]

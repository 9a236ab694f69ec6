"""Long tables (sensor, time stamp, value) of .csv and .parquet read whole into a wide frame, and written long again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fastimpute.io.pieces import long as pieces
from fastimpute.io.pieces.table import Request
from fastimpute.io.sizes import check_memory
from fastimpute.io.table import Choice, Table, as_frame
from fastimpute.stream.table import Header


def read(form: type[pieces.LongTable], path: Path, names: list[str], choice: Choice) -> Table | None:
    """Read a table whose columns have such names; None where they are those of a wide one."""
    with tempfile.TemporaryDirectory() as spool:
        request = Request(choice, Path(spool))
        columns = pieces.columns_of(names, request)
        if columns is None:
            return None
        with pieces.pivot(form(path, columns), request) as source:
            header = source.header
            check_memory(header.rows * header.sensors * header.floating.itemsize)
            return Table(header.frame(source.read(slice(None)), slice(0, header.rows)), header.suffix, header)


def is_long(table: Table) -> bool:
    """Whether a table was read from a long one."""
    return isinstance(table.origin, Header) and isinstance(table.origin.origin, pieces.LongTable)


def write(path: Path, table: Table) -> None:
    """Write a table that was read from a long one."""
    frame = as_frame(table.data)
    index = pd.DatetimeIndex(frame.index)
    header = replace(table.origin, rows=len(frame), names=tuple(frame.columns), index=index)
    with pieces.create(path, header) as sink:
        sink.append(frame.to_numpy(dtype=header.floating, na_value=np.nan))

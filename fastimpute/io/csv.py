"""Comma-separated tables: one header line, a column per sensor, optionally time stamps in the first column."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fastimpute.io import long, timecolumn
from fastimpute.io.pieces.long import SENSORS, TIMES, LongCsv
from fastimpute.io.stampforms import UNNAMED
from fastimpute.io.table import Choice, Table, as_frame

LONG_HINT = "a long table of more than three columns is read with --layout long, a wide one has time stamps first"


def read(path: Path, choice: Choice) -> Table:
    """Read a table, a long one into a wide frame; see `fastimpute.io.table.Format`."""
    header = check_header(path)
    table = long.read(LongCsv, path, header, choice)
    if table is not None:
        return table
    try:
        # An empty line of one sensor is a missing cell, of several it is nothing.
        frame = pd.read_csv(path, skip_blank_lines=len(header) > 1)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"not a table: {error}") from None
    if frame.empty:
        raise ValueError("it holds no rows")
    frame, times = timecolumn.split(frame)
    for name in frame.columns:
        check_numbers(frame[name])
    return Table(frame, ".csv", times)


def write(path: Path, table: Table) -> None:
    """Write the table, the time column as it was read; numbers in the shortest form that reads back the same."""
    if long.is_long(table):
        long.write(path, table)
        return
    frame = as_frame(table.data)
    if isinstance(table.origin, timecolumn.TimeColumn):
        whole = table.origin.put_back(frame)
        unnamed = str(whole.columns[0]).startswith(UNNAMED)
        whole.rename(columns={whole.columns[0]: ""} if unnamed else {}).to_csv(path, index=False)
    else:
        named = not isinstance(frame.index, pd.RangeIndex)
        frame.to_csv(path, index=named, index_label=str(frame.index.name or "time"))


def check_header(path: Path) -> list[str]:
    """The names in the header line, after a look at the row below it.

    Raises:
        ValueError: not text, not separated by commas, a name appears more than once, or there are fewer names than
            cells: pandas would take the first columns for an index then, and every name would stand over other cells.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            first = next((row for row in rows if row), [])
        except UnicodeDecodeError as error:
            raise ValueError(f"not a text table in UTF-8: {error}") from None
        except csv.Error as error:
            raise ValueError(f"not a text table: {error}") from None
    _check_separator(header, first)
    repeated = next((name for name, count in Counter(header).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"column {repeated!r} appears more than once: give every sensor its own name")
    if len(first) > len(header):
        raise ValueError(f"not a table: {len(header)} names, but {len(first)} cells in the first row")
    return header


def _check_separator(header: list[str], first: list[str]) -> None:
    for separator in (";", "\t", "|"):
        if len(header) == 1 and separator in header[0] and separator in ",".join(first):
            raise ValueError(
                f"its cells are separated by {separator!r}, not by commas: convert it with "
                f"pandas.read_csv(..., sep={separator!r}), with decimal=',' where 1,5 is a number, and to_csv"
            )


def check_numbers(column: pd.Series[Any], first: int = 0) -> None:
    """Refuse a column of text, naming its first line; `first` is the row of the file that the column begins with.

    Raises:
        ValueError: a cell is not a number.
    """
    if pd.api.types.is_numeric_dtype(column.dtype):
        return
    unreadable = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    row = int(np.flatnonzero(unreadable.to_numpy())[0]) if unreadable.any() else 0
    of_long = str(column.name).lower() in SENSORS + TIMES
    raise ValueError(
        f"column {column.name!r} is not numeric: line {first + row + 2} holds {column.iloc[row]!r}; "
        + ("leave missing cells empty and drop columns of text" if not of_long else LONG_HINT)
    )

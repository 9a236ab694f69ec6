"""How time stamps are written in a column, and what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

UNNAMED = "Unnamed: 0"  # what pandas calls a first column without a name, such as an index it has written
TIME_NAMES = ("date", "time", "timestamp", "datetime", "ts", "ds")
EPOCHS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EARLIEST, LATEST = 5 * 10**8, 5 * 10**9  # seconds since 1970 that are taken for a time: 1985 to 2128


def is_time_name(name: object) -> bool:
    """Whether a first column of this name, or without one, is no sensor: it holds time stamps or row numbers."""
    return str(name).lower() in TIME_NAMES or str(name).startswith(UNNAMED)


def form_of(column: pd.Series[Any]) -> str | None:
    """How the time stamps of a column are written, by its first cell: a strptime format, or a unit since 1970.

    None where the cells are time stamps already, or pandas has to make them out one by one. Where day and month might
    change places, the order counts in which all cells can be read and follow each other most regularly; else the month
    is first, but not before a dot.

    Example:
        >>> form_of(pd.Series(["12/03/2026", "13/03/2026"]))
        '%d/%m/%Y'
    """
    if pd.api.types.is_integer_dtype(column.dtype):
        return _epoch_of(column)
    cells = column.dropna()
    if not len(cells) or not isinstance(cells.iloc[0], str):
        return None
    form = pd.tseries.api.guess_datetime_format(cells.iloc[0])
    return form if form is None or not is_ambiguous(form) else _ordered(pd.Series(cells.unique()), form)


def is_ambiguous(form: str | None) -> bool:
    """Whether day and month might change places."""
    return form is not None and form[:2] in ("%d", "%m") and "%d" in form and "%m" in form


def parse(column: pd.Series[Any], form: str | None) -> pd.DatetimeIndex:
    """The time stamps of a column written like this; offsets that change with summer time all become the first one.

    Raises:
        ValueError, TypeError, OverflowError: a cell does not read as a time stamp.
    """
    if form in EPOCHS:
        unit: Any = form
        return pd.DatetimeIndex(pd.to_datetime(column, unit=unit, utc=True), name=column.name)
    try:
        return pd.DatetimeIndex(pd.to_datetime(column, format=form))
    except ValueError:
        if form is None or "%z" not in form:
            raise
        first = pd.to_datetime(column.dropna().iloc[0], format=form)
        return pd.DatetimeIndex(pd.to_datetime(column, format=form, utc=True)).tz_convert(first.tz)


def unreadable(column: pd.Series[Any], form: str | None, first: int = 0) -> str:
    """Names the first cell that does not read as a time stamp; `first` is the row that the column begins with."""
    known = form if form not in EPOCHS else None
    parsed = pd.to_datetime(column, format=known, errors="coerce", utc=True)
    row = int((parsed.isna() & column.notna()).to_numpy().argmax())
    return f"column {column.name!r} does not read as time stamps: row {first + row} holds {column.iloc[row]!r}"


def own_form(text: object, stamp: pd.Timestamp, form: str | None) -> str | None:
    """What writes time stamps of this form the way they were read; None where nothing does.

    Example:
        >>> own_form("2026-01-05T00:00Z", pd.Timestamp("2026-01-05", tz="UTC"), "%Y-%m-%dT%H:%M%z")
        '%Y-%m-%dT%H:%MZ'
    """
    if form is None or form in EPOCHS:
        return form
    if form.endswith("%z"):  # strftime has one way to write an offset, files have many
        form = form.removesuffix("%z")
        form += str(text).removeprefix(stamp.strftime(form))
    return form if stamp.strftime(form) == text else None


def _epoch_of(column: pd.Series[Any]) -> str | None:
    if not len(column) or not is_time_name(column.name) or column.isna().any():
        return None
    first = int(column.iloc[0])
    return next((unit for unit, scale in EPOCHS.items() if EARLIEST <= first // scale < LATEST), None)


def _ordered(texts: pd.Series[Any], form: str) -> str:
    dotted = form[2] == "."
    orders = sorted((form, form.translate(str.maketrans("dm", "md"))), key=lambda one: (one[:2] == "%m") == dotted)
    steps = {one: _steps(texts, one) for one in orders}
    return min(orders, key=steps.__getitem__)


def _steps(texts: pd.Series[Any], form: str) -> float:
    """How many different steps there are between the time stamps; infinitely many where they cannot be read so."""
    try:
        stamps = parse(texts, form)
    except (ValueError, TypeError, OverflowError):
        return np.inf
    return len(np.unique(np.diff(stamps.asi8)))

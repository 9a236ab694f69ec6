"""Time stamps kept in the first column of a table: made the index for the imputer, put back as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from fastimpute.io.stampforms import UNNAMED, form_of, is_time_name, parse, unreadable


@dataclass(frozen=True)
class TimeColumn:
    """The first column exactly as it was read."""

    column: pd.Series[Any]

    def put_back(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with its time column first and a plain index again."""
        plain = frame.reset_index(drop=True)
        plain.insert(0, self.column.name, self.column.reset_index(drop=True))
        return plain


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, TimeColumn | None]:
    """Make a date-like first column the index.

    A column is date-like when it holds time stamps, text that reads as such, or, called date or time, whole seconds
    (or parts of them) since 1970. Other numbers under such a name, and a first column without a name, as pandas writes
    its row numbers, are set aside like a time column but give no time.

    Raises:
        ValueError: a column is called date or time, holds text, and a cell does not read as a time stamp.
    """
    if isinstance(frame.index, pd.DatetimeIndex) or frame.shape[1] < 2:
        return frame, None
    column = frame.iloc[:, 0]
    rest = frame.iloc[:, 1:]
    unnamed = str(column.name).startswith(UNNAMED)
    kept = TimeColumn(column)
    form = form_of(column)
    if pd.api.types.is_numeric_dtype(column.dtype) and form is None:
        return (rest, kept) if is_time_name(column.name) else (frame, None)
    times = _parse(column, form)
    if times is None:
        return frame, None
    return rest.set_axis(times.rename(None) if unnamed else times, axis=0), kept


def _parse(column: pd.Series[Any], form: str | None) -> pd.DatetimeIndex | None:
    try:
        return parse(column, form)
    except (ValueError, TypeError, OverflowError) as error:
        if is_time_name(column.name):
            raise ValueError(unreadable(column, form)) from error
        return None

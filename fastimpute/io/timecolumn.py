"""Time stamps kept in the first column of a table: made the index for the imputer, put back as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

TIME_NAMES = ("date", "time", "timestamp", "datetime", "ts", "ds")


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

    A column is date-like when it holds time stamps or text that reads as such. Numbers never are; a first column
    without a name, as pandas writes its row numbers, is set aside like a time column but gives no time.

    Raises:
        ValueError: a column is called date or time, holds text, and a cell does not read as a time stamp.
    """
    if isinstance(frame.index, pd.DatetimeIndex) or frame.shape[1] < 2:
        return frame, None
    column = frame.iloc[:, 0]
    rest = frame.iloc[:, 1:]
    if pd.api.types.is_numeric_dtype(column.dtype):
        unnamed = str(column.name).startswith("Unnamed: 0")
        return (rest, TimeColumn(column.rename(""))) if unnamed else (frame, None)
    times = _parse(column)
    if times is None:
        return frame, None
    kept = column.rename("") if str(column.name).startswith("Unnamed: 0") else column
    return rest.set_axis(times, axis=0), TimeColumn(kept)


def _parse(column: pd.Series[Any]) -> pd.DatetimeIndex | None:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return pd.DatetimeIndex(column)
    try:
        return pd.DatetimeIndex(pd.to_datetime(column))
    except (ValueError, TypeError, OverflowError) as error:
        if str(column.name).lower() in TIME_NAMES:
            parsed = pd.to_datetime(column, errors="coerce", utc=True)
            row = int(parsed.isna().to_numpy().argmax())
            raise ValueError(
                f"column {column.name!r} does not read as time stamps: row {row} holds {column.iloc[row]!r}"
            ) from error
        return None

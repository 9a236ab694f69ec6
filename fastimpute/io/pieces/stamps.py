"""A column of time stamps parsed piece by piece, with the result that parsing it whole would have."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fastimpute.io.timecolumn import TIME_NAMES


class StampParser:
    """Time stamps of one column: the format is that of its first cell, as for a column parsed at once."""

    def __init__(self, column: pd.Series[Any]) -> None:
        self._name = column.name
        self._form = _format_of(column)
        self._zone: str | None = None
        self._parts: list[pd.DatetimeIndex] = []

    @classmethod
    def of(cls, column: pd.Series[Any]) -> StampParser | None:
        """A parser for a column that begins like this; None where it does not read as time stamps, nor is called so."""
        parser = cls(column)
        try:
            _parse(column, parser._form)
        except (ValueError, TypeError, OverflowError):
            return parser if str(column.name).lower() in TIME_NAMES else None
        return parser

    def add(self, column: pd.Series[Any], first: int = 0) -> None:
        """Parse the next piece, which begins at row `first`, and keep it.

        Raises:
            ValueError: a cell does not read as a time stamp.
        """
        self._parts.append(self.parse(column, first))

    def parse(self, column: pd.Series[Any], first: int = 0) -> pd.DatetimeIndex:
        """The time stamps of a piece which begins at row `first`.

        Raises:
            ValueError: a cell does not read as a time stamp.
        """
        try:
            part = _parse(column, self._form)
        except (ValueError, TypeError, OverflowError) as error:
            parsed = pd.to_datetime(column, format=self._form, errors="coerce", utc=True)
            row = int(parsed.isna().to_numpy().argmax())
            raise ValueError(
                f"column {self._name!r} does not read as time stamps: row {first + row} holds {column.iloc[row]!r}"
            ) from error
        self._zone = self._zone if self._zone is not None else str(part.tz)
        if str(part.tz) != self._zone:
            raise ValueError(
                f"column {self._name!r} does not read as time stamps: row {first} holds {column.iloc[0]!r}, "
                "in another time zone than the rows before"
            )
        return part

    def index(self) -> pd.DatetimeIndex:
        """All time stamps that were added."""
        head, *rest = self._parts
        whole = head.append(rest) if rest else head
        return pd.DatetimeIndex(whole, name=self._name)


class StampTexts:
    """Time stamps as pandas writes them, in one form for the whole index however it is cut."""

    def __init__(self, index: pd.DatetimeIndex) -> None:
        self._index = index
        self._form: str | None = "%Y-%m-%d %H:%M:%S"
        if index.tz is not None or bool((index.as_unit("s") != index).any()):
            self._form = None
        elif bool((index == index.normalize()).all()):
            self._form = "%Y-%m-%d"

    def __getitem__(self, rows: slice) -> pd.Index[Any]:
        part = self._index[rows]
        return part.map(str) if self._form is None else part.strftime(self._form)


def _format_of(column: pd.Series[Any]) -> str | None:
    texts = column.dropna()
    if not len(texts) or not isinstance(texts.iloc[0], str):
        return None
    return pd.tseries.api.guess_datetime_format(texts.iloc[0])


def _parse(column: pd.Series[Any], form: str | None) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(column, format=form))

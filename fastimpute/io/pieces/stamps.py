"""A column of time stamps parsed piece by piece, with the result that parsing it whole would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from fastimpute.io.stampforms import EPOCHS, form_of, is_ambiguous, is_time_name, own_form, parse, unreadable

TIMESPECS: dict[Any, str] = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


class StampParser:
    """Time stamps of one column, written all like its first cell.

    Attributes:
        own_form: what writes them the way they were read, None where nothing does; known after the first piece.
    """

    def __init__(self, column: pd.Series[Any], whole: Callable[[], pd.Series[Any]] | None = None) -> None:
        self._name = column.name
        self._form = form_of(column)
        if whole is not None and is_ambiguous(self._form):
            self._form = form_of(whole())
        self._parts: list[pd.DatetimeIndex] = []
        self._before: pd.DatetimeIndex | None = None
        self.own_form: str | None = None

    @classmethod
    def of(cls, column: pd.Series[Any], whole: Callable[[], pd.Series[Any]] | None = None) -> StampParser | None:
        """A parser for a column that begins like this; None where it does not read as time stamps, nor is called so.

        Args:
            column: the first cells.
            whole: gives all of them, where the first ones may leave open which number is the day.
        """
        parser = cls(column, whole)
        try:
            parse(column, parser._form)
        except (ValueError, TypeError, OverflowError):
            return parser if is_time_name(column.name) else None
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
            part = parse(column, self._form)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(unreadable(column, self._form, first)) from error
        if self._before is None and len(part) and part.notna()[0]:
            self.own_form = own_form(column.iloc[0], part[0], self._form)
        before = part if self._before is None else self._before
        if (before.tz is None) != (part.tz is None):
            raise ValueError(
                f"column {self._name!r} does not read as time stamps: row {first} holds {column.iloc[0]!r}, "
                "with a time zone or without, other than the rows before"
            )
        self._before = before[:0]
        return part if part.tz is None else part.tz_convert(before.tz)

    def index(self) -> pd.DatetimeIndex:
        """All time stamps that were added."""
        head, *rest = self._parts
        whole = head.append(rest) if rest else head
        return pd.DatetimeIndex(whole, name=self._name)


class StampTexts:
    """Time stamps as text, in one form for the whole index however it is cut: their own, else as pandas writes them."""

    def __init__(self, index: pd.DatetimeIndex, own: str | None = None) -> None:
        self._index = index
        self._own = own if own is not None and _keeps(index, own) else None
        self._form: str | None = "%Y-%m-%d %H:%M:%S"
        self._timespec = next(spec for unit, spec in TIMESPECS.items() if bool((index.as_unit(unit) == index).all()))
        if index.tz is not None or self._timespec != "seconds":
            self._form = None
        elif bool((index == index.normalize()).all()):
            self._form = "%Y-%m-%d"

    def __getitem__(self, rows: slice) -> pd.Index[Any]:
        part = self._index[rows]
        if self._own in EPOCHS:
            return _units_since_1970(part, self._own)
        form = self._own or self._form
        if form is not None:
            return part.strftime(form)
        return part.map(lambda stamp: stamp.isoformat(" ", self._timespec))


def _units_since_1970(index: pd.DatetimeIndex, unit: Any) -> pd.Index[Any]:
    numbers: pd.Index[Any] = pd.Index(index.as_unit(unit).asi8, dtype="int64")
    return numbers


def _keeps(index: pd.DatetimeIndex, own: str) -> bool:
    """Whether nothing is lost of the time stamps in this form, which fitted those of the file, not all of a grid."""
    if own in EPOCHS:
        unit: Any = own
        return bool((index.as_unit(unit) == index).all())
    texts = index.strftime(own)
    return bool((pd.DatetimeIndex(pd.to_datetime(texts, format=own)) == index.tz_localize(None)).all())

"""A tile through an imputer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastimpute.imputer import BaseImputer
from fastimpute.intervals import IntervalImputer
from fastimpute.stream.table import Cells, Header
from fastimpute.stream.tiles import Tile

INTERVAL_TABLES = 3  # filled, lower, upper


def tables_of(level: float | None) -> int:
    """Number of tables that come out."""
    return 1 if level is None else INTERVAL_TABLES


def fill_tile(
    imputer: BaseImputer[Any] | None, header: Header, tile: Tile, context: Cells, level: float | None
) -> NDArray[np.floating[Any]]:
    """Values of a tile's missing cells.

    Args:
        imputer: fitted to the tile's sensors; None where none of them was ever observed.
        header: of the table.
        tile: which one.
        context: (r, c) cells of its context.
        level: of intervals beside the filling; None without.

    Returns:
        (k, m) of the context's dtype: filled (and lower and upper) values of the m missing cells, row by row.
    """
    missing = np.isnan(context[tile.inner])
    if imputer is None or not missing.any():
        return np.full((tables_of(level), int(missing.sum())), np.nan, context.dtype)
    frame = header.frame(context, tile.context, tile.columns)
    return np.stack([table.to_numpy()[tile.inner][missing] for table in _tables(imputer, frame, level)])


def _tables(imputer: BaseImputer[Any], frame: pd.DataFrame, level: float | None) -> tuple[Any, ...]:
    if level is None:
        return (imputer.transform(frame),)
    assert isinstance(imputer, IntervalImputer)
    return imputer.transform_interval(frame, level)

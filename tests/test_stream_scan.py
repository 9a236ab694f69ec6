"""One pass over a table finds its scale, gaps and damage, whatever is read at a time."""

from __future__ import annotations

import numpy as np
import pytest
from array_tables import ArraySource
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastimpute.gaps import gap_lengths
from fastimpute.series import Scaler
from fastimpute.stream.lots import lots
from fastimpute.stream.scan import Scan, looks
from fastimpute.stream.tiles import Tiles

CELLS = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)
TABLES = hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 12)), elements=CELLS)


def scanned(table: np.ndarray, bands: int = 3, groups: int = 2, strip_bytes: int = 200) -> Scan:
    rows, sensors = table.shape
    tiles = Tiles(rows, sensors, min(bands, rows), min(groups, sensors), halo=2)
    return Scan.of(looks(ArraySource(table), lots(tiles, workers=1), strip_bytes))


@given(TABLES)
def test_scale_is_that_of_the_whole_table(table: np.ndarray) -> None:
    found, whole = scanned(table), Scaler.fit(table, np.isnan(table))
    largest = np.nanmax(np.abs(np.where(np.isnan(table), 0, table)))
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-9, atol=1e-9 * largest)
    np.testing.assert_allclose(found.std, whole.std, rtol=1e-6, atol=1e-7 * largest)


@given(TABLES)
def test_the_longest_gap_crosses_bands(table: np.ndarray) -> None:
    longest = [gap_lengths(np.isnan(table[:, [column]])).max(initial=0) for column in range(table.shape[1])]
    assert scanned(table, bands=5).longest_gap.tolist() == longest


@given(TABLES, st.integers(1, 10**5))
def test_what_is_read_at_a_time_changes_no_bit(table: np.ndarray, strip_bytes: int) -> None:
    one, other = scanned(table, strip_bytes=1).arrays(), scanned(table, strip_bytes=strip_bytes).arrays()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@given(TABLES)
def test_observed_cells_are_counted_by_band(table: np.ndarray) -> None:
    found = scanned(table)
    assert found.observed.sum(0).tolist() == (~np.isnan(table)).sum(0).tolist()


def test_another_cell_gives_another_digest() -> None:
    table = np.ones((9, 3), np.float32)
    changed = table.copy()
    changed[7, 1] = 2
    assert scanned(table).digest != scanned(changed).digest


def test_a_constant_sensor_has_its_own_value_and_no_deviation() -> None:
    table = np.full((50, 1), 0.1, np.float32)
    found = scanned(table)
    assert (found.mean[0], found.std[0]) == (np.float64(np.float32(0.1)), 0.0)


def test_an_infinity_is_named() -> None:
    table = np.ones((9, 3), np.float32)
    table[7, 2] = np.inf
    with pytest.raises(ValueError, match="column 's2' holds an infinity at row 7"):
        scanned(table)


@given(TABLES)
def test_arrays_bring_a_scan_back(table: np.ndarray) -> None:
    found = scanned(table)
    again = Scan.from_arrays(found.arrays())
    assert (again.digest, again.longest_gap.tolist()) == (found.digest, found.longest_gap.tolist())

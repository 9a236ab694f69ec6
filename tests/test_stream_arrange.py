"""Sensors that move together come into one group; nothing but the order of the columns changes, and it is undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_tables import ArraySource, NpySink
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter

import fastimpute as fi
from fastimpute.stream import tiles as tiling
from fastimpute.stream.arrange import ArrangedSource, Likeness, order_of
from fastimpute.stream.run import run
from fastimpute.stream.tiles import Tiles
from fastimpute.stream.wish import Wish

ROWS, SENSORS = 900, 24
ROADS = np.arange(SENSORS) % 12  # no two columns of a group as they stand are of one road
Cells = NDArray[np.float32]


def roads(seed: int = 0, share: float = 0.3) -> Cells:
    """Twelve roads with a state each, and one day's rhythm for all."""
    rng = np.random.default_rng(seed)
    state = 6 * lfilter([0.3], [1, -0.95], rng.normal(size=(ROWS, 12)), axis=0)
    cells = state[:, ROADS] + 9 * np.sin(np.arange(ROWS) / 46)[:, None] + 0.3 * rng.normal(size=(ROWS, SENSORS))
    return np.where(rng.random(cells.shape) < share, np.nan, cells).astype(np.float32)


def small(monkeypatch: pytest.MonkeyPatch, district: int = 16) -> Tiles:
    for name, value in {"CONTEXT_CELLS": 1500, "WIDEST": 8, "LEAST_ROWS": 20, "DISTRICT": district}.items():
        monkeypatch.setattr(tiling, name, value)
    return Tiles.of(ROWS, SENSORS)


def filled(cells: Cells, folder: Path, imputer: fi.imputer.BaseImputer) -> tuple[Cells, ArraySource]:
    source, target = ArraySource(cells), folder / "out.npy"
    wish = Wish("table.npy", {"size": 1}, {}, imputer, None, None, memory=10**8, seed=0)
    run(
        lambda spool: source,
        wish,
        [target],
        NpySink,
        report=print,
        log=lambda event: None,
        verbose=False,
    )
    return np.load(target), source


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_both_sensors_of_a_road_come_into_one_group(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    tiles = small(monkeypatch)
    order = order_of(ArraySource(roads(share=share)), tiles, seed=0)
    assert tiles.groups == 3
    for group in range(3):
        assert len(set(ROADS[order[tiles.group(group)]])) == 4


def test_silent_sensors_share_groups_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, cells = small(monkeypatch), roads()
    alive = np.array([3, 4, 9, 15, 16, 21])  # three roads
    cells[:, np.setdiff1d(np.arange(SENSORS), alive)] = np.nan
    order = order_of(ArraySource(cells), tiles, seed=0)
    assert set(alive) <= set(order[tiles.group(0)])


@given(seed=st.integers(0, 1000), district=st.integers(1, 4))
def test_every_sensor_has_one_place_and_stays_in_its_district(seed: int, district: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        tiles = small(patched, district)
        order = order_of(ArraySource(roads(seed, share=0.9)), tiles, seed)
        for number in range(tiles.districts):
            columns = tiles.district(number)
            assert sorted(order[columns]) == list(range(columns.start, columns.stop))


def test_one_group_is_not_looked_at() -> None:
    source = ArraySource(roads())
    assert (order_of(source, Tiles.of(ROWS, SENSORS), seed=0) == np.arange(SENSORS)).all()
    assert source.reads == []


def test_sums_are_of_whole_numbers_so_that_no_rounding_can_change_the_order() -> None:
    likeness = Likeness.of(roads()) + Likeness.of(roads(1))
    for sums in (likeness.products, likeness.pairs):
        assert (sums == np.rint(sums)).all()
        assert np.abs(sums).max() < 2**53
    np.testing.assert_array_equal(likeness.correlation(), likeness.correlation().T)


def test_silent_constant_and_infinite_sensors_are_like_no_other() -> None:
    cells = roads()
    cells[:, 1], cells[:, 2], cells[:, 4] = np.nan, 5, np.inf
    correlation = Likeness.of(cells).correlation()
    assert np.isfinite(correlation).all()
    assert not correlation[[1, 4]].any()


@given(order=st.permutations(range(SENSORS)), first=st.integers(0, SENSORS - 1), width=st.integers(1, SENSORS))
def test_an_arranged_table_has_its_names_with_its_columns(order: list[int], first: int, width: int) -> None:
    cells = roads()
    source = ArrangedSource(ArraySource(cells), np.array(order))
    columns = slice(first, min(first + width, SENSORS))
    read = source.read(slice(10, 20), columns)
    np.testing.assert_array_equal(read, cells[10:20, order[columns]])
    assert source.header.names[columns] == tuple(f"s{column}" for column in order[columns])
    assert read.flags.c_contiguous


def test_gaps_are_filled_from_the_same_road_and_observed_cells_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small(monkeypatch)
    monkeypatch.setattr(tiling, "CONTEXT_CELLS", 8 * ROWS)
    truth, cells = roads(share=0), roads(share=0)
    cells[200:260, 4] = np.nan
    small_spirit = fi.SPIRITImputer(loops=1, train_steps=6, hidden_dim=16, random_state=0, verbose=False)
    out, _ = filled(cells, tmp_path, small_spirit)
    seen = ~np.isnan(cells)
    np.testing.assert_array_equal(out[seen], cells[seen])
    assert np.abs(out - truth)[~seen].mean() < 1  # another road is of no use


def test_a_method_that_fills_each_sensor_by_itself_takes_the_columns_as_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiles = small(monkeypatch)
    _, source = filled(roads(), tmp_path, fi.LinearImputer())
    assert source.reads[0] == (tiles.band(0), slice(0, SENSORS))


def test_an_infinite_cell_is_named_by_its_own_column(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small(monkeypatch)
    cells = roads()
    cells[500, 7] = np.inf
    with pytest.raises(ValueError, match="column 's7' holds an infinity at row 500"):
        filled(cells, tmp_path, fi.GaussianImputer(random_state=0))

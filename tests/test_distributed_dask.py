"""Dask: arrays and files come out the bits of a single process, whatever the chunks, and whichever worker is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from array_tables import ArraySource, NpySink
from click.testing import CliRunner
from distributed import Client, LocalCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ranked_run import SMALL_TILES, cut_small

import fastimpute as fi
from fastimpute.cli import commands
from fastimpute.distributed.cluster import run_on_cluster
from fastimpute.distributed.graph import About, scanned
from fastimpute.imputer import BaseImputer
from fastimpute.stream import tiles as tiling
from fastimpute.stream.lots import lots
from fastimpute.stream.run import run
from fastimpute.stream.scan import Scan, looks
from fastimpute.stream.summary import Summary
from fastimpute.stream.tiles import Tiles
from fastimpute.stream.wish import Wish

ROWS, SENSORS = 1400, 21
Cells = NDArray[np.float32]
INDEX = pd.date_range("2026-01-05", periods=ROWS, freq="15min")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL_TILES.items():
        monkeypatch.setattr(tiling, name, value)


@pytest.fixture(scope="module")
def table() -> Cells:
    rng = np.random.default_rng(0)
    cells = (np.sin(np.arange(ROWS) / 8)[:, None] + rng.normal(0, 0.1, (ROWS, SENSORS))).astype(np.float32)
    cells[rng.random(cells.shape) < 0.2] = np.nan
    cells[300:420, 3] = np.nan
    return cells


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers, processes of their own."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as connected,
    ):
        yield connected


def wish(imputer: BaseImputer[Any] | None = None, level: float | None = None) -> Wish:
    return Wish("table.npy", {"size": 1}, {}, imputer or fi.LinearImputer(), None, level, memory=10**8, seed=0)


def by_file(cells: NDArray[Any], folder: Path, wanted: Wish, index: pd.DatetimeIndex | None = None) -> list[Any]:
    """What a single process makes of the same table as a file."""
    targets = [folder / f"{number}.npy" for number in range(1 if wanted.level is None else 3)]
    run(
        lambda spool: ArraySource(cells, index),
        wanted,
        targets,
        NpySink,
        report=print,
        log=lambda event: None,
        verbose=False,
    )
    return [np.load(target) for target in targets]


def tiny_spirit() -> fi.SPIRITImputer:
    return fi.SPIRITImputer(window=6, neighbors=2, train_steps=6, hidden_dim=16, loops=1, random_state=0)


def computed(array: Any) -> NDArray[Any]:
    """On one thread of this process."""
    values: NDArray[Any] = array.compute(scheduler="synchronous")
    return values


def killing(place: Path) -> None:
    """End this process as the system's memory killer would, if it is the first to come here."""
    try:
        place.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


# ---- arrays ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(60, 2000), columns=st.integers(3, 30))
def test_an_array_of_any_chunks_comes_out_as_a_file_does(
    table: Cells, tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int
) -> None:
    given_array = da.from_array(table, chunks=(rows, columns))
    lazy = fi.dask.impute(given_array, fi.LinearImputer())
    filled, seen = computed(lazy), ~np.isnan(table)
    assert lazy.chunks == given_array.chunks
    assert filled.dtype == table.dtype
    assert filled[seen].tobytes() == table[seen].tobytes()
    assert np.isfinite(filled).all()
    assert filled.tobytes() == by_file(table, tmp_path_factory.mktemp("file"), wish())[0].tobytes()


def test_the_scan_of_an_array_is_that_of_a_file(table: Cells) -> None:
    cells = table * np.float32(1e3)
    cells[:, 5] = 7.0
    source, tiles = ArraySource(cells), Tiles.of(*cells.shape)
    heights, widths = (
        tuple(part.stop - part.start for part in map(cut, range(count)))
        for cut, count in ((tiles.band, tiles.bands), (tiles.group, tiles.groups))
    )
    about = dask.delayed(About(source.header, tiles, wish(), np.arange(tiles.sensors)), traverse=False)
    found = scanned(da.from_array(cells, chunks=(heights, widths)), about).compute(scheduler="synchronous")
    expected = Scan.of(looks(source, lots(tiles, workers=1), 10**6))
    for name in ("observed", "mean", "std"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


def test_spirit_with_intervals_and_time_stamps_comes_out_as_of_a_file(table: Cells, tmp_path: Path) -> None:
    cells = table[:400, :9].astype(np.float64)
    tables = fi.dask.impute(da.from_array(cells, chunks=150), tiny_spirit(), index=INDEX[:400], level=0.8)
    expected = by_file(cells, tmp_path, wish(tiny_spirit(), level=0.8), INDEX[:400])
    for array, file in zip(dask.compute(*tables, scheduler="synchronous"), expected, strict=True):
        assert array.tobytes() == file.tobytes()


def test_a_fitted_imputer_fills_all_sensors_together(table: Cells) -> None:
    imputer = fi.LinearImputer().fit(table)
    filled = computed(fi.dask.impute(da.from_array(table[:60], chunks=20), imputer))
    assert filled.tobytes() == imputer.transform(table[:60]).tobytes()


def test_a_dataarray_comes_back_as_one(table: Cells) -> None:
    names = [f"s{column}" for column in range(SENSORS)]
    array = xr.DataArray(table, {"time": INDEX, "sensor": names}, ("time", "sensor"), "speed", {"unit": "mph"})
    chunked = array.transpose("sensor", "time").chunk({"time": 500})
    lazy = fi.dask.impute(chunked, fi.LinearImputer())
    filled = lazy.compute(scheduler="synchronous")
    plain = fi.dask.impute(da.from_array(table), fi.LinearImputer(), index=INDEX)
    xr.testing.assert_identical(filled.transpose("time", "sensor"), array.copy(data=computed(plain)))
    assert (lazy.dims, lazy.chunks) == (chunked.dims, chunked.chunks)


def test_integers_are_returned_as_they_are() -> None:
    numbers = da.ones((5, 2), dtype=np.int32)
    assert fi.dask.impute(numbers, fi.LinearImputer()) is numbers


def test_a_silent_sensor_is_refused_or_kept(table: Cells) -> None:
    cells = table.copy()
    cells[:, 4] = np.nan
    with pytest.raises(ValueError, match="column 4 has no observed value"):
        computed(fi.dask.impute(da.from_array(cells), fi.LinearImputer()))
    kept = computed(fi.dask.impute(da.from_array(cells), fi.LinearImputer(all_missing="keep")))
    assert np.isnan(kept).any(0).nonzero()[0].tolist() == [4]


def test_an_infinite_cell_is_named(table: Cells) -> None:
    cells = table.copy()
    cells[777, 13] = np.inf
    with pytest.raises(ValueError, match="column 13 holds an infinity at row 777"):
        computed(fi.dask.impute(da.from_array(cells, chunks=400), fi.LinearImputer()))


@pytest.mark.parametrize(
    ("array", "facts", "error", "message"),
    [
        (np.zeros((3, 2)), {}, TypeError, "got numpy.ndarray"),
        (da.zeros(3), {}, ValueError, "got 1 dimensions"),
        (da.zeros((0, 3)), {}, ValueError, "array is empty"),
        (da.zeros((3, 2), dtype=complex), {}, TypeError, "dtype complex128"),
        (da.zeros((3, 2)), {"index": INDEX[:2]}, ValueError, "each of the 3 rows, got 2"),
        (da.zeros((3, 2)), {"index": INDEX[[0, 2, 1]]}, ValueError, "unsorted time stamps"),
        (da.zeros((3, 2)), {"level": 0.9}, ValueError, "LinearImputer has no intervals"),
    ],
)
def test_what_cannot_be_imputed_is_refused_at_once(
    array: Any, facts: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fi.dask.impute(array, fi.LinearImputer(), **facts)


def test_every_pass_reads_the_array_anew_when_the_one_before_is_done(table: Cells) -> None:
    """So that nothing of it is kept in memory from one to the next."""
    reads: list[int] = []

    def noted(block: Cells, block_id: tuple[int, int]) -> Cells:
        reads.append(block_id[0])
        return block

    array = da.from_array(table, chunks=(300, SENSORS)).map_blocks(noted, meta=table[:0])
    computed(fi.dask.impute(array, fi.LinearImputer()))
    blocks = array.numblocks[0]
    assert [sorted(reads[first : first + blocks]) for first in range(0, len(reads), blocks)] == [[*range(blocks)]] * 3


def test_an_array_in_the_memory_of_two_workers(table: Cells, tmp_path: Path, client: Client) -> None:
    persisted = client.persist(da.from_array(table, chunks=(300, 10)))
    filled = fi.dask.impute(persisted, fi.LinearImputer()).compute(scheduler=client)
    assert filled.tobytes() == by_file(table, tmp_path, wish())[0].tobytes()


def test_an_array_on_two_workers_one_of_which_is_killed(table: Cells, tmp_path: Path, client: Client) -> None:

    def deadly(block: Cells, block_id: tuple[int, int]) -> Cells:
        if block_id == (1, 0):
            killing(tmp_path / "killed")
        return block

    before = set(client.scheduler_info(n_workers=-1)["workers"])
    array = da.from_array(table, chunks=(300, SENSORS)).map_blocks(deadly, meta=table[:0])
    lazy = fi.dask.impute(array, fi.LinearImputer())
    filled = lazy.compute(scheduler=client)
    assert (tmp_path / "killed").exists()
    assert set(client.scheduler_info(n_workers=-1)["workers"]) != before
    assert filled.tobytes() == by_file(table, tmp_path, wish())[0].tobytes()


# ---- files -----------------------------------------------------------------------------------------------------------


@dataclass
class DeadlySource(ArraySource):
    """An array whose reader is killed once, in the midst of the work."""

    def __init__(self, cells: NDArray[Any], place: Path) -> None:
        super().__init__(cells)
        self.place = place

    def read(self, rows: slice, columns: slice = slice(None)) -> NDArray[Any]:
        if rows.start > ROWS // 2:
            killing(self.place)
        return super().read(rows, columns)


def open_deadly(table: Path, place: Path, spool: Path) -> ArraySource:
    cut_small()
    return DeadlySource(np.load(table), place)


class DamagedSource(ArraySource):
    """An array that is found damaged when the work has begun."""

    def __init__(self, cells: NDArray[Any], manifest: Path) -> None:
        super().__init__(cells)
        self.manifest = manifest

    def read(self, rows: slice, columns: slice = slice(None)) -> NDArray[Any]:
        if self.manifest.exists():
            raise ValueError("rows 3 to 5 are damaged")
        return super().read(rows, columns)


def open_damaged(table: Path, manifest: Path, spool: Path) -> ArraySource:
    cut_small()
    return DamagedSource(np.load(table), manifest)


def on_cluster(client: Client, cells: Cells, target: Path, open_on_worker: Any) -> Summary | None:
    return run_on_cluster(
        lambda spool: ArraySource(cells),
        wish(),
        [target],
        NpySink,
        client=client,
        open_on_worker=open_on_worker,
        report=print,
        log=lambda event: None,
        verbose=False,
    )


def test_a_file_on_two_workers_one_of_which_is_killed(table: Cells, tmp_path: Path, client: Client) -> None:
    np.save(tmp_path / "in.npy", table)
    summary = on_cluster(
        client, table, tmp_path / "out.npy", partial(open_deadly, tmp_path / "in.npy", tmp_path / "killed")
    )
    assert (tmp_path / "killed").exists()
    assert summary is not None
    assert summary.missing == np.isnan(table).sum()
    assert np.load(tmp_path / "out.npy").tobytes() == by_file(table, tmp_path, wish())[0].tobytes()
    assert not (tmp_path / "out.npy.partial").exists()


def test_what_fails_on_a_worker_is_said_here_and_what_is_done_is_kept(
    table: Cells, tmp_path: Path, client: Client
) -> None:
    np.save(tmp_path / "in.npy", table)
    manifest = tmp_path / "out.npy.partial" / "manifest.json"
    with pytest.raises(ValueError, match="rows 3 to 5 are damaged"):
        on_cluster(client, table, tmp_path / "out.npy", partial(open_damaged, tmp_path / "in.npy", manifest))
    assert manifest.exists()


def test_impute_files_reads_and_writes_files(table: Cells, tmp_path: Path, client: Client) -> None:
    client.run(cut_small)
    np.save(tmp_path / "in.npy", table)
    fi.dask.impute_files(client, tmp_path / "in.npy", tmp_path / "out.npy", fi.LinearImputer(), report=print)
    assert np.load(tmp_path / "out.npy").tobytes() == by_file(table, tmp_path, wish())[0].tobytes()


def test_the_command_line_takes_a_scheduler(table: Cells, tmp_path: Path, client: Client) -> None:
    client.run(cut_small)
    np.save(tmp_path / "in.npy", table)
    address = client.scheduler_info()["address"]
    line = ["impute", str(tmp_path / "in.npy"), str(tmp_path / "out.npy"), "--method", "linear"]
    done = CliRunner().invoke(commands, [*line, "--scheduler", address])
    assert done.exit_code == 0, done.output
    assert np.load(tmp_path / "out.npy").tobytes() == by_file(table, tmp_path, wish())[0].tobytes()


def test_no_scheduler_at_an_address_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastimpute.distributed.dask.CONNECT_SECONDS", 0.2)
    with (
        pytest.raises(ValueError, match="no Dask scheduler answers at"),
        fi.dask.connected("tcp://127.0.0.1:9"),
    ):
        pass

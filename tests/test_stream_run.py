"""A table imputed in tiles: the same bits however it is done and however often it is broken off; refusals keep work."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from array_tables import ArraySource, NpySink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute.imputer import BaseImputer
from fastimpute.io.sink import open_sink
from fastimpute.stream import job as jobs
from fastimpute.stream import output as outputs
from fastimpute.stream import tiles as tiling
from fastimpute.stream.arrange import ArrangedSource
from fastimpute.stream.clock import Clock
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import begin, fill_lots, fit_models, resume
from fastimpute.stream.lots import LostWorker, lots
from fastimpute.stream.output import Output, complete
from fastimpute.stream.run import run
from fastimpute.stream.scan import Scan, looks
from fastimpute.stream.summary import Summary
from fastimpute.stream.survey import Survey
from fastimpute.stream.tiles import Tiles
from fastimpute.stream.wish import Wish

ROWS, SENSORS, MEMORY = 700, 21, 10**8
Setting = dict[str, Any]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that a small table has several of."""
    monkeypatch.setattr(tiling, "CONTEXT_CELLS", 1500)
    monkeypatch.setattr(tiling, "LEAST_ROWS", 50)
    monkeypatch.setattr(tiling, "WIDEST", 8)


@pytest.fixture(scope="module")
def table() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    cells = (np.sin(np.arange(ROWS) / 8)[:, None] + rng.normal(0, 0.1, (ROWS, SENSORS))).astype(np.float32)
    cells[rng.random(cells.shape) < 0.2] = np.nan
    cells[100:180, 3] = np.nan
    return cells


def wish(imputer: BaseImputer[Any] | None = None, **changes: Any) -> Wish:
    plain = Wish("table.npy", {"size": 1}, {}, imputer or fi.LinearImputer(), None, None, MEMORY, seed=0)
    return dataclasses.replace(plain, **changes)


def imputed(
    cells: NDArray[Any], target: Path, wanted: Wish | None = None, sink: Any = NpySink, **changes: Any
) -> Summary | None:
    wanted = wanted or wish()
    targets = [target, target.with_suffix(".lower.npy"), target.with_suffix(".upper.npy")]
    plain: Setting = {
        "report": lambda line: None,
        "log": lambda event: None,
        "verbose": False,
    }
    source = ArraySource(cells)
    return run(lambda spool: source, wanted, targets[: 1 if wanted.level is None else 3], sink, **(plain | changes))


class Broken(Exception):
    """What ends a run in these tests."""


def after(count: int, kind: str | None = None) -> Callable[[dict[str, Any]], None]:
    """A log that ends the run at its nth event, or its nth of a kind."""
    events = iter(range(count))

    def log(event: dict[str, Any]) -> None:
        if kind in (None, event["event"]) and next(events, None) is None:
            raise Broken

    return log


def test_observed_cells_stay_and_nothing_is_left_missing(table: NDArray[np.float32], tmp_path: Path) -> None:
    imputed(table, tmp_path / "out.npy")
    filled = np.load(tmp_path / "out.npy")
    seen = ~np.isnan(table)
    assert filled.dtype == table.dtype
    assert filled[seen].tobytes() == table[seen].tobytes()
    assert np.isfinite(filled).all()


def test_a_tile_sees_its_halo(table: NDArray[np.float32], tmp_path: Path) -> None:
    """Gaps that end within the halo come out as in one piece."""
    imputed(table, tmp_path / "out.npy")
    whole = fi.LinearImputer().fit_transform(table)
    others = np.arange(SENSORS) != 3
    np.testing.assert_allclose(np.load(tmp_path / "out.npy")[:, others], whole[:, others], rtol=0, atol=1e-5)


@pytest.mark.parametrize("sink", [NpySink, open_sink], ids=["rows in order", "rows in any order"])
@pytest.mark.parametrize("memory", [10**6, 10**7, 10**10])
def test_memory_changes_no_bit(table: NDArray[np.float32], tmp_path: Path, memory: int, sink: Any) -> None:
    imputed(table, tmp_path / "one.npy", sink=sink)
    imputed(table, tmp_path / "other.npy", wish(memory=memory), sink=sink)
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "other.npy").read_bytes()


def shared_by_three(output: Output) -> None:
    """Write the rows of an output in shares, the last ones first."""
    for pieces in reversed(output.shares(3)):
        tables = pickle.loads(pickle.dumps(output.tables))
        dataclasses.replace(output, tables=tables).write(pieces, lambda cells: None)


def test_shares_in_any_order_change_no_bit(table: NDArray[np.float32], tmp_path: Path) -> None:
    imputed(table, tmp_path / "one.npy")
    target, source, wanted = tmp_path / "other.npy", ArraySource(table), wish()
    folder, clock = WorkFolder.beside(target), Clock()

    def look(arranged: ArrangedSource) -> Scan:
        survey = Survey.of(arranged, wanted, folder, 3, clock, lambda event: None)
        for rank in (1, 2, 0):
            survey.look(range(rank, len(survey.lots), 3), lambda cells: None)
        return survey.result()

    with folder.locked():
        first = begin(source, wanted, folder, report=print, look=look, clock=clock, log=lambda event: None)
        fit_models(first, reversed(range(first.tiles.groups)), lambda: None)
        for rank in (2, 0, 1):
            worker = resume(ArrangedSource.kept(source, folder), wanted, folder, clock=Clock(), log=lambda event: None)
            fill_lots(worker, lots(worker.tiles, 3)[rank::3], lambda cells: None)
        complete(first, [target], open_sink, shared_by_three, verbose=False)
    assert np.load(target).tobytes() == np.load(tmp_path / "one.npy").tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npy", "other.npy"]


def test_a_complete_output_of_an_input_that_has_changed_since_is_put_in_place_with_a_word(
    table: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with monkeypatch.context() as patched, pytest.raises(Broken):
        patched.setattr("fastimpute.stream.output.put_in_place", Mock(side_effect=Broken))
        imputed(table, tmp_path / "out.npy")
    imputed(table + 1, tmp_path / "out.npy", wish(stamp={"size": 2}), report=told.append)
    assert len(told) == 1
    assert told[0].startswith("table.npy has changed since")
    seen = ~np.isnan(table)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy")[seen], table[seen])


@pytest.mark.parametrize("kind", ["scanned", "tile", "written"])
def test_a_run_broken_off_reads_no_more(table: NDArray[np.float32], tmp_path: Path, kind: str) -> None:
    """Nothing is left to the garbage collector, which may come by inside a thread that is just being started."""
    before = set(threading.enumerate())
    with pytest.raises(Broken) as broken:  # keeps the frames, and what is suspended in them
        imputed(table, tmp_path / "out.npy", log=after(0, kind))
    assert broken.tb is not None
    assert set(threading.enumerate()) <= before


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=st.lists(st.integers(1, 25), min_size=1, max_size=3))
def test_a_run_broken_off_at_any_event_goes_on_to_the_same_bits(
    table: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory, moments: list[int]
) -> None:
    place = tmp_path_factory.mktemp("broken")
    imputed(table, place / "one.npy")
    for moment in moments:
        try:
            imputed(table, place / "other.npy", log=after(moment))
        except Broken:
            assert not ((place / "other.npy").exists() and (place / "other.npy.partial").exists())
        if (place / "other.npy").exists():
            break
    imputed(table, place / "other.npy")
    assert (place / "one.npy").read_bytes() == (place / "other.npy").read_bytes()


def test_finished_tiles_are_not_done_again(
    table: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Broken):
        imputed(table, tmp_path / "out.npy", log=after(4, "tile"))
    done: list[str] = []
    kept = len(list((tmp_path / "out.npy.partial" / "tiles").iterdir()))
    true_fill = jobs.fill_tile

    def counted(imputer: Any, header: Any, tile: Any, *rest: Any) -> Any:
        done.append(tile.name)
        return true_fill(imputer, header, tile, *rest)

    monkeypatch.setattr(jobs, "fill_tile", counted)
    imputed(table, tmp_path / "out.npy")
    assert kept > 0
    assert len(done) + kept == Tiles.of(ROWS, SENSORS).count


def test_an_interrupt_keeps_finished_tiles_and_no_output(table: NDArray[np.float32], tmp_path: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "tile":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imputed(table, tmp_path / "out.npy", log=interrupt)
    assert not (tmp_path / "out.npy").exists()
    assert any((tmp_path / "out.npy.partial" / "tiles").iterdir())


def broken_off(cells: NDArray[np.float32], target: Path) -> Path:
    """Break a run off; returns its folder."""
    with pytest.raises(Broken):
        imputed(cells, target, log=after(4, "tile"))
    return target.with_name(f"{target.name}.partial")


def test_a_damaged_tile_is_named_and_done_again(table: NDArray[np.float32], tmp_path: Path) -> None:
    imputed(table, tmp_path / "one.npy")
    folder, lines = broken_off(table, tmp_path / "out.npy"), list[str]()
    damaged = sorted((folder / "tiles").iterdir())[1]
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    summary = imputed(table, tmp_path / "out.npy", report=lines.append)
    assert any(str(damaged) in line and "wrong checksum" in line for line in lines)
    assert summary is not None
    assert summary.retried == 1
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "out.npy").read_bytes()


def test_a_truncated_tile_is_done_again(table: NDArray[np.float32], tmp_path: Path) -> None:
    imputed(table, tmp_path / "one.npy")
    folder = broken_off(table, tmp_path / "out.npy")
    torn = sorted((folder / "tiles").iterdir())[0]
    torn.write_bytes(torn.read_bytes()[:20])
    imputed(table, tmp_path / "out.npy")
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "out.npy").read_bytes()


def test_a_tile_damaged_while_the_output_is_written_is_named(table: NDArray[np.float32], tmp_path: Path) -> None:
    def spoil(event: dict[str, Any]) -> None:
        if event["event"] == "tile":
            for path in (tmp_path / "out.npy.partial" / "tiles").iterdir():
                path.write_bytes(b"nothing")

    with pytest.raises(ValueError, match=r"tile \d{6}-\d{4} is not readable"):
        imputed(table, tmp_path / "out.npy", log=spoil)
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"imputer": fi.LinearImputer(all_missing="keep")}, "method.all_missing was 'raise' and is 'keep'"),
        ({"reading": {"channel": 2}}, "source.channel was None and is 2"),
        ({"seed": 3}, "method.seed was 0 and is 3"),
    ],
)
def test_other_settings_are_refused(table: NDArray[np.float32], tmp_path: Path, changes: Setting, named: str) -> None:
    broken_off(table, tmp_path / "out.npy")
    with pytest.raises(ValueError, match=named):
        imputed(table, tmp_path / "out.npy", wish(**changes))


def test_a_folder_of_another_version_is_refused(table: NDArray[np.float32], tmp_path: Path) -> None:
    manifest = broken_off(table, tmp_path / "out.npy") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged \(it is of another version"):
        imputed(table, tmp_path / "out.npy")


def test_what_was_seen_before_a_worker_was_lost_is_not_looked_at_again(
    table: NDArray[np.float32], tmp_path: Path
) -> None:
    class Losing(ArraySource):
        def read(self, rows: slice, columns: slice = slice(None)) -> NDArray[Any]:
            if len(self.reads) == 4:
                raise LostWorker
            return super().read(rows, columns)

    def run_on(source: ArraySource) -> int:
        plain: Setting = {"report": print, "log": lambda event: None, "verbose": False}
        run(lambda spool: source, wish(), [tmp_path / "out.npy"], NpySink, **plain)
        return len(source.reads)

    imputed(table, tmp_path / "one.npy")
    whole = run_on(ArraySource(table))
    (tmp_path / "out.npy").unlink()
    with pytest.raises(LostWorker):
        run_on(Losing(table))
    kept = len(list((tmp_path / "out.npy.partial" / "scan").iterdir()))
    assert kept > 0
    assert run_on(ArraySource(table)) == whole - kept
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "out.npy").read_bytes()


def test_what_was_seen_of_other_data_is_looked_at_again(table: NDArray[np.float32], tmp_path: Path) -> None:
    folder = WorkFolder.beside(tmp_path / "out.npy")
    with folder.locked():
        for stamp in ({"size": 1}, {"size": 2}):
            source = ArraySource(table * stamp["size"])
            survey = Survey.of(source, wish(stamp=stamp), folder, 1, Clock(), lambda event: None)
            survey.look(range(len(survey.lots)), lambda cells: None)
    np.testing.assert_array_equal(survey.result().mean, Scan.of(looks(source, survey.lots, MEMORY)).mean)


def test_changed_data_are_refused(table: NDArray[np.float32], tmp_path: Path) -> None:
    broken_off(table, tmp_path / "out.npy")
    with pytest.raises(ValueError, match=r"table\.npy has changed since"):
        imputed(table + 1, tmp_path / "out.npy", wish(stamp={"size": 2}))


def test_the_same_data_with_another_stamp_are_gone_on_with(table: NDArray[np.float32], tmp_path: Path) -> None:
    broken_off(table, tmp_path / "out.npy")
    assert imputed(table, tmp_path / "out.npy", wish(stamp={"size": 2})) is not None


def test_a_second_process_is_refused(table: NDArray[np.float32], tmp_path: Path) -> None:
    with (
        WorkFolder.beside(tmp_path / "out.npy").locked(),
        pytest.raises(ValueError, match="another process is at work"),
    ):
        imputed(table, tmp_path / "out.npy")


def test_too_little_memory_is_refused_with_the_size_needed(table: NDArray[np.float32], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one tile of 1,274 cells takes about 0\.1 MB"):
        imputed(table, tmp_path / "out.npy", wish(memory=1000))
    assert not list(tmp_path.iterdir())


def test_a_sensor_never_observed_is_refused_before_anything_is_kept(table: NDArray[np.float32], tmp_path: Path) -> None:
    dead = table.copy()
    dead[:, 5] = np.nan
    with pytest.raises(ValueError, match="column 's5' has no observed value"):
        imputed(dead, tmp_path / "out.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("policy", "left"), [("keep", True), ("mean_of_neighbors", False)])
def test_a_sensor_never_observed_follows_the_policy(
    table: NDArray[np.float32], tmp_path: Path, policy: str, left: bool
) -> None:
    dead = table.copy()
    dead[:, 5] = np.nan
    summary = imputed(dead, tmp_path / "out.npy", wish(fi.LinearImputer(all_missing=policy)))
    filled = np.load(tmp_path / "out.npy")
    assert np.isnan(filled[:, 5]).all() == left
    assert np.isfinite(np.delete(filled, 5, 1)).all()
    assert summary is not None
    assert summary.silent == ("s5",)


def test_a_group_without_any_observation_is_kept_on_request(table: NDArray[np.float32], tmp_path: Path) -> None:
    dead = table.copy()
    dead[:, :8] = np.nan
    with pytest.raises(ValueError, match="nor has any of its neighbours"):
        imputed(dead, tmp_path / "out.npy", wish(fi.LinearImputer(all_missing="mean_of_neighbors")))
    imputed(dead, tmp_path / "out.npy", wish(fi.LinearImputer(all_missing="keep")))
    assert np.isnan(np.load(tmp_path / "out.npy")).any(0).tolist() == [True] * 8 + [False] * 13


def test_a_sensor_silent_where_the_model_learns_is_filled_all_the_same(tmp_path: Path) -> None:
    cells = np.ones((ROWS, 3), np.float32)
    cells[1:, 1] = np.nan
    cells[::7, 0] = np.nan
    imputed(cells, tmp_path / "out.npy")
    assert (np.load(tmp_path / "out.npy") == 1).all()


def test_a_table_without_gaps_comes_back_as_it_is(tmp_path: Path) -> None:
    cells = np.arange(600, dtype=np.float64).reshape(200, 3)
    imputed(cells, tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").tobytes() == cells.tobytes()


@pytest.mark.parametrize("sink", [NpySink, open_sink], ids=["rows in order", "rows in any order"])
def test_intervals_come_with_the_filling(table: NDArray[np.float32], tmp_path: Path, sink: Any) -> None:
    imputer = fi.GaussianImputer(window=12, base="linear", random_state=0)
    imputed(table, tmp_path / "out.npy", wish(imputer, level=0.9), sink=sink)
    filled, lower, upper = (np.load(tmp_path / f"out{end}.npy") for end in ("", ".lower", ".upper"))
    missing = np.isnan(table)
    assert (lower[missing] < filled[missing]).all()
    assert (filled[missing] < upper[missing]).all()
    assert lower[~missing].tobytes() == upper[~missing].tobytes() == table[~missing].tobytes()


def test_a_fitted_imputer_fills_all_sensors_together(table: NDArray[np.float32], tmp_path: Path) -> None:
    imputer = fi.LinearImputer().fit(table)
    imputed(table, tmp_path / "out.npy", wish(imputer, model="digest"))
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()


def test_time_stamps_reach_the_imputer(table: NDArray[np.float32], tmp_path: Path) -> None:
    index = pd.date_range("2026-03-02", periods=ROWS, freq="h")
    seen: list[pd.DatetimeIndex] = []

    class Watching(fi.LinearImputer):
        def transform(self, X: Any) -> Any:
            seen.append(X.index)
            return super().transform(X)

    imputer = Watching().fit(pd.DataFrame(table, index=index, columns=[f"s{number}" for number in range(SENSORS)]))
    source = ArraySource(table, index)
    tile = Tiles.of(ROWS, SENSORS, groups=1).tile(1, 0)
    jobs.fill_tile(imputer, source.header, tile, source.read(tile.context), None)
    assert seen[0].equals(index[tile.context])


def test_an_output_complete_but_not_in_place_is_put_there(
    table: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imputed(table, tmp_path / "one.npy")

    def broken(folder: WorkFolder, targets: list[Path]) -> Iterator[None]:
        raise Broken

    with monkeypatch.context() as patch, pytest.raises(Broken):
        patch.setattr(outputs, "put_in_place", broken)
        imputed(table, tmp_path / "out.npy")
    assert imputed(np.zeros_like(table), tmp_path / "out.npy") is None
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "out.npy").read_bytes()
    assert not (tmp_path / "out.npy.partial").exists()


def test_a_full_disk_is_one_clear_error_and_keeps_what_is_done(
    table: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_write, written = WorkFolder.write_tile, list[str]()

    def write_tile(folder: WorkFolder, tile: Any, values: Any) -> None:
        if len(written) == 3:
            raise ValueError(f"cannot write {folder.tile(tile)}: No space left on device")
        written.append(tile.name)
        true_write(folder, tile, values)

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="No space left on device"):
        patch.setattr(WorkFolder, "write_tile", write_tile)
        imputed(table, tmp_path / "out.npy")
    assert len(list((tmp_path / "out.npy.partial" / "tiles").iterdir())) == 3
    imputed(table, tmp_path / "out.npy")


def test_the_summary_names_the_longest_gap(table: NDArray[np.float32], tmp_path: Path) -> None:
    summary = imputed(table, tmp_path / "out.npy")
    assert summary is not None
    assert summary.longest_gaps[0][0] == "s3"
    assert summary.longest_gaps[0][1] >= 80
    assert summary.missing == np.isnan(table).sum()
    assert "longest gaps: s3" in str(summary)


def test_a_disk_that_is_full_when_the_output_is_written_keeps_all_tiles(
    table: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(sink: NpySink, cells: NDArray[Any]) -> None:
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match=r"out\.npy: No space left on device; finished"),
    ):
        patch.setattr(NpySink, "append", full)
        imputed(table, tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()
    assert len(list((tmp_path / "out.npy.partial" / "tiles").iterdir())) == Tiles.of(ROWS, SENSORS).count
    assert imputed(table, tmp_path / "out.npy") is not None


def test_a_complete_output_of_other_settings_is_not_put_in_place(
    table: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: WorkFolder, targets: list[Path]) -> None:
        raise Broken

    with monkeypatch.context() as patch, pytest.raises(Broken):
        patch.setattr(outputs, "put_in_place", broken)
        imputed(table, tmp_path / "out.npy")
    with pytest.raises(ValueError, match=r"method\.seed was 0 and is 3"):
        imputed(table, tmp_path / "out.npy", wish(seed=3))

"""Files of any size through the library and the command line: every format, refusals, logs, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute import io
from fastimpute.files import Reading, impute_file
from fastimpute.stream import tiles as tiling

ROWS, SENSORS = 400, 12


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    cells = 50 + 10 * np.sin(np.arange(ROWS) / 30)[:, None] + rng.normal(0, 1, (ROWS, SENSORS))
    cells[rng.random(cells.shape) < 0.2] = np.nan
    index = pd.date_range("2026-03-02", periods=ROWS, freq="5min", name="time")
    return pd.DataFrame(cells, index=index, columns=[f"s{number:02d}" for number in range(SENSORS)])


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "CONTEXT_CELLS", 600)
    monkeypatch.setattr(tiling, "LEAST_ROWS", 50)
    monkeypatch.setattr(tiling, "WIDEST", 5)


def quietly(source: Path, target: Path, **settings: object) -> list[str]:
    """Impute by straight lines; returns what was reported."""
    lines: list[str] = []
    plain = {"imputer": fi.LinearImputer(), "report": lines.append, "verbose": False}
    impute_file(source, target, **(plain | settings))  # type: ignore[arg-type]
    return lines


def cells_of(path: Path) -> NDArray[np.float64]:
    data = io.read(path).data
    return data.to_numpy(float) if isinstance(data, pd.DataFrame) else np.asarray(data, float)


def written(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".h5":
        frame.to_hdf(path, key="df", mode="w")
    elif path.suffix == ".npz":
        np.savez(path, data=frame.to_numpy())
    elif path.suffix == ".npy":
        np.save(path, frame.to_numpy())
    else:
        import zarr

        zarr.save_array(path, frame.to_numpy(), zarr_format=3)
    return path


SUFFIXES = (".csv", ".parquet", ".h5", ".npz", ".npy", ".zarr")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("small_tiles")
def test_every_format_comes_back_filled_and_otherwise_as_it_was(
    frame: pd.DataFrame, tmp_path: Path, suffix: str
) -> None:
    source = written(frame, tmp_path / f"mit Lücken {suffix}")
    target = tmp_path / f"gefüllt {suffix}"
    quietly(source, target)
    filled, seen = cells_of(target), frame.notna().to_numpy()
    assert filled[seen].tobytes() == frame.to_numpy()[seen].tobytes()
    assert np.isfinite(filled).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("small_tiles")
def test_the_format_of_the_input_changes_no_number(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    quietly(written(frame, tmp_path / "in.npy"), tmp_path / "one.npy")
    quietly(written(frame, tmp_path / f"in{suffix}"), tmp_path / "other.npy")
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "other.npy").read_bytes()


def test_an_output_may_replace_its_input(frame: pd.DataFrame, tmp_path: Path) -> None:
    for suffix in (".npy", ".zarr"):
        place = written(frame, tmp_path / f"table{suffix}")
        quietly(place, place)
        assert np.isfinite(cells_of(place)).all()
    assert len(list(tmp_path.iterdir())) == 2


def test_every_event_is_logged(frame: pd.DataFrame, tmp_path: Path) -> None:
    quietly(written(frame, tmp_path / "in.npy"), tmp_path / "out.npy", log_json=tmp_path / "log.jsonl")
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["scanned", "begin", "fitted", "tile", "written", "done"]
    assert events[-1]["cells"] == ROWS * SENSORS
    assert events[-1]["missing"] == int(frame.isna().sum().sum())


def test_many_zeros_are_worth_a_word(frame: pd.DataFrame, tmp_path: Path) -> None:
    lines = quietly(written(frame.fillna(0.0), tmp_path / "in.npy"), tmp_path / "out.npy")
    assert len(lines) == 1
    assert "of the cells are zero" in lines[0]


def test_zeros_are_missing_on_request(frame: pd.DataFrame, tmp_path: Path) -> None:
    source = written(frame.fillna(0.0), tmp_path / "in.npy")
    assert quietly(source, tmp_path / "out.npy", reading=Reading(zeros_as_missing=True)) == []
    quietly(written(frame, tmp_path / "nan.npy"), tmp_path / "other.npy")
    np.testing.assert_array_equal(cells_of(tmp_path / "out.npy"), cells_of(tmp_path / "other.npy"))


def test_intervals_go_beside_the_output(frame: pd.DataFrame, tmp_path: Path) -> None:
    imputer = fi.GaussianImputer(window=12, base="linear", random_state=0)
    quietly(written(frame, tmp_path / "in.csv"), tmp_path / "out.csv", imputer=imputer, level=0.9)
    lower, upper = (cells_of(tmp_path / f"out.{end}.csv") for end in ("lower", "upper"))
    missing = frame.isna().to_numpy()
    assert (lower[missing] < upper[missing]).all()


def test_a_saved_model_fills_a_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    fi.LinearImputer().fit(frame).save(tmp_path / "model.safetensors")
    quietly(written(frame, tmp_path / "in.csv"), tmp_path / "out.csv", imputer=tmp_path / "model.safetensors")
    assert np.isfinite(cells_of(tmp_path / "out.csv")).all()


def test_another_saved_model_is_not_mixed_in(frame: pd.DataFrame, tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    def broken(line: str) -> None:
        raise Broken

    source = written(frame.fillna(0.0), tmp_path / "in.npy")  # whose zeros are reported, after the scan
    fi.LinearImputer().fit(frame.to_numpy()).save(tmp_path / "one.safetensors")
    fi.LinearImputer().fit(frame.to_numpy() + 1).save(tmp_path / "other.safetensors")
    with pytest.raises(Broken):
        quietly(source, tmp_path / "out.npy", imputer=tmp_path / "one.safetensors", report=broken)
    with pytest.raises(ValueError, match=r"method\.model was"):
        quietly(source, tmp_path / "out.npy", imputer=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"level": 0.9}, "level: LinearImputer has no intervals"),
        ({"memory": "lots"}, "expected a size such as 512MB or 2GiB, got 'lots'"),
        ({"log_json": Path("/nowhere/log.jsonl")}, "there is no folder"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    frame: pd.DataFrame, tmp_path: Path, settings: dict[str, object], named: str
) -> None:
    source = written(frame, tmp_path / "in.npy")
    with pytest.raises(ValueError, match=named):
        quietly(source, tmp_path / "out.npy", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_a_truncated_file_is_named_and_nothing_is_left(frame: pd.DataFrame, tmp_path: Path) -> None:
    source = written(frame, tmp_path / "in.h5")
    source.write_bytes(source.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cannot read .*in\.h5"):
        quietly(source, tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5"]


# ---- the command line --------------------------------------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastimpute", "impute", *map(str, arguments)]


def test_the_command_line_refuses_in_one_line(frame: pd.DataFrame, tmp_path: Path) -> None:
    source = written(frame, tmp_path / "in.npy")
    refused = subprocess.run(
        command(source, tmp_path / "out.npy", "--method", "linear", "--memory", "1KB"), capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("fastimpute: memory: one tile of")
    assert refused.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes a second or so, in tiles."""
    rng = np.random.default_rng(1)
    cells = rng.normal(0, 1, (30_000, 200)).astype(np.float32)
    cells[rng.random(cells.shape) < 0.2] = np.nan
    path = tmp_path_factory.mktemp("large") / "in.npy"
    np.save(path, cells)
    return path


def tiles_of(target: Path) -> int:
    return len(list(target.with_name(f"{target.name}.partial").glob("tiles/*.safetensors")))


def wait_for_tiles(process: subprocess.Popen[bytes], target: Path, count: int) -> None:
    while process.poll() is None and tiles_of(target) < count:
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_to_the_same_bits(large: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.npy"
    subprocess.run(command(large, whole, "--method", "linear", "--memory", "256MB", "--quiet"), check=True)
    target = tmp_path / "killed.npy"
    again = command(large, target, "--method", "linear", "--memory", "256MB", "--quiet")
    for count in (1, 7, 20):
        process = subprocess.Popen(again)
        wait_for_tiles(process, target, count)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert target.exists() != target.with_name("killed.npy.partial").exists()
    subprocess.run(again, check=True)
    assert target.read_bytes() == whole.read_bytes()
    assert not target.with_name("killed.npy.partial").exists()


@pytest.mark.slow
def test_ctrl_c_says_where_the_work_can_be_taken_up(large: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.npy"
    process = subprocess.Popen(
        command(large, target, "--method", "linear", "--memory", "256MB", "--quiet"),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for_tiles(process, target, 2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert len(error.decode().split("\n")) == 3  # one line, after ^C
    assert "out.npy.partial, and the same command goes on" in error.decode()
    assert tiles_of(target) >= 2

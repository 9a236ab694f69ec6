"""Long tables (sensor, time stamp, value) as users have them, filled whole and in pieces, and written long again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from imputers import gappy_frame
from ways import WAYS, Fill, in_pieces

from fastimpute import io
from fastimpute.cli import commands
from fastimpute.io.source import open_source

KEYS = ["sensor_id", "timestamp"]


def melted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename_axis("timestamp").melt(ignore_index=False, var_name="sensor_id").reset_index()


def observed_are_kept(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    """Whether every observed row is there, bit for bit, and nothing is missing."""
    both = before.dropna().merge(after, on=KEYS, how="left", suffixes=("", "_filled"))
    return bool((both["value"] == both["value_filled"]).all() and after.notna().all(axis=None))


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_small_long_table_is_filled_as_a_large_one(fill: Fill, ending: str, tmp_path: Path) -> None:
    table = melted(gappy_frame())
    write = table.to_csv if ending == ".csv" else table.to_parquet
    write(tmp_path / f"a{ending}", index=False)
    fill(tmp_path / f"a{ending}", tmp_path / f"b{ending}")
    read = pd.read_csv if ending == ".csv" else pd.read_parquet
    before, after = read(tmp_path / f"a{ending}"), read(tmp_path / f"b{ending}")
    assert list(after.columns) == list(before.columns)
    assert list(after.dtypes) == list(before.dtypes)
    assert observed_are_kept(before, after)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".h5"])
def test_both_ways_write_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    melted(gappy_frame()).to_csv(tmp_path / "a.csv", index=False)
    table = io.read(tmp_path / "a.csv")
    complete = table.holding(table.data.fillna(1.0))  # type: ignore[union-attr]
    io.write(tmp_path / f"whole{suffix}", complete)
    in_pieces(tmp_path / f"whole{suffix}", tmp_path / f"pieces{suffix}")
    assert (tmp_path / f"whole{suffix}").read_bytes() == (tmp_path / f"pieces{suffix}").read_bytes()


@pytest.mark.parametrize("command", [["evaluate", "--method", "linear"], ["fit", "model.safetensors"]])
def test_every_command_reads_long_tables(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    melted(gappy_frame()).to_csv("a.csv", index=False)
    name, *rest = command
    done = CliRunner().invoke(commands, [name, "a.csv", *rest, *(["--method", "linear"] if name == "fit" else [])])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M+01:00", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M"])
def test_time_stamps_keep_their_own_text(fill: Fill, form: str, tmp_path: Path) -> None:
    table = melted(gappy_frame(rows=400))
    table["timestamp"] = table["timestamp"].dt.strftime(form)
    table.to_csv(tmp_path / "a.csv", index=False)
    fill(tmp_path / "a.csv", tmp_path / "b.csv")
    assert observed_are_kept(table, pd.read_csv(tmp_path / "b.csv"))


@pytest.mark.parametrize("fill", WAYS)
def test_texts_stay_texts_in_parquet(fill: Fill, tmp_path: Path) -> None:
    table = melted(gappy_frame()).astype({"timestamp": "str"})
    table.to_parquet(tmp_path / "a.parquet", index=False)
    fill(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert observed_are_kept(table, pd.read_parquet(tmp_path / "b.parquet"))


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("unit", ["s", "ms"])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_seconds_since_1970_stay_numbers(fill: Fill, unit: Any, ending: str, tmp_path: Path) -> None:
    table = melted(gappy_frame())
    table["timestamp"] = pd.DatetimeIndex(table["timestamp"]).as_unit(unit).asi8
    write, read = (table.to_csv, pd.read_csv) if ending == ".csv" else (table.to_parquet, pd.read_parquet)
    write(tmp_path / f"a{ending}", index=False)
    fill(tmp_path / f"a{ending}", tmp_path / f"b{ending}")
    assert observed_are_kept(table, read(tmp_path / f"b{ending}"))
    with open_source(tmp_path / f"a{ending}", spool=tmp_path) as source:
        assert source.header.index is not None
        assert source.header.index[0] == pd.Timestamp("2026-01-05", tz="UTC")


def test_numbers_that_are_no_time_are_refused(tmp_path: Path) -> None:
    melted(gappy_frame().reset_index(drop=True)).to_csv(tmp_path / "a.csv", index=False)
    for read in (io.read, lambda path: open_source(path, spool=tmp_path)):
        with pytest.raises(ValueError, match=r"a\.csv: column 'timestamp' does not read as time stamps: row 0 holds 0"):
            read(tmp_path / "a.csv")


def test_columns_that_are_left_out_are_told(tmp_path: Path) -> None:
    melted(gappy_frame()).assign(lane=1, quality=np.nan).to_csv(tmp_path / "a.csv", index=False)
    with open_source(tmp_path / "a.csv", spool=tmp_path, layout="long") as source:
        assert source.header.report == ("columns of a long table that are left out: lane, quality",)
    with pytest.raises(ValueError, match=r"is read with --layout long"):
        open_source(tmp_path / "a.csv", spool=tmp_path)

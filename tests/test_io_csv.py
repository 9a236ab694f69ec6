"""Comma-separated tables as users have them: their dates, offsets and headers, filled whole and in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from imputers import gappy_frame
from ways import WAYS, Fill

from fastimpute import io
from fastimpute.io.pieces import table
from fastimpute.io.source import open_source
from fastimpute.io.stampforms import form_of


def lines(stamps: Iterable[object], name: str = "timestamp") -> str:
    rows = [f"{stamp},{row}.5,{'' if row % 3 == 1 else row}\n" for row, stamp in enumerate(stamps)]
    return f"{name},a,b\n" + "".join(rows)


def index_of(path: Path, spool: Path) -> pd.DatetimeIndex | None:
    """The time stamps of a file, which both ways of reading agree on."""
    frame = io.read(path).data
    assert isinstance(frame, pd.DataFrame)
    with open_source(path, spool=spool) as source:
        index = source.header.index
        assert source.header.names == tuple(frame.columns)
    if index is None:
        assert not isinstance(frame.index, pd.DatetimeIndex)
    else:
        pd.testing.assert_index_equal(index, frame.index, exact="equiv")
    return index


def refused_both_ways(path: Path, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        io.read(path)
    with pytest.raises(ValueError, match=complaint):
        open_source(path, spool=path.parent)


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("name", ["timestamp", ""])
def test_a_year_of_local_time_with_its_offsets_is_read_and_kept(fill: Fill, name: str, tmp_path: Path) -> None:
    stamps = pd.date_range("2026-03-28", periods=72, freq="h", tz="Europe/Berlin")  # as to_csv of pandas writes them
    (tmp_path / "a.csv").write_text(lines(stamps, name))
    index = index_of(tmp_path / "a.csv", tmp_path)
    assert index is not None
    assert (index == stamps).all()
    assert index.name == (name or None)
    fill(tmp_path / "a.csv", tmp_path / "b.csv")
    before, after = pd.read_csv(tmp_path / "a.csv"), pd.read_csv(tmp_path / "b.csv")
    assert after.iloc[:, 0].equals(before.iloc[:, 0])


def test_offsets_that_change_between_pieces_are_one_zone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(table, "PIECE_CELLS", 3 * 10)
    test_a_year_of_local_time_with_its_offsets_is_read_and_kept(WAYS[1].values[0], "timestamp", tmp_path)


def test_stamps_with_and_without_an_offset_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(lines(["2026-01-05 00:00+01:00", "2026-01-05 01:00"]))
    refused_both_ways(tmp_path / "a.csv", "row 1 holds '2026-01-05 01:00'")


@pytest.mark.parametrize(
    ("form", "days"),
    [
        ("%d/%m/%Y", 40),  # only one order can be read
        ("%d/%m/%Y", 12),  # only one is regular
        ("%m/%d/%Y", 12),
        ("%d.%m.%Y", 1),  # as only one is written
        ("%d-%m-%Y", 11),
    ],
)
@pytest.mark.parametrize("rows", [5, 10**6])
def test_the_day_may_come_first(
    form: str, days: int, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "PIECE_CELLS", 3 * rows)
    stamps = pd.date_range("2026-03-01", periods=24 * days, freq="h")
    (tmp_path / "a.csv").write_text(lines(stamps.strftime(f"{form} %H:%M")))
    index = index_of(tmp_path / "a.csv", tmp_path)
    assert index is not None
    assert (index == stamps).all()


def test_an_order_that_nothing_decides_is_that_of_pandas() -> None:
    assert form_of(pd.Series(["03/04/2026 00:00", "03/04/2026 01:00"])) == "%m/%d/%Y %H:%M"


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("scale", [1, 10**3, 10**9])
def test_seconds_since_1970_are_time_stamps(fill: Fill, scale: int, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(lines([(1_772_323_200 + 300 * row) * scale for row in range(9)]))
    index = index_of(tmp_path / "a.csv", tmp_path)
    assert index is not None
    assert (index == pd.date_range("2026-03-01", periods=9, freq="5min", tz="UTC")).all()
    fill(tmp_path / "a.csv", tmp_path / "b.csv")
    assert (pd.read_csv(tmp_path / "b.csv")["timestamp"] == pd.read_csv(tmp_path / "a.csv")["timestamp"]).all()


@pytest.mark.parametrize("fill", WAYS)
def test_other_numbers_called_time_are_no_sensor(fill: Fill, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(lines(range(9), "time"))
    assert index_of(tmp_path / "a.csv", tmp_path) is None
    fill(tmp_path / "a.csv", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text().splitlines()[1] == "0,0.5,0.0"


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("ending", [".parquet", ".h5"])
def test_an_index_without_a_name_has_none_in_other_formats(fill: Fill, ending: str, tmp_path: Path) -> None:
    gappy_frame().rename_axis(None).to_csv(tmp_path / "a.csv")
    fill(tmp_path / "a.csv", tmp_path / f"b{ending}")
    data = io.read(tmp_path / f"b{ending}").data
    assert isinstance(data, pd.DataFrame)
    assert data.index.name is None


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parts_of_seconds_are_written_in_one_form(fill: Fill, zone: str | None, tmp_path: Path) -> None:
    frame = gappy_frame(step="250ms").tz_localize(zone)
    frame.to_parquet(tmp_path / "a.parquet")
    fill(tmp_path / "a.parquet", tmp_path / "b.csv")
    assert (pd.DatetimeIndex(pd.read_csv(tmp_path / "b.csv")["time"]) == frame.index).all()
    assert len(set(map(len, pd.read_csv(tmp_path / "b.csv")["time"]))) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (gappy_frame().rename_axis(None).to_csv().replace("2026-01-05 04", "never"), "row 48 holds 'never:00:00'"),
        (gappy_frame().to_csv(sep=";"), "a.csv: its cells are separated by ';', not by commas"),
        (gappy_frame().to_csv(sep=";", decimal=","), "a.csv: its cells are separated by ';', not by commas"),
        (gappy_frame().to_csv(sep="\t"), r"a.csv: its cells are separated by '\\t', not by commas"),
        ("time,a,b\n2026-01-05,1,2,\n2026-01-06,,3,\n", "a.csv: not a table: 3 names, but 4 cells in the first row"),
        ("a,b\n1,60,61\n2,,62\n", "a.csv: not a table: 2 names, but 3 cells in the first row"),
        ("# PeMS\ntime,a,b\n2026-01-05,1,2\n", "a.csv: not a table: 1 names, but 3 cells in the first row"),
        ("time,a,b\n,mph,mph\n2026-01-05,1,2\n", "a.csv: column 'a' is not numeric: line 2 holds 'mph'"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    refused_both_ways(tmp_path / "a.csv", complaint)


@pytest.mark.parametrize("encoding", ["latin1", "utf-16"])
def test_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Straße,b\n1,2\n", encoding=encoding)
    refused_both_ways(tmp_path / "a.csv", "not a text table in UTF-8")


@pytest.mark.parametrize("fill", WAYS)
def test_an_empty_line_of_one_sensor_is_a_missing_cell(fill: Fill, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n\n3\n4\n\n6\n")
    fill(tmp_path / "a.csv", tmp_path / "b.csv")
    assert pd.read_csv(tmp_path / "b.csv")["a"].round(3).tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("change", ["bom", "crlf", "empty lines"])
def test_marks_and_line_ends_of_other_systems_are_read(fill: Fill, change: str, tmp_path: Path) -> None:
    text = gappy_frame().to_csv()
    text = {"bom": "\ufeff" + text, "crlf": text.replace("\n", "\r\n"), "empty lines": text + "\n\n"}[change]
    (tmp_path / "a.csv").write_text(text, newline="")
    fill(tmp_path / "a.csv", tmp_path / "b.csv")
    before, after = gappy_frame(), pd.read_csv(tmp_path / "b.csv", index_col="time", parse_dates=True)
    assert (after.index == before.index).all()
    assert np.array_equal(after.to_numpy()[before.notna()], before.to_numpy()[before.notna()])

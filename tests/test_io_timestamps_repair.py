"""Time stamps that are no regular grid: refused by row, or repaired so that no observation is lost or invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imputers import gappy_frame

from fastimpute.io.repair import Grid
from fastimpute.io.sink import open_sink
from fastimpute.io.source import open_source
from fastimpute.io.stampfaults import describe_faults

FIVE = pd.Timedelta("5min")


def written(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path)
    elif path.suffix == ".h5":
        frame.to_hdf(path, key="df")
    else:
        frame.to_parquet(path)
    return path


def repaired(frame: pd.DataFrame) -> pd.DataFrame:
    """The same by pandas: rows sorted, of those with one stamp the first observed value, a row for every step."""
    return frame.groupby(level=0, sort=True).first().asfreq(FIVE)


def clock_of(zone: str, begin: str, hours: int, step: str = "5min") -> pd.DataFrame:
    """What a logger without a zone writes: the clock on the wall."""
    index = pd.date_range(begin, periods=int(pd.Timedelta(hours, "h") / pd.Timedelta(step)), freq=step, tz=zone)
    local = index.tz_localize(None).rename("time")
    return pd.DataFrame({"a": np.arange(len(local), dtype=float), "b": 1.0}, index=local)


@given(
    rows=st.lists(st.integers(0, 59), min_size=5, max_size=80),
    suffix=st.sampled_from([".csv", ".parquet", ".h5"]),
    cut=st.integers(1, 70),
)
@settings(max_examples=25, deadline=None)
def test_any_choice_of_rows_is_repaired_as_pandas_does(
    rows: list[int], suffix: str, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [*range(10), *rows]  # the usual step is the one of the grid
    frame = gappy_frame().iloc[rows]
    frame = frame + 0.001 * np.arange(len(rows))[:, None]
    folder = tmp_path_factory.mktemp("repair")
    expected = repaired(frame)
    with open_source(written(frame, folder / f"a{suffix}"), spool=folder, repair=True) as source:
        assert source.header.index is not None
        assert source.header.index.equals(expected.index)
        starts = range(0, source.header.rows, cut)
        cells = np.concatenate([source.read(slice(start, start + cut)) for start in starts])
        np.testing.assert_array_equal(cells, expected.to_numpy())
        np.testing.assert_array_equal(source.read(slice(None), slice(1, 3)), expected.to_numpy()[:, 1:3])


def test_a_regular_table_is_left_as_it_is(tmp_path: Path) -> None:
    path = written(gappy_frame(), tmp_path / "a.csv")
    with open_source(path, spool=tmp_path, repair=True) as source:
        assert source.header.report == ()
        assert source.header.origin is not None


def test_months_are_regular(tmp_path: Path) -> None:
    path = written(gappy_frame(step="MS"), tmp_path / "a.csv")
    with open_source(path, spool=tmp_path) as source:
        assert source.header.rows == 60


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([0, 1, 1, 2, 3], "duplicate time stamps: row 2 is 2026-01-05 00:05:00, after 2026-01-05 00:05:00"),
        ([0, 1, 3, 2, 4], "unsorted time stamps: row 3 is 2026-01-05 00:10:00, after 2026-01-05 00:15:00"),
        ([0, 1, 2, 5, 6], "irregular time stamps: row 3 is 2026-01-05 00:25:00, after 2026-01-05 00:10:00"),
    ],
)
def test_faulty_stamps_are_refused_by_row_and_remedy(rows: list[int], complaint: str, tmp_path: Path) -> None:
    path = written(gappy_frame().iloc[rows], tmp_path / "a.csv")
    with pytest.raises(ValueError, match=rf"cannot read .*a\.csv: {complaint}; .* with --repair"):
        open_source(path, spool=tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_stamp_is_refused_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,a\n2026-01-05 00:00,1\n2026-01-05 00:05,2\n,3\n2026-01-05 00:15,4\n")
    with pytest.raises(ValueError, match=r"time stamp of row 2 is missing \(NaT\)"):
        open_source(tmp_path / "a.csv", spool=tmp_path)
    with open_source(tmp_path / "a.csv", spool=tmp_path, repair=True) as source:
        np.testing.assert_array_equal(source.read(slice(None))[:, 0], [1, 2, np.nan, 4])
        assert source.header.report[0] == "1 time stamp is missing (NaT), the first in row 2: left out"


def test_what_was_repaired_is_reported() -> None:
    frame = gappy_frame().iloc[[0, 1, 2, 2, 1, 3, 9, 10, 11]]
    assert describe_faults(pd.DatetimeIndex(frame.index)) == (
        "1 time stamp is unsorted, the first in row 4 (2026-01-05 00:05:00)",
        "2 time stamps are duplicates, the first in row 3 (2026-01-05 00:10:00)",
        "1 hole of 5 steps in all, the first before 2026-01-05 00:45:00",
    )


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Europe/Berlin", "Australia/Sydney"])
@pytest.mark.parametrize("step", ["5min", "1h"])
def test_the_hours_of_summer_time_are_named(zone: str, step: str, tmp_path: Path) -> None:
    spring = {"America/Los_Angeles": "2026-03-08", "Europe/Berlin": "2026-03-29", "Australia/Sydney": "2026-10-04"}
    autumn = {"America/Los_Angeles": "2026-11-01", "Europe/Berlin": "2026-10-25", "Australia/Sydney": "2026-04-05"}
    steps = int(pd.Timedelta("1h") / pd.Timedelta(step))
    path = written(clock_of(zone, spring[zone], 12, step), tmp_path / "spring.csv")
    with pytest.raises(ValueError, match=r"irregular time stamps: .*the hour that summer time skips"):
        open_source(path, spool=tmp_path)
    with open_source(path, spool=tmp_path, repair=True) as source:
        assert "1 of them the hour that summer time skips" in source.header.report[0]
        assert int(np.isnan(source.read(slice(None))[:, 0]).sum()) == steps
    path = written(clock_of(zone, autumn[zone], 12, step), tmp_path / "autumn.csv")
    with pytest.raises(ValueError, match=r"time stamps: .*the hour that the end of summer time doubles"):
        open_source(path, spool=tmp_path)
    with open_source(path, spool=tmp_path, repair=True) as source:
        assert any("time doubles" in line for line in source.header.report)
        assert source.header.rows == 11 * steps


def test_an_hour_that_is_merely_absent_is_not_called_summer_time() -> None:
    index = pd.date_range("2026-03-11", periods=60, freq="5min")  # a Wednesday
    report = describe_faults(index.delete(range(24, 36)))
    assert report == ("1 hole of 12 steps in all, the first before 2026-03-11 03:00:00",)


def test_stamps_off_the_grid_go_to_the_nearest_point(tmp_path: Path) -> None:
    frame = gappy_frame()
    late = frame.index.to_series()
    late.iloc[7] += pd.Timedelta("40s")
    frame.index = pd.DatetimeIndex(late, name="time")
    with open_source(written(frame, tmp_path / "a.csv"), spool=tmp_path, repair=True) as source:
        assert source.header.report == ("1 time stamp is off the grid, by at most 0 days 00:00:40",)
        assert source.header.index is not None
        assert source.header.index.equals(gappy_frame().index)
        np.testing.assert_array_equal(source.read(slice(None)), frame.to_numpy())


def test_a_zone_is_kept_and_its_summer_time_is_no_fault(tmp_path: Path) -> None:
    index = pd.date_range("2026-03-28", periods=600, freq="5min", tz="Europe/Berlin", name="time")
    frame = pd.DataFrame({"a": np.arange(600.0), "b": 1.0}, index=index)
    with open_source(written(frame, tmp_path / "a.parquet"), spool=tmp_path) as source:
        assert source.header.rows == 600
    with open_source(written(frame.iloc[::-1], tmp_path / "b.parquet"), spool=tmp_path, repair=True) as source:
        assert source.header.index is not None
        assert source.header.index.equals(index)


def test_integers_with_rows_added_become_floating(tmp_path: Path) -> None:
    index = pd.date_range("2026-01-05", periods=6, freq="5min", name="time").delete(3)
    frame = pd.DataFrame({"a": np.arange(5), "b": 1}, index=index)
    with open_source(written(frame, tmp_path / "a.parquet"), spool=tmp_path, repair=True) as source:
        assert source.header.dtype == np.float64
        with open_sink(tmp_path / "b.parquet", source.header) as sink:
            sink.append(source.read(slice(None)))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "b.parquet"), frame.asfreq(FIVE), check_freq=False)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".h5"])
def test_a_repaired_table_is_written_with_its_new_stamps(suffix: str, tmp_path: Path) -> None:
    frame = gappy_frame().iloc[[0, 1, 2, 3, 5, 4, 9]]
    with open_source(written(frame, tmp_path / f"a{suffix}"), spool=tmp_path, repair=True) as source:
        expected = repaired(frame)
        with open_sink(tmp_path / f"b{suffix}", source.header) as sink:
            sink.append(source.read(slice(None)))
    with open_source(tmp_path / f"b{suffix}", spool=tmp_path) as source:
        np.testing.assert_array_equal(source.read(slice(None)), expected.to_numpy())
        assert source.header.index is not None
        assert source.header.index.equals(expected.index)
        assert source.header.index.name == "time"


def test_no_grid_is_made_where_there_is_none() -> None:
    seconds = pd.DatetimeIndex(pd.to_datetime([0, 1, 2, 10**9], unit="s"))
    with pytest.raises(ValueError, match=r"usual step of 0 days 00:00:01 would have 1000000001 rows for the 4"):
        Grid.of(seconds)
    months = pd.date_range("2000-01-01", periods=30, freq="MS").delete(7)
    with pytest.raises(ValueError, match="steps of months"):
        Grid.of(months)
    with pytest.raises(ValueError, match="2000 rows have the same time stamp: a long table"):
        Grid.of(pd.DatetimeIndex(["2026-01-01"] * 2000))
    with pytest.raises(ValueError, match="no row has a time stamp"):
        Grid.of(pd.DatetimeIndex([pd.NaT]))


# ---- long tables ---------------------------------------------------------------------------------------------------


def long_file(path: Path, lines: list[str]) -> Path:
    path.write_text("station_id,sample_date,flow\n" + "".join(f"{line}\n" for line in lines))
    return path


def test_a_cell_that_comes_twice_is_refused_or_the_first_value_kept(tmp_path: Path) -> None:
    stamps = ["2026-01-05 00:00", "2026-01-05 00:05", "2026-01-05 00:10"]
    lines = [f"7,{stamp},{value}" for stamp, value in zip(stamps, (1, "", 3), strict=True)]
    path = long_file(tmp_path / "a.csv", [*lines, f"7,{stamps[0]},8", f"7,{stamps[1]},9"])
    with pytest.raises(ValueError, match=r"row 3 gives sensor '7' at 2026-01-05 00:00 once more: .*--repair"):
        open_source(path, spool=tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    with open_source(path, spool=tmp_path, repair=True) as source:
        assert source.read(slice(None))[:, 0].tolist() == [1, 9, 3]
        assert source.header.report == ("2 cells came more than once: the first observed value was kept",)


def test_a_long_table_without_some_step_is_repaired_and_stays_long(tmp_path: Path) -> None:
    path = long_file(tmp_path / "a.csv", [f"7,2026-01-05 00:{minute:02},{minute}" for minute in (0, 5, 10, 20)])
    with pytest.raises(ValueError, match="irregular time stamps: row 3"):
        open_source(path, spool=tmp_path)
    with (
        open_source(path, spool=tmp_path, repair=True) as source,
        open_sink(tmp_path / "b.csv", source.header) as sink,
    ):
        sink.append(np.nan_to_num(source.read(slice(None)), nan=15))
    rows = pd.read_csv(tmp_path / "b.csv")
    assert rows.columns.tolist() == ["station_id", "sample_date", "flow"]
    assert rows["flow"].tolist() == [0, 5, 10, 15, 20]


def test_long_tables_are_told_by_name_or_by_wish(tmp_path: Path) -> None:
    text = "lane,detector,when,speed\n1,x,2026-01-05 00:00,1\n1,x,2026-01-05 00:05,2\n"
    (tmp_path / "a.csv").write_text(text.replace("when", "ds"))
    with pytest.raises(ValueError, match=r"column 'detector' is not numeric|column 'ds'"):
        open_source(tmp_path / "a.csv", spool=tmp_path)
    with open_source(tmp_path / "a.csv", spool=tmp_path, layout="long") as source:
        assert source.header.names == ("x",)
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(ValueError, match="a long table needs one column each for sensor, time stamp and value"):
        open_source(tmp_path / "b.csv", spool=tmp_path, layout="long")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (",2026-01-05 00:10,1", "column 'station_id' is empty in row 2"),
        ("7,,1", "column 'sample_date' is empty in row 2"),
        ("7,never,1", "column 'sample_date' does not read as time stamps: row 2 holds 'never'"),
        ("7,2026-01-05 00:10,fast", "column 'flow' is not numeric: line 4 holds 'fast'"),
    ],
)
def test_a_faulty_row_of_a_long_table_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    path = long_file(tmp_path / "a.csv", ["7,2026-01-05 00:00,1", "7,2026-01-05 00:05,2", line])
    with pytest.raises(ValueError, match=complaint):
        open_source(path, spool=tmp_path)

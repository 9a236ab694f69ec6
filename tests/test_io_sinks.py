"""Files written in pieces: the same bytes however the rows are cut, all else as it was, whole or not at all."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imputers import gappy, gappy_frame
from test_io_sources import FILES, NAMED, ROWS, SENSORS, write_archive, write_zarr

from fastimpute import io
from fastimpute.io.pieces import csv, long, parquet, table, zarr
from fastimpute.io.sink import open_sink
from fastimpute.io.source import Header, open_source

SUFFIXES = [".csv", ".parquet", ".npy", ".npz", ".h5", ".zarr"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("with spaces äß 速度")
    for name, write in FILES.items():
        write(place / name, gappy_frame())
    return place


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, row groups and chunks of a few rows, so that a small table has many."""
    monkeypatch.setattr(table, "PIECE_CELLS", 7 * SENSORS)
    monkeypatch.setattr(parquet, "GROUP_CELLS", 30 * SENSORS)
    monkeypatch.setattr(parquet, "WRITTEN_CELLS", 11 * SENSORS)
    monkeypatch.setattr(parquet, "SPOOLED_COLUMNS", 3)
    monkeypatch.setattr(parquet, "SPOOLED_ROWS", 7)
    monkeypatch.setattr(zarr, "BLOCK_CELLS", 16 * SENSORS)
    monkeypatch.setattr(zarr, "CHUNK_ROWS", 8)
    monkeypatch.setattr(long, "LONG_ROWS", 17)


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def copied(source: Path, target: Path, cuts: list[int], spool: Path, **choice: Any) -> dict[str, bytes]:
    """Write all rows of a file to another, cut at these rows; what is in the other."""
    with open_source(source, spool=spool, **choice) as table, open_sink(target, table.header) as sink:
        for first, last in zip([0, *cuts], [*cuts, table.header.rows], strict=True):
            sink.append(table.read(slice(first, last)))
    return contents(target)


def frame_of(path: Path, spool: Path, **choice: Any) -> pd.DataFrame:
    with open_source(path, spool=spool, **choice) as table:
        return pd.DataFrame(table.read(slice(None)), table.header.index, list(table.header.names))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, Path(name).suffix) for name in FILES), *((name, to) for name in ("a.csv", "a.npy") for to in SUFFIXES)],
)
def test_what_is_written_is_read_again(name: str, suffix: str, folder: Path, tmp_path: Path) -> None:
    copied(folder / name, tmp_path / f"b{suffix}", [20, 20, 33], tmp_path)
    before, after = frame_of(folder / name, tmp_path), frame_of(tmp_path / f"b{suffix}", tmp_path)
    np.testing.assert_array_equal(before.to_numpy(), after.to_numpy())
    if suffix not in (".npy", ".npz") and name in NAMED:
        assert list(after.columns) == list(before.columns)
        assert after.index.equals(before.index)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", [*FILES, "new.csv", "new.parquet", "new.h5", "new.zarr"])
@given(cuts=st.lists(st.integers(0, ROWS), max_size=6).map(sorted))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bytes_do_not_depend_on_how_the_rows_were_cut(
    name: str, cuts: list[int], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("cut")
    source = folder / ("a.csv" if name == "new.zarr" else "a.zarr" if name.startswith("new") else name)
    suffix = Path(name).suffix
    whole = copied(source, place / f"whole{suffix}", [], place)
    assert copied(source, place / f"cut{suffix}", cuts, place) == whole


def scattered(source: Path, target: Path, spool: Path) -> dict[str, bytes]:
    """Write all rows of a file to another in pieces, the last ones first, as another process would."""
    with open_source(source, spool=spool) as table, open_sink(target, table.header) as sink:
        rows = pickle.loads(pickle.dumps(sink.rows(table.header.rows)))
        for first in reversed(range(0, table.header.rows, rows.unit)):
            rows.write(first, table.read(slice(first, min(first + rows.unit, table.header.rows))))
    return contents(target)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("source", "suffix"),
    [("a.npy", ".npy"), ("a.zarr", ".zarr"), ("a.csv", ".zarr"), ("a.csv", ".npy"), ("a.parquet", ".zarr")],
)
def test_rows_in_any_order_make_the_same_bytes(source: str, suffix: str, folder: Path, tmp_path: Path) -> None:
    in_order = copied(folder / source, tmp_path / f"one{suffix}", [], tmp_path)
    assert scattered(folder / source, tmp_path / f"other{suffix}", tmp_path) == in_order


def test_sensors_first_take_rows_in_any_order(tmp_path: Path) -> None:
    from zarr import open_group

    names = ("sensor", "time")
    array = open_group(tmp_path / "a.zarr").create_array(
        "data", shape=(SENSORS, ROWS), chunks=(2, 16), dtype="f8", dimension_names=names
    )
    array[:] = gappy_frame().to_numpy().T
    in_order = copied(tmp_path / "a.zarr", tmp_path / "one.zarr", [], tmp_path)
    assert scattered(tmp_path / "a.zarr", tmp_path / "other.zarr", tmp_path) == in_order


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".h5"])
def test_other_formats_take_their_rows_in_order(suffix: str, folder: Path, tmp_path: Path) -> None:
    with open_source(folder / "a.csv", spool=tmp_path) as table:
        sink = open_sink(tmp_path / f"b{suffix}", table.header)
        assert sink.rows(table.header.rows) is None
        sink.__exit__(KeyboardInterrupt, None, None)


def test_shards_of_more_rows_than_there_is_room_for_are_written_in_order(folder: Path, tmp_path: Path) -> None:
    with open_source(folder / "a.npy", spool=tmp_path) as table:
        sink = open_sink(tmp_path / "b.zarr", table.header)
        assert sink.rows(most=ROWS - 1) is None
        sink.append(table.read(slice(None)))
        sink.close()
    np.testing.assert_array_equal(frame_of(tmp_path / "b.zarr", tmp_path), gappy_frame().to_numpy())


def test_the_bytes_do_not_depend_on_the_time_of_day(folder: Path, tmp_path: Path) -> None:
    pairs = [(source, suffix) for source in ("a.csv", "a.npy", "a.npz", "a.h5", "array.h5") for suffix in SUFFIXES]
    first = [copied(folder / source, tmp_path / f"{source}1{suffix}", [], tmp_path) for source, suffix in pairs]
    time.sleep(1.1)  # what formats note is seconds
    second = [copied(folder / source, tmp_path / f"{source}2{suffix}", [], tmp_path) for source, suffix in pairs]
    assert [pair for pair, one, other in zip(pairs, first, second, strict=True) if one != other] == []


@pytest.mark.parametrize(("source", "suffix"), [(".csv", ".csv"), (".npy", ".csv")])
def test_the_bytes_are_those_of_the_whole_writer(source: str, suffix: str, folder: Path, tmp_path: Path) -> None:
    copied(folder / f"a{source}", tmp_path / f"pieces{suffix}", [5], tmp_path)
    io.write(tmp_path / f"whole{suffix}", io.read(folder / f"a{source}"))
    assert contents(tmp_path / f"pieces{suffix}") == contents(tmp_path / f"whole{suffix}")


# ---- what else is in the file --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", ["date", "when", ""])
def test_csv_keeps_its_time_column_and_its_integers(name: str, tmp_path: Path) -> None:
    text = f"{name},s1,s2\n" + "".join(f"1990/1/{day} 0:00,{day}.5,{day}\n" for day in range(1, 29))
    (tmp_path / "a.csv").write_text(text)
    copied(tmp_path / "a.csv", tmp_path / "b.csv", [3], tmp_path)
    assert (tmp_path / "b.csv").read_text() == text


def test_csv_row_numbers_of_pandas_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",s1\n0,1.0\n1,\n2,3.0\n")
    copied(tmp_path / "a.csv", tmp_path / "b.csv", [2], tmp_path)
    assert (tmp_path / "b.csv").read_text() == ",s1\n0,1.0\n1,\n2,3.0\n"


@pytest.mark.usefixtures("small_pieces")
def test_parquet_keeps_its_other_columns_and_its_types(tmp_path: Path) -> None:
    frame = gappy_frame().astype({"s1": np.float32}).assign(whole=np.arange(ROWS, dtype=np.int16))
    frame = frame.set_index(pd.Index([f"r{row}" for row in range(ROWS)], name="road"), append=True)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=9)
    copied(tmp_path / "a.parquet", tmp_path / "b.parquet", [3], tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "b.parquet"), frame, check_freq=False)


def test_an_archive_keeps_its_other_members_and_channels(tmp_path: Path) -> None:
    for name, save in (("a.npz", np.savez), ("deflated.npz", np.savez_compressed)):
        write_archive(tmp_path / name, gappy_frame(), save)
        with open_source(tmp_path / name, spool=tmp_path, channel=1) as source:
            header = source.header
        with open_sink(tmp_path / "b.npz", header) as sink:
            sink.append(np.full((ROWS, SENSORS), 9.0))
        with np.load(tmp_path / "b.npz") as archive:
            assert archive.files == ["data", "start"]
            np.testing.assert_array_equal(archive["data"][:, :, 0], gappy_frame().to_numpy())
            assert np.unique(archive["data"][:, :, 1]).tolist() == [9.0]
            assert archive["start"].tolist() == [0, 1, 2]
        assert (tmp_path / "b.npz").stat().st_size < 1.2 * (tmp_path / name).stat().st_size + 300


def test_h5_keeps_attributes_neighbours_and_chunks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("speed", data=gappy(), chunks=(16, 2), compression="gzip").attrs["unit"] = "mph"
        file["sensors"] = np.arange(SENSORS)
    copied(tmp_path / "a.h5", tmp_path / "b.h5", [3], tmp_path)
    with h5py.File(tmp_path / "b.h5") as file:
        assert (file["speed"].chunks, file["speed"].compression, file["speed"].attrs["unit"]) == (
            (16, 2),
            "gzip",
            "mph",
        )
        assert file["sensors"][()].tolist() == list(range(SENSORS))


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_a_frame_in_h5_keeps_integer_names_and_frequency(layout: Any, tmp_path: Path) -> None:
    frame = gappy_frame().set_axis([773869, 767541, 767542, 717447], axis=1)
    frame.to_hdf(tmp_path / "a.h5", key="df", format=layout)
    copied(tmp_path / "a.h5", tmp_path / "b.h5", [3], tmp_path)
    pd.testing.assert_frame_equal(pd.read_hdf(tmp_path / "b.h5", "df"), frame, check_freq=layout == "fixed")


def test_integers_in_h5_whose_zeros_are_missing_become_floating(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0, 1, 2], "b": [1.5, 2.5, 3.5]})
    frame.to_hdf(tmp_path / "frame.h5", key="df")
    with h5py.File(tmp_path / "array.h5", "w") as file:
        file["data"] = np.array([[0, 1], [2, 3], [4, 5]])
    for name in ("frame.h5", "array.h5"):
        with open_source(tmp_path / name, spool=tmp_path, zeros_as_missing=True) as source:
            filled = np.nan_to_num(source.read(slice(None)), nan=0.5)
            with open_sink(tmp_path / "b.h5", source.header) as sink:
                sink.append(filled)
        np.testing.assert_array_equal(np.asarray(io.read(tmp_path / "b.h5").data), filled)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_keeps_attributes_coordinates_and_chunks(version: int, tmp_path: Path) -> None:
    import xarray
    from zarr import open_array

    write_zarr(tmp_path / "a.zarr", gappy_frame(), zarr_format=version, encoding={"speed": {"chunks": (16, 2)}})
    array = open_array(tmp_path / "a.zarr" / "speed")
    array.attrs["unit"] = "mph"
    copied(tmp_path / "a.zarr", tmp_path / "b.zarr", [3], tmp_path)
    before = xarray.open_zarr(tmp_path / "a.zarr", consolidated=False)
    after = xarray.open_zarr(tmp_path / "b.zarr", consolidated=False)
    xarray.testing.assert_identical(before, after)
    assert after["speed"].attrs["unit"] == "mph"
    assert after["speed"].encoding["chunks"] == (16, 2)


def test_scaled_integers_in_zarr_are_written_as_numbers(tmp_path: Path) -> None:
    import xarray

    frame = gappy_frame().round(1)
    packed = {"speed": {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1}}
    write_zarr(tmp_path / "a.zarr", frame, encoding=packed)
    with (
        open_source(tmp_path / "a.zarr", spool=tmp_path) as source,
        open_sink(tmp_path / "b.zarr", source.header) as sink,
    ):
        filled = np.where(np.isnan(source.read(slice(None))), 0.123, source.read(slice(None)))
        sink.append(filled)
    after = xarray.open_zarr(tmp_path / "b.zarr")
    np.testing.assert_array_equal(after["speed"].values, filled.astype(after["speed"].dtype))


def test_a_time_zone_survives_zarr(tmp_path: Path) -> None:
    frame = gappy_frame().tz_localize("Europe/Berlin")
    frame.to_parquet(tmp_path / "a.parquet")
    copied(tmp_path / "a.parquet", tmp_path / "b.zarr", [], tmp_path)
    assert frame_of(tmp_path / "b.zarr", tmp_path).index.equals(frame.index)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("source", [".csv", ".parquet"])
def test_a_long_table_is_written_long(source: str, suffix: str, folder: Path, tmp_path: Path) -> None:
    copied(folder / f"long{source}", tmp_path / f"b{suffix}", [3], tmp_path)
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    rows = read(tmp_path / f"b{suffix}")
    assert list(rows.columns) == ["timestamp", "sensor_id", "value"]
    assert len(rows) == ROWS * SENSORS
    wide = frame_of(tmp_path / f"b{suffix}", tmp_path)
    np.testing.assert_array_equal(
        wide[[f"s{column}" for column in range(SENSORS)]].to_numpy(), gappy_frame().to_numpy()
    )


def test_sensors_in_rows_are_written_in_rows(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", gappy().T, delimiter=",")
    copied(tmp_path / "a.csv", tmp_path / "b.csv", [3], tmp_path, layout="sensors-in-rows")
    np.testing.assert_array_equal(np.genfromtxt(tmp_path / "b.csv", delimiter=","), gappy().T)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


# ---- whole or not at all -------------------------------------------------------------------------------------------


def header(rows: int = 6, dtype: str = "f8", suffix: str = ".npy") -> Header:
    return Header(rows, (0, 1), False, np.dtype(dtype), None, suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_sink_leaves_nothing(suffix: str, error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), open_sink(tmp_path / f"a{suffix}", header()) as sink:
        sink.append(np.ones((3, 2)))
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_too_few_rows_are_refused_and_leave_nothing(suffix: str, tmp_path: Path) -> None:
    sink = open_sink(tmp_path / f"a{suffix}", header())
    sink.append(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"cannot write .*: 3 rows came, the header has 6"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "a.npy", header())
    with pytest.raises(ValueError, match=r"must have shape \(rows, 2\), got \(3, 3\)"):
        sink.append(np.ones((3, 3)))
    with pytest.raises(ValueError, match="more rows than the 6 of the header"):
        sink.append(np.ones((7, 2)))
    with pytest.raises(TypeError, match="must be floating, got int64"):
        sink.append(np.ones((1, 2), dtype=np.int64))
    sink.append(np.ones((6, 2)))
    sink.close()
    sink.close()
    with pytest.raises(ValueError, match="is closed"):
        sink.append(np.ones((1, 2)))


def test_integers_stay_integers_and_take_nothing_else(tmp_path: Path) -> None:
    with open_sink(tmp_path / "a.npy", header(dtype="i4")) as sink:
        sink.append(np.full((6, 2), 7.0))
    assert np.load(tmp_path / "a.npy").dtype == np.int32
    with (
        pytest.raises(ValueError, match="holds int32, which cannot hold the cells"),
        open_sink(tmp_path / "b.npy", header(dtype="i4")) as sink,
    ):
        sink.append(np.full((6, 2), 7.5))
    assert not (tmp_path / "b.npy").exists()


def test_half_floats_are_written_within_their_range(tmp_path: Path) -> None:
    with open_sink(tmp_path / "a.npy", header(dtype="f2")) as sink:
        sink.append(np.full((6, 2), 1e6, dtype=np.float32))
    assert np.load(tmp_path / "a.npy")[0, 0] == np.finfo(np.float16).max


def test_an_unknown_ending_or_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known are"):
        open_sink(tmp_path / "a.txt", header())
    with pytest.raises(ValueError, match=r"cannot write .*a\.npy: No such file"):
        open_sink(tmp_path / "absent" / "a.npy", header())


def test_pieces_of_csv_are_really_small(small_pieces: None) -> None:
    assert table.piece_rows(SENSORS) == 7
    assert csv.piece_rows(SENSORS) == 7


def test_an_original_that_shrank_is_noticed(tmp_path: Path) -> None:
    gappy_frame().to_csv(tmp_path / "a.csv")
    with open_source(tmp_path / "a.csv", spool=tmp_path) as source:
        gappy_frame(rows=0).to_csv(tmp_path / "a.csv")
        with (
            pytest.raises(ValueError, match=r"a\.csv has other rows than when it was opened"),
            open_sink(tmp_path / "b.csv", source.header) as sink,
        ):
            sink.append(source.read(slice(None)))
    assert not (tmp_path / "b.csv").exists()

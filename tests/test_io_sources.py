"""Files read in pieces: any rectangle is the one of the whole table, and the whole is what `io.read` gives."""

from __future__ import annotations

import pickle
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numcodecs
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from imputers import gappy, gappy_frame

from fastimpute import io
from fastimpute.io.source import open_source, stamp

ROWS, SENSORS = 60, 4


def write_zarr(path: Path, frame: pd.DataFrame, **settings: Any) -> None:
    import xarray

    stamps = {"time": frame.index.to_numpy(), "sensor": list(frame.columns)}
    array = xarray.DataArray(frame.to_numpy(), stamps, ("time", "sensor"), "speed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on text in version 3, and on consolidated metadata
        array.to_dataset().to_zarr(path, **settings)


def write_long(path: Path, frame: pd.DataFrame) -> None:
    long = frame.rename_axis("timestamp").melt(ignore_index=False, var_name="sensor_id").reset_index()
    long = long.sample(frac=1, random_state=0)
    long.to_csv(path, index=False) if path.suffix == ".csv" else long.to_parquet(path, index=False)


def write_archive(path: Path, frame: pd.DataFrame, save: Any = np.savez) -> None:
    channels = [frame.to_numpy(), np.full(frame.shape, 7.0)]
    save(path, data=np.stack(channels, axis=2), start=np.arange(3))


# Everything a table comes in: how it is written.
FILES: dict[str, Callable[[Path, pd.DataFrame], Any]] = {
    "a.csv": lambda path, frame: frame.to_csv(path),
    "long.csv": write_long,
    "a.parquet": lambda path, frame: frame.to_parquet(path),
    "groups.parquet": lambda path, frame: frame.to_parquet(path, row_group_size=13),
    "long.parquet": write_long,
    "a.npy": lambda path, frame: np.save(path, frame.to_numpy()),
    "fortran.npy": lambda path, frame: np.save(path, np.asfortranarray(frame.to_numpy())),
    "a.npz": write_archive,
    "deflated.npz": lambda path, frame: write_archive(path, frame, np.savez_compressed),
    "fortran.npz": lambda path, frame: np.savez_compressed(path, data=np.asfortranarray(frame.to_numpy())),
    "a.h5": lambda path, frame: frame.to_hdf(path, key="df"),
    "table.h5": lambda path, frame: frame.to_hdf(path, key="speed", format="table"),
    "blocks.h5": lambda path, frame: frame.astype({"s1": np.float32}).to_hdf(path, key="t"),
    "array.h5": lambda path, frame: h5py.File(path, "w").create_dataset("readings", data=frame.to_numpy()).file.close(),
    "a.zarr": write_zarr,
    "two.zarr": lambda path, frame: write_zarr(path, frame, zarr_format=2),
    "loose.zarr": lambda path, frame: write_zarr(path, frame, consolidated=False),
}
NAMED = {name for name in FILES if not name.endswith((".npy", ".npz"))} - {"array.h5"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file once, in a folder whose name is no plain word."""
    place = tmp_path_factory.mktemp("with spaces äß 速度")
    (place / "spool").mkdir()
    for name, write in FILES.items():
        write(place / name, gappy_frame())
    return place


def cells_of(frame: pd.DataFrame, name: str) -> np.ndarray[Any, Any]:
    return frame.astype({"s1": np.float32}).to_numpy(np.float64) if name == "blocks.h5" else frame.to_numpy()


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_any_rectangle_is_that_of_the_whole_table(name: str, folder: Path, data: st.DataObject) -> None:
    with open_source(folder / name, spool=folder / "spool") as source:
        order = [f"s{column}" for column in range(SENSORS)]
        columns = [order.index(str(sensor)) for sensor in source.header.names] if name in NAMED else range(SENSORS)
        whole = cells_of(gappy_frame(), name)[:, list(columns)]
        for _ in range(3):
            rows, part = data.draw(st.slices(ROWS)), data.draw(st.slices(SENSORS))
            rows, part = slice(rows.start, rows.stop), slice(part.start, part.stop)
            cells = source.read(rows, part)
            np.testing.assert_array_equal(cells, whole[rows, part])
            assert cells.base is None or cells.base.nbytes == cells.nbytes  # no more memory than the rectangle
            assert cells.flags.writeable


@pytest.mark.parametrize("name", FILES)
def test_the_header_tells_rows_names_and_time(name: str, folder: Path) -> None:
    with open_source(folder / name, spool=folder / "spool") as source:
        header = source.header
        assert header.shape == (ROWS, SENSORS)
        assert header.named == (name in NAMED)
        assert header.suffix == Path(name).suffix
        assert sorted(header.names) == ([f"s{n}" for n in range(SENSORS)] if name in NAMED else list(range(SENSORS)))
        assert (header.index is not None) == (name in NAMED)
        if header.index is not None:
            assert header.index.equals(gappy_frame().index)


@pytest.mark.parametrize("name", [name for name in FILES if "long" not in name and ".zarr" not in name])
def test_the_source_reads_what_the_whole_reader_reads(name: str, folder: Path) -> None:
    data = io.read(folder / name).data
    with open_source(folder / name, spool=folder / "spool") as source:
        np.testing.assert_array_equal(source.read(slice(None)), np.asarray(data))
        if isinstance(data, pd.DataFrame):
            assert source.header.names == tuple(data.columns)
            assert source.header.index is not None
            assert source.header.index.equals(data.index)
            assert source.header.index.name == data.index.name


@pytest.mark.parametrize("name", FILES)
def test_nothing_stays_in_the_spool(name: str, folder: Path) -> None:
    with open_source(folder / name, spool=folder / "spool") as source:
        source.read(slice(0, 1))
    assert list((folder / "spool").iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_many_threads_read_the_same_cells(name: str, folder: Path) -> None:
    with open_source(folder / name, spool=folder / "spool") as source:
        whole = source.read(slice(None))
        wrong: list[slice] = []

        def read(first: int) -> None:
            parts = [slice(start, start + 9) for start in range(first, ROWS, 4)]
            wrong.extend(part for part in parts if not np.array_equal(source.read(part), whole[part], equal_nan=True))

        threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i2", "i8", "u1", "?"])
def test_cells_are_floating_whatever_the_file_holds(dtype: str, tmp_path: Path) -> None:
    array = np.array([[0, 1], [1, 0], [1, 1]], dtype=dtype)
    np.save(tmp_path / "a.npy", array)
    with open_source(tmp_path / "a.npy", spool=tmp_path) as source:
        cells = source.read(slice(None))
        assert cells.dtype == (np.float32 if dtype[-2:] in ("f2", "f4") else np.float64)
        assert source.header.dtype == array.dtype.newbyteorder("=")
        assert cells.tolist() == array.tolist()


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet", ".h5"])
def test_integers_without_an_exact_floating_value_are_refused(suffix: str, tmp_path: Path) -> None:
    io.write(tmp_path / f"a{suffix}", io.Table(pd.DataFrame({"a": [1, 2**53 + 1], "b": 1}), "memory"))
    with (
        pytest.raises(ValueError, match=rf"a{suffix}.* the integer 9007199254740993 has no exact floating value"),
        open_source(tmp_path / f"a{suffix}", spool=tmp_path) as source,
    ):
        source.read(slice(None))


@pytest.mark.parametrize("name", FILES)
def test_zeros_are_missing_only_on_request(name: str, tmp_path: Path) -> None:
    frame = gappy_frame()
    frame.iloc[7, 2] = 0
    FILES[name](tmp_path / name, frame)
    missing = {}
    for asked in (False, True):
        with open_source(tmp_path / name, spool=tmp_path, zeros_as_missing=asked) as source:
            missing[asked] = int(np.isnan(source.read(slice(None))).sum())
    assert missing == {False: int(frame.isna().sum().sum()), True: int(frame.isna().sum().sum()) + 1}


def test_integers_whose_zeros_are_missing_become_floating(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0, 3]]))
    with open_source(tmp_path / "a.npy", spool=tmp_path, zeros_as_missing=True) as source:
        assert source.header.dtype == np.float64


def test_a_channel_of_an_archive_is_one_table(folder: Path) -> None:
    for name in ("a.npz", "deflated.npz"):
        with open_source(folder / name, spool=folder / "spool", channel=1) as source:
            assert np.unique(source.read(slice(None))).tolist() == [7.0]
        with pytest.raises(ValueError, match=r"there is no channel 2: 'data' has shape \(60, 4, 2\)"):
            open_source(folder / name, spool=folder / "spool", channel=2)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npy", "a.h5", "array.h5", "a.zarr"])
def test_a_choice_that_chooses_nothing_is_refused(name: str, folder: Path) -> None:
    for read in (io.read, lambda path, **choice: open_source(path, spool=folder / "spool", **choice)):
        with pytest.raises(ValueError, match=rf"{name}: there is no channel 1: only an array \(T, N, C\)"):
            read(folder / name, channel=1)
        with pytest.raises(ValueError, match=rf"{name}: there is no key 'other'"):
            read(folder / name, key="other")


def test_sensors_in_rows_are_turned_around(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", gappy().T, delimiter=",")
    with open_source(tmp_path / "a.csv", spool=tmp_path, layout="sensors-in-rows") as source:
        np.testing.assert_array_equal(source.read(slice(3, 50), slice(1, 3)), gappy()[3:50, 1:3])


def test_a_table_of_sensors_first_in_zarr_is_turned_around(tmp_path: Path) -> None:
    import xarray

    frame = gappy_frame()
    array = xarray.DataArray(frame.to_numpy().T, {"time": frame.index.to_numpy()}, ("sensor", "time"), "speed")
    array.to_dataset().to_zarr(tmp_path / "a.zarr", consolidated=False)
    with open_source(tmp_path / "a.zarr", spool=tmp_path) as source:
        np.testing.assert_array_equal(source.read(slice(3, 50), slice(1, 3)), frame.to_numpy()[3:50, 1:3])


def test_scaled_integers_in_zarr_are_read_in_their_units(tmp_path: Path) -> None:
    import xarray

    frame = gappy_frame().round(1)
    array = xarray.DataArray(frame.to_numpy(), dims=("time", "sensor"), name="speed").to_dataset()
    packed = {"speed": {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1}}
    array.to_zarr(tmp_path / "a.zarr", encoding=packed, consolidated=False)
    with open_source(tmp_path / "a.zarr", spool=tmp_path) as source:
        np.testing.assert_allclose(source.read(slice(None)), frame.to_numpy(), rtol=1e-6)


def test_a_damaged_chunk_is_named_by_file_rows_and_columns(tmp_path: Path) -> None:
    import zarr

    array = zarr.create_array(tmp_path / "a.zarr", data=np.ones((8, 2)), chunks=(4, 2))
    del array
    next((tmp_path / "a.zarr" / "c" / "1").iterdir()).write_bytes(b"no chunk")
    with open_source(tmp_path / "a.zarr", spool=tmp_path) as source:
        assert source.read(slice(0, 4)).shape == (4, 2)
        with pytest.raises(ValueError, match=r"cannot read .*a\.zarr, rows 2 to 6, columns 0 to 2"):
            source.read(slice(2, 6))


@pytest.mark.parametrize("name", FILES)
def test_a_step_or_a_closed_file_is_refused(name: str, folder: Path) -> None:
    with open_source(folder / name, spool=folder / "spool") as source:
        with pytest.raises(ValueError, match=r"rows must be a slice of step 1, got slice\(None, None, 2\)"):
            source.read(slice(None, None, 2))
        with pytest.raises(ValueError, match="columns must be a slice of step 1"):
            source.read(slice(None), slice(None, None, -1))
    with pytest.raises(ValueError, match="is closed"):
        source.read(slice(None))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"cannot read .*a\.npy: .*shape \(2, 3, 4\), not a table"):
        open_source(tmp_path / "a.npy", spool=tmp_path)
    with pytest.raises(ValueError, match=r"known are \.csv, .*\.zarr"):
        open_source(tmp_path / "a.xlsx", spool=tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        open_source(tmp_path / "absent.zarr", spool=tmp_path)
    with pytest.raises(ValueError, match="layout must be one of auto, wide"):
        open_source(tmp_path / "a.npy", spool=tmp_path, layout="tall")
    with pytest.raises(ValueError, match=r"layout 'long' is one of \.csv and \.parquet files"):
        open_source(tmp_path / "a.npy", spool=tmp_path, layout="long")


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    before = stamp(tmp_path / "a.csv")
    assert (before["size"], before["files"]) == (4, 1)
    (tmp_path / "a.csv").write_text("a\n12\n")
    assert stamp(tmp_path / "a.csv") != before
    assert stamp(tmp_path)["size"] == 5
    with pytest.raises(ValueError, match="no such file"):
        stamp(tmp_path / "b.csv")


# ---- several processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "long.csv", "long.parquet", "deflated.npz", "fortran.npz", "late.csv"])
def test_what_was_laid_aside_is_opened_elsewhere(name: str, folder: Path, tmp_path: Path) -> None:
    path = folder / name
    if name == "late.csv":
        path = tmp_path / name
        gappy_frame().drop(gappy_frame().index[3]).to_csv(path)
    (tmp_path / "spool").mkdir()
    with open_source(path, spool=tmp_path / "spool", repair=name == "late.csv") as table:
        aside = sorted((tmp_path / "spool").iterdir())
        with pickle.loads(pickle.dumps(table.elsewhere()))() as other:
            assert other.read(slice(None)).tobytes() == table.read(slice(None)).tobytes()
            assert other.header.names == table.header.names
            assert (other.header.index is None) == (table.header.index is None)
            assert other.header.index is None or other.header.index.equals(table.header.index)
        assert sorted((tmp_path / "spool").iterdir()) == aside
    assert not any((tmp_path / "spool").iterdir())


def test_what_was_not_laid_aside_is_opened_anew(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", gappy_frame().to_numpy())
    with open_source(tmp_path / "a.npy", spool=tmp_path) as table:
        assert table.elsewhere() is None


# ---- absurd sizes --------------------------------------------------------------------------------------------------


def npy_claiming(shape: tuple[int, ...]) -> bytes:
    import io as streams

    file = streams.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(64)


def refused_by_both(path: Path, complaint: str) -> None:
    """The whole reader and the one in pieces, neither of which may allocate what the file claims."""
    with pytest.raises(ValueError, match=complaint):
        io.read(path)
    with pytest.raises(ValueError, match=complaint):
        open_source(path, spool=path.parent)


@pytest.mark.parametrize("shape", [(2**30, 100), (2**50, 2), (2**62, 2**62)])
def test_an_array_that_claims_more_than_its_file_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy_claiming(shape))
    refused_by_both(tmp_path / "a.npy", rf"a\.npy: it claims an array of shape \({shape[0]}, {shape[1]}\)")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_claims_more_than_its_archive_is_refused(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("data.npy", npy_claiming((2**30, 100)))
    refused_by_both(
        tmp_path / "a.npz", r"a\.npz: .*its member 'data\.npy' claims an array of shape \(1073741824, 100\)"
    )


def test_an_archive_may_hold_names_beside_its_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=gappy(), sensors=np.array(["a", "b", "c", "d"]))
    with open_source(tmp_path / "a.npz", spool=tmp_path) as source:
        np.testing.assert_array_equal(source.read(slice(None)), gappy())


def test_a_dataset_of_no_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (2**40, 2**10), "f8", chunks=(1024, 1024))
    refused_by_both(tmp_path / "a.h5", r"a\.h5: it claims an array of shape \(1099511627776, 1024\), more than 2\*\*40")


def test_a_dataset_that_is_mostly_fill_is_read_in_pieces_only(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (2**30, 2**10), "f8", chunks=(64, 64), fillvalue=np.nan)
    with pytest.raises(ValueError, match=r"its cells take 8796\.1 GB"):
        io.read(tmp_path / "a.h5")
    with open_source(tmp_path / "a.h5", spool=tmp_path) as source:
        assert np.isnan(source.read(slice(2**29, 2**29 + 5))).all()


def test_an_array_in_zarr_of_no_disk_is_refused(tmp_path: Path) -> None:
    import zarr

    zarr.create_array(tmp_path / "a.zarr", shape=(2**40, 2**10), dtype="f8", chunks=(1024, 1024))
    refused_by_both(tmp_path / "a.zarr", "more than 2\\*\\*40 cells")
    zarr.create_array(tmp_path / "b.zarr", shape=(2**20, 2**10), dtype="f8", chunks=(2**20, 2**10))
    refused_by_both(tmp_path / "b.zarr", "more than 2\\*\\*27 cells")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("damage", ["torn", "no header", "longer than it is"])
def test_a_blosc_chunk_of_another_length_than_its_header_says_is_refused(
    tmp_path: Path, version: Literal[2, 3], damage: str
) -> None:
    """The decompressor would read on behind its end, which now and then ends the process."""
    codec: Any = numcodecs.Blosc() if version == 2 else zarr.codecs.BloscCodec()
    cells = np.arange(400, dtype=np.float32).reshape(100, 4)
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=cells, chunks=(50, 4), zarr_format=version, compressors=codec)
    with open_source(path, spool=tmp_path) as source:
        np.testing.assert_array_equal(source.read(slice(None)), cells)
    chunk = path / ("1.0" if version == 2 else "c/1/0")
    whole = chunk.read_bytes()
    claims_more = whole[:12] + (10**9).to_bytes(4, "little") + whole[16:]
    chunk.write_bytes({"torn": whole[:-5], "no header": whole[:7], "longer than it is": claims_more}[damage])
    with (
        open_source(path, spool=tmp_path) as source,
        pytest.raises(ValueError, match=r"a chunk of \d+ bytes is damaged"),
    ):
        source.read(slice(None))

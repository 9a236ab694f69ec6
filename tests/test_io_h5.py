"""HDF5 frames and arrays as users have them, filled whole and in pieces: all else in the file as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from imputers import gappy, gappy_frame
from ways import WAYS, Fill

from fastimpute import io
from fastimpute.io.source import open_source

FRAMES = {
    "one column": gappy_frame(sensors=1),
    "a column of another type": gappy_frame().astype({"s1": np.float32}),
    "a column of integers": gappy_frame().assign(lane=np.arange(60)),
}


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_columns_that_are_stored_alone_are_filled(fill: Fill, frame: str, layout: Any, tmp_path: Path) -> None:
    before = FRAMES[frame]
    before.to_hdf(tmp_path / "a.h5", key="df", format=layout)
    fill(tmp_path / "a.h5", tmp_path / "b.h5")
    after = pd.read_hdf(tmp_path / "b.h5", "df")
    pd.testing.assert_frame_equal(after.where(before.notna()), before, check_exact=True, check_freq=False)
    assert after.notna().all(axis=None)
    if layout == "table":
        late = pd.read_hdf(tmp_path / "b.h5", "df", where="index >= '2026-01-05 04:00'")
        pd.testing.assert_frame_equal(late, after.iloc[48:], check_freq=False)


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "+01:00"])
def test_time_stamps_of_a_zone_are_read_and_kept(fill: Fill, zone: str, tmp_path: Path) -> None:
    frame = gappy_frame().tz_localize(zone)
    frame.to_hdf(tmp_path / "a.h5", key="df")
    fill(tmp_path / "a.h5", tmp_path / "b.h5")
    pd.testing.assert_index_equal(pd.read_hdf(tmp_path / "b.h5", "df").index, frame.index)


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_a_frame_keeps_its_notes_its_compression_and_its_queries(fill: Fill, layout: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data_columns": ["s0"]} if layout == "table" else {}
    with pd.HDFStore(tmp_path / "a.h5", "w", complevel=5, complib="zlib") as store:
        store.put("df", gappy_frame(), format=layout, track_times=False, **settings)
        store.get_storer("df").attrs.metadata = {"units": "mph"}
        store.put("stations", pd.DataFrame({"lane": [1, 2]}), track_times=False)
    fill(tmp_path / "a.h5", tmp_path / "b.h5")
    with pd.HDFStore(tmp_path / "b.h5", "r") as store:
        assert store.get_storer("df").attrs.metadata == {"units": "mph"}
        assert store["stations"]["lane"].tolist() == [1, 2]
        node = store.get_storer("df").group
        assert (node.block0_values if layout == "fixed" else node.table).filters.complib == "zlib"
        if layout == "table":
            assert (store.select("df", "s0 > 50")["s0"] > 50).all()


@pytest.mark.parametrize("fill", WAYS)
def test_integers_that_become_floating_keep_how_they_are_stored(fill: Fill, tmp_path: Path) -> None:
    how = {"chunks": (10, 2), "compression": "gzip", "shuffle": True, "fletcher32": True, "maxshape": (None, 4)}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=np.nan_to_num(gappy()).astype(int), **how).attrs["units"] = "mph"
    fill(tmp_path / "a.h5", tmp_path / "b.h5", zeros_as_missing=True)
    with h5py.File(tmp_path / "b.h5") as file:
        data = file["data"]
        assert data.dtype == np.float64
        assert {name: getattr(data, name) for name in how} == how
        assert data.attrs["units"] == "mph"
        assert (data[()] > 0).all()


@pytest.mark.parametrize("fill", WAYS)
def test_a_channel_of_integers_becomes_floating_with_all_others(fill: Fill, tmp_path: Path) -> None:
    channels = np.stack([np.nan_to_num(gappy()).astype(np.int32), np.arange(240).reshape(60, 4)], axis=2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=channels, chunks=(7, 4, 1), compression="gzip")
    fill(tmp_path / "a.h5", tmp_path / "b.h5", zeros_as_missing=True)
    with h5py.File(tmp_path / "b.h5") as file:
        after = file["data"][()]
        assert file["data"].chunks == (7, 4, 1)
    assert np.array_equal(after[:, :, 1], channels[:, :, 1])
    assert np.array_equal(after[:, :, 0][channels[:, :, 0] > 0], channels[:, :, 0][channels[:, :, 0] > 0])
    assert (after[:, :, 0] > 0).all()


@pytest.mark.parametrize("fill", WAYS)
def test_numbers_of_another_byte_order_stay_so(fill: Fill, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = gappy().astype(">f8")
    fill(tmp_path / "a.h5", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["data"].dtype == np.dtype(">f8")
        assert np.array_equal(file["data"][()][~np.isnan(gappy())], gappy()[~np.isnan(gappy())])


def test_a_column_of_times_is_no_sensor(tmp_path: Path) -> None:
    frame = gappy_frame().reset_index()
    frame["time"] = pd.DatetimeIndex(frame["time"]).as_unit("s").asi8
    frame.to_hdf(tmp_path / "a.h5", key="df")
    data = io.read(tmp_path / "a.h5").data
    assert isinstance(data, pd.DataFrame)
    assert list(data.columns) == ["s0", "s1", "s2", "s3"]
    with pytest.raises(ValueError, match=r"a\.h5: column 'time' holds time stamps or row numbers"):
        open_source(tmp_path / "a.h5", spool=tmp_path)


def test_a_zone_that_would_have_to_be_called_is_not_loaded(tmp_path: Path) -> None:
    gappy_frame().tz_localize("Europe/Berlin").to_hdf(tmp_path / "a.h5", key="df", format="table")
    with pytest.raises(ValueError, match=r"a\.h5: df holds a pickle that names '.* getattr', which is never loaded"):
        io.read(tmp_path / "a.h5")

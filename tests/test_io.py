"""Files: what is read is what was there, what is written keeps all else, and nothing appears half-done."""

from __future__ import annotations

import os
import pickle
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imputers import gappy, gappy_frame

from fastimpute import LinearImputer, io
from fastimpute.atomic import folder_written_aside, written_aside

ENDINGS = list(io.FORMATS)
FILES = [ending for ending in ENDINGS if ending not in io.FOLDERS]


def write_frame(path: Path, frame: pd.DataFrame) -> Path:
    io.write(path, io.Table(frame, "memory"))
    return path


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()}


def values(data: Any) -> np.ndarray[Any, Any]:
    return data.to_numpy() if isinstance(data, pd.DataFrame) else data


def refill(source: Path, target: Path, **choice: Any) -> None:
    table = io.read(source, **choice)
    io.write(target, table.holding(LinearImputer().fit_transform(table.data)))


# ---- every format --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_values_survive_a_round_trip_bit_for_bit(ending: str, tmp_path: Path) -> None:
    frame = gappy_frame()
    table = io.read(write_frame(tmp_path / f"a{ending}", frame))
    assert values(table.data).tobytes() == frame.to_numpy().tobytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_filling_a_file_leaves_no_gap_and_moves_no_observation(ending: str, tmp_path: Path) -> None:
    frame = gappy_frame()
    source, target = write_frame(tmp_path / f"in{ending}", frame), tmp_path / f"out{ending}"
    before = contents(source)
    refill(source, target)
    filled = values(io.read(target).data)
    assert not np.isnan(filled).any()
    seen = frame.notna().to_numpy()
    np.testing.assert_array_equal(filled[seen], frame.to_numpy()[seen])
    assert contents(source) == before


@pytest.mark.parametrize("source", ENDINGS)
@pytest.mark.parametrize("target", ENDINGS)
def test_every_format_converts_to_every_other(source: str, target: str, tmp_path: Path) -> None:
    path = write_frame(tmp_path / f"in{source}", gappy_frame())
    refill(path, tmp_path / f"out{target}")
    assert values(io.read(tmp_path / f"out{target}").data).shape == (60, 4)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".h5", ".zarr"])
def test_time_index_survives(ending: str, tmp_path: Path) -> None:
    frame = gappy_frame()
    refill(write_frame(tmp_path / f"in{ending}", frame), tmp_path / f"out{ending}")
    assert io.read(tmp_path / f"out{ending}").data.index.equals(frame.index)


@pytest.mark.parametrize("ending", ENDINGS)
def test_in_and_out_may_be_the_same_file(ending: str, tmp_path: Path) -> None:
    path = write_frame(tmp_path / f"a{ending}", gappy_frame())
    refill(path, path)
    assert not np.isnan(values(io.read(path).data)).any()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", FILES)
def test_empty_file_is_refused(ending: str, tmp_path: Path) -> None:
    (tmp_path / f"a{ending}").touch()
    with pytest.raises(ValueError, match=rf"cannot read .*a{ending}: the file is empty"):
        io.read(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", FILES)
def test_absent_file_and_folder_are_refused(ending: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        io.read(tmp_path / f"a{ending}")
    (tmp_path / f"b{ending}").mkdir()
    with pytest.raises(ValueError, match="it is a folder"):
        io.read(tmp_path / f"b{ending}")
    with pytest.raises(ValueError, match="it is a folder"):
        write_frame(tmp_path / f"b{ending}", gappy_frame())


@pytest.mark.parametrize("ending", [".parquet", ".npz", ".npy", ".h5"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_file_is_refused(ending: str, share: float, tmp_path: Path) -> None:
    path = write_frame(tmp_path / f"a{ending}", gappy_frame(rows=500))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=f"cannot read .*a{ending}"):
        io.read(path)


@pytest.mark.parametrize("ending", FILES)
def test_garbage_is_refused(ending: str, tmp_path: Path) -> None:
    (tmp_path / f"a{ending}").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(ValueError, match="cannot read"):
        io.read(tmp_path / f"a{ending}")


@pytest.mark.parametrize("name", ["table.xlsx", "table", "table.feather"])
def test_unknown_ending_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"known are \.csv, \.parquet, \.npz, \.npy, \.h5"):
        io.read(tmp_path / name)
    with pytest.raises(ValueError, match="known are"):
        io.check_target(tmp_path / name)
    with pytest.raises(ValueError, match="known are"):
        write_frame(tmp_path / name, gappy_frame())


# ---- atomic writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_write_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), written_aside(tmp_path / "a.csv") as aside:
        aside.write_text("half of it")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_aside(target) as aside:
        aside.write_text("half of it")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("ending", ENDINGS)
def test_interrupt_in_any_writer_leaves_nothing(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = io.read(write_frame(tmp_path / f"a{ending}", gappy_frame()))
    original = io.FORMATS[ending].write

    def interrupted(path: Path, table: io.Table) -> None:
        original(path, table)
        raise KeyboardInterrupt

    monkeypatch.setattr(io.FORMATS[ending], "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        io.write(tmp_path / f"b{ending}", table)
    assert list(tmp_path.iterdir()) == [tmp_path / f"a{ending}"]


def test_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    path = write_frame(tmp_path / "a.csv", gappy_frame())
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    write_frame(path, gappy_frame())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_absent_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        io.check_target(tmp_path / "nowhere" / "a.csv")
    with pytest.raises(ValueError, match="there is no folder"):
        write_frame(tmp_path / "nowhere" / "a.csv", gappy_frame())


def test_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ValueError, match="no permission in folder"):
        io.check_target(tmp_path / "a.csv")


def test_full_disk_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write .*a\.csv: No space left"), written_aside(tmp_path / "a.csv"):
        raise OSError(28, "No space left on device")


# ---- csv -----------------------------------------------------------------------------------------------------------


@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
@settings(max_examples=40, deadline=None)
def test_csv_keeps_every_number(numbers: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_frame(path, pd.DataFrame({"a": numbers, "b": numbers}))
    assert io.read(path).data["b"].to_numpy().tobytes() == np.array(numbers).tobytes()


@pytest.mark.parametrize("name", ["date", "time", "when", ""])
def test_csv_time_column_is_found_and_written_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{name},s1\n1990/1/1 0:00,1\n1990/1/2 0:00,\n1990/1/3 0:00,3\n")
    refill(tmp_path / "a.csv", tmp_path / "b.csv")
    assert io.read(tmp_path / "a.csv").data.index[1] == pd.Timestamp("1990-01-02")
    written = (tmp_path / "b.csv").read_text()
    assert written == f"{name},s1\n1990/1/1 0:00,1.0\n1990/1/2 0:00,2.0\n1990/1/3 0:00,3.0\n"


def test_csv_of_numbers_has_no_time_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("773869,767541\n20120301,1\n20120302,2\n")
    assert list(io.read(tmp_path / "a.csv").data.columns) == ["773869", "767541"]


def test_csv_row_numbers_of_pandas_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",s1\n0,1\n1,\n2,3\n")
    refill(tmp_path / "a.csv", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == ",s1\n0,1.0\n1,2.0\n2,3.0\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("s1,s2\n1,2\n3,oops\n", "column 's2' is not numeric: line 3 holds 'oops'"),
        ("s1,s1\n1,2\n", "column 's1' appears more than once"),
        ("date,s1\n2020-01-01,1\nnever,2\n", "column 'date' does not read as time stamps: row 1 holds 'never'"),
        ("s1,s2\n1,2\n1,2,3,4\n", "not a table"),
        ("\n", "not a table"),
    ],
)
def test_bad_csv_is_refused_by_place(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        io.read(tmp_path / "a.csv")


# ---- numpy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [0, 2])
def test_pems_archive_fills_one_channel_and_keeps_the_rest(channel: int, tmp_path: Path) -> None:
    data = np.stack([gappy(seed=seed) for seed in range(3)], axis=2)
    np.savez(tmp_path / "a.npz", data=data, start=np.array([2018, 1, 1]))
    refill(tmp_path / "a.npz", tmp_path / "b.npz", channel=channel)
    with np.load(tmp_path / "b.npz") as archive:
        after, start = archive["data"], archive["start"]
    others = [c for c in range(3) if c != channel]
    assert not np.isnan(after[:, :, channel]).any()
    np.testing.assert_array_equal(after[:, :, others], data[:, :, others])
    assert start.tolist() == [2018, 1, 1]


def test_absent_channel_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=np.ones((5, 2, 3)))
    with pytest.raises(ValueError, match="there is no channel 3"):
        io.read(tmp_path / "a.npz", channel=3)


def test_samples_in_an_archive_stay_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=gappy().reshape(5, 12, 4))
    assert io.read(tmp_path / "a.npz").data.shape == (5, 12, 4)


def test_archive_of_several_arrays_asks_for_a_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", flow=np.ones((3, 2)), speed=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="choose a key, the file holds flow, speed"):
        io.read(tmp_path / "a.npz")
    assert io.read(tmp_path / "a.npz", key="speed").data.sum() == 0
    with pytest.raises(ValueError, match="there is no key 'x'; the file holds flow, speed"):
        io.read(tmp_path / "a.npz", key="x")


@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_numpy_objects_are_never_unpickled(ending: str, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([[Trap()]], dtype=object)
    save = np.savez if ending == ".npz" else np.save
    save(tmp_path / f"a{ending}", trap)
    member = "member 'arr_0.npy': " if ending == ".npz" else ""
    with pytest.raises(ValueError, match=rf"cannot read .*{member}it holds pickled objects"):
        io.read(tmp_path / f"a{ending}")
    assert not (tmp_path / "sprung").exists()


def test_samples_do_not_fit_into_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="does not fit into a table"):
        io.write(tmp_path / "a.csv", io.read(tmp_path / "a.npy"))


# ---- hdf5 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_metr_la_frame_keeps_integer_names_and_index(layout: Any, tmp_path: Path) -> None:
    frame = gappy_frame().set_axis([773869, 767541, 767542, 717447], axis=1)
    frame.to_hdf(tmp_path / "a.h5", key="df", format=layout)
    refill(tmp_path / "a.h5", tmp_path / "b.h5")
    after = pd.read_hdf(tmp_path / "b.h5", "df")
    assert after.columns.tolist() == frame.columns.tolist()
    assert after.index.equals(frame.index)
    assert after.notna().all(axis=None)


def test_h5_array_keeps_attributes_and_neighbours(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["speed"] = gappy()
        file["speed"].attrs["unit"] = "mph"
        file["sensors"] = np.arange(4)
    refill(tmp_path / "a.h5", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file:
        assert not np.isnan(file["speed"][()]).any()
        assert file["speed"].attrs["unit"] == "mph"
        assert file["sensors"][()].tolist() == [0, 1, 2, 3]


def test_a_file_without_any_table_says_so(tmp_path: Path) -> None:
    pd.Series(np.arange(3.0)).to_hdf(tmp_path / "a.h5", key="df")
    np.savez(tmp_path / "a.npz", names=np.array(["a", "b"]))
    for name in ("a.h5", "a.npz"):
        with pytest.raises(ValueError, match=rf"{name}: it holds no table of numbers"):
            io.read(tmp_path / name)


def test_h5_pems_channel(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.stack([gappy(), gappy(seed=1)], axis=2)
    refill(tmp_path / "a.h5", tmp_path / "b.h5", channel=1)
    with h5py.File(tmp_path / "b.h5") as file:
        assert np.isnan(file["data"][:, :, 0]).any()
        assert not np.isnan(file["data"][:, :, 1]).any()


def test_h5_integers_with_zeros_as_missing_become_floating(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.array([[1, 5], [0, 5], [3, 5]])
    table = io.read(tmp_path / "a.h5")
    io.write(tmp_path / "b.h5", table.holding(LinearImputer().fit_transform(io.zeros_to_missing(table.data))))
    assert io.read(tmp_path / "b.h5").data[:, 0].tolist() == [1, 2, 3]


def test_pickled_code_in_attributes_is_refused_unrun(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    gappy_frame().to_hdf(tmp_path / "a.h5", key="df")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["df"].attrs["extra"] = np.bytes_(pickle.dumps(Trap(), 0))
    with pytest.raises(ValueError, match=r"pickle that names .*mkdir"):
        io.read(tmp_path / "a.h5")
    assert not (tmp_path / "sprung").exists()


def test_pickled_columns_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gappy_frame().assign(road=[{}] * 60).to_hdf(tmp_path / "a.h5", key="df")
    with pytest.raises(ValueError, match="pickled objects"):
        io.read(tmp_path / "a.h5")


# ---- zarr ----------------------------------------------------------------------------------------------------------


def test_a_zarr_folder_is_not_taken_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*a\.zarr: there is no such folder"):
        io.read(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").touch()
    with pytest.raises(ValueError, match="it is not a folder"):
        io.read(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="it is a file, where a folder should go"):
        io.check_target(tmp_path / "a.zarr")


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"not a readable \.zarr folder"):
        io.read(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="a folder of other things, which would be lost"):
        write_frame(tmp_path / "a.zarr", gappy_frame())
    assert (tmp_path / "a.zarr" / "thesis.tex").exists()


def test_interrupted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "old").touch()
    with pytest.raises(KeyboardInterrupt), folder_written_aside(tmp_path / "a.zarr") as aside:
        (aside / "new").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "a.zarr", tmp_path / "a.zarr" / "old"]


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with folder_written_aside(tmp_path / "a.zarr") as aside:
            (aside / name).touch()
    assert list(tmp_path.rglob("*")) == [tmp_path / "a.zarr", tmp_path / "a.zarr" / "new"]
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "a.zarr").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_zarr_integers_stay_integers_until_their_zeros_are_missing(tmp_path: Path) -> None:
    import zarr

    zarr.create_array(tmp_path / "a.zarr", data=np.array([[1, 5], [0, 5], [3, 5]]))
    table = io.read(tmp_path / "a.zarr")
    assert values(table.data).dtype == np.int64
    io.write(tmp_path / "b.zarr", table.holding(LinearImputer().fit_transform(io.zeros_to_missing(table.data))))
    assert values(io.read(tmp_path / "b.zarr").data)[:, 0].tolist() == [1, 2, 3]


def test_without_zarr_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ValueError, match=r"\.zarr needs zarr and xarray: pip install 'fastimpute\[io\]'"):
        write_frame(tmp_path / "a.zarr", gappy_frame())


# ---- zeros ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_frame", [True, False])
def test_zeros_become_missing_only_on_request(as_frame: bool) -> None:
    table = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, -0.0]])
    data = pd.DataFrame(table) if as_frame else table
    missing = np.isnan(values(io.zeros_to_missing(data)))
    assert missing.tolist() == [[True, False], [False, True], [False, True]]
    assert not np.isnan(table).any()


def test_zeros_are_described() -> None:
    table = np.ones((100, 4))
    table[10:30, 1] = 0
    table[5, 2] = 0
    assert io.describe_zeros(table) == (
        "5.25 % of the cells are zero, 95 % of those in runs of 12 or more, in 2 of 4 sensors"
    )
    assert io.zero_share(table) == 21 / 400
    assert io.describe_zeros(np.ones((3, 2))) is None

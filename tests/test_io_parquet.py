"""Parquet as pandas and others write it, filled whole and in pieces: readable, of the same types, by the same names."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from imputers import gappy_frame
from ways import WAYS, Fill

from fastimpute import io


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize(
    ("before", "after"), [("Int64", "Float64"), ("int64[pyarrow]", "double[pyarrow]"), ("Float32", "Float32")]
)
def test_nullable_columns_are_readable_when_filled(fill: Fill, before: Any, after: Any, tmp_path: Path) -> None:
    frame = gappy_frame().round().astype("Int64").astype(before)
    frame.to_parquet(tmp_path / "in.parquet")
    fill(tmp_path / "in.parquet", tmp_path / "out.parquet")
    filled = pd.read_parquet(tmp_path / "out.parquet")
    assert set(filled.dtypes) == {pd.array([1], dtype=after).dtype}
    observed = frame.notna().to_numpy()
    assert (filled.to_numpy(float)[observed] == frame.to_numpy(float, na_value=np.nan)[observed]).all()


@pytest.mark.parametrize("fill", WAYS)
def test_truth_values_stay_truth_values(fill: Fill, tmp_path: Path) -> None:
    frame = gappy_frame().assign(open=np.arange(60) % 2 == 0)
    frame.to_parquet(tmp_path / "in.parquet")
    fill(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (pd.read_parquet(tmp_path / "out.parquet")["open"] == frame["open"]).all()
    assert pd.read_parquet(tmp_path / "out.parquet")["open"].dtype == bool


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("names", [[773869, 767541, 3, 4], [0.5, 1.5, 2.5, 3.5]])
def test_names_that_are_no_text_go_from_h5_to_parquet(fill: Fill, names: list[Any], tmp_path: Path) -> None:
    gappy_frame().set_axis(names, axis=1).to_hdf(tmp_path / "in.h5", key="df")
    fill(tmp_path / "in.h5", tmp_path / "out.parquet")
    assert list(pd.read_parquet(tmp_path / "out.parquet").columns) == names


@pytest.mark.parametrize("fill", WAYS)
def test_time_stamps_may_be_a_dictionary_of_texts(fill: Fill, tmp_path: Path) -> None:
    frame = gappy_frame().reset_index().astype({"time": "str"}).astype({"time": "category"})
    frame.to_parquet(tmp_path / "in.parquet")
    fill(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert list(pd.read_parquet(tmp_path / "out.parquet")["time"]) == list(frame["time"])


@pytest.mark.parametrize("fill", WAYS)
def test_row_numbers_of_another_file_are_no_sensor_and_stay(fill: Fill, tmp_path: Path) -> None:
    gappy_frame().reset_index(drop=True).to_csv(tmp_path / "a.csv")
    pd.read_csv(tmp_path / "a.csv").to_parquet(tmp_path / "in.parquet")
    fill(tmp_path / "in.parquet", tmp_path / "out.parquet")
    filled = pd.read_parquet(tmp_path / "out.parquet")
    assert list(filled.columns) == ["Unnamed: 0", "s0", "s1", "s2", "s3"]
    assert filled["Unnamed: 0"].tolist() == list(range(60))
    data = io.read(tmp_path / "out.parquet").data
    assert isinstance(data, pd.DataFrame)
    assert list(data.columns) == ["s0", "s1", "s2", "s3"]


@pytest.mark.parametrize("missing", ["Int64", "double[pyarrow]"])
def test_zeros_of_nullable_columns_are_found(missing: Any) -> None:
    frame = pd.DataFrame({"a": pd.array([0, None, 2, 0], dtype=missing)})
    assert io.zero_share(frame) == 0.5
    assert io.zeros_to_missing(frame)["a"].isna().tolist() == [True, True, False, True]


@pytest.mark.parametrize("cells", [[[1.0, 2.0]] * 60, ["x"] * 60, list(pd.date_range("2026", periods=60))])
def test_a_column_of_no_numbers_is_refused_with_the_name_of_the_file(cells: list[Any], tmp_path: Path) -> None:
    gappy_frame().assign(note=cells).to_parquet(tmp_path / "in.parquet")
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"in\.parquet: column 'note' is not numeric"):
        io.read(tmp_path / "in.parquet")

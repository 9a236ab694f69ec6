"""Fitted imputers on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from imputers import FACTORIES, Factory, gappy, gappy_frame
from safetensors import safe_open
from safetensors.numpy import save_file

import fastimpute as fi
from fastimpute.imputer import NotFittedError


@pytest.fixture(params=list(FACTORIES))
def imputer(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


def test_loaded_imputer_gives_the_same_bits(imputer: Factory, tmp_path: Path) -> None:
    fitted = imputer(all_missing="keep").fit(gappy_frame())
    fitted.save(tmp_path / "model.safetensors")
    loaded = fi.load(tmp_path / "model.safetensors")
    later = gappy_frame(seed=1)
    assert type(loaded) is type(fitted)
    assert loaded.get_params() == fitted.get_params()
    pd.testing.assert_frame_equal(loaded.transform(later), fitted.transform(later), check_exact=True)


def test_loaded_imputer_still_knows_its_sensors(imputer: Factory, tmp_path: Path) -> None:
    X = gappy_frame().set_axis([773869, 1, 2, 3], axis=1)
    imputer().fit(X).save(tmp_path / "model.safetensors")
    loaded = fi.load(tmp_path / "model.safetensors")
    assert loaded.transform(X).notna().all(axis=None)
    with pytest.raises(ValueError, match="773869 is absent"):
        loaded.transform(X.rename(columns={773869: 5}))


def test_sensors_named_by_tuples_or_times_survive(imputer: Factory, tmp_path: Path) -> None:
    X = gappy_frame(sensors=2)
    X.columns = pd.MultiIndex.from_tuples([("I5", 1), ("I5", 2)])
    imputer().fit(X).save(tmp_path / "model.safetensors")
    assert fi.load(tmp_path / "model.safetensors").transform(X).notna().all(axis=None)


def test_the_file_describes_itself_without_pickle(imputer: Factory, tmp_path: Path) -> None:
    imputer().fit(gappy()).save(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        header = json.loads(file.metadata()["fastimpute"])
    assert header["class"] == type(imputer()).__name__
    assert header["params"]["all_missing"] == "raise"


def test_saving_before_fit_is_refused(imputer: Factory, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        imputer().save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_model_is_refused(imputer: Factory, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        imputer().fit(gappy()).save(tmp_path / "nowhere" / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\0\0\0\0\0\0\0{}      "])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="not"):
        fi.load(tmp_path / "model.safetensors")


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not one written by fastimpute"):
        fi.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["simulate", "NoSuchImputer", "__builtins__"])
def test_only_imputers_of_the_package_are_built(name: str, tmp_path: Path) -> None:
    header: dict[str, Any] = {"format": 1, "class": name, "params": {}, "names": None, "facts": {}}
    save_file({"a": np.zeros(3)}, tmp_path / "model.safetensors", {"fastimpute": json.dumps(header)})
    with pytest.raises(ValueError, match="does not know"):
        fi.load(tmp_path / "model.safetensors")


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no model file"):
        fi.load(tmp_path / "model.safetensors")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3)}, tmp_path / "model.safetensors", {"fastimpute": json.dumps({"format": 99})})
    with pytest.raises(ValueError, match="format 99"):
        fi.load(tmp_path / "model.safetensors")

"""Fitted imputers on disk: one safetensors file, described by the JSON in its header. Never pickle."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.atomic import written_aside

if TYPE_CHECKING:
    from fastimpute.imputer import BaseImputer

FORMAT = 1
HEADER_KEY = "fastimpute"


def write_model(path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]], header: dict[str, Any]) -> None:
    """Write arrays and a JSON-able header; the file appears only when complete.

    Raises:
        ValueError: the path cannot be written, or a value in the header has no JSON form.
    """
    from safetensors.numpy import save_file

    try:
        text = json.dumps({"format": FORMAT, **header}, default=os.fspath)
    except TypeError as error:
        raise ValueError(f"a setting of this imputer cannot be saved: {error}") from None
    with written_aside(path) as aside:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, aside, {HEADER_KEY: text})


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and header of a file of `write_model`.

    Raises:
        ValueError: there is no such file, or it is not a saved imputer of a format known here.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ValueError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a saved imputer: {error}") from None
    if text is None:
        raise ValueError(f"{path} is a safetensors file, but not one written by fastimpute")
    header: dict[str, Any] = json.loads(text)
    if header["format"] != FORMAT:
        raise ValueError(f"{path} has format {header['format']}, this version of fastimpute reads format {FORMAT}")
    return arrays, header


def load(path: str | os.PathLike[str]) -> BaseImputer[Any]:
    """Read a fitted imputer that `save` wrote: the file says what it is and how it was set.

    Raises:
        ValueError: there is no such file, or it is not a saved imputer.

    Example:
        >>> imputer.save("model.safetensors")  # doctest: +SKIP
        >>> filled = load("model.safetensors").transform(X)  # doctest: +SKIP
    """
    from fastimpute.imputer import BaseImputer

    arrays, header = read_model(path)
    package = importlib.import_module("fastimpute")
    kind = getattr(package, header["class"], None) if header["class"] in package.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, BaseImputer)):
        raise ValueError(f"{path} holds a {header['class']!r}, which this version of fastimpute does not know")
    imputer = kind(**{name: _as_given(value) for name, value in header["params"].items()})
    imputer.restore_fit(arrays, header)
    return imputer


def _as_given(value: Any) -> Any:
    """JSON knows no tuples, and no setting of an imputer is a list."""
    return tuple(_as_given(item) for item in value) if isinstance(value, list) else value


def name_key(name: Hashable) -> str | int | float:
    """A sensor's name in a form that survives JSON, equal for names a user would call the same."""
    if isinstance(name, (bool, np.bool_)) or not isinstance(name, (str, int, float, np.integer, np.floating)):
        return str(name)
    return name if isinstance(name, str) else name.item() if isinstance(name, np.generic) else name


def name_keys(names: Iterable[Hashable]) -> list[str | int | float]:
    """`name_key` of each."""
    return [name_key(name) for name in names]

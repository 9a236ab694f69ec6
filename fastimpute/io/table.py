"""What a file holds, and the protocol of the formats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Data = pd.DataFrame | NDArray[Any]
KEYED = (".npz", ".h5", ".zarr")  # files that hold several things by name


@dataclass(frozen=True)
class Table:
    """The content of a file.

    Attributes:
        data: what an imputer takes: a wide frame, or an array (T, N) or (samples, steps, features).
        suffix: format it was read from.
        origin: what that format needs to write the data back the way they came.
    """

    data: Data
    suffix: str
    origin: Any = None

    def holding(self, data: Data) -> Table:
        """The same file with other data of the same layout."""
        return replace(self, data=data)


@dataclass(frozen=True)
class Choice:
    """Which part of a file to read, where it holds several.

    Attributes:
        key: name of the array or frame; None takes the customary one, or the only one.
        channel: which of C channels of an array (T, N, C) such as PEMS ships.
    """

    key: str | None = None
    channel: int = 0


class Format(Protocol):
    """One file format: a module with these two functions."""

    def read(self, path: Path, choice: Choice) -> Table:
        """Read a file that exists and is not empty.

        Raises:
            ValueError: the content is damaged, not numeric, or the choice names nothing in it.
        """
        ...

    def write(self, path: Path, table: Table) -> None:
        """Write to a path that nobody reads yet; `table.origin` is this format's own, or None.

        Raises:
            ValueError: the format cannot hold the data.
        """
        ...


def as_frame(data: Data) -> pd.DataFrame:
    """A frame for the formats that hold nothing else.

    Raises:
        ValueError: the data are 3-D.
    """
    if isinstance(data, pd.DataFrame):
        return data
    if data.ndim != 2:
        raise ValueError(f"an array of shape {data.shape} does not fit into a table: write it to .npz, .npy or .h5")
    return pd.DataFrame(data, columns=[str(column) for column in range(data.shape[1])], copy=False)


def as_array(data: Data) -> NDArray[Any]:
    """An array for the formats that hold nothing else; a frame loses its index and names."""
    return data.to_numpy() if isinstance(data, pd.DataFrame) else np.asarray(data)


def choose_key(keys: list[str], wanted: str | None, customary: tuple[str, ...]) -> str:
    """The key asked for, else the first customary one present, else the only one.

    Raises:
        ValueError: the key is not there, or there are several and none was asked for.
    """
    if not keys:
        raise ValueError("it holds no table of numbers, neither an array (rows, sensors) nor a frame")
    listed = ", ".join(keys)
    if wanted is not None:
        if wanted not in keys:
            raise ValueError(f"there is no key {wanted!r}; the file holds {listed}")
        return wanted
    for key in customary:
        if key in keys:
            return key
    if len(keys) != 1:
        raise ValueError(f"choose a key, the file holds {listed}")
    return keys[0]


def check_columns(frame: pd.DataFrame) -> None:
    """Refuse columns of anything but numbers.

    Raises:
        ValueError: a column holds text, time stamps, lists.
    """
    for name, dtype in frame.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
            raise ValueError(
                f"column {name!r} is not numeric: it holds {dtype}; drop it, or put time stamps into the first column"
            )


def check_used(choice: Choice, keyed: bool, origin: Any) -> None:
    """Refuse a choice that chose nothing.

    Args:
        choice: what was asked for.
        keyed: whether the file holds, by name, what a key chooses from.
        origin: of the table that was read; its channel is None where there are no channels.

    Raises:
        ValueError: a key of a file without keys, a channel of a table without channels.
    """
    if choice.key is not None and not keyed:
        raise ValueError(f"there is no key {choice.key!r}: a file like this holds one wide table")
    if choice.channel != 0 and getattr(origin, "channel", None) is None:
        raise ValueError(f"there is no channel {choice.channel}: only an array (T, N, C) called 'data' has channels")


def check_there(path: Path) -> None:
    """Refuse what is not there, not of the kind its ending says, or empty.

    Raises:
        ValueError: one of these.
    """
    if path.suffix.lower() == ".zarr":
        if not path.is_dir():
            raise ValueError("it is not a folder" if path.exists() else "there is no such folder")
        return
    if not path.is_file():
        raise ValueError("it is a folder" if path.is_dir() else "there is no such file")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")

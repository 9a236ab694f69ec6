"""One numpy array: (T, N) or (samples, steps, features). Pickled objects are never loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastimpute.io.pieces.npy import check_held, read_stored
from fastimpute.io.table import Choice, Table, as_array


def read(path: Path, choice: Choice) -> Table:
    """Read an array; see `fastimpute.io.table.Format`."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise ValueError("not a .npy file but an archive: call it .npz")
        file.seek(0)
        check_held(read_stored(file), path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"not a readable .npy file: {error}") from None
    return Table(array, ".npy")


def write(path: Path, table: Table) -> None:
    """Write the array."""
    np.save(path, as_array(table.data), allow_pickle=False)

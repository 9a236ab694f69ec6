"""Files in and out: one module per format, chosen by the ending of the name.

`read` gives a `Table`; `write` puts it, or other data of the same layout, into a file that appears only when it is
complete. Reading never changes the file, and never runs code from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pandas as pd

from fastimpute.atomic import check_place, folder_written_aside, written_aside
from fastimpute.io import csv, h5, long, npy, npz, parquet, zarr
from fastimpute.io.table import KEYED, Choice, Format, Table, check_columns, check_there, check_used
from fastimpute.io.zeros import describe_zeros, zero_share, zeros_to_missing

__all__ = ["Table", "check_target", "describe_zeros", "read", "write", "zero_share", "zeros_to_missing"]

FORMATS: dict[str, Format] = {
    ".csv": cast(Format, csv),
    ".parquet": cast(Format, parquet),
    ".npz": cast(Format, npz),
    ".npy": cast(Format, npy),
    ".h5": cast(Format, h5),
    ".zarr": cast(Format, zarr),
}
FOLDERS = (".zarr",)


def read(path: str | os.PathLike[str], *, key: str | None = None, channel: int = 0) -> Table:
    """Read a table of sensors from a .csv, .parquet, .npz, .npy or .h5 file, or a .zarr folder.

    Args:
        path: the file.
        key: which array or frame of an archive; by default the customary one ("data", "df", ...), or the only one.
        channel: which channel of a PEMS array (T, N, C).

    Raises:
        ValueError: no such file, unknown ending, empty or damaged content, columns that are not numbers.
    """
    source = Path(path)
    form = _format_of(source)
    try:
        check_there(source)
        choice = Choice(key, channel)
        table = form.read(source, choice)
        check_used(choice, table.suffix in KEYED or long.is_long(table), table.origin)
        if isinstance(table.data, pd.DataFrame):
            check_columns(table.data)
        return table
    except PermissionError:
        raise ValueError(f"cannot read {source}: permission denied") from None
    except Exception as error:  # parsers raise whatever they like on damaged bytes
        raise ValueError(f"cannot read {source}: {error or type(error).__name__}") from error


def write(path: str | os.PathLike[str], table: Table) -> None:
    """Write a table in the format of the path's ending; the file appears only when complete.

    A table that was read from the same format keeps all else that was in its file: time column, keys, channels.

    Raises:
        ValueError: unknown ending, unwritable place, or data the format cannot hold.
    """
    target = Path(path)
    form = _format_of(target)
    suffix = target.suffix.lower()
    if table.suffix != suffix and not (suffix in (".csv", ".parquet") and long.is_long(table)):
        table = Table(table.data, suffix)
    check_target(target)
    aside_of = folder_written_aside if suffix in FOLDERS else written_aside
    with aside_of(target) as aside:
        form.write(aside, table)


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse now, before hours of work, a path that `write` would refuse later.

    Raises:
        ValueError: unknown ending, or a place that is not writable.
    """
    target = Path(path)
    _format_of(target)
    folder = target.suffix.lower() in FOLDERS
    check_place(target, folder)
    if folder and target.is_dir() and not zarr.is_store(target):
        raise ValueError(f"cannot write {target}: it is a folder of other things, which would be lost")


def _format_of(path: Path) -> Format:
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"{path} has the ending {path.suffix!r}: known are {', '.join(FORMATS)}")
    return form

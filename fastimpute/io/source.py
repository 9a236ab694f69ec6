"""Tables of any size, read in pieces: open a file, learn its header, read any rectangle of its cells."""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from fastimpute.io.pieces.table import (
    Request,
)
from fastimpute.io.table import KEYED, Choice, check_there, check_used
from fastimpute.stream.table import Header, Sink, Source

__all__ = ["Header", "Source", "open_source", "stamp"]

SUFFIXES = (".csv", ".parquet", ".npz", ".npy", ".h5", ".zarr")
LAYOUTS = {"auto": SUFFIXES, "wide": SUFFIXES, "long": (".csv", ".parquet"), "sensors-in-rows": (".csv",)}


class Pieces(Protocol):
    """One file format read and written in pieces: a module with these two functions."""

    def open_table(self, path: Path, request: Request) -> Source:
        """Open a file that exists and is not empty."""
        ...

    def create(self, path: Path, header: Header) -> Sink:
        """Begin a file; `header.origin` counts only where it is this format's own."""
        ...


def open_source(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    channel: int = 0,
    spool: Path,
    zeros_as_missing: bool = False,
    repair: bool = False,
    layout: str = "auto",
) -> Source:
    """Open a table of sensors for reading in pieces; never more than about 2**24 cells are in memory at once.

    Args:
        path: a .csv, .parquet, .npz, .npy or .h5 file, or a .zarr folder.
        key: which array or frame of an archive, or which value column of a long table; by default the customary one.
        channel: which channel of a PEMS array (T, N, C).
        spool: existing folder of the caller's. Formats without random access (.csv, compressed .npz, long tables,
            .parquet with huge row groups) are converted there once; what is laid aside goes when the source is closed.
        zeros_as_missing: zeros are read as NaN.
        repair: bring the time stamps onto a regular grid, see `fastimpute.io.repair`; otherwise they are refused.
        layout: "wide"; "long" (sensor, time stamp, value); "sensors-in-rows" (.csv of numbers alone); "auto" tells
            long tables by the names of their three columns and takes everything else for wide.

    Raises:
        ValueError: no such file, unknown ending, damaged content, columns that are not numbers, more than 2**40 cells,
            time stamps that are repeated, unsorted or irregular and not to be repaired.

    Example:
        >>> with open_source("year.npy", spool=folder) as source:  # doctest: +SKIP
        ...     day = source.read(slice(0, 288))
    """
    from fastimpute.io.pieces.long import LongTable
    from fastimpute.io.repair import regular

    file = Path(path)
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    form = pieces_of(file)
    if file.suffix.lower() not in LAYOUTS[layout]:
        raise ValueError(f"layout {layout!r} is one of {' and '.join(LAYOUTS[layout])} files, got {file}")
    try:
        check_there(file)
        choice = Choice(key, channel)
        source = form.open_table(file, Request(choice, spool, layout, zeros_as_missing, repair))
        with contextlib.ExitStack() as opened:
            opened.callback(source.close)
            origin = source.header.origin
            check_used(choice, file.suffix.lower() in KEYED or isinstance(origin, LongTable), origin)
            table = regular(source, repair)
            opened.pop_all()
        return table
    except PermissionError:
        raise ValueError(f"cannot read {file}: permission denied") from None
    except Exception as error:  # parsers raise whatever they like on damaged bytes
        raise ValueError(f"cannot read {file}: {error or type(error).__name__}") from error


def stamp(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A cheap fingerprint of a file or folder: bytes, time of the newest change in ns, number of files.

    Raises:
        ValueError: there is no such file.

    Example:
        >>> stamp("week.csv")  # doctest: +SKIP
        {'size': 3402125, 'newest_mtime_ns': 1795355235000000000, 'files': 1}
    """
    root = Path(path)
    if not root.exists():
        raise ValueError(f"cannot read {root}: there is no such file")
    files = [file for file in root.rglob("*") if file.is_file()] if root.is_dir() else [root]
    states = [file.stat() for file in files]
    return {
        "size": sum(state.st_size for state in states),
        "newest_mtime_ns": max((state.st_mtime_ns for state in states), default=0),
        "files": len(files),
    }


def pieces_of(path: Path) -> Pieces:
    """The module that reads and writes the format of the path's ending.

    Raises:
        ValueError: unknown ending.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} has the ending {path.suffix!r}: known are {', '.join(SUFFIXES)}")
    return cast(Pieces, import_module(f"fastimpute.io.pieces.{suffix[1:]}"))

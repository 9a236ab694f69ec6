"""Tables of any size, written in pieces: the rows come in order, the bytes do not depend on how they were cut."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from fastimpute.io.source import pieces_of
from fastimpute.stream.table import Header, Sink

__all__ = ["Sink", "open_sink"]


def open_sink(path: str | os.PathLike[str], header: Header) -> Sink:
    """Begin a table at a path that nobody reads yet, in the format of its ending.

    Where the header came from the same format, everything else of that file is kept: time column, keys, channels,
    attributes, chunks. A long table is written long again to .csv and .parquet.

    The format gets its rows in blocks of a fixed number of rows, so that the bytes are the same however they were cut:
    2**21 cells a block of .csv, .npy, .npz and .h5, 2**23 cells a row group of .parquet, shards of at most 2**23
    cells in chunks of 512 x 256 in a new .zarr.

    Raises:
        ValueError: unknown ending, unwritable place, or data the format cannot hold.

    Example:
        >>> with open_sink("filled.npy", source.header) as sink:  # doctest: +SKIP
        ...     sink.append(source.read(slice(None)))
    """
    target = Path(path)
    form = pieces_of(target)
    suffix = target.suffix.lower()
    if header.suffix != suffix and not (suffix in (".csv", ".parquet") and is_long(header)):
        header = replace(header, suffix=suffix, origin=None)
    try:
        return form.create(target, header)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror or error}") from error


def is_long(header: Header) -> bool:
    """Whether the table was one of (sensor, time stamp, value)."""
    from fastimpute.io.pieces.long import LongTable

    return isinstance(header.origin, LongTable)

"""How much memory a run may take, and what it needs at least."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import time
from pathlib import Path

from fastimpute.stream.tiles import Tiles

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
GIVEN_BACK_SECONDS = 0.25
# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc: left to itself it may hand the pages of every array back at once.
MALLOC = ((-1, 2**26), (-3, 2**25))
STRIPS = 8  # parts of the memory; beside the work on a tile, one is read and the next one ahead


def parse_size(text: str) -> int:
    """Bytes from what people write: "512MB", "2GiB", "1.5 G".

    Raises:
        ValueError: it is not a positive size.

    Example:
        >>> parse_size("512MB"), parse_size("2 GiB")
        (512000000, 2147483648)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?[iI]?)[bB]?\s*", text)
    if match is None or match[2].upper() not in UNITS or not float(match[1]) > 0:
        raise ValueError(f"memory: expected a size such as 512MB or 2GiB, got {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def default_memory() -> int:
    """A quarter of what this machine, or the container the process is in, has."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit ("max")
        has = min(has, int(CGROUP_LIMIT.read_text()))
    return has // 4


class Freed:
    """Freed memory handed back to the system; glibc keeps most of it, in pieces too small for the next tile.

    Not after every tile: the pages that it takes anew cost more than to fill a small one.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        with contextlib.suppress(OSError, AttributeError):  # another C library
            for name, size in MALLOC:
                ctypes.CDLL(None).mallopt(name, size)

    def give_back(self) -> None:
        """If that is some time ago."""
        if time.monotonic() - self._last > GIVEN_BACK_SECONDS:
            with contextlib.suppress(OSError, AttributeError):  # another C library
                ctypes.CDLL(None).malloc_trim(0)
            self._last = time.monotonic()


def strip_bytes(memory: int) -> int:
    """How much to read at a time."""
    return memory // STRIPS


def check_memory(memory: int, tiles: Tiles, bytes_per_cell: int) -> None:
    """Refuse a limit that one tile at a time would pass.

    Raises:
        ValueError: names the size needed.
    """
    needed = tiles.context_cells * bytes_per_cell * STRIPS // (STRIPS - 2)
    if memory < needed:
        raise ValueError(
            f"memory: one tile of {tiles.context_cells:,} cells takes about {needed / 1e6:,.1f} MB with this method, "
            f"but the limit is {memory / 1e6:,.1f} MB: raise it"
        )

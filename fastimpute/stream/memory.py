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
STRIPS = 16  # parts of the memory; beside the work on a tile, one is read and the next one ahead
LARGE = 4 * 2**20  # bytes from which memory is the system's own
SPARE = 8 * 2**20  # freed bytes that may lie at the end of the heap
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h


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


def keep_heap_small() -> None:
    """Have this process, as long as it lives, free what is large at once, and share one heap among its threads.

    By itself glibc raises both thresholds to whatever was freed last, and a thread that ended leaves a heap behind that
    nothing trims. For processes that do nothing else.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        for option, value in ((M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, SPARE), (M_ARENA_MAX, 1)):
            library.mallopt(option, value)


def give_back() -> None:
    """Hand freed memory back to the system; glibc keeps most of it, in pieces too small for the next tile."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class Freed:
    """Gives back now and then: the pages that the next tile takes anew cost more than to fill a small one."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def give_back(self) -> None:
        """If that is some time ago."""
        if time.monotonic() - self._last > GIVEN_BACK_SECONDS:
            give_back()
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

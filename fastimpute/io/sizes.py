"""Sizes that a file claims, refused before anything of that size is allocated."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

MOST_CELLS = 2**40


def check_claim(shape: tuple[int, ...], itemsize: int = 1, stored: int | None = None) -> None:
    """Refuse an array that no file holds.

    Args:
        shape: what the file claims.
        itemsize: bytes a cell.
        stored: most bytes of cells that the file can hold, None where compression or a fill value leaves that open.

    Raises:
        ValueError: more than 2**40 cells, or more bytes than are stored.
    """
    cells = math.prod(shape)
    if min(shape, default=0) < 0 or cells > MOST_CELLS:
        raise ValueError(f"it claims an array of shape {shape}, more than 2**40 cells")
    if stored is not None and cells * itemsize > stored:
        raise ValueError(
            f"it claims an array of shape {shape}, {cells * itemsize} bytes, but holds {stored} (truncated?)"
        )


def check_memory(size: int) -> None:
    """Refuse to read at once what this machine's memory cannot hold.

    Raises:
        ValueError: more bytes than physical memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ValueError(
            f"its cells take {size / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB: read it in pieces"
        )


def check_room(folder: Path, size: int) -> None:
    """Refuse to lay aside what the disk cannot hold.

    Raises:
        ValueError: fewer bytes are free in the folder.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"laying it aside takes {size / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free")

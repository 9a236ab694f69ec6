"""Work in blocks on a GPU whose memory may not suffice for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

_log = logging.getLogger("fastimpute")
Result = TypeVar("Result")


def halved_where_short(work: Callable[[int], Result], size: int, least: int = 1) -> Result:
    """``work(size)``, from its beginning with blocks of half the size wherever the GPU's memory does not suffice.

    Raises:
        torch.OutOfMemoryError: nor does it for blocks of ``least``.

    Example:
        >>> halved_where_short(lambda size: size, 64)
        64
    """
    while True:
        try:
            return work(size)
        except torch.OutOfMemoryError:
            if size <= least:
                raise
        # Behind the handler, which holds what the failed attempt allocated.
        size = max(size // 2, least)
        _log.warning("the GPU's memory does not suffice: trying again with blocks of %d", size)

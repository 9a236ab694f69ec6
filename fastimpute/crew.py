"""Work side by side that comes out the same on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Crew:
    """Workers of one thread each.

    Matrix products and sums round differently on another number of threads. Work is therefore cut into pieces that do
    not depend on that number, and every piece is done by one thread.

    Attributes:
        threads: how many pieces are done at a time; what a kernel that is exact about it may use.
    """

    threads: int
    _pool: ThreadPoolExecutor

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``task`` of every item, in their order."""
        return list(self._pool.map(task, items))


@contextmanager
def crew() -> Iterator[Crew]:
    """As many workers as torch has threads; inside the block torch itself uses one.

    Example:
        >>> with crew() as workers:
        ...     workers.map(abs, [-1, 2])
        [1, 2]
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield Crew(threads, pool)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)

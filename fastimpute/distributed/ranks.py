"""Processes that were started together: their shares, where they meet, and one word for all when one of them fails."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Self

from fastimpute.stream.lots import LostWorker

BAD_INPUT, FAILED = 2, 1
PATIENCE = timedelta(days=365)  # the others may be at work for long; one that is gone is noticed at once
WATCH_SECONDS = 0.02  # signals reach Python only between two looks at a barrier
STORED_BYTES = 2**22  # of a value; a store takes 2**23
LEAVE_SECONDS = 10  # enough to look at the store once more; a rank that is gone never says so


@dataclass(frozen=True)
class Failure:
    """What ended the work of a rank.

    Attributes:
        rank: whose.
        meeting: number of the meeting it comes to with this news.
        bad_input: whether the user can mend it.
        message: in its own words.
    """

    rank: int
    meeting: int
    bad_input: bool
    message: str

    def error(self) -> Exception:
        """For the rank that speaks for all."""
        kind = ValueError if self.bad_input else RuntimeError
        return kind(f"rank {self.rank}: {self.message}")


class FailedElsewhere(Exception):
    """Another rank has failed; ends the work of this one."""


class LostRank(LostWorker):
    """Another rank is gone without a word."""


class Ranks:
    """One of several processes that torchrun, or another launcher that sets the same environment, has started.

    Attributes:
        rank: number of this process.
        world: how many there are.
    """

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self._store, self._meetings = store, 0

    @classmethod
    def join(cls) -> Self:
        """Find the others by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

        Raises:
            ValueError: one of these is not set.
        """
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        store, rank, world = next(rendezvous("env://"))
        # torchrun keeps one store over its restarts: what an earlier attempt left there must not be read as this one's.
        store = PrefixStore(f"fastimpute/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=PATIENCE)
        return cls(store, rank, world)

    def share(self, count: int) -> range:
        """Every so manieth of `count` pieces of work, from an own one on.

        Example:
            >>> [list(Ranks(None, rank, world=3).share(7)) for rank in range(3)]
            [[0, 3, 6], [1, 4], [2, 5]]
        """
        return range(self.rank, count, self.world)

    def announce(self, what: str, more: Any = None) -> None:
        """Let the others know of something, from the next meeting on at the latest; more of it can be pickled."""
        content = pickle.dumps(more)
        parts = [content[first : first + STORED_BYTES] for first in range(0, len(content), STORED_BYTES)]
        for number, part in enumerate(parts):
            self._store.set(f"{what}#{number}", part)
        self._store.set(what, str(len(parts)))

    def told(self, what: str) -> Any:
        """What a rank has announced, or will."""
        return pickle.loads(b"".join(self._store.get(f"{what}#{part}") for part in range(int(self._store.get(what)))))

    def knows(self, what: str) -> bool:
        """Whether a rank has announced something."""
        return bool(self._store.check([what]))

    def check(self) -> None:
        """Between two pieces of work: stop where another rank has failed.

        Raises:
            FailedElsewhere: one has.
        """
        if self.knows("failed"):
            raise FailedElsewhere

    def meet(self) -> None:
        """Wait for all others.

        Raises:
            FailedElsewhere: one of them has failed.
            LostRank: one of them is gone.
        """
        self._wait()
        self.check()

    def agree(self, error: Exception) -> Failure:
        """End the work of all ranks; each comes here with an error, its own or `FailedElsewhere`.

        A rank that fails when another has failed already says nothing of it: the one may follow from the other.

        Returns:
            What failed first; of several at a time the failure of the lowest rank.
        """
        if not (isinstance(error, FailedElsewhere) or self.knows("failed")):
            known = isinstance(error, (ValueError, TypeError))
            message = str(error) if known else f"{type(error).__name__}: {error}"
            failure = Failure(self.rank, self._meetings + 1, known, message)
            self._store.set(f"failed/{self.rank}", json.dumps(asdict(failure)))
            self.announce("failed")
        if self._meetings < min(failure.meeting for failure in self._failures()):
            with suppress(LostRank):  # what failed first says more
                self._wait()
        return next(self._failures())

    def leave(self) -> None:
        """The last word to the store. Without torchrun rank 0 holds it and takes it along, so rank 0 goes last."""
        if self.rank:
            self._store.add("left", 1)
            return
        end = time.monotonic() + LEAVE_SECONDS
        while self._store.add("left", 0) < self.world - 1 and time.monotonic() < end:
            time.sleep(WATCH_SECONDS)

    def _failures(self) -> Iterator[Failure]:
        for rank in range(self.world):
            if self.knows(f"failed/{rank}"):
                yield Failure(**json.loads(self._store.get(f"failed/{rank}")))

    def _wait(self) -> None:
        import torch.distributed as dist

        try:
            barrier = dist.barrier(async_op=True)
            assert barrier is not None
            while not barrier.is_completed():
                time.sleep(WATCH_SECONDS)
            barrier.wait()
        except RuntimeError:
            raise LostRank("a process of the group is gone: the same command goes on from the finished tiles") from None
        self._meetings += 1


@contextmanager
def joined() -> Iterator[Ranks]:
    """Be one of several processes for the length of the block: all of them get to its end, or none.

    Raises:
        ValueError, TypeError: rank 0 raises what went wrong in any of the ranks.
        SystemExit: the other ranks end without a word: with status 2 where it was bad input or a rank that is gone,
            else 1. A rank that fails for another reason than bad input raises it all the same.

    Example:
        >>> with joined() as ranks:  # doctest: +SKIP
        ...     impute_file("year.zarr", "filled.zarr", imputer, runner=partial(run_ranked, ranks=ranks))
    """
    import torch.distributed as dist

    ranks = Ranks.join()
    try:
        try:
            yield ranks
            ranks.meet()
            ranks.leave()
        except LostRank:
            raise
        except Exception as error:
            failure = ranks.agree(error)
            ranks.leave()
            if failure.rank == ranks.rank and (ranks.rank == 0 or not failure.bad_input):
                raise
            if ranks.rank == 0:
                raise failure.error() from None
            raise SystemExit(BAD_INPUT if failure.bad_input else FAILED) from None
    except LostRank:
        if ranks.rank == 0:
            raise
        raise SystemExit(BAD_INPUT) from None
    finally:
        dist.destroy_process_group()

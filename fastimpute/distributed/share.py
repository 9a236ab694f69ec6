"""A worker's part in an imputation, for any engine that can call a method on another machine."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastimpute.stream.clock import Clock
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import Job, fill_bands, fit_models, resume
from fastimpute.stream.run import OpenSource
from fastimpute.stream.wish import Wish


@dataclass(frozen=True)
class Done:
    """A finished piece of work.

    Attributes:
        cells: filled, or found filled.
        events: for the log.
        seconds: by kind of work.
    """

    cells: int
    events: tuple[dict[str, Any], ...]
    seconds: dict[str, float]


class Share:
    """Does pieces of a job that its leader has begun; doing one twice does no harm.

    It travels small, and opens the table when it first works.

    Args:
        open_source: opens the input, on any machine; given a folder to lay things aside in.
        wish: what is asked for; its memory is that of each worker.
        folder: of unfinished work, seen by all machines.
    """

    def __init__(self, open_source: OpenSource, wish: Wish, folder: Path) -> None:
        self._given = open_source, wish, folder
        self._job: Job | None = None
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Share, self._given

    def fit(self, group: int) -> Done:
        """Fit and keep the imputer of a group of sensors.

        Raises:
            ValueError: no such job, or the table cannot be read.
        """
        return self._do(lambda job: fit_models(job, [group], lambda: None))

    def fill(self, band: int) -> Done:
        """Fill and keep those tiles of a band that are not done yet.

        Raises:
            ValueError: no such job, or the table cannot be read.
        """
        return self._do(lambda job: fill_bands(job, [band], lambda cells: None), band)

    def close(self) -> None:
        """Let go of the table."""
        with self._opening:
            if self._job is not None:
                self._job.source.close()
            self._job = None

    def _do(self, piece: Callable[[Job], None], band: int | None = None) -> Done:
        events: list[dict[str, Any]] = []
        job = replace(self._joined(), clock=Clock(), log=events.append)
        piece(job)
        tiles = () if band is None else job.tiles.of_band(band)
        return Done(sum(tile.cells for tile in tiles), tuple(events), job.clock.seconds)

    def _joined(self) -> Job:
        with self._opening:
            if self._job is None:
                open_source, wish, path = self._given
                folder = WorkFolder(path)
                if folder.is_new():
                    raise ValueError(f"{path}: no job was begun here; all workers have to see the folder of the output")
                source = open_source(folder.spool(f"{socket.gethostname()}-{os.getpid()}"))
                self._job = resume(source, wish, folder, clock=Clock(), log=lambda event: None)
            return self._job

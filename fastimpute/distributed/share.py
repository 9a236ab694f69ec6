"""A worker's part in an imputation, for any engine that can call a method on another machine."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastimpute.stream.arrange import ArrangedSource
from fastimpute.stream.clock import Clock
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.job import Job, fill_lots, fit_models, resume
from fastimpute.stream.lots import lots
from fastimpute.stream.output import Output
from fastimpute.stream.run import OpenSource
from fastimpute.stream.survey import Survey
from fastimpute.stream.table import Rows
from fastimpute.stream.wish import Wish


@dataclass(frozen=True)
class Done:
    """A finished piece of work.

    Attributes:
        cells: seen, filled or written now.
        events: for the log.
        seconds: by kind of work.
    """

    cells: int
    events: tuple[dict[str, Any], ...]
    seconds: dict[str, float]


class Share:
    """Does pieces of a run for its leader, anywhere; doing one twice does no harm.

    It travels small, and opens the table when it first works.

    Args:
        open_source: opens the input, on any machine; given a folder to lay things aside in.
        wish: what is asked for; its memory is that of each worker.
        folder: of unfinished work, seen by all machines.
        workers: how many share the work.
    """

    def __init__(self, open_source: OpenSource, wish: Wish, folder: Path, workers: int) -> None:
        self._given = open_source, wish, folder, workers
        self._source: ArrangedSource | None = None
        self._job: Job | None = None
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Share, self._given

    def look(self, lot: int) -> Done:
        """Look at a lot of tiles, see `fastimpute.stream.survey`.

        Raises:
            ValueError: no such folder, the table cannot be read, or it holds an infinity.
        """
        source, (_, wish, path, workers) = self._opened(), self._given
        did = _Diary()
        Survey.of(source, wish, WorkFolder(path), workers, did.clock, did.log).look([lot], did.advance)
        return did.done()

    def fit(self, group: int) -> Done:
        """Fit and keep the imputer of a group of sensors.

        Raises:
            ValueError: no such job, or the table cannot be read.
        """
        return self._do(lambda job, advance: fit_models(job, [group], lambda: None))

    def fill(self, lot: int) -> Done:
        """Fill and keep those tiles of a lot that are not done yet.

        Raises:
            ValueError: no such job, or the table cannot be read.
        """
        return self._do(lambda job, advance: fill_lots(job, [lots(job.tiles, self._given[3])[lot]], advance))

    def write(self, target: Path, tables: tuple[Rows, ...], pieces: list[slice]) -> Done:
        """Write some rows of the output, see `fastimpute.stream.output.Output`.

        Raises:
            ValueError: no such job, a damaged tile, or a table that cannot be read or written.
        """
        return self._do(lambda job, advance: Output(job, target, tables).write(pieces, advance))

    def close(self) -> None:
        """Let go of the table."""
        with self._opening:
            if self._source is not None:
                self._source.close()
            self._source = self._job = None

    def _do(self, piece: Callable[[Job, Callable[[int], None]], None]) -> Done:
        did = _Diary()
        piece(replace(self._joined(), clock=did.clock, log=did.log), did.advance)
        return did.done()

    def _joined(self) -> Job:
        source, (_, wish, path, _) = self._opened(), self._given
        with self._opening:
            if self._job is None:
                self._job = resume(source, wish, WorkFolder(path), clock=Clock(), log=lambda event: None)
            return self._job

    def _opened(self) -> ArrangedSource:
        with self._opening:
            if self._source is None:
                open_source, _, path, _ = self._given
                folder = WorkFolder(path)
                if not path.is_dir():
                    raise ValueError(f"{path}: no job was begun here; all workers have to see the folder of the output")
                table = open_source(folder.spool(f"{socket.gethostname()}-{os.getpid()}"))
                self._source = ArrangedSource.kept(table, folder)
            return self._source


class _Diary:
    """What is to be told of a piece of work."""

    def __init__(self) -> None:
        self.clock, self._cells, self._events = Clock(), 0, list[dict[str, Any]]()

    def log(self, event: dict[str, Any]) -> None:
        """See `Log`."""
        self._events.append(event)

    def advance(self, cells: int) -> None:
        """Count cells."""
        self._cells += cells

    def done(self) -> Done:
        """All of it."""
        return Done(self._cells, tuple(self._events), self.clock.seconds)

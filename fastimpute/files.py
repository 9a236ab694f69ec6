"""Files of any size imputed: sources and sinks of `fastimpute.io` around the loop of `fastimpute.stream`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastimpute.arguments import seed_of
from fastimpute.atomic import check_place
from fastimpute.imputer import BaseImputer
from fastimpute.intervals import IntervalImputer
from fastimpute.io import check_target
from fastimpute.io.sink import open_sink
from fastimpute.io.source import open_source, stamp
from fastimpute.io.zeros import ZEROS_WORTH_A_WORD, describe
from fastimpute.saved import load
from fastimpute.stream.clock import Log
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.memory import default_memory, parse_size
from fastimpute.stream.run import run
from fastimpute.stream.runs import Zeros
from fastimpute.stream.summary import Summary
from fastimpute.stream.table import Source
from fastimpute.stream.wish import Wish

Runner = Callable[..., Summary | None]


@dataclass(frozen=True)
class Reading:
    """How a file is read; see `fastimpute.io.source.open_source`."""

    key: str | None = None
    channel: int = 0
    zeros_as_missing: bool = False
    repair: bool = False
    layout: str = "auto"

    def facts(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(vars(self))

    def open(self, path: Path, spool: Path) -> Source:
        """Open a file."""
        return open_source(path, spool=spool, **self.facts())


def impute_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    imputer: BaseImputer[Any] | str | os.PathLike[str],
    *,
    level: float | None = None,
    memory: int | str | None = None,
    reading: Reading | None = None,
    log_json: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    verbose: bool = True,
    runner: Runner = run,
) -> Summary | None:
    """Impute a file of any size in bounded memory; whatever breaks it off, the same call goes on where it stopped.

    The table is cut into tiles of some days of some dozen sensors that move together. One imputer is fitted to each
    group of sensors, on rows drawn by lot, and fills its tiles one by one; beside the output a folder
    `<target>.partial` keeps what is finished. The result is the same bits whatever the memory, the format's chunks and
    the interruptions.

    Args:
        source: a .csv, .parquet, .npz, .npy, .h5 file or a .zarr folder.
        target: likewise, of any of these formats; appears when it is complete.
        imputer: settings to fit by, or an imputer that was fitted to all of the sensors, or where it was saved.
        level: also write the ends of intervals of this level, to target's name with .lower and .upper before its
            ending.
        memory: bytes, or a size such as "2GiB", that the work may take beyond what the libraries themselves do; a
            quarter of the machine's by default.
        reading: which part of the file, and what its zeros and time stamps mean.
        log_json: append every event to this file, one JSON object a line.
        report: told what the user should know.
        verbose: show progress on a terminal.
        runner: what does the work, with the signature of `fastimpute.stream.run.run`; see `fastimpute.distributed`.

    Returns:
        What was done; None where an earlier run had all but put its output in place.

    Raises:
        ValueError: a file that cannot be read or written, bad data, not enough memory, or an unfinished run of other
            settings or data. Finished tiles are kept.

    Example:
        >>> import fastimpute as fi
        >>> fi.impute_file("year.zarr", "filled.zarr", fi.SPIRITImputer(random_state=0))  # doctest: +SKIP
    """
    wanted, targets = prepare(source, target, imputer, level, memory, reading or Reading())
    with json_log(log_json) as write, resumable(WorkFolder.beside(targets[0])):

        def log(event: dict[str, Any]) -> None:
            if event["event"] == "begin":
                _tell_zeros(wanted.name, event, report)
            write(event)

        def opened(spool: Path) -> Source:
            table = Reading(**wanted.reading).open(Path(source), spool)
            for line in table.header.report:
                report(f"{wanted.name}: {line}")
            return table

        return runner(
            opened,
            wanted,
            targets,
            open_sink,
            report=report,
            log=log,
            verbose=verbose,
        )


def prepare(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    imputer: BaseImputer[Any] | str | os.PathLike[str],
    level: float | None,
    memory: int | str | None,
    reading: Reading,
) -> tuple[Wish, list[Path]]:
    """Check what can be checked before anything is read: the wish, and the paths of the output.

    Raises:
        ValueError: see `impute_file`.
    """
    targets = places_of(Path(target), level)
    if not isinstance(imputer, BaseImputer):
        imputer = load(imputer)
    if level is not None and not isinstance(imputer, IntervalImputer):
        raise ValueError(f"level: {type(imputer).__name__} has no intervals")
    if "verbose" in imputer.get_params():
        imputer.set_params(verbose=False)
    wish = Wish(
        name=Path(source).name,
        stamp=stamp(source),
        reading=reading.facts(),
        imputer=imputer,
        model=digest_of(imputer) if imputer.__sklearn_is_fitted__() else None,
        level=level,
        memory=default_memory() if memory is None else parse_size(memory) if isinstance(memory, str) else memory,
        seed=seed_of(imputer.get_params().get("random_state")),
    )
    return wish, targets


def places_of(target: Path, level: float | None) -> list[Path]:
    """The output, and beside it the ends of its intervals where there is a level.

    Raises:
        ValueError: one of them cannot be written.
    """
    ends = () if level is None else ("lower", "upper")
    places = [target, *(target.with_suffix(f".{end}{target.suffix}") for end in ends)]
    for place in places:
        check_target(place)
    return places


def digest_of(imputer: BaseImputer[Any]) -> str:
    """Of all that a fitted imputer knows."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.safetensors"
        imputer.save(place)
        return hashlib.blake2b(place.read_bytes(), digest_size=16).hexdigest()


def _tell_zeros(name: str, begin: dict[str, Any], report: Callable[[str], None]) -> None:
    """Say a word on the zeros where there are many, unless the user knows already."""
    zeros, rows, sensors = Zeros(**begin["zeros"]), begin["rows"], begin["sensors"]
    if zeros.cells >= ZEROS_WORTH_A_WORD * rows * sensors:
        report(f"{name}: {describe(zeros, rows, sensors)}: kept; --zeros-as-missing fills them")


@contextmanager
def json_log(path: str | os.PathLike[str] | None) -> Iterator[Log]:
    """A log that appends JSON lines to a file, from any thread.

    Raises:
        ValueError: the file cannot be written.
    """
    if path is None:
        yield lambda event: None
        return
    check_place(path)
    one_at_a_time = threading.Lock()
    with Path(path).open("a", encoding="utf-8") as file:

        def log(event: dict[str, Any]) -> None:
            with one_at_a_time:
                file.write(json.dumps(event) + "\n")
                file.flush()

        yield log


@contextmanager
def resumable(folder: WorkFolder) -> Iterator[None]:
    """Say at an interrupt where the work can be taken up."""
    try:
        yield
    except KeyboardInterrupt:
        if folder.path.is_dir():
            raise KeyboardInterrupt(
                f"interrupted; what is finished is kept in {folder.path}, and the same command goes on from there"
            ) from None
        raise

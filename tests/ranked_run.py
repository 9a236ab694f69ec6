"""A rank of a distributed run, for the tests: RANK and WORLD_SIZE say which; it dies or fails where it is told to."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from array_tables import ArraySource
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute import cli
from fastimpute.distributed.ranks import Ranks
from fastimpute.distributed.torchrun import joined, run_ranked
from fastimpute.imputer import BaseImputer
from fastimpute.io.sink import open_sink
from fastimpute.io.source import open_source
from fastimpute.stream import tiles as tiling
from fastimpute.stream.table import Source
from fastimpute.stream.wish import Wish

SMALL_TILES = {"CONTEXT_CELLS": 1500, "WIDEST": 8, "LEAST_ROWS": 20}  # that a small table has several of
IMPUTERS: dict[str, Callable[[], BaseImputer[Any]]] = {
    "linear": fi.LinearImputer,
    "spirit": partial(fi.SPIRITImputer, window=6, neighbors=2, train_steps=6, hidden_dim=16, loops=1, random_state=0),
}


def wish(method: str) -> Wish:
    return Wish("table.npy", {"size": 1}, {}, IMPUTERS[method](), None, None, memory=10**8, seed=0)


def cut_small() -> None:
    """From now on this process cuts tables into small tiles."""
    for name, value in SMALL_TILES.items():
        setattr(tiling, name, value)


class FaultySource(ArraySource):
    """An array whose reading comes to a bad end, once so many pieces were read; not before something is in a folder."""

    def __init__(self, cells: NDArray[Any], *, dies: bool, pieces: int, behind: Path | None) -> None:
        super().__init__(cells)
        self.dies, self.pieces, self.behind = dies, pieces, behind

    def read(self, rows: slice, columns: slice = slice(None)) -> NDArray[Any]:
        if len(self.reads) == self.pieces:
            while self.behind is not None and not any(self.behind.glob("*.safetensors")):
                time.sleep(0.01)
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError(f"rows {rows.start} to {rows.stop} are damaged")
        return super().read(rows, columns)


def rank_without_work(variables: dict[str, str], delay: float) -> None:
    """Be a rank that has nothing to do, and looks at the store so many seconds late."""
    os.environ |= variables
    knows = Ranks.knows

    def late(ranks: Ranks, what: str) -> bool:
        time.sleep(delay)
        return knows(ranks, what)

    with mock.patch.object(Ranks, "knows", late), joined():
        pass


def opened(options: argparse.Namespace, spool: Path) -> Source:
    rank = int(os.environ["RANK"])
    if options.unreadable == rank:
        raise ValueError("the file is not what it should be")
    if options.table.suffix == ".csv":
        return open_source(options.table, spool=spool)
    cells = np.load(options.table)
    first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    dies, fails = (rank == chosen and first_attempt for chosen in (options.dies, options.fails))
    if not (dies or fails):
        return ArraySource(cells)
    behind = None if options.behind is None else spool.parent / options.behind
    return FaultySource(cells, dies=dies, pieces=options.pieces, behind=behind)


def rank_of_many(
    variables: dict[str, str], arguments: list[str], outputs: tuple[Path, Path], command_line: bool
) -> None:
    """Be a rank in a forked process: this script, or the package's own command line."""
    os.environ |= variables
    for descriptor, output in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), descriptor)
    if command_line:
        sys.argv = ["fastimpute", "impute", *arguments]
        cli.main()
    else:
        main(arguments)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("given", type=Path)
    parser.add_argument("--table", type=Path, help="instead of the one given")
    parser.add_argument("target", type=Path)
    parser.add_argument("--method", default="linear")
    parser.add_argument("--dies", type=int)
    parser.add_argument("--fails", type=int)
    parser.add_argument("--unreadable", type=int)
    parser.add_argument("--pieces", type=int, default=3)
    parser.add_argument("--behind", help="the folder of finished work that has to hold something first")
    options = parser.parse_args(arguments)
    options.table = options.table or options.given
    cut_small()
    try:
        with joined() as ranks:
            summary = run_ranked(
                partial(opened, options),
                wish(options.method),
                [options.target],
                open_sink,
                ranks=ranks,
                report=print,
                log=lambda event: None,
                verbose=False,
            )
            if summary is not None:
                print(f"missing {summary.missing}")
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

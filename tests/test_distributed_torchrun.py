"""Ranks share one imputation: the bits of one process, whoever is killed; where one fails all end, and one speaks."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ranked_run
from array_tables import ArraySource
from numpy.typing import NDArray
from torch.distributed import TCPStore

import fastimpute as fi
from fastimpute.distributed.torchrun import Ranks, launched
from fastimpute.io.sink import open_sink
from fastimpute.stream import tiles as tiling
from fastimpute.stream.run import run

ROWS, SENSORS = 1400, 21
SCANNING, FILLING, WRITING = "2", "6", "9"  # pieces that rank 1 of 2 has read when it is at the third, or at its last
SCRIPT = Path(ranked_run.__file__)
Cells = NDArray[np.float32]


@pytest.fixture(scope="module")
def table() -> Cells:
    rng = np.random.default_rng(0)
    cells = (np.sin(np.arange(ROWS) / 8)[:, None] + rng.normal(0, 0.1, (ROWS, SENSORS))).astype(np.float32)
    cells[rng.random(cells.shape) < 0.2] = np.nan
    return cells


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@dataclass(frozen=True)
class Done:
    status: int | None
    said: str
    complained: str


def ranks(world: int, table: Cells, folder: Path, *arguments: str, command_line: bool = False) -> list[Done]:
    """Be so many ranks, without a launcher that would end them all, that impute the table into out.npy."""
    np.save(folder / "in.npy", table)
    line = [str(folder / "in.npy"), str(folder / "out.npy"), *arguments]
    outputs = [(folder / f"said-{rank}", folder / f"complained-{rank}") for rank in range(world)]
    statuses = forked(ranked_run.rank_of_many, [(line, pair, command_line) for pair in outputs])
    return [
        Done(status, *(output.read_text() for output in pair)) for status, pair in zip(statuses, outputs, strict=True)
    ]


def forked(rank_of_many: Callable[..., None], arguments: list[tuple[Any, ...]]) -> list[int | None]:
    """Run a function in as many ranks as there are arguments, and wait for them.

    Returns:
        How each of them ended.
    """
    shared = {"WORLD_SIZE": str(len(arguments)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    # One process has imported everything; every rank is forked from it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "fastimpute.spirit", "fastimpute.distributed.torchrun"])
    started = [
        context.Process(target=rank_of_many, args=({"RANK": str(rank), **shared}, *own))
        for rank, own in enumerate(arguments)
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONSAFEPATH", "1")  # the installed package, not the sources in the working folder
        for process in started:
            process.start()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def alone(cells: NDArray[Any], target: Path, monkeypatch: pytest.MonkeyPatch, method: str = "linear") -> bytes:
    """The bytes of the file that a single process writes."""
    with monkeypatch.context() as patched:
        for name, value in ranked_run.SMALL_TILES.items():
            patched.setattr(tiling, name, value)
        run(
            lambda spool: ArraySource(cells),
            ranked_run.wish(method),
            [target],
            open_sink,
            report=print,
            log=lambda event: None,
            verbose=False,
        )
    return target.read_bytes()


def test_two_ranks_write_the_bits_of_one_process(table: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ranks(2, table, tmp_path, "--method", "spirit")
    assert (first.status, second.status) == (0, 0), first.complained + second.complained
    assert first.said == f"missing {np.isnan(table).sum()}\n"
    assert second.said + second.complained == ""
    expected = alone(table, tmp_path / "alone.npy", monkeypatch, "spirit")
    assert (tmp_path / "out.npy").read_bytes() == expected
    assert not (tmp_path / "out.npy.partial").exists()


def test_a_killed_rank_is_replaced_and_the_group_goes_on_to_the_same_bits(
    table: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "in.npy", table)
    faulty = ["--dies", "1", "--pieces", FILLING, "--behind", "tiles"]
    done = torchrun(str(tmp_path / "in.npy"), str(tmp_path / "out.npy"), *faulty)
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr
    assert "tiles are there already" in done.stdout
    assert (tmp_path / "out.npy").read_bytes() == alone(table, tmp_path / "alone.npy", monkeypatch)


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [(SCANNING, "scan"), (FILLING, "tiles"), (WRITING, "tiles")],
    ids=["in its scan", "between two tiles", "while it writes"],
)
def test_without_a_launcher_a_lost_rank_ends_the_others_and_the_next_run_goes_on(
    table: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: str, kept: str
) -> None:
    first, second = ranks(2, table, tmp_path, "--dies", "1", "--pieces", pieces, "--behind", kept)
    assert (first.status, second.status) == (2, -9)
    assert first.complained.startswith("a process of the group is gone")
    assert not (tmp_path / "out.npy").exists()
    assert any((tmp_path / "out.npy.partial" / kept).iterdir())
    again = ranks(2, table, tmp_path)
    assert [rank.status for rank in again] == [0, 0], again[0].complained
    assert ("tiles are there already" in again[0].said) == (kept == "tiles")
    assert (tmp_path / "out.npy").read_bytes() == alone(table, tmp_path / "alone.npy", monkeypatch)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (["--fails", "1", "--pieces", "5"], "rank 1: rows "),
        (["--fails", "0", "--pieces", "2"], "rows "),
        (["--unreadable", "1"], "rank 1: the file is not what it should be"),
    ],
    ids=["in a share", "in rank 0's scan", "before the work"],
)
def test_a_failing_rank_ends_all_and_rank_0_alone_says_why(
    table: Cells, tmp_path: Path, fault: list[str], message: str
) -> None:
    done = ranks(3, table, tmp_path, *fault)
    assert [rank.status for rank in done] == [2, 2, 2], [rank.complained for rank in done]
    assert done[0].complained.startswith(message)
    assert [rank.complained for rank in done[1:]] == ["", ""]
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("late", [0, 1])
def test_rank_0_stays_until_the_others_are_done_with_the_store_that_it_holds(late: int) -> None:
    assert forked(ranked_run.rank_without_work, [(0.3 * (rank == late),) for rank in range(2)]) == [0, 0]


def test_a_table_that_has_to_be_laid_aside_is_by_rank_0_alone(table: Cells, tmp_path: Path) -> None:
    frame = pd.DataFrame(table, columns=[f"s{sensor}" for sensor in range(SENSORS)])
    frame.to_csv(tmp_path / "in.csv", index=False)
    done = ranks(2, table, tmp_path, "--table", str(tmp_path / "in.csv"), "--unreadable", "1")
    assert [rank.status for rank in done] == [0, 0], done[1].complained
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()


def test_a_rank_tells_of_things_of_any_size() -> None:
    ranks = Ranks(TCPStore("127.0.0.1", int(free_port()), 1, is_master=True), rank=0, world=1)
    ranks.announce("much", content := bytes(range(256)) * 2**16)
    assert ranks.told("much") == content


def test_an_output_that_only_has_to_be_put_in_place_is(table: Cells, tmp_path: Path) -> None:
    """What is left when a run was ended between its last two steps."""
    folder = tmp_path / "out.npy.partial"
    folder.mkdir()
    (folder / "assembled").touch()
    (folder / "0.npy").write_bytes(b"complete")
    assert [rank.status for rank in ranks(2, table, tmp_path)] == [0, 0]
    assert (tmp_path / "out.npy").read_bytes() == b"complete"
    assert not folder.exists()


def test_the_command_line_of_two_ranks_writes_the_file_of_one(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(8000, 100)).astype(np.float32)
    table[1::3, ::2] = np.nan
    first, second = ranks(2, table, tmp_path, "--method", "linear", "--memory", "200MB", command_line=True)
    assert (first.status, second.status) == (0, 0), first.complained + second.complained
    assert "cells were missing" in first.said
    assert second.said + second.complained == ""
    fi.impute_file(tmp_path / "in.npy", tmp_path / "alone.npy", fi.LinearImputer())
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "alone.npy").read_bytes()


def test_bad_input_ends_the_command_line_of_all_ranks_with_one_line(table: Cells, tmp_path: Path) -> None:
    cells = table.copy()
    cells[5, 7] = np.inf
    done = ranks(2, cells, tmp_path, "--method", "linear", command_line=True)
    assert [rank.status for rank in done] == [2, 2]
    assert done[0].complained.startswith("fastimpute: column 7 holds an infinity at row 5")
    assert done[0].complained.count("\n") == 1
    assert done[1].said + done[1].complained == ""


def test_a_process_of_its_own_was_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not launched()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched()

"""Training by several processes: real ones, started by torchrun, end with the bits of one, also after a rank is killed.

What they fit is in `replicas.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import replicas
import torch
from closeness import same_bits
from conftest import usable_isas
from hypothesis import given, settings
from hypothesis import strategies as st
from test_score_matching import step
from torch import Tensor

from fastimpute import ops
from fastimpute.ops.shared_score_matching import shared_score_matching
from fastimpute.train.data_parallel import Replicas, data_parallel

TESTS = Path(__file__).resolve().parent
RANKS = 2


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks wrote down of what they fitted together. Twice one of them was killed and both were restarted."""
    folder = tmp_path_factory.mktemp("together")
    restarts = len(replicas.KILLED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    run = subprocess.run(
        [*launcher, f"--max-restarts={restarts}", str(TESTS / "replicas.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    return folder


def noted(folder: Path, name: str) -> list[str]:
    return [(folder / f"{name}.{rank}").read_text() for rank in range(RANKS)]


@pytest.mark.parametrize("kind", replicas.KINDS)
def test_every_rank_ends_with_the_bits_of_one_process(kind: str, notes: Path) -> None:
    assert noted(notes, kind) == [replicas.bits(kind, replicas.table())] * RANKS


@pytest.mark.parametrize("kind", ["direct", "denoiser"])
def test_ranks_with_other_data_are_refused(kind: str, notes: Path) -> None:
    first, second = noted(notes, f"{kind} of other data")
    assert first == second
    assert "expected the same data, settings and checkpoint in every rank" in first


def test_outside_of_the_block_each_rank_fits_its_own_data(notes: Path) -> None:
    assert noted(notes, "own") == [replicas.bits("direct", replicas.table(seed=rank)) for rank in range(RANKS)]


def test_a_killed_rank_ends_its_group_and_the_next_one_finishes(notes: Path) -> None:
    assert noted(notes, "attempt") == [str(len(replicas.KILLED))] * RANKS


def test_a_restarted_denoiser_goes_on_from_its_checkpoint(notes: Path) -> None:
    first, second = map(int, noted(notes, "steps"))
    assert 0 < first == second < replicas.STEPS


def test_one_process_is_a_group_of_one() -> None:
    with data_parallel() as alone:
        assert alone == Replicas.here() == Replicas(number=0, count=1)


class Threads:
    """Threads in the place of processes: what one owns the others copy."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._barrier = threading.Barrier(count)
        self._boards: list[Sequence[Sequence[Tensor]]] = [()] * count

    def sharer(self, number: int) -> Sharer:
        return Sharer(self, number, self.count)

    def exchange(self, number: int, owned: Sequence[Sequence[Tensor]]) -> None:
        self._boards[number] = owned
        self._barrier.wait()
        for owner, board in enumerate(self._boards):
            if owner != number:
                for mine, theirs in zip(owned[owner], board[owner], strict=True):
                    mine.copy_(theirs)
        self._barrier.wait()


class Sharer:
    def __init__(self, threads: Threads, number: int, count: int) -> None:
        self._threads, self.number, self.count = threads, number, count

    def exchange(self, owned: Sequence[Sequence[Tensor]]) -> None:
        self._threads.exchange(self.number, owned)


@pytest.mark.parametrize("isa", [name for name in usable_isas() if name != "avx512bf16"])
@settings(max_examples=30, deadline=None)
@given(
    run=st.sampled_from([1, 5, 16, 50]),
    runs=st.integers(1, 12),
    dim=st.integers(1, 100),
    count=st.integers(1, 5),
    weighted=st.booleans(),
)
def test_a_shared_step_has_the_bits_of_a_whole_one(
    isa: str, run: int, runs: int, dim: int, count: int, weighted: bool
) -> None:
    with ops.use_isa(isa):
        example = step(run * runs, dim, 64, runs, weighted=weighted)
        whole = ops.score_matching(*example, threads=1)
        threads = Threads(count)
        with ThreadPoolExecutor(count) as pool:
            shared = pool.map(
                lambda rank: shared_score_matching(*example, threads.sharer(rank), threads=1), range(count)
            )
            for result in shared:
                assert all(same_bits(mine.flatten(), one.flatten()) for mine, one in zip(result, whole, strict=True))


def test_a_shared_step_reads_only_the_rows_of_strided_inputs() -> None:
    example = step(33, 24, 64, 3)
    wide = torch.full((2, 33, 40), float("nan"))
    wide[0, :, 5:29], wide[1, :, 5:29] = example.x, example.target
    whole, threads = ops.score_matching(*example), Threads(2)
    strided = example._replace(x=wide[0, :, 5:29], target=wide[1, :, 5:29])
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda rank: shared_score_matching(*strided, threads.sharer(rank)), range(2)):
            assert all(same_bits(mine.flatten(), one.flatten()) for mine, one in zip(result, whole, strict=True))


def test_bad_arguments_of_a_shared_step_are_named() -> None:
    example = step(6, 5, 32, 2)._replace(target=torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"score_matching: target must have shape \(6, 5\), got \(4, 5\)"):
        shared_score_matching(*example, Threads(2).sharer(0))

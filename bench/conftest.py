"""Benchmarks of one op each: `pytest bench/bench_<op>.py`. The cases are those of `fastimpute bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastimpute.benchmark.measure import Case, Row, measure

Recorder = Callable[[Case], dict[str, Row]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def record(benchmark: BenchmarkFixture) -> Recorder:
    """Checks all candidates of a case, times them in turns, and the kernel once more under pytest-benchmark."""

    def run(case: Case) -> dict[str, Row]:
        rows = measure(case)
        benchmark.group = f"{case.op} {case.shape}"
        benchmark.extra_info.update(rows[0].as_dict())
        benchmark.extra_info["in turns"] = [row.as_dict() for row in rows]
        benchmark.pedantic(case.candidates[0].run, rounds=5, warmup_rounds=1)
        return {row.candidate: row for row in rows}

    return run

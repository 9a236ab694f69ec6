"""bench/gpu.py's stages, tried on the processor: what it would say of a GPU's kernels, and of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastimpute.benchmark import gpu
from fastimpute.benchmark.gpu import checks, speed
from fastimpute.benchmark.gpu.problem import Problem
from fastimpute.ops.registry import OPS


@pytest.mark.slow
def test_all_stages_run_and_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = gpu.main(["--device", "cpu", "--quick", "--ops", "spt_weights", "particle_step", "--out", str(tmp_path)])
    assert status == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {found["op"] for found in report["checks"]} == {"spt_weights", "particle_step"}
    assert {found["outcome"] for found in report["checks"]} == {"right"}
    assert {row["candidate"] for row in report["ops"]} == {"fastimpute cpu", "eager"}
    assert all(row["milliseconds"] > 0 for row in report["ops"])
    assert set(report["ceilings"]) == {"copy", "fp32", "bf16"}
    assert [("failure" in task, task["seconds"] > 0) for task in report["tasks"]] == [(False, True)] * 2
    assert report["tasks"][1]["observed_cells_kept"] == 1
    assert "0 failed" in capsys.readouterr().out


def problem(wrong: float = 0.0, refuses: bool = False) -> Problem:
    def call(tensors: dict[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
        if backend == "cpu" and refuses:
            raise ValueError("spt_weights: backend 'cpu' cannot serve: it is tired")
        return (tensors["x"] + (wrong if backend == "cpu" else 0.0),)

    return Problem("spt_weights", "n=4", {"x": torch.ones(4)}, call, flops=1.0)


def test_wrong_answers_are_found() -> None:
    assert checks.check(problem(), "cpu", "fp32").outcome == "right"
    found = checks.check(problem(wrong=1e-4), "cpu", "fp32")
    assert found.outcome == "too far from double precision"
    assert found.error > found.limit
    assert checks.check(problem(wrong=float("nan")), "cpu", "fp32").outcome == "too far from double precision"


def test_the_last_rows_of_long_arrays_are_compared_with_themselves() -> None:
    found = list(checks.far_checks(list(OPS), "cpu", quick=True))
    assert [one.op for one in found] == list(checks._FAR)
    assert {one.outcome for one in found} == {"right"}


def test_what_a_backend_does_not_take_is_told_and_not_timed() -> None:
    assert checks.check(problem(refuses=True), "cpu", "fp32").outcome == "refused: it is tired"
    ceilings = dict.fromkeys(("copy", "fp32", "bf16"), 1e12)
    rows = list(speed.timed(problem(refuses=True), "cpu", ceilings, compiled=False, rounds=1))
    assert [row.candidate for row in rows] == ["eager"]


def test_an_op_without_a_kernel_there_is_told() -> None:
    (found,) = checks.checks_of("score_matching", "cuda", quick=True)
    assert found.outcome.startswith("refused: no kernel on cuda (triton: ")


def test_every_op_is_checked_and_timed() -> None:
    assert set(checks._SWEEPS) == set(OPS)
    assert {op for op, _, _ in speed.problems(quick=False)} == set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_an_op_is_right_on_its_smallest_problem(op: str) -> None:
    assert checks.check(next(iter(checks.sweep(op, quick=True))), "cpu", "fp32").outcome == "right"


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        return
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch finds no CUDA device" in capsys.readouterr().err

"""bench/gpu.py's stages, tried on the processor: what it would say of a GPU's kernels, and of wrong ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastimpute.benchmark import gpu
from fastimpute.benchmark.gpu import checks, sanitizer, speed
from fastimpute.benchmark.gpu.problem import Problem
from fastimpute.ops.registry import OPS

ANSWER = 'echo "[{\\"outcome\\": \\"right\\"}]"'


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


def test_the_script_names_what_building_lacks(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "bench" / "gpu.py"
    command = [sys.executable, "-S", str(script)]  # without what is installed
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": ""}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "cannot build fastimpute; missing: torch, pip, scikit_build_core, pybind11" in finished.stderr


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


class OfItsOwnKind(Exception):
    """As Triton's compiler has them."""


def fails(tensors: dict[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    if backend == "cpu":
        raise OfItsOwnKind("out of resource: shared memory")
    return (tensors["x"],)


def test_an_error_of_any_kind_is_one_answer_and_not_the_end() -> None:
    failing = Problem("spt_weights", "n=4", {"x": torch.ones(4)}, fails, flops=1.0)
    assert checks.check(failing, "cpu", "fp32").outcome == "OfItsOwnKind: out of resource: shared memory"
    rows = list(speed.timed(failing, "cpu", dict.fromkeys(("copy", "fp32", "bf16"), 1e12), compiled=False, rounds=1))
    assert [row.unit for row in rows] == ["OfItsOwnKind: out of resource: shared memory", "TFLOP/s"]


def in_place_of_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    """A process of checks runs this program instead."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("sleep 600", "not finished after 1 s"),
        ("echo broken >&2; exit 3", "the process ended with 3: broken"),
        ("true", ""),
    ],
    ids=["hangs", "crashes", "ends"],
)
def test_answers_before_a_crash_or_a_hang_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str, why: str
) -> None:
    in_place_of_checks(monkeypatch, tmp_path, f"{ANSWER}; {end}")
    outcomes = [found["outcome"] for found in gpu.answers("spt_weights", "cpu", [], seconds=1.0)]
    assert outcomes == ["right", *([why] if why else [])]


@pytest.mark.parametrize(
    "outcome",
    [
        "not finished after 1 s",
        "the process ended with -9: no message",
        "AcceleratorError: CUDA error: illegal address",
    ],
)
def test_what_ends_or_spoils_its_process_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    """It would take the process of the others' times with it."""
    names = ["spt_weights", "particle_step"]
    answer = dict.fromkeys(("shape", "backend", "precision"), "")
    answered = [{**answer, "op": name, "outcome": "right"} for name in names]
    answered.append({**answer, "op": names[0], "outcome": outcome})
    monkeypatch.setattr(gpu, "_all_checks", lambda options, **settings: [] if settings else answered)
    monkeypatch.setattr(gpu, "_attempt", lambda task: {"failure": "left out"})
    assert gpu.main(["--device", "cpu", "--quick", "--ops", *names, "--out", str(tmp_path)]) == 1
    rows = json.loads((tmp_path / "gpu.json").read_text())["ops"]
    assert [row["unit"] for row in rows if row["op"] == names[0]] == ["left out: its checks ended the process"]
    assert {row["candidate"] for row in rows if row["op"] == names[1]} == {"fastimpute cpu", "eager"}


def test_checks_that_take_too_long_leave_shapes_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--check", "spt_weights", "--device", "cpu", "--quick", "--minutes", "0"]) == 0
    answers = [answer for line in capsys.readouterr().out.splitlines() for answer in json.loads(line)]
    assert [answer["outcome"] for answer in answers] == ["right", "refused: no time was left for other shapes"]


def test_too_little_memory_spoils_nothing() -> None:
    assert not gpu.spoilt("OutOfMemoryError: CUDA out of memory")
    assert not gpu.spoilt("refused: no kernel on cuda (cuda: no CUDA driver is installed)")


# ---- compute-sanitizer -----------------------------------------------------------------------------------------------

MEMORY, RACES = "========= ERROR SUMMARY", "========= RACECHECK SUMMARY"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a compute-sanitizer on the PATH that runs these lines of a shell."""

    def install(lines: str) -> None:
        script = tmp_path / sanitizer.NAME
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return install


@pytest.mark.parametrize(
    ("lines", "errors", "outcome"),
    [
        (f"{ANSWER}; echo '{MEMORY}: 0 errors'", 0, "clean in 1 checks"),
        (f"echo '{MEMORY}: 3 errors'; exit 1", 3, "3 errors"),
        (f"{ANSWER}; echo '{RACES}: 2 hazards displayed (1 error, 1 warning)'", 2, "2 errors"),
        (f"echo '{MEMORY}: 0 errors'", None, "no kernel gave a right answer: the process ended"),
        ("echo 'Unable to find the driver' >&2; exit 1", None, "not run: Unable to find the driver"),
    ],
    ids=["clean", "errors", "hazards", "no answer", "no driver"],
)
def test_what_the_sanitizer_says_is_counted(
    tool: Callable[[str], None], lines: str, errors: int | None, outcome: str
) -> None:
    tool(lines)
    found = sanitizer.findings(["spt_weights", "score_matching"], "cuda")
    assert [(one.op, one.tool) for one in found] == [("spt_weights", "memcheck"), ("spt_weights", "racecheck")]
    assert {(one.errors, one.outcome) for one in found} == {(errors, outcome)}


def test_the_sanitizer_runs_the_checks_of_the_cuda_kernels_alone(tool: Callable[[str], None]) -> None:
    """The process that it watches is run here, and finds no kernel."""
    tool(
        'test "$PYTORCH_NO_CUDA_MEMORY_CACHING" && test "$3 $4" = "--kernel-name kns=fastimpute" && shift 4 && "$@" && '
        f'echo "{MEMORY}: 0 errors"'
    )
    path = sanitizer.find()
    assert path is not None
    found = sanitizer.finding("spt_weights", "memcheck", "cpu", path)
    assert found.errors is None
    assert found.outcome.startswith("no kernel gave a right answer: refused: no kernel on cpu (cuda: ")


def test_a_sanitizer_that_does_not_end_is_ended(tool: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    tool("sleep 600 & wait")
    monkeypatch.setattr(sanitizer, "SECONDS", 1.0)
    found = sanitizer.findings(["spt_weights"], "cuda")
    assert {(one.errors, one.outcome) for one in found} == {(None, "not finished after 1 s")}


def test_a_sanitizer_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "find", lambda: None)
    (found,) = sanitizer.findings(list(OPS), "cuda")
    assert found.outcome == "not run: compute-sanitizer is neither on the PATH nor beside nvcc"
    (found,) = sanitizer.findings(list(OPS), "cpu")
    assert found.outcome == "not run: the device is cpu"


@pytest.mark.parametrize(("errors", "status"), [(0, 0), (2, 1), (None, 0)])
def test_the_sanitizer_is_part_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], errors: int | None, status: int
) -> None:
    said = sanitizer.Finding("spt_weights", "memcheck", errors, "what it said")
    monkeypatch.setattr(gpu, "findings", lambda names, device: [said])
    for stage in ("_all_checks", "_all_ops"):
        monkeypatch.setattr(gpu, stage, lambda *arguments, **settings: [])
    monkeypatch.setattr(gpu, "ceilings", lambda *arguments: {})
    monkeypatch.setattr(gpu, "_attempt", lambda task: {"failure": "left out"})
    assert gpu.main(["--device", "cpu", "--quick", "--sanitize", "--out", str(tmp_path)]) == status
    assert json.loads((tmp_path / "gpu.json").read_text())["sanitizer"] == [said.as_dict()]
    assert "sanitizer spt_weights memcheck what it said" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        return
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch finds no CUDA device" in capsys.readouterr().err

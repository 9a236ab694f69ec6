"""The GPU's benchmark: correctness, ceilings, every op against PyTorch, whole tasks; `bench/gpu.py` runs it."""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import math
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from fastimpute import ops
from fastimpute.benchmark.gpu.checks import FAR_OPS, REFUSED, RIGHT, checks_of, far_checks
from fastimpute.benchmark.gpu.end_to_end import week, year
from fastimpute.benchmark.gpu.process import check_process
from fastimpute.benchmark.gpu.sanitizer import findings
from fastimpute.benchmark.gpu.speed import left_out, problems, timed
from fastimpute.benchmark.gpu.timing import ceilings
from fastimpute.ops.registry import BACKENDS, OPS

PROCESSES = 8  # each compiles kernels for itself; they share the compilers' caches on disk
FAR_PROCESSES = 2  # each takes up to 60 GB of the GPU's memory
CHECKING = 0.35  # of the minutes: when a process of checks leaves the other shapes out
PATIENCE = 45.0  # seconds from then on, after which it is taken to hang: the others' answers are to be kept
ENDED = ("the process ended", "not finished")  # before it had given all its answers
RESERVED = 90.0  # seconds for the whole tasks, which come last
Report = dict[str, Any]


def main(arguments: list[str] | None = None, begin: float | None = None) -> int:
    """Runs the stages, writes `gpu.json` after each, and prints a short table last. 1: an answer was wrong, or the
    sanitizer found an error. begin: by `time.monotonic`, when the minutes began; None: now."""
    options = _options(arguments)
    begin = time.monotonic() if begin is None else begin
    if options.check is not None:
        return _check(options, begin + 60 * options.minutes * CHECKING)
    report: Report = {"machine": machine(options.device)}

    def left() -> float:
        return float(60 * options.minutes) - (time.monotonic() - begin)

    def keep(name: str, found: Any) -> None:
        report[name] = found
        report["seconds"] = round(time.monotonic() - begin, 1)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gpu.json").write_text(json.dumps(_without_nan(report), indent=1) + "\n")

    keep("checks", _all_checks(options))
    keep("checks", report["checks"] + _all_checks(options, without=_ended(report), far=True))
    if options.sanitize:
        keep("sanitizer", [found.as_dict() for found in findings(options.ops, options.device)])
    keep("ceilings", ceilings(options.device, options.quick))
    keep("ops", [left_out(op).as_dict() for op in sorted(_ended(report))])
    for rows in _all_ops(options, report["ceilings"], lambda: left() - RESERVED, without=_ended(report)):
        keep("ops", report["ops"] + rows)
    truth = None if options.week is None else pd.read_csv(options.week).select_dtypes("number").to_numpy(float)
    keep("tasks", [
        _attempt(lambda: week(options.device, truth, options.quick)),
        _attempt(lambda: year(options.device, options.quick)),
    ])  # fmt: skip
    wrong = [found for found in report["checks"] if not found["outcome"].startswith((RIGHT, REFUSED))]
    harmful = [found for found in report.get("sanitizer", []) if found["errors"]]
    _print(report, wrong)
    return 1 if wrong or harmful else 0


def _check(options: argparse.Namespace, until: float) -> int:
    """Prints the answers of one op, as a process of their own."""
    op, which = options.check, (options.device, options.quick)
    for found in far_checks([op], *which) if options.far else checks_of(op, *which, options.backend):
        print(json.dumps([found.as_dict()]), flush=True)  # at once: the next one may not come back
        if time.monotonic() > until:
            print(json.dumps([_said(op, f"{REFUSED}no time was left for other shapes")]))
            break
    return 0


def _said(op: str, outcome: str) -> dict[str, Any]:
    """An answer about all of an op."""
    return {"op": op, "shape": "", "backend": "", "precision": "", "outcome": outcome}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/gpu.py", description=__doc__)
    parser.add_argument("--ops", nargs="+", choices=list(OPS), default=list(OPS), help="only these")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder that receives gpu.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.5, help="of all; what no longer fits is left out")
    parser.add_argument("--week", type=Path, help="csv file of the week to fill; simulated traffic otherwise")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: does the script itself work?")
    parser.add_argument("--sanitize", action="store_true", help="also run compute-sanitizer over the CUDA kernels")
    parser.add_argument("--check", choices=list(OPS), help="only check this op and print JSON")
    parser.add_argument("--backend", choices=BACKENDS, help="with --check: on this backend alone")
    parser.add_argument("--far", action="store_true", help="with --check: arrays of more than 2^31 elements")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device (--device cpu --quick tries the script without one)")
    return options


def machine(device: str) -> dict[str, str | float]:
    """What the numbers were measured on."""
    facts: dict[str, str | float] = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "isa": ops.isa(),
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        there = shutil.which(query[0]) is not None
        shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split() if there else []
        facts |= {
            "gpu": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "driver": shown[0] if shown else "unknown",
            "cuda": torch.version.cuda or "none",
        }
    return facts


def _all_checks(options: argparse.Namespace, without: Collection[str] = (), far: bool = False) -> list[dict[str, Any]]:
    """Every op's checks, each in a process of its own."""
    settings = ["--minutes", str(options.minutes), *["--quick"] * options.quick, *["--far"] * far]
    seconds = 60 * options.minutes * CHECKING + PATIENCE
    with concurrent.futures.ThreadPoolExecutor(FAR_PROCESSES if far else PROCESSES) as pool:
        names = [op for op in options.ops if op not in without and (op in FAR_OPS or not far)]
        parts = pool.map(lambda op: answers(op, options.device, settings, seconds), names)
        return [found for part in parts for found in part]


def answers(op: str, device: str, settings: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """What a process that checks `op` says; its last outcome tells how it ended if not by itself."""
    why = ""
    try:
        done = check_process(op, device, settings, seconds=seconds)
        said = done.stdout
        if done.returncode != 0:
            why = f"{ENDED[0]} with {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    except subprocess.TimeoutExpired as late:
        said, why = str(late.output), f"{ENDED[1]} after {seconds:.0f} s"
    lines = [line for line in said.splitlines() if line.startswith("[{")]
    found: list[dict[str, Any]] = [answer for line in lines for answer in json.loads(line)]
    return found + [_said(op, why)] * bool(why)


def spoilt(outcome: str) -> bool:
    """Whether the process that gave this answer is of no more use: a kernel's wrong address fails whatever follows."""
    harmless = outcome.startswith((REFUSED, "OutOfMemoryError"))
    return outcome.startswith(ENDED) or ("CUDA" in outcome and not harmless)


def _ended(report: Report) -> set[str]:
    """The ops whose checks ended or spoilt their process: they would do so to this one, too."""
    return {found["op"] for found in report["checks"] if spoilt(found["outcome"])}


def _all_ops(
    options: argparse.Namespace, limits: dict[str, float], left: Callable[[], float], without: Collection[str]
) -> Iterator[list[dict[str, str | float]]]:
    """Every op's times, shape by shape."""
    device = options.device
    for op, build, compiled in problems(options.quick):
        if left() <= 0:
            break
        if op not in options.ops or op in without:
            continue
        with torch.device(device):
            problem = build()
        rounds = 3 if options.quick else 7
        yield [row.as_dict() for row in timed(problem, device, limits, compiled, rounds)]
        del problem
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def _attempt(task: Callable[[], dict[str, str | float]]) -> dict[str, str | float]:
    """The task's facts, or why there are none."""
    try:
        return task()
    except Exception as error:  # whatever it is, the other results are to be shown
        return {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(report: Report, wrong: list[dict[str, Any]]) -> None:
    console = Console(width=150)
    table = Table("op", "shape", "candidate", "ms", "rate", "% of ceiling", title="ops")
    for row in report["ops"]:
        number = "" if math.isnan(row["rate"]) else f"{row['rate']:.3g} "
        share = "" if math.isnan(row["percent"]) else f"{row['percent']:.0f}"
        name = f"{row['candidate']} {row['precision']}"
        table.add_row(row["op"], row["shape"], name, f"{row['milliseconds']:.3g}", f"{number}{row['unit']}", share)
    console.print(table)
    for found in wrong[:20]:
        console.print("WRONG", found["op"], found["shape"], found["backend"], found["precision"], found["outcome"])
    for found in report.get("sanitizer", []):
        console.print("sanitizer", found["op"], found["tool"], found["outcome"])
    console.print({"machine": report["machine"], "ceilings": report["ceilings"]})
    console.print(f"{len(report['checks']) - len(wrong)} checks passed, {len(wrong)} failed; {report['seconds']} s")
    for task in report["tasks"]:
        console.print(task)

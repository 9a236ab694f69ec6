"""The GPU's benchmark: correctness, ceilings, every op against PyTorch, whole tasks; `bench/gpu.py` runs it."""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import math
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from fastimpute import ops
from fastimpute.benchmark.gpu.checks import REFUSED, RIGHT, checks_of, far_checks
from fastimpute.benchmark.gpu.end_to_end import week, year
from fastimpute.benchmark.gpu.process import check_process
from fastimpute.benchmark.gpu.sanitizer import findings
from fastimpute.benchmark.gpu.speed import problems, timed
from fastimpute.benchmark.gpu.timing import ceilings
from fastimpute.ops.registry import BACKENDS, OPS

PROCESSES = 8  # each compiles kernels for itself; they share the compilers' caches on disk
RESERVED = 90.0  # seconds for the whole tasks, which come last
Report = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Runs the stages, writes `gpu.json` after each, and prints a short table last. 1: an answer was wrong, or the
    sanitizer found an error."""
    options = _options(arguments)
    if options.check is not None:
        found = checks_of(options.check, options.device, options.quick, options.backend)
        print(json.dumps([check.as_dict() for check in found]))
        return 0
    begin = time.monotonic()
    report: Report = {"machine": machine(options.device)}

    def left() -> float:
        return float(60 * options.minutes) - (time.monotonic() - begin)

    def keep(name: str, found: Any) -> None:
        report[name] = found
        report["seconds"] = round(time.monotonic() - begin, 1)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gpu.json").write_text(json.dumps(_without_nan(report), indent=1) + "\n")

    which = (options.ops, options.device, options.quick)
    keep("checks", _all_checks(*which) + [found.as_dict() for found in far_checks(*which)])
    if options.sanitize:
        keep("sanitizer", [found.as_dict() for found in findings(options.ops, options.device)])
    keep("ceilings", ceilings(options.device, options.quick))
    keep("ops", _all_ops(options, report["ceilings"], lambda: left() - RESERVED))
    truth = None if options.week is None else pd.read_csv(options.week).select_dtypes("number").to_numpy(float)
    keep("tasks", [
        _attempt(lambda: week(options.device, truth, options.quick)),
        _attempt(lambda: year(options.device, options.quick)),
    ])  # fmt: skip
    wrong = [found for found in report["checks"] if not found["outcome"].startswith((RIGHT, REFUSED))]
    harmful = [found for found in report.get("sanitizer", []) if found["errors"]]
    _print(report, wrong)
    return 1 if wrong or harmful else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/gpu.py", description=__doc__)
    parser.add_argument("--ops", nargs="+", choices=list(OPS), default=list(OPS), help="only these")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder that receives gpu.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=7.0, help="shapes that no longer fit are left out")
    parser.add_argument("--week", type=Path, help="csv file of the week to fill; simulated traffic otherwise")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: does the script itself work?")
    parser.add_argument("--sanitize", action="store_true", help="also run compute-sanitizer over the CUDA kernels")
    parser.add_argument("--check", choices=list(OPS), help="only check this op and print JSON")
    parser.add_argument("--backend", choices=BACKENDS, help="with --check: on this backend alone")
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
        shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
        facts |= {
            "gpu": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "driver": shown[0] if shown else "unknown",
            "cuda": torch.version.cuda or "none",
        }
    return facts


def _all_checks(names: list[str], device: str, quick: bool) -> list[dict[str, Any]]:
    """Every op's checks, each in a process of its own."""

    def of(op: str) -> list[dict[str, Any]]:
        done = check_process(op, device, ["--quick"] if quick else [])
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return [{"op": op, "shape": "", "backend": "", "precision": "", "outcome": f"the process ended: {last}"}]
        found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return found

    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        return [found for part in pool.map(of, names) for found in part]


def _all_ops(
    options: argparse.Namespace, limits: dict[str, float], left: Callable[[], float]
) -> list[dict[str, str | float]]:
    device, rows = options.device, []
    for op, build, compiled in problems(options.quick):
        if left() <= 0:
            break
        if op not in options.ops:
            continue
        with torch.device(device):
            problem = build()
        rows += [row.as_dict() for row in timed(problem, device, limits, compiled, rounds=3 if options.quick else 7)]
        del problem
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    return rows


def _attempt(task: Callable[[], dict[str, str | float]]) -> dict[str, str | float]:
    """The task's facts, or why there are none."""
    try:
        return task()
    except (RuntimeError, ValueError) as error:
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

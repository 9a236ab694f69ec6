"""Imputing more than fits into memory: speed, memory, bytes moved, and whether a killed run goes on where it was.

    python bench/scale.py simulate IN.zarr --years 1 --sensors 8600 --missing 0.015
    python bench/scale.py run IN.zarr ... --method linear --memory 512MB --workers 1 2 --json bench/results/scale.json
    python bench/scale.py kill IN.zarr --times 20 --json bench/results/scale.json
    python bench/scale.py project --json bench/results/scale.json

Runs are child processes, `python -m fastimpute impute`, several workers under torchrun, one thread each. IN is dropped
from the page cache before each; the result lies in the folder --scratch (beside IN by default) and is deleted once it
is scored against the truth, which the seed in IN gives again. Memory is that of the largest process above one that has
merely imported torch and fastimpute.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scaling.archive import read_setting, rows_of, size_on_disk, write_archive
from scaling.impute import METHOD, PHASES, Job, phase_shares
from scaling.kill import kill_and_resume
from scaling.projection import ASSUMPTIONS, project
from scaling.score import score
from scaling.watch import forget, importing_bytes, watch

import fastimpute as fi
from fastimpute.simulate_large import LargeTraffic

# Titles of the last table's columns, and what stands in them.
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "method": lambda run: run["method"],
    "GB in": lambda run: f"{run['input_bytes'] / 1e9:.2f}",
    "missing": lambda run: f"{run['missing']:.1%}",
    "limit": lambda run: run["memory"],
    "workers": lambda run: str(run["workers"]),
    "seconds": lambda run: f"{run['seconds']:.1f}",
    "cpu s": lambda run: f"{run['cpu_seconds']:.1f}",
    "M cells/s": lambda run: f"{run['cells'] / run['seconds'] / 1e6:.2f}",
    "peak MB": lambda run: f"{run['peak_above_importing_bytes'] / 1e6:.0f}",
    "GB read": lambda run: f"{run['read_bytes'] / 1e9:.2f}",
    "written": lambda run: f"{run['written_bytes'] / 1e9:.2f}",
    **{phase: lambda run, phase=phase: f"{run['shares'][phase]:.0%}" for phase in PHASES},
    "MAE": lambda run: f"{run['score']['mae']:.3f}",
    "of lines": lambda run: f"{run['score']['mae_linear']:.3f}",
}
PROJECTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "cells": lambda row: f"{row['measured_cells']:.3g}",
    "hours on one": lambda row: f"{row['hours_on_one_machine']:.2f}",
    "s on 64, perfect": lambda row: f"{row['seconds_on_64_machines_perfect']:.0f}",
    "as it is": lambda row: f"{row['seconds_on_64_machines_as_it_is']:.0f}",
    "2 workers": lambda row: _speedup(row, "with_starting"),
    "once started": lambda row: _speedup(row, "once_started"),
    "time per cell, largest / smallest": lambda row: f"{row['time_per_cell']['largest_over_smallest']:.2f}",
    "of processors": lambda row: f"{row['processor_time_per_cell']['largest_over_smallest']:.2f}",
}


def _speedup(row: dict[str, Any], which: str) -> str:
    found = row["speedup_of_two_workers"]
    return f"{found[which]:.2f} x" if found else "-"


def line(columns: dict[str, Callable[[dict[str, Any]], str]], row: dict[str, Any] | None = None) -> str:
    """A row of a table; the titles without one."""
    shown = ((title, title if row is None else show(row)) for title, show in columns.items())
    return "  ".join(text.rjust(max(len(title), 7)) for title, text in shown)


def machine() -> dict[str, Any]:
    return {
        "fastimpute": fi.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def run(job: Job, samples: int) -> dict[str, Any]:
    """One job from an empty folder on, measured and scored.

    Raises:
        SystemExit: it failed; with what it said.
    """
    job.clear()
    forget(job.source)
    load, cost = os.getloadavg()[0], watch(job.command())
    if cost.status:
        raise SystemExit(f"{' '.join(job.command())} ended with status {cost.status}: {cost.error}")
    traffic, rows = read_setting(job.source)
    cells, done = rows * traffic.sensors, job.done()
    shares = phase_shares(done)
    return {
        "method": job.method,
        "memory": job.memory,
        "workers": job.workers,
        "rows": rows,
        "sensors": traffic.sensors,
        "missing": traffic.missing,
        "cells": cells,
        "input_bytes": size_on_disk(job.source),
        "output_bytes": size_on_disk(job.target),
        "peak_above_importing_bytes": cost.peak_bytes - importing_bytes(),
        **{name: value for name, value in dataclasses.asdict(cost).items() if name not in ("status", "error")},
        "log": done,
        "shares": shares,
        "share_besides_the_method": 1 - sum(shares[phase] for phase in METHOD),
        "score": dataclasses.asdict(score(job.source, job.target, samples)),
        "load_average_before": round(load, 1),
    }


def simulate_archive(options: argparse.Namespace) -> None:
    traffic = LargeTraffic(options.sensors, options.missing, options.never_alive, options.seed)
    cost = write_archive(options.source, traffic, rows_of(options.years))
    print(
        f"{cost['cells']:.3g} cells, {size_on_disk(options.source) / 1e9:.2f} GB in {cost['seconds']:.1f} s, "
        f"{cost['cells'] / cost['seconds_simulating'] / 1e6:.0f} M cells a processor second without writing"
    )


def run_all(options: argparse.Namespace) -> None:
    print(line(COLUMNS), flush=True)
    for source, workers in itertools.product(options.sources, options.workers):
        job = Job(source, place(options, source), options.method, options.memory, workers)
        found = run(job, options.samples)
        shutil.rmtree(job.folder)
        print(line(COLUMNS, found), flush=True)
        if options.json:
            name = f"{job.method} {found['cells']} cells {found['missing']} missing {job.memory} {workers} workers"
            keep(options.json, "runs", {**held(options.json).get("runs", {}), name: found})


def kill(options: argparse.Namespace) -> None:
    job = Job(options.source, place(options, options.source), options.method, options.memory)
    found = kill_and_resume(dataclasses.replace(job, workers=options.workers), options.times)
    shutil.rmtree(job.folder)
    if options.json:
        keep(options.json, "kill", {"method": job.method, "memory": job.memory, "workers": options.workers, **found})
    print(
        f"{found['identical']} of {found['times']} killed runs ended with the bytes of an undisturbed one; "
        f"{found['with_work_done_before']} had logged something before, {found['complete_before']} had all but ended"
    )


def projection(options: argparse.Namespace) -> None:
    def kind(run: dict[str, Any]) -> str:
        return f"{run['method']}, {run['missing']:.1%} missing, {run['memory']}"

    runs = sorted(held(options.json).get("runs", {}).values(), key=kind)
    found = {name: project(list(alike)) for name, alike in itertools.groupby(runs, kind)}
    keep(options.json, "projection", {"assumptions": ASSUMPTIONS, **found})
    print(*ASSUMPTIONS, sep="\n")
    width = max(map(len, found), default=0)
    print(f"{'':{width}}  {line(PROJECTED)}")
    for name, row in found.items():
        print(f"{name:{width}}  {line(PROJECTED, row)}")


def place(options: argparse.Namespace, source: Path) -> Path:
    return (options.scratch or source.parent) / "scale-scratch"


def held(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def keep(path: Path, name: str, value: Any) -> None:
    path.write_text(json.dumps({**held(path), "machine": machine(), name: value}, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    simulating = commands.add_parser("simulate", help="write a Zarr archive of simulated traffic")
    simulating.add_argument("source", metavar="IN.zarr", type=Path)
    simulating.add_argument("--years", type=float, default=1.0)
    simulating.add_argument("--sensors", type=int, default=8600)
    simulating.add_argument("--missing", type=float, default=0.015)
    simulating.add_argument("--never-alive", type=int, default=0)
    simulating.add_argument("--seed", type=int, default=0)
    simulating.set_defaults(go=simulate_archive)

    running = commands.add_parser("run", help="impute archives, measure and score")
    running.add_argument("sources", metavar="IN.zarr", type=Path, nargs="+")
    running.add_argument("--workers", type=int, nargs="+", default=[1])
    running.add_argument("--samples", type=int, default=4, help="pieces of the result to score")
    running.set_defaults(go=run_all)

    killing = commands.add_parser("kill", help="kill -9 at random moments, resume, compare bytes")
    killing.add_argument("source", metavar="IN.zarr", type=Path)
    killing.add_argument("--workers", type=int, default=1)
    killing.add_argument("--times", type=int, default=20)
    killing.set_defaults(go=kill)

    for command in (running, killing):
        command.add_argument("--method", default="linear")
        command.add_argument("--memory", default="512MB")
        command.add_argument("--scratch", type=Path, help="folder for results; beside IN by default")
        command.add_argument("--json", type=Path)

    projecting = commands.add_parser("project", help="from the runs in the JSON file to LargeST-CA, five years")
    projecting.add_argument("--json", type=Path, required=True)
    projecting.set_defaults(go=projection)

    options = parser.parse_args(arguments)
    options.go(options)


if __name__ == "__main__":
    main()

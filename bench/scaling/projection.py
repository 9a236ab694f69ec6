"""From what was measured to LargeST-CA, five years: on one machine, and on 64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LARGEST_CA_CELLS = 8600 * 1826 * 288  # sensors, days of 2017 to 2021, steps of five minutes
MACHINES = 64
ASSUMPTIONS = (
    "time per cell stays what it was at the largest size measured",
    "the machines are like this one, and each reads and writes its part as fast as this one does its disk",
    "'perfect': 64 machines share the cells evenly and lose nothing by it",
    "'with losses': each of the six doublings to 64 loses as much as going from 1 worker to 2 did here",
)


def flatness(runs: Sequence[dict[str, Any]], seconds: str) -> dict[str, float]:
    """Time per cell against size: largest over smallest, and the exponent of a power law through them.

    Args:
        runs: alike but for their size.
        seconds: which time of theirs: "seconds", or "cpu_seconds", which others at work on the machine do not lengthen.
    """
    cells = np.array([run["cells"] for run in runs], dtype=float)
    per_cell = np.array([run[seconds] for run in runs]) / cells
    exponent = np.polyfit(np.log(cells), np.log(per_cell), 1)[0] if len(set(cells)) > 1 else 0.0
    return {"largest_over_smallest": float(per_cell.max() / per_cell.min()), "exponent": float(exponent)}


def efficiency(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Of two workers: 1 when they take half the time."""
    return float(one["seconds"] / two["seconds"] / 2)


def project(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Time for LargeST-CA, and how flat the time per cell was.

    Args:
        runs: of one method at different sizes, with one worker and perhaps with two; those of the largest size count.

    Raises:
        ValueError: the largest size has no run of one worker.

    Example:
        >>> found = project([{"cells": 4522636800, "seconds": 7200.0, "cpu_seconds": 7100.0, "workers": 1}])
        >>> found["hours_on_one_machine"], found["seconds_on_64_machines_perfect"]
        (2.0, 112.5)
    """
    largest = max(run["cells"] for run in runs)
    at_largest = {run["workers"]: run for run in runs if run["cells"] == largest}
    if 1 not in at_largest:
        raise ValueError(f"no run of {largest} cells with one worker to project from")
    alone = [run for run in runs if run["workers"] == 1]
    fastest = min(at_largest.values(), key=lambda run: run["seconds"])
    seconds = fastest["seconds"] / largest * LARGEST_CA_CELLS
    found = {
        "cells": LARGEST_CA_CELLS,
        "measured_cells": largest,
        "workers_on_a_machine": fastest["workers"],
        "hours_on_one_machine": seconds / 3600,
        "seconds_on_64_machines_perfect": seconds / MACHINES,
        "time_per_cell": flatness(alone, "seconds"),
        "processor_time_per_cell": flatness(alone, "cpu_seconds"),
    }
    if 2 in at_largest:
        kept = min(efficiency(at_largest[1], at_largest[2]), 1.0)
        found["efficiency_of_two_workers"] = kept
        found["seconds_on_64_machines_with_losses"] = seconds / MACHINES / kept ** math.log2(MACHINES)
    return found

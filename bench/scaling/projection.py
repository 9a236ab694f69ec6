"""From what was measured to LargeST-CA, five years: on one machine, and on 64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LARGEST_CA_CELLS = 8600 * 1826 * 288  # sensors, days of 2017 to 2021, steps of five minutes
MACHINES = 64
SERIAL = ("scanning", "assembling")  # phases that one process does for all
ASSUMPTIONS = (
    "time per cell, and the part of it that each phase takes, stay what they were at the largest size measured",
    "the machines are like this one, with one worker each, and reach the data as fast as this one does its disk",
    "'perfect': 64 machines share the cells evenly and lose nothing by it",
    "'as it is': scanning and assembling are not shared, all else is",
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
        runs: of one method at different sizes, with one worker and perhaps with two.

    Raises:
        ValueError: there is no run of one worker.
    """
    alone = {run["cells"]: run for run in runs if run["workers"] == 1}
    if not alone:
        raise ValueError("there is no run of one worker to project from")
    largest = alone[max(alone)]
    seconds = largest["seconds"] / largest["cells"] * LARGEST_CA_CELLS
    serial = sum(largest["shares"][phase] for phase in SERIAL)
    pairs = [(alone[run["cells"]], run) for run in runs if run["workers"] == 2 and run["cells"] in alone]
    return {
        "cells": LARGEST_CA_CELLS,
        "measured_cells": largest["cells"],
        "hours_on_one_machine": seconds / 3600,
        "seconds_on_64_machines_perfect": seconds / MACHINES,
        "seconds_on_64_machines_as_it_is": seconds * (serial + (1 - serial) / MACHINES),
        "efficiency_of_two_workers": efficiency(*max(pairs, key=lambda pair: pair[0]["cells"])) if pairs else None,
        "time_per_cell": flatness(list(alone.values()), "seconds"),
        "processor_time_per_cell": flatness(list(alone.values()), "cpu_seconds"),
    }

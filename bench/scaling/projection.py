"""From what was measured to LargeST-CA, five years: on one machine, and on 64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.impute import PHASES

LARGEST_CA_SENSORS = 8600
LARGEST_CA_CELLS = LARGEST_CA_SENSORS * 1826 * 288  # days of 2017 to 2021, steps of five minutes
MACHINES = 64
ASSUMPTIONS = (
    "each phase takes as long as at the largest size measured: fitting for every sensor, the others for every cell",
    "the machines are like this one, with one worker each, and reach the data as fast as this one does its disk",
    "'perfect': 64 machines share the cells evenly and lose nothing by it",
    "'as it is': what belongs to no phase (joining what the workers found, removing what was laid aside) is not shared",
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


def speedup(one: dict[str, Any], two: dict[str, Any]) -> dict[str, float]:
    """How much faster two workers are, from start to end and once they have started."""
    return {
        "with_starting": float(one["seconds"] / two["seconds"]),
        "once_started": float(one["log"]["seconds"] / two["log"]["seconds"]),
    }


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
    cells, log = LARGEST_CA_CELLS / largest["cells"], largest["log"]
    fitting = log["seconds_fitting"] * LARGEST_CA_SENSORS / largest["sensors"]
    seconds = fitting + (log["seconds"] - log["seconds_fitting"]) * cells
    serial = (log["seconds"] - sum(log[f"seconds_{phase}"] for phase in PHASES)) * cells
    pairs = [(alone[run["cells"]], run) for run in runs if run["workers"] == 2 and run["cells"] in alone]
    return {
        "cells": LARGEST_CA_CELLS,
        "measured_cells": largest["cells"],
        "hours_on_one_machine": seconds / 3600,
        "seconds_on_64_machines_perfect": seconds / MACHINES,
        "seconds_on_64_machines_as_it_is": serial + (seconds - serial) / MACHINES,
        "speedup_of_two_workers": speedup(*max(pairs, key=lambda pair: pair[0]["cells"])) if pairs else None,
        "time_per_cell": flatness(list(alone.values()), "seconds"),
        "processor_time_per_cell": flatness(list(alone.values()), "cpu_seconds"),
    }

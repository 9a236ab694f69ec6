"""Simulated traffic as a Zarr archive: what a year of a state's road sensors looks like on disk."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from fastimpute.sensor_faults import STEPS_PER_DAY
from fastimpute.simulate_large import DAYS_PER_YEAR, STEP_MINUTES, LargeTraffic

VARIABLE = "speed"
CHUNK = (STEPS_PER_DAY, 512)
SHARD_ROWS = 4 * STEPS_PER_DAY
SETTING = "simulated"


def rows_of(years: float) -> int:
    """Rows of so many years, whole days."""
    return max(1, round(DAYS_PER_YEAR * years)) * STEPS_PER_DAY


def write_archive(path: Path, traffic: LargeTraffic, rows: int) -> dict[str, Any]:
    """Write `rows` rows to a Zarr v3 group with `speed` (time, sensor), in shards of four days and chunks of one.

    Uncompressed, so that it has as many bytes on disk as in memory. The settings go along: the truth is simulated anew
    when it is needed.

    Returns:
        cells, seconds in all, and processor seconds of simulating alone.
    """
    begin, simulating = time.perf_counter(), 0.0
    group = zarr.open_group(path, mode="w-", attributes={SETTING: {**dataclasses.asdict(traffic), "rows": rows}})
    across = -(-traffic.sensors // CHUNK[1]) * CHUNK[1] if traffic.sensors > CHUNK[1] else traffic.sensors
    speed = group.create_array(
        VARIABLE,
        shape=(rows, traffic.sensors),
        chunks=(CHUNK[0], min(CHUNK[1], traffic.sensors)),
        shards=(SHARD_ROWS, across),
        dtype="float32",
        compressors=None,
        fill_value=np.nan,
        dimension_names=("time", "sensor"),
        attributes={"units": "mph"},
    )
    _write_time(group, traffic, rows)
    for start in range(0, rows, SHARD_ROWS):
        stop, before = min(start + SHARD_ROWS, rows), time.process_time()
        cells = traffic.observed(start, stop)
        simulating += time.process_time() - before
        speed[start:stop] = cells
    return {
        "cells": rows * traffic.sensors,
        "seconds": time.perf_counter() - begin,
        "seconds_simulating": simulating,
    }


def read_setting(path: Path) -> tuple[LargeTraffic, int]:
    """The traffic an archive holds, and how many rows of it."""
    setting: Any = zarr.open_group(path, mode="r").attrs[SETTING]
    rows = int(setting["rows"])
    return LargeTraffic(**{name: value for name, value in setting.items() if name != "rows"}), rows


def open_speeds(path: Path) -> Any:
    """The readings of an archive, whether it is a group or the array itself."""
    node = zarr.open(path, mode="r")
    return node if isinstance(node, zarr.Array) else node[VARIABLE]


def size_on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _write_time(group: zarr.Group, traffic: LargeTraffic, rows: int) -> None:
    group.create_array(
        "time",
        data=np.arange(rows) * STEP_MINUTES,
        dimension_names=("time",),
        attributes={"units": f"minutes since {traffic.index(0, 1)[0]}", "calendar": "proleptic_gregorian"},
    )

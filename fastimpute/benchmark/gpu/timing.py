"""Seconds on a device: candidates take turns, medians count, beside ceilings measured in the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Run = Callable[[], object]
REGION = 0.005  # seconds of one measurement
WARM_UP_CALLS = 3


def seconds_of(run: Run, repeats: int, device: str) -> float:
    """Seconds per call, by the device's own events where it has them."""
    if not device.startswith("cuda"):
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - begin) / repeats
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin_event.record()
    for _ in range(repeats):
        run()
    end_event.record()
    end_event.synchronize()
    return float(begin_event.elapsed_time(end_event)) / 1e3 / repeats


def medians(runs: dict[str, Run], device: str, rounds: int) -> dict[str, float]:
    """Median seconds per call of each, in turns; results of a call are dropped at once."""
    repeats = {}
    for name, run in runs.items():
        for _ in range(WARM_UP_CALLS):
            run()
        repeats[name] = max(1, min(200, round(REGION / max(seconds_of(run, 1, device), 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(seconds_of(run, repeats[name], device))
    return {name: statistics.median(values) for name, values in found.items()}


def ceilings(device: str, quick: bool) -> dict[str, float]:
    """FLOP/s of large matrix products by precision and bytes/s (read and written) of a large copy, on random data."""
    side, cells = (256, 1 << 20) if quick else (8192, 1 << 30)
    source = torch.randn(cells, device=device)
    target = torch.empty_like(source)
    runs: dict[str, Run] = {"copy": lambda: target.copy_(source)}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        runs[name] = lambda left=left, right=right: left @ right  # type: ignore[misc]
    found = medians(runs, device, rounds=5)
    work = 2.0 * side**3
    return {"copy": 8.0 * cells / found["copy"], "fp32": work / found["fp32"], "bf16": work / found["bf16"]}

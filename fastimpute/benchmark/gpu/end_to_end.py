"""Whole tasks: a week of METR-LA, and a year of a state's sensors held on one GPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute import ops, simulate
from fastimpute.benchmark.network_cases import SIGMA, random_network

Facts = dict[str, str | float]
SENSORS, STEPS, DAY = 8600, 105_120, 288  # LargeST's California, five-minute steps
WINDOW, STRIDE, TOGETHER, ITERATIONS = 12, 6, 4, 10
SHARE_MISSING = 0.3


def synchronised(device: str) -> float:
    """The time once everything queued has been done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def week(device: str, truth: NDArray[np.floating[Any]] | None, quick: bool) -> Facts:
    """`fit_transform` of a week with 30 % of its cells hidden: the given table, or simulated traffic of its size."""
    if truth is None:
        truth = simulate.traffic(days=2 if quick else 7, sensors=6 if quick else 207, seed=0).truth.to_numpy()
    hidden = fi.masks.point(truth.shape, SHARE_MISSING, 0)
    given = np.where(hidden, np.nan, truth)
    sizes: dict[str, Any] = {"loops": 2, "train_steps": 5} if quick else {}
    begin = synchronised(device)
    filled = fi.SPIRITImputer(random_state=0, device=device, verbose=False, **sizes).fit_transform(given)
    seconds = synchronised(device) - begin
    deviation = np.nanstd(given, 0).clip(1e-9)
    error = float(np.nanmean(np.abs((filled - truth) / deviation)[hidden]))
    return {"task": f"week {truth.shape[0]} x {truth.shape[1]}, fit_transform", "seconds": seconds, "mae": error}


def year(device: str, quick: bool) -> Facts:
    """The recursion alone over a simulated year, 30 % missing, bfloat16 products: one call of `proximal_recursion`."""
    steps, sensors = (600, 12) if quick else (STEPS, SENSORS)
    network = random_network("direct", WINDOW * TOGETHER)
    network = network._replace(w3=0.1 * network.w3)
    with torch.device(device):
        phase = torch.arange(steps)[:, None] * (2 * torch.pi / DAY) + torch.rand(sensors)
        series = torch.sin(phase)
        series += 0.1 * torch.randn(steps, sensors)
        del phase
        missing = torch.empty(steps, sensors, dtype=torch.bool)
        for part in torch.split(missing, 4096):  # at once, the random numbers would take four times the mask
            torch.lt(torch.rand(part.shape), SHARE_MISSING, out=part)
        starts = torch.arange(0, steps - WINDOW + 1, STRIDE)
        columns = (torch.arange(sensors)[:, None] + torch.arange(TOGETHER)) % sensors
        parts = [None if part is None else part.to(device) for part in network]
    precision = "bf16" if device.startswith("cuda") else "fp32"
    begin = synchronised(device)
    filled, _ = ops.proximal_recursion(
        series, missing, starts, columns, WINDOW, *parts,  # type: ignore[arg-type]
        head="direct", sigma=SIGMA, iterations=ITERATIONS, eta=0.01, precision=precision,
    )  # fmt: skip
    seconds = synchronised(device) - begin
    kept = bool((filled[:64][~missing[:64]] == series[:64][~missing[:64]]).all())
    sound = kept and bool(filled.isfinite().all())
    cells = float(steps * sensors)
    return {
        "task": f"year {steps} x {sensors}, recursion, windows of {WINDOW} x {TOGETHER}, K={ITERATIONS}",
        "seconds": seconds,
        "cells_per_second": cells / seconds,
        "observed_cells_kept": float(sound),
    }

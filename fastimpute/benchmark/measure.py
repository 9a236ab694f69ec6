"""Timing: candidates take turns in one process, beside a loop that shows what the machine can do at that moment."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fastimpute import _native, ops

BF16 = "bf16"
FP32 = "fp32"
FP64 = "fp64"
PEAK_STEPS = 400_000
COPY_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Candidate:
    """One way to compute a case: `run` returns what is compared with float64; None: it does only part of the work."""

    name: str
    dtype: str
    run: Callable[[], Tensor | None]


@dataclass(frozen=True)
class Case:
    """One op at one shape: its candidates (the first of each dtype is the kernel the others are compared with), the
    exact output, and the work: floating-point operations or bytes, whichever bounds it."""

    op: str
    shape: str
    candidates: tuple[Candidate, ...]
    exact: Tensor
    flops: float = 0.0
    bytes: float = 0.0
    tolerance: dict[str, float] = field(default_factory=lambda: {FP64: 1e-4, FP32: 1e-4, BF16: 0.1})


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the rounds; a ratio above 1: the kernel of that dtype is so much faster."""

    op: str
    shape: str
    candidate: str
    dtype: str
    isa: str
    threads: int
    milliseconds: float
    spread: float
    rate: float
    unit: str
    percent_of_peak: float
    error: float
    kernel_is_faster_by: float

    def as_dict(self) -> dict[str, str | int | float]:
        return asdict(self)


def error(value: Tensor, exact: Tensor) -> float:
    """Relative deviation in the Euclidean norm."""
    return float((value.double() - exact).norm() / exact.norm().clamp_min(1e-300))


def clock() -> float:
    """Seconds. One thread: processor time, so that neighbours on a shared machine count less; more: wall time."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(run: Callable[[], object], repeats: int) -> float:
    """Seconds per call."""
    begin = clock()
    for _ in range(repeats):
        run()
    return (clock() - begin) / repeats


def peak_flops(dtype: str) -> float:
    """Operations per second of multiply-adds on registers of one core, measured now; double: half of single."""
    isa = ops.isa()
    if isa == "ref" or (dtype == BF16 and isa != "avx512bf16"):
        return float("nan")
    done = 0

    def spin() -> None:
        nonlocal done
        done = _native.core().spin_peak(isa, FP32 if dtype == FP64 else dtype, PEAK_STEPS)

    begin = time.process_time()
    spin()
    return done / (time.process_time() - begin) / (2 if dtype == FP64 else 1)


class CopyPeak:
    """Bytes per second, read and written, of copying an array far larger than the caches, measured when called."""

    def __init__(self) -> None:
        self._source, self._target = torch.zeros(COPY_ELEMENTS), torch.zeros(COPY_ELEMENTS)

    def __call__(self, dtype: str) -> float:
        return 8.0 * COPY_ELEMENTS / timed(lambda: self._target.copy_(self._source), 1)


def measure(case: Case, rounds: int = 9) -> list[Row]:
    """Checks every candidate against the exact output, then times them in turns.

    Raises:
        RuntimeError: a candidate's output is too far from the exact one: a wrong answer gets no time.
    """
    errors = {candidate.name: _checked(case, candidate) for candidate in case.candidates}
    repeats = {candidate.name: _repeats(candidate.run) for candidate in case.candidates}
    seconds: dict[str, list[float]] = {candidate.name: [] for candidate in case.candidates}
    peaks: dict[str, list[float]] = {candidate.dtype: [] for candidate in case.candidates}
    peak = peak_flops if case.flops else CopyPeak()
    for _ in range(rounds):
        for dtype, values in peaks.items():
            values.append(peak(dtype))
        for candidate in case.candidates:
            seconds[candidate.name].append(timed(candidate.run, repeats[candidate.name]))
    kernel: dict[str, float] = {}
    for candidate in case.candidates:
        kernel.setdefault(candidate.dtype, statistics.median(seconds[candidate.name]))
    return [
        _row(
            case,
            candidate,
            seconds[candidate.name],
            statistics.median(peaks[candidate.dtype]),
            errors[candidate.name],
            kernel[candidate.dtype],
        )
        for candidate in case.candidates
    ]


def _checked(case: Case, candidate: Candidate) -> float:
    output = candidate.run()
    if output is None:
        return float("nan")
    deviation = error(output, case.exact)
    if not deviation <= case.tolerance[candidate.dtype]:
        raise RuntimeError(f"{case.op} {case.shape}, {candidate.name}: error {deviation:.2g}, not timed")
    return deviation


def _repeats(run: Callable[[], object]) -> int:
    """Enough calls that one measurement takes about ten milliseconds."""
    run()
    return max(1, round(0.01 / max(timed(run, 1), 1e-6)))


def _row(case: Case, candidate: Candidate, seconds: list[float], peak: float, deviation: float, kernel: float) -> Row:
    threads = torch.get_num_threads()
    median = statistics.median(seconds)
    rate = (case.flops or case.bytes) / median
    peak *= threads if case.flops else 1
    return Row(
        op=case.op,
        shape=case.shape,
        candidate=candidate.name,
        dtype=candidate.dtype,
        isa=ops.isa(),
        threads=threads,
        milliseconds=1e3 * median,
        spread=(max(seconds) - min(seconds)) / median,
        rate=rate / 1e9,
        unit="GFLOP/s" if case.flops else "GB/s",
        percent_of_peak=100 * rate / peak,
        error=deviation,
        kernel_is_faster_by=median / kernel,
    )


def machine() -> dict[str, str | int | float]:
    """What the numbers were measured on; a load above one says that others computed meanwhile."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "isa": ops.isa(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )

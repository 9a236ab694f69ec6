"""NVIDIA's compute-sanitizer over the CUDA kernels: wrong addresses, and races in shared memory."""

from __future__ import annotations

import concurrent.futures
import json
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from fastimpute.benchmark.gpu.checks import RIGHT
from fastimpute.benchmark.gpu.process import check_process
from fastimpute.ops.registry import OPS

NAME = "compute-sanitizer"
TOOLS = ("memcheck", "racecheck")
PROCESSES = 8
SECONDS = 300.0  # of one process
# Every tensor is an allocation of its own: beyond the end of one in torch's pool, memcheck would see another.
SETTINGS = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) ")


@dataclass(frozen=True)
class Finding:
    """What a tool says of an op's kernels; `errors` None: it did not get that far, `outcome` says why."""

    op: str
    tool: str
    errors: int | None
    outcome: str

    def as_dict(self) -> dict[str, str | int | None]:
        return asdict(self)


def findings(names: list[str], device: str) -> list[Finding]:
    """Of every tool over the small checks of every op that has a CUDA kernel; a single one tells why there are none."""
    if not device.startswith("cuda"):
        return [Finding("", "", None, f"not run: the device is {device}")]
    path = find()
    if path is None:
        return [Finding("", "", None, f"not run: {NAME} is neither on the PATH nor beside nvcc")]
    work = [(op, tool) for op in names if "cuda" in OPS[op].backends for tool in TOOLS]
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(lambda pair: finding(pair[0], pair[1], device, path), work))


def find() -> str | None:
    """Where the tool is."""
    compiler = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    beside = None if compiler is None else shutil.which(NAME, path=str(Path(compiler).resolve().parent))
    return shutil.which(NAME) or beside


def finding(op: str, tool: str, device: str, path: str) -> Finding:
    """Of one tool over one op's checks; other kernels than the library's are not watched."""
    watched = [path, "--tool", tool, "--kernel-name", "kns=fastimpute"]
    options = ["--quick", "--backend", "cuda"]
    try:
        done = check_process(op, device, options, under=watched, settings=SETTINGS, seconds=SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(op, tool, None, f"not finished after {SECONDS:.0f} s")
    counts = [int(count) for count in _SUMMARY.findall(done.stdout)]
    if not counts:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        return Finding(op, tool, None, f"not run: {last}")
    if sum(counts) > 0:
        return Finding(op, tool, sum(counts), f"{sum(counts)} errors")
    answered = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    outcomes = [found["outcome"] for line in answered for found in json.loads(line)]
    if RIGHT not in outcomes:
        return Finding(op, tool, None, f"no kernel gave a right answer: {(outcomes or ['the process ended'])[0]}")
    return Finding(op, tool, 0, f"clean in {outcomes.count(RIGHT)} checks")

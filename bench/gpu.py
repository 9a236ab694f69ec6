"""Everything about one GPU from a bare checkout: builds the package, then checks and times every op and whole tasks.

    python bench/gpu.py --out FOLDER [--week metr_la_week.csv]

Needs nvcc, a driver, and a Python with torch, triton and the build tools (CMake, ninja, scikit-build-core, pybind11);
nothing is fetched. `gpu.json` in FOLDER has all numbers, the short table comes last. --sanitize also runs memcheck and
racecheck of compute-sanitizer over every CUDA kernel. Exit status 1: an answer was wrong, or the sanitizer found an
error. --help tells the other options.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "gpu" / "site"


def build() -> None:
    """Installs the package, CUDA kernels included, into a folder of its own."""
    options = ["--no-index", "--no-build-isolation", "--no-deps", "--upgrade", "--quiet", "--target", str(SITE)]
    command = [sys.executable, "-m", "pip", "install", *options, "-C", "cmake.define.FASTIMPUTE_CUDA=ON", str(ROOT)]
    parallel = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    subprocess.run(command, check=True, env={**parallel, **os.environ})


def main() -> int:
    build()
    sys.path.insert(0, str(SITE))
    from fastimpute.benchmark import gpu

    return gpu.main()


if __name__ == "__main__":
    sys.exit(main())

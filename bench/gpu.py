"""Everything about one GPU from a bare checkout: builds the package, then checks and times every op and whole tasks.

    python bench/gpu.py --out FOLDER [--week metr_la_week.csv]

Needs nvcc, a driver, and a Python with torch, triton and the build tools (CMake, ninja, scikit-build-core, pybind11);
nothing is fetched. `gpu.json` in FOLDER has all numbers, the short table comes last. --sanitize also runs memcheck and
racecheck of compute-sanitizer over every CUDA kernel. Exit status 1: an answer was wrong, or the sanitizer found an
error. --help tells the other options.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "gpu" / "site"
PACKAGES = ("torch", "pip", "scikit_build_core", "pybind11")
PROGRAMS = ("cmake", "ninja", "nvcc")
TOOLKITS = ("CUDA_HOME", "CUDA_PATH")


def lacking() -> list[str]:
    """What building the package needs and neither this Python nor this machine has."""
    toolkits = [os.environ[name] for name in TOOLKITS if name in os.environ] + ["/usr/local/cuda"]
    places = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), *(f"{place}/bin" for place in toolkits)]
    packages = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return packages + [name for name in PROGRAMS if shutil.which(name, path=os.pathsep.join(places)) is None]


def build() -> None:
    """Installs the package, CUDA kernels included, into a folder of its own."""
    options = ["--no-index", "--no-build-isolation", "--no-deps", "--upgrade", "--quiet", "--target", str(SITE)]
    command = [sys.executable, "-m", "pip", "install", *options, "-C", "cmake.define.FASTIMPUTE_CUDA=ON", str(ROOT)]
    parallel = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    subprocess.run(command, check=True, env={**parallel, **os.environ})


def main() -> int:
    begin = time.monotonic()
    missing = lacking()
    if missing:
        print(f"{sys.executable} cannot build fastimpute; missing: {', '.join(missing)}", file=sys.stderr)
        return 2
    build()
    sys.path.insert(0, str(SITE))
    from fastimpute.benchmark import gpu

    return gpu.main(begin=begin)


if __name__ == "__main__":
    sys.exit(main())

"""Launches Triton kernels as on a GPU, but for their running: what a launch asks of its arguments shows without one.

python triton_launches.py OP     # prints nothing; ends with an error where a launch would
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from fastimpute.benchmark.gpu import checks
from fastimpute.ops import backends
from fastimpute.ops.backends import Availability

CAPABILITY = 90
WIDEST, TALLEST = 2**31 - 1, 2**16 - 1  # of a grid: its first number, the others
SHARED_MOST = 227 * 1024


class NoGpu:
    """What Triton asks of a driver before it launches."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", CAPABILITY, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def compile_alone() -> None:
    """From now on kernels are specialised, compiled and looked up as for a launch, and not run."""
    launch = JITFunction.run

    def run(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        found = launch(self, *arguments, grid=grid, warmup=True, **options)
        for size, most in zip(grid, (WIDEST, TALLEST, TALLEST), strict=False):
            assert 0 < size <= most, f"{self.__name__}: grid {grid}"
        assert found.metadata.shared <= SHARED_MOST, f"{self.__name__}: {found.metadata.shared} bytes of shared memory"
        return found

    JITFunction.run = run
    driver.set_active(NoGpu())


def serve_main_memory(op: str) -> None:
    """Lets the op's Triton kernels take tensors in main memory."""
    backends.DEVICES["triton"] = "cpu"
    backends._PROBES["triton"] = lambda: Availability(True, "")
    module = importlib.import_module(f"fastimpute.ops.{op}")
    if op in ("score_matching", "dit_block", "dit_block_gradient"):  # whose ops are told apart by the tensors' device
        module._op = module._triton


def main(op: str) -> None:
    compile_alone()
    serve_main_memory(op)
    torch.set_num_threads(1)
    for build, sizes in checks._SWEEPS[op]:
        problem = build(1, min(sizes, key=lambda size: abs(size - checks.ANY_DIM)))
        for _ in range(2):  # the second time the kernel is there already
            problem.run_on_copies("triton", problem.precisions[0])


if __name__ == "__main__":
    main(sys.argv[1])

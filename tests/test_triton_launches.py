"""Every op's Triton kernels through Triton's own launches, with what the ops hand over; a GPU alone is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastimpute.ops.registry import OPS


@pytest.mark.slow
@pytest.mark.parametrize("op", [op.name for op in OPS.values() if "triton" in op.backends])
def test_kernels_can_be_launched_twice(op: str) -> None:
    finished = subprocess.run(
        [sys.executable, "triton_launches.py", op],
        cwd=Path(__file__).parent,
        env={**os.environ, "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]

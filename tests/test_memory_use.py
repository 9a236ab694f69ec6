"""What imputers take: no library that they do not use, and no more memory than they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fastimpute as fi
from fastimpute.stream.tiles import CONTEXT_CELLS, WIDEST

SHORT = {
    "SPIRITImputer": "random_state=0, verbose=False, loops=2, train_steps=3",
    "DiTImputer": "random_state=0, verbose=False, train_steps=2, hidden=32, layers=1, n_samples=2",
    "LinearImputer": "",
}
PEAKING = ["SPIRITImputer", "LinearImputer"]  # calibrating the others takes minutes


def child(program: str, *arguments: str) -> str:
    """What a program of its own process says."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=500).stdout


FIT_SMALL = """
import sys
import numpy as np, torch, fastimpute as fi
torch.set_num_threads(1)
rng = np.random.default_rng(0)
X = np.sin(np.arange(300)[:, None] / 8 + np.arange(3)) + 0.1 * rng.standard_normal((300, 3))
X[rng.random(X.shape) < 0.2] = np.nan
eval(f"fi.{sys.argv[1]}({sys.argv[2]})").fit(X).transform(X)
print(" ".join(name for name in ("torch._dynamo", "torch._inductor", "sympy", "triton") if name in sys.modules))
"""


@pytest.mark.parametrize("method", ["SPIRITImputer", "DiTImputer"])
def test_training_loads_no_compiler(method: str) -> None:
    assert child(FIT_SMALL, method, SHORT[method]).split() == []


FIT_TILE = """
import sys
import numpy as np, torch, fastimpute as fi
from fastimpute.stream.memory import keep_heap_small
torch.set_num_threads(1)
keep_heap_small()
rows, sensors = int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(0)
X = np.sin(np.arange(rows)[:, None] / 46 + np.arange(sensors) / 9) + 0.3 * rng.standard_normal((rows, sensors))
X[rng.random(X.shape) < 0.3] = np.nan
for sensor in range(sensors):
    first = rng.integers(rows - 200)
    X[first : first + 150, sensor] = np.nan
imputer = eval(f"fi.{sys.argv[1]}({sys.argv[2]})")
imputer.clone().fit(X[:200, :4])  # the libraries
def of(key): return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before = of("VmRSS")
imputer.fit(X)
print(of("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the largest resident set")
@pytest.mark.parametrize("method", PEAKING)
def test_a_tile_takes_no_more_than_its_imputer_says(method: str) -> None:
    """Nor is what it says far from the truth: a limit that would do must not be refused."""
    rows = CONTEXT_CELLS // WIDEST
    taken = int(child(FIT_TILE, method, SHORT[method], str(rows), str(WIDEST))) / (rows * WIDEST)
    assert 0.2 * getattr(fi, method).bytes_per_cell < taken < getattr(fi, method).bytes_per_cell

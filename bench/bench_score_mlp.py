"""score_mlp: share of the measured peak, and ratios to eager PyTorch and torch.compile."""

import pytest
from conftest import Recorder

from fastimpute.benchmark import DIMS, ROWS
from fastimpute.benchmark.network_cases import score_case


@pytest.mark.parametrize("dim", DIMS)
def test_faster_than_eager(record: Recorder, dim: int) -> None:
    rows = record(score_case(ROWS, dim, compile_baseline=True))
    assert rows["eager fp32"].kernel_is_faster_by >= 1.4

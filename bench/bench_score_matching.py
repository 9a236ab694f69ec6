"""score_matching: share of the measured peak, and ratios to eager autograd and torch.compile, forward and backward."""

import pytest
from conftest import Recorder

from fastimpute.benchmark import DIMS, TRAINING_ROWS
from fastimpute.benchmark.training_cases import training_case


@pytest.mark.parametrize("dim", DIMS)
def test_faster_than_eager_autograd_and_compiled(record: Recorder, dim: int) -> None:
    rows = record(training_case(TRAINING_ROWS, dim, compile_baseline=True))
    assert rows["fastimpute fp32"].percent_of_peak >= 60
    assert rows["eager autograd fp32"].kernel_is_faster_by >= 1.2
    assert rows["torch.compile fp32"].kernel_is_faster_by >= 1.1

"""proximal_recursion: within a tenth of its score kernel alone, and ratios to the eager loop."""

import pytest
from conftest import Recorder

from fastimpute.benchmark import DIMS
from fastimpute.benchmark.loop_cases import recursion_case


@pytest.mark.parametrize("head", ["energy", "direct"])
@pytest.mark.parametrize("dim", DIMS)
def test_gather_step_and_average_cost_at_most_a_tenth(record: Recorder, dim: int, head: str) -> None:
    rows = record(recursion_case(head, 4096, dim, iterations=20))
    assert rows["score kernel alone fp32"].kernel_is_faster_by >= 0.9
    assert rows["eager loop fp32"].kernel_is_faster_by >= 1.4


@pytest.mark.parametrize("head", ["energy", "direct"])
def test_weights_cost_at_most_a_tenth(record: Recorder, head: str) -> None:
    rows = record(recursion_case(head, 4096, 84, iterations=20, weights=True))
    assert rows["score kernel alone fp32"].kernel_is_faster_by >= 0.9

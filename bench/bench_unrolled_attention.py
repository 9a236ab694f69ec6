"""unrolled_attention: at least three times as fast as the loop in eager PyTorch."""

import pytest
from conftest import Recorder

from fastimpute.benchmark.unrolled_cases import learned_case, score_case


@pytest.mark.parametrize("one_mask", [True, False], ids=["one mask", "own masks"])
@pytest.mark.parametrize("count", [1, 256])
def test_exact_score_is_three_times_as_fast_as_the_eager_loop(record: Recorder, count: int, one_mask: bool) -> None:
    rows = record(score_case(count, 8, one_mask=one_mask))
    assert rows["eager loop fp32"].kernel_is_faster_by >= 3


@pytest.mark.parametrize("one_mask", [True, False], ids=["one mask", "own masks"])
def test_given_steps_are_three_times_as_fast_as_the_eager_loop(record: Recorder, one_mask: bool) -> None:
    rows = record(learned_case(256, 8, one_mask=one_mask))
    assert rows["eager loop fp32"].kernel_is_faster_by >= 3

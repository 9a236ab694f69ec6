"""particle_step: share of the copy bandwidth. The gate lies a little below the goal of 80 %."""

import pytest
from conftest import Recorder

from fastimpute.benchmark.loop_cases import step_case


@pytest.mark.parametrize("adam", [False, True], ids=["plain", "adam"])
def test_share_of_the_copy_bandwidth(record: Recorder, adam: bool) -> None:
    rows = record(step_case(50_000, 168, adam=adam, compile_baseline=True))
    assert rows["fastimpute fp32, memory given"].percent_of_peak >= 75

"""spt_weights: share of the copy bandwidth. The gate lies a little below the goal of 80 %."""

import pytest
from conftest import Recorder

from fastimpute.benchmark.loop_cases import weights_case


@pytest.mark.parametrize("group", [128, 512, 4096])
def test_share_of_the_copy_bandwidth(record: Recorder, group: int) -> None:
    rows = record(weights_case(1 << 22, group, compile_baseline=True))
    assert rows["fastimpute fp32, memory given"].percent_of_peak >= 75

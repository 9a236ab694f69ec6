"""ball_quantile: share of the copy bandwidth, the samples counted once although both passes read them."""

import pytest
from conftest import Recorder

from fastimpute.benchmark.diffusion_cases import ball_case


@pytest.mark.parametrize(("samples", "dim"), [(40, 168), (100, 168), (100, 768)])
def test_share_of_the_copy_bandwidth(record: Recorder, samples: int, dim: int) -> None:
    rows = record(ball_case(samples, (1 << 24) // (samples * dim), dim, compile_baseline=True))
    assert rows["fastimpute fp32, memory given"].percent_of_peak >= 40
    assert rows["eager fp32"].kernel_is_faster_by >= 8

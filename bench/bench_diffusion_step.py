"""diffusion_step: share of the copy bandwidth without noise; with it, the draws bound it, beside eager PyTorch's."""

from conftest import Recorder

from fastimpute.benchmark.diffusion_cases import diffusion_case


def test_share_of_the_copy_bandwidth(record: Recorder) -> None:
    rows = record(diffusion_case(32, 1500, 168, noise=False, compile_baseline=True))
    assert rows["fastimpute fp32, memory given"].percent_of_peak >= 75


def test_noise_costs_less_than_in_pytorch(record: Recorder) -> None:
    rows = record(diffusion_case(8, 1500, 168, noise=True, compile_baseline=False))
    assert rows["eager fp32"].kernel_is_faster_by >= 5

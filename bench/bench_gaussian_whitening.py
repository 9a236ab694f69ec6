"""`gaussian_whitening` against torch.linalg in batches padded to the window with the most missing cells."""

from __future__ import annotations

import pytest
from conftest import Recorder

from fastimpute.benchmark.gaussian_cases import whitening_case


@pytest.mark.parametrize(("windows", "dim"), [(32, 168), (16, 336)])
def test_windows_with_a_mask_each(record: Recorder, windows: int, dim: int) -> None:
    rows = record(whitening_case(windows, dim, 0.3))
    assert rows["eager batches fp64"].kernel_is_faster_by >= 2.5


def test_long_windows_with_block_gaps(record: Recorder) -> None:
    rows = record(whitening_case(16, 504, 0.45, blocks=True))
    assert rows["eager batches fp64"].kernel_is_faster_by >= 4

"""`gaussian_conditional` against torch.linalg, window by window and in batches."""

from __future__ import annotations

import pytest
from conftest import Recorder

from fastimpute.benchmark.gaussian_cases import gaussian_case


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("dim", [84, 168, 336])
def test_windows_with_a_mask_each(record: Recorder, dim: int, share: float) -> None:
    rows = record(gaussian_case(256, dim, share))
    assert rows["eager loop fp64"].kernel_is_faster_by >= 3
    assert rows["eager batches fp64"].kernel_is_faster_by >= 3


def test_windows_that_share_a_mask(record: Recorder) -> None:
    rows = record(gaussian_case(256, 336, 0.3, one_mask=True))
    assert rows["eager loop fp64"].kernel_is_faster_by >= 10

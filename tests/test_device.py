"""Devices: which are accepted, and that what runs on a GPU asks main memory for nothing.

Torch's "meta" device stands in for the GPU: its tensors have no values, and do not mix with those in main memory.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastimpute as fi
from fastimpute.device import device_of, tensor_float32
from fastimpute.train import window_gaussian
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.score_matching import ScoreMatching, _draw
from fastimpute.train.windows import PatchSampler, PatchTable

ROWS, SENSORS, WINDOW = 60, 3, 4


def sampler() -> PatchSampler:
    starts = np.arange(ROWS - WINDOW + 1, dtype=np.int64)
    columns = np.array([[0, 1], [2, 0]], dtype=np.int64)
    table = PatchTable(starts, columns, WINDOW, SENSORS, torch.zeros(5, 2), starts % 5)
    return PatchSampler(table, None, device="meta")


def series() -> torch.Tensor:
    return torch.empty(ROWS, SENSORS, device="meta")


def part() -> GaussianPart:
    return GaussianPart.fit(torch.empty(9, 2 * WINDOW, device="meta"))


def test_a_batch_is_drawn_where_the_series_lies() -> None:
    batch = _draw(series(), sampler(), 0.3, part(), ScoreMatching(1, batch=32))
    assert {tensor.device.type for tensor in batch if tensor is not None} == {"meta"}


def test_gaussian_rungs_are_computed_where_the_series_lies() -> None:
    gaussian = window_gaussian.maximise(series(), series().isnan(), sampler(), None)
    assert gaussian.to("meta").basis.device.type == "meta"
    free, patches = torch.ones(9, 8, device="meta"), torch.empty(9, 8, device="meta")
    assert window_gaussian.conditional_mean(gaussian.precision_matrix(0.0), patches, free).is_meta


def test_what_is_left_in_main_memory_is_found() -> None:
    with pytest.raises(RuntimeError, match="device"):
        part().scaled_score(torch.zeros(2, 2 * WINDOW), torch.ones(2, 1))


@pytest.mark.parametrize("asked", ["gpu", "mps", "cuda:", 7, None])
def test_other_devices_are_refused(asked: object) -> None:
    with pytest.raises(ValueError, match=r"^device: expected 'cpu', 'cuda' or a numbered one"):
        device_of(asked)  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_computed() -> None:
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(
        ValueError, match=f"^device: expected one of the .* CUDA devices that torch finds, got '{beyond}'"
    ):
        fi.SPIRITImputer(device=beyond).fit(np.ones((50, 2)))


def test_tf32_is_put_back() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), tensor_float32(True):
        assert torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert torch.backends.cuda.matmul.allow_tf32 == before

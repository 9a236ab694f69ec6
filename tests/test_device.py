"""Devices: which are accepted, and that what runs on a GPU asks main memory for nothing.

Torch's "meta" device stands in for the GPU: its tensors have no values, and do not mix with those in main memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from imputers import gappy

import fastimpute as fi
from fastimpute import recursion
from fastimpute.crew import crew
from fastimpute.device import device_of, sufficient_memory, tensor_float32
from fastimpute.ops.memory import halved_where_short
from fastimpute.train import window_gaussian
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.score_matching import ScoreMatching, _draw
from fastimpute.train.windows import PatchSampler, PatchTable

ROWS, SENSORS, WINDOW = 60, 3, 4


def sampler(device: str = "meta") -> PatchSampler:
    starts = np.arange(ROWS - WINDOW + 1, dtype=np.int64)
    columns = np.array([[0, 1], [2, 0]], dtype=np.int64)
    table = PatchTable(starts, columns, WINDOW, SENSORS, torch.zeros(5, 2), starts % 5)
    return PatchSampler(table, None, device=device)


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


# ---- a GPU's memory that does not suffice ----------------------------------------------------------------------------

SHORT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free. Including non-PyTorch memory, more"


def short_above(size: int, work: Callable[..., Any], tried: list[int]) -> Callable[..., Any]:
    """`work`, out of memory for more than `size` rows of its second argument."""

    def limited(*arguments: Any) -> Any:
        tried.append(len(arguments[1]))
        if tried[-1] > size:
            raise torch.OutOfMemoryError(SHORT)
        return work(*arguments)

    return limited


def test_work_is_done_in_blocks_that_fit() -> None:
    tried: list[int] = []

    def work(size: int) -> int:
        tried.append(size)
        if size > 20:
            raise torch.OutOfMemoryError(SHORT)
        return size

    assert halved_where_short(work, 100) == 12
    assert tried == [100, 50, 25, 12]
    with pytest.raises(torch.OutOfMemoryError):
        halved_where_short(work, 100, least=30)
    assert tried[4:] == [100, 50, 30]


def test_other_failures_are_not_tried_again() -> None:
    def work(size: int) -> None:
        assert size == 8
        raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="device-side assert"):
        halved_where_short(work, 8)


def test_gaussian_rungs_take_fewer_patches_at_once_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    filled, hidden = torch.randn(ROWS, SENSORS), torch.rand(ROWS, SENSORS) < 0.3
    patches = sampler("cpu")
    gaussian = GaussianPart.fit(patches.gather(filled, patches.some(999)))
    tried: list[int] = []
    with crew() as workers:
        expected = window_gaussian.expect(filled, hidden, patches, gaussian, workers)
        monkeypatch.setattr(
            window_gaussian, "conditional_mean", short_above(70, window_gaussian.conditional_mean, tried)
        )
        found = window_gaussian.expect(filled, hidden, patches, gaussian, workers)
        with pytest.raises(torch.OutOfMemoryError):
            monkeypatch.setattr(window_gaussian, "conditional_mean", short_above(0, lambda *_: None, []))
            window_gaussian.expect(filled, hidden, patches, gaussian, workers)
    assert tried[0] > 70
    assert max(tried[-2:]) <= 70
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[~hidden], filled[~hidden])


def test_what_fits_in_no_block_is_told_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    X = gappy(400)
    small: dict[str, Any] = {
        "start": "linear",
        "loops": 1,
        "train_steps": 2,
        "iterations": 1,
        "random_state": 0,
        "verbose": False,
    }
    fitted = fi.SPIRITImputer(**small).fit(X)

    def recur(*arguments: Any) -> None:
        raise torch.OutOfMemoryError(SHORT)

    monkeypatch.setattr(recursion, "recur", recur)
    for imputed in (fitted.transform, fi.SPIRITImputer(**small).fit):
        with pytest.raises(MemoryError) as raised:
            imputed(X)
        assert str(raised.value) == (
            "device: the memory of 'cpu' does not suffice for a series of 1600 cells, which takes at least 0.00 GB and "
            "work space there (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.); use "
            "device='cpu', fill fewer rows or sensors at a time, or end what else runs on that GPU"
        )
        assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)


def test_the_size_is_that_of_the_series() -> None:
    told = pytest.raises(MemoryError, match=r"a series of 2000000000 cells, which takes at least 50\.00 GB")
    with told, sufficient_memory("cuda:1", 2 * 10**9):
        raise torch.OutOfMemoryError


def test_tf32_is_put_back() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), tensor_float32(True):
        assert torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert torch.backends.cuda.matmul.allow_tf32 == before

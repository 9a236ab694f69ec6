"""Where the kernels' tensors lie: in main memory under Triton's interpreter, else on the GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device("cpu")

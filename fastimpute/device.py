"""Where an imputer computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


def device_of(asked: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: it is neither "cpu" nor a CUDA device that torch finds.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(asked if isinstance(asked, str) else "meta")
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu', 'cuda' or a numbered one as 'cuda:1', got {asked!r}")
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ValueError(f"device: expected one of the {found} CUDA devices that torch finds, got {asked!r}")
    return device


@contextlib.contextmanager
def tensor_float32(wanted: bool) -> Iterator[None]:
    """Inside, and where wanted, float32 matrix products on a GPU may round their operands to TF32's 10 bits."""
    if not wanted:
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before

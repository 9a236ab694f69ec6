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


# Of a series on a GPU while its particles move: values before and after, mask, sums of the overlaps.
BYTES_OF_A_CELL = 4 + 4 + 1 + 16


@contextlib.contextmanager
def sufficient_memory(device: str, cells: int) -> Iterator[None]:
    """Inside, a series of so many cells is worked on: where the GPU's memory does not suffice, the error says what to
    do.

    Raises:
        MemoryError: instead of torch.OutOfMemoryError.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        gigabytes, said = cells * BYTES_OF_A_CELL / 1e9, str(error).partition(" Including")[0]
        raise MemoryError(
            f"device: the memory of {device!r} does not suffice for a series of {cells} cells, which takes at least "
            f"{gigabytes:.2f} GB and work space there ({said}); use device='cpu', fill fewer rows or sensors at a "
            "time, or end what else runs on that GPU"
        ) from error


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

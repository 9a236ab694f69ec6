"""Argument checks shared by the ops: errors name the op, the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def check_tensor(op: str, name: str, value: object, shape: tuple[int | None, ...], dtype: torch.dtype | None) -> None:
    """Raises TypeError or ValueError unless `value` is a tensor of that shape (None: any size) and dtype (None:
    floating)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    if value.dim() != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, value.shape, strict=True)
    ):
        expected = tuple("any" if size is None else size for size in shape)
        raise ValueError(f"{op}: {name} must have shape {expected}, got {tuple(value.shape)}")
    if dtype is None and not value.dtype.is_floating_point:
        raise TypeError(f"{op}: {name} must be floating point, got {value.dtype}")
    if dtype is not None and value.dtype != dtype:
        raise TypeError(f"{op}: {name} must be {dtype}, got {value.dtype}")


def check_choice(op: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is among `choices`."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {choices}, got {value!r}")


def check_number(
    op: str,
    name: str,
    value: float,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> None:
    """Raises ValueError unless above < value, least <= value and value <= most, as far as given. NaN never passes."""
    if above is not None and not value > above:
        raise ValueError(f"{op}: {name} must be greater than {above}, got {value}")
    if least is not None and not value >= least:
        raise ValueError(f"{op}: {name} must be at least {least}, got {value}")
    if most is not None and not value <= most:
        raise ValueError(f"{op}: {name} must be at most {most}, got {value}")


def kernel_refusal(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why the kernels cannot take these floating tensors: they read float32."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype.is_floating_point and tensor.dtype != torch.float32:
            return f"{name} is {tensor.dtype}, the kernels take float32"
    return None


FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def triton_refusal(tensors: Mapping[str, Tensor | None], dtypes: tuple[torch.dtype, ...] = FLOATS) -> str | None:
    """Why the triton kernels cannot take these floating tensors."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in dtypes:
            return f"{name} is {tensor.dtype}, the kernels take {' or '.join(map(str, dtypes))}"
    return None


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd would record an operation on any of `tensors`."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def rows_contiguous(tensor: Tensor) -> Tensor:
    """The (n, D) `tensor` itself when its rows do not overlap and their elements are adjacent, else a contiguous
    copy."""
    rows, width = tensor.shape
    adjacent = width <= 1 or tensor.stride(1) == 1
    apart = rows <= 1 or tensor.stride(0) >= width
    return tensor if adjacent and apart else tensor.contiguous()


def symmetric_rows(matrix: Tensor) -> Tensor:
    """A symmetric (D, D) matrix in double with adjacent rows: without a copy where it is stored by columns, as
    torch.linalg leaves it."""
    matrix = matrix.double()
    return matrix if matrix.is_contiguous() else matrix.mT.contiguous()


def row_stride(tensor: Tensor) -> int:
    """Distance between rows of a (n, D) tensor in elements; at least D where there is at most one row."""
    return tensor.stride(0) if tensor.shape[0] > 1 else max(tensor.shape[1], 1)


def address(tensor: Tensor | None) -> int:
    """Address of the first element; 0 for an absent tensor."""
    return 0 if tensor is None else tensor.data_ptr()

"""The torch operator library `fastimpute::*`, registered here so that torch.compile sees each kernel as one op."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

library = torch.library.Library("fastimpute", "DEF")  # type: ignore[no-untyped-call]


def register(
    name: str, schema: str, impl: Callable[..., Any], fake: Callable[..., Any], cuda: Callable[..., Any] | None = None
) -> Any:
    """Defines `fastimpute::<name>` with its implementation for tensors in main memory, its shapes and, where there is
    one, its implementation for tensors on a GPU; returns the op."""
    library.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    library.impl(name, impl, "CPU")  # type: ignore[no-untyped-call]
    if cuda is not None:
        library.impl(name, cuda, "CUDA")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"fastimpute::{name}", fake, lib=library)
    return getattr(torch.ops.fastimpute, name).default


def by_backend(kernels: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """An implementation whose last argument names the backend that runs."""

    def run(*arguments: Any) -> Any:
        *rest, backend = arguments
        return kernels[backend](*rest)

    return run


def stream_of(tensor: Tensor) -> int:
    """The CUDA stream that torch queues work on for the tensor's GPU, as the compiled kernels take it; 0 in main
    memory."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Kernels launched inside go to the tensor's GPU; nothing changes for a tensor in main memory."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Programs of a grid that fills the GPU once; in main memory, where kernels are interpreted, two."""
    if device.type != "cuda":
        return 2
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def no_gradient(name: str, why: str) -> None:
    """Differentiating `fastimpute::<name>` raises RuntimeError with `why`, instead of returning nothing."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(f"{name}: {why}")

    torch.library.register_autograd(f"fastimpute::{name}", backward, lib=library)


def differentiate(name: str, keep: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Gives `fastimpute::<name>` its gradient: `keep(ctx, inputs, output)`, then `backward(ctx, *gradients)`."""
    torch.library.register_autograd(f"fastimpute::{name}", backward, setup_context=keep, lib=library)

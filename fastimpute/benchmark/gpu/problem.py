"""One op at one shape: its tensors, how it is called on any backend, and its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Tensors = dict[str, Tensor]
Call = Callable[[Tensors, str, str], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Problem:
    """An op at one shape.

    Attributes:
        op: its name.
        shape: the sizes, in words.
        tensors: the arguments by name.
        call: outputs for (tensors, backend, precision); the tensors may come as double precision.
        flops: floating-point operations, where these bound it.
        bytes: read and written at least, where these bound it.
        precisions: "fp32" and, where the op has it, "bf16".
    """

    op: str
    shape: str
    tensors: Tensors
    call: Call
    flops: float = 0.0
    bytes: float = 0.0
    precisions: tuple[str, ...] = ("fp32",)

    def run(self, backend: str, precision: str) -> tuple[Tensor, ...]:
        return self.call(self.tensors, backend, precision)

    def run_on_copies(self, backend: str, precision: str) -> tuple[Tensor, ...]:
        """The same, though the op may write into its arguments."""
        return self.call(dict(self._copies()), backend, precision)

    def exact(self) -> tuple[Tensor, ...]:
        """In double precision, by PyTorch."""
        doubles = {name: part.double() if part.is_floating_point() else part for name, part in self._copies()}
        return self.call(doubles, "torch", "fp32")

    def _copies(self) -> list[tuple[str, Tensor]]:
        return [(name, tensor.clone()) for name, tensor in self.tensors.items()]


def pick(tensors: Tensors, *names: str) -> list[Any]:
    """Some of the tensors, in this order."""
    return [tensors[name] for name in names]


def present(arguments: dict[str, Any]) -> Tensors:
    """The tensors among the arguments, by name."""
    return {name: value for name, value in arguments.items() if isinstance(value, Tensor)}

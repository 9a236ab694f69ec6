"""How close a kernel must be: twice the error plain PyTorch makes in the same precision, plus a floor."""

from __future__ import annotations

import torch
from torch import Tensor

# Worst seen beyond twice torch's error: 13 (fp32, H v at width 1024), 0 (bf16).
FLOOR = {"fp32": 16.0, "bf16": 1.0}
EPS = {"fp32": 2.0**-23, "bf16": 2.0**-8}


def error(value: Tensor, exact: Tensor) -> float:
    """Largest deviation of an element."""
    if exact.numel() == 0:
        return 0.0
    return float((value.double() - exact.double()).abs().max())


def limit(exact: Tensor, torch_value: Tensor, precision: str = "fp32") -> float:
    """2 error(torch_value) + FLOOR eps max|exact|; `exact` is float64."""
    if exact.numel() == 0:
        return 0.0
    return 2 * error(torch_value, exact) + FLOOR[precision] * EPS[precision] * float(exact.abs().max())


def assert_within(name: str, value: Tensor, exact: Tensor, most: float) -> None:
    """Every element finite and at most `most` away from `exact`."""
    assert value.shape == exact.shape, f"{name}: shape {tuple(value.shape)}, expected {tuple(exact.shape)}"
    if exact.numel() == 0:
        return
    assert bool(value.isfinite().all()), f"{name}: {int((~value.isfinite()).sum())} elements are not finite"
    worst = int((value.double() - exact).abs().flatten().argmax())
    assert error(value, exact) <= most, (
        f"{name}: element {worst} is {float(value.flatten()[worst])}, exact {float(exact.flatten()[worst])}; "
        f"error {error(value, exact):.3g} above the limit {most:.3g}"
    )


def assert_close(name: str, value: Tensor, exact: Tensor, torch_value: Tensor, precision: str = "fp32") -> None:
    """`value` within the limit that `exact` and plain PyTorch's `torch_value` set."""
    assert_within(name, value, exact, limit(exact, torch_value, precision))


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Equal in every bit, NaN payloads and signs of zero included."""
    return left.shape == right.shape and torch.equal(
        left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8)
    )

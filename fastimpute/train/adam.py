"""Adam without torch.optim, whose first step loads torch's compiler: 146 MB that nothing here uses.

Source: Adam (arXiv 1412.6980), AdamW (arXiv 1711.05101).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

BETA1, BETA2 = 0.9, 0.999
EPS = 1e-8


class _Moments:
    """Parameters of one device and dtype, and the moving averages of their gradients and of the squares of these."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.mean = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.square = [torch.zeros_like(parameter) for parameter in self.parameters]

    def _gradients(self) -> list[Tensor]:
        gradients = [parameter.grad for parameter in self.parameters]
        if any(gradient is None for gradient in gradients):
            raise ValueError("parameters: expected a gradient in each of them before a step, got some without")
        return [gradient for gradient in gradients if gradient is not None]


class Adam(_Moments):
    """One fused kernel a step, which CUDA graphs can capture: the bits of ``torch.optim.Adam(..., fused=True)``.

    Args:
        parameters: to be changed in place, all of one device and dtype.
        learning_rate: length of a step.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimiser = Adam([weight], 0.1)
        >>> weight.square().sum().backward()
        >>> optimiser.step()
        >>> weight.detach()
        tensor([0.9000, 0.9000, 0.9000])
    """

    def __init__(self, parameters: Iterable[Parameter], learning_rate: float) -> None:
        super().__init__(parameters)
        self.learning_rate = learning_rate
        self._steps = torch.zeros((), dtype=torch.float32, device=self.parameters[0].device)

    @torch.no_grad()
    def step(self) -> None:
        """Move against the gradients.

        Raises:
            ValueError: a parameter has none.
        """
        gradients = self._gradients()
        self._steps += 1
        torch._fused_adam_(
            self.parameters,
            gradients,
            self.mean,
            self.square,
            [],
            [self._steps] * len(gradients),
            lr=self.learning_rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )


class AdamW(_Moments):
    """Weights decay beside the step, whose length may change: the bits of ``torch.optim.AdamW`` that is not fused.

    Args:
        parameters: to be changed in place, all of one device and dtype.
        learning_rate: length of a step; may be set anew before each.
        weight_decay: share of a weight that a step of length one takes away.

    Attributes:
        done: steps so far.
        mean, square: moments, in the order of the parameters; with `done` all that steps to come depend on.
    """

    def __init__(self, parameters: Iterable[Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.done = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move against the gradients.

        Raises:
            ValueError: a parameter has none.
        """
        gradients = self._gradients()
        self.done += 1
        torch._foreach_mul_(self.parameters, 1 - self.learning_rate * self.weight_decay)
        torch._foreach_lerp_(self.mean, gradients, 1 - BETA1)
        torch._foreach_mul_(self.square, BETA2)
        torch._foreach_addcmul_(self.square, gradients, gradients, 1 - BETA2)
        scale = torch._foreach_sqrt(self.square)
        torch._foreach_div_(scale, (1 - BETA2**self.done) ** 0.5)
        torch._foreach_add_(scale, EPS)
        torch._foreach_addcdiv_(self.parameters, self.mean, scale, -self.learning_rate / (1 - BETA1**self.done))

"""The preconditioning that lets one network serve every noise level.

    D(v, sigma) = c_skip(sigma) v + c_out(sigma) F(c_in(sigma) v, sigma),  with data of unit variance

so that the network's input and target have unit variance at every sigma. Source: EDM (arXiv 2206.00364), table 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Preconditioning(NamedTuple):
    """c_skip, c_out, c_in and the network's noise input, each of the shape of sigma."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    noise: Tensor

    @classmethod
    def at(cls, sigma: Tensor) -> Preconditioning:
        """The factors at `sigma` > 0, in units of the data's standard deviation.

        Example:
            >>> import torch
            >>> from fastimpute.nn.preconditioning import Preconditioning
            >>> Preconditioning.at(torch.tensor(1.0)).skip
            tensor(0.5000)
        """
        variance = sigma.square() + 1
        scale = torch.rsqrt(variance)
        return cls(1 / variance, sigma * scale, scale, torch.log(sigma) / 4)

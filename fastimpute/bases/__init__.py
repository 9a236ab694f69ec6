"""Bases: what the windows of a series say by themselves, in closed form, for any mask.

A base gives every missing cell of a window a mean and a standard deviation from the window's observed cells. By itself
it is an imputer (`fastimpute.GaussianImputer`); a diffusion model learns the residual over it.
"""

from fastimpute.bases.base import Base
from fastimpute.bases.choose import Choice, choose_base, fit_like, refit, unpack_base
from fastimpute.bases.cycle import Cycle
from fastimpute.bases.gaussian import GaussianBase, IncrementsBase
from fastimpute.bases.lines import LinearBase, ProfileBase
from fastimpute.bases.overlap import Filling, fill
from fastimpute.bases.whitening import Whitening

__all__ = [
    "Base",
    "Choice",
    "Cycle",
    "Filling",
    "GaussianBase",
    "IncrementsBase",
    "LinearBase",
    "ProfileBase",
    "Whitening",
    "choose_base",
    "fill",
    "fit_like",
    "refit",
    "unpack_base",
]

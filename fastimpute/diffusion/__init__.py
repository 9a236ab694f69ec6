"""Sampling missing cells from a denoiser, and the regions that samples give (arXiv 2510.02216).

Everything is in sigma space: v = y + sigma z, z ~ N(0, 1). The paper's variance-preserving process
dx = -x/2 dt + dw with alpha = exp(-t/2), sigma_t^2 = 1 - exp(-t) is the same family: x_t / alpha = v at
sigma = sigma_t / alpha, and its score is -(x_t - alpha D(v, sigma)) / sigma_t^2 with the denoiser D = E[y | v].
"""

from fastimpute.diffusion.exact import GaussianDenoiser
from fastimpute.diffusion.quantiles import Region, RegionStream
from fastimpute.diffusion.sampler import Denoiser, one_step_mean, sample, sample_chunks
from fastimpute.diffusion.schedule import SOLVERS, Plan, Step, log_sigma_grid, plan

__all__ = [
    "SOLVERS",
    "Denoiser",
    "GaussianDenoiser",
    "Plan",
    "Region",
    "RegionStream",
    "Step",
    "log_sigma_grid",
    "one_step_mean",
    "plan",
    "sample",
    "sample_chunks",
]

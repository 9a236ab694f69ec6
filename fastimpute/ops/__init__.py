"""The ops: fused kernels behind plain functions, each with a reference in PyTorch (`fastimpute.ops.<op>.reference`)."""

from fastimpute.ops.backends import Availability, isa, use_isa
from fastimpute.ops.ball_quantile import ball_quantile
from fastimpute.ops.diffusion_step import StepCoefficients, diffusion_step
from fastimpute.ops.dit_block import dit_block
from fastimpute.ops.dit_block_gradient import BlockGradients, dit_block_gradient
from fastimpute.ops.energy_mlp import energy_mlp
from fastimpute.ops.energy_mlp import reference as energy_mlp_reference
from fastimpute.ops.gaussian_conditional import gaussian_conditional
from fastimpute.ops.gaussian_whitening import WhitenedWindows, gaussian_whitening
from fastimpute.ops.particle_step import AdamState, Noise, particle_step
from fastimpute.ops.proximal_recursion import proximal_recursion
from fastimpute.ops.rates import Rates
from fastimpute.ops.score_matching import LossGradients, score_matching
from fastimpute.ops.score_mlp import score_mlp
from fastimpute.ops.spt_weights import spt_weights
from fastimpute.ops.unrolled_attention import unrolled_attention

__all__ = [
    "AdamState",
    "Availability",
    "BlockGradients",
    "LossGradients",
    "Noise",
    "Rates",
    "StepCoefficients",
    "WhitenedWindows",
    "ball_quantile",
    "diffusion_step",
    "dit_block",
    "dit_block_gradient",
    "energy_mlp",
    "energy_mlp_reference",
    "gaussian_conditional",
    "gaussian_whitening",
    "isa",
    "particle_step",
    "proximal_recursion",
    "score_matching",
    "score_mlp",
    "spt_weights",
    "unrolled_attention",
    "use_isa",
]

"""Gaussian-process sequences of known truth, in float64: what samplers, networks and regions are judged by.

Setting of arXiv 2510.02216 (synthetic experiments): H = 96 frames of d = 8 channels, vec(X) ~ N(0, Gamma (x) I),
16 whole frames missing.
"""

from fastimpute.gp.ball import ball_probability, ball_radius
from fastimpute.gp.conditional import Conditional
from fastimpute.gp.kronecker import FrameWhitening, KroneckerGaussian
from fastimpute.gp.latent import NOISE_VARIANCE, observe, observed_map, posterior_mean
from fastimpute.gp.sequences import MIXTURES, PATTERNS, draw_frames, kernel, pattern, simulate

__all__ = [
    "MIXTURES",
    "NOISE_VARIANCE",
    "PATTERNS",
    "Conditional",
    "FrameWhitening",
    "KroneckerGaussian",
    "ball_probability",
    "ball_radius",
    "draw_frames",
    "kernel",
    "observe",
    "observed_map",
    "pattern",
    "posterior_mean",
    "simulate",
]

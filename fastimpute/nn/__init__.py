"""Networks: ordinary torch modules whose weights the kernels read."""

from fastimpute.nn.conditioning import Modulation
from fastimpute.nn.dit import DiT
from fastimpute.nn.energy_mlp import EnergyMLP
from fastimpute.nn.gap_features import gap_features
from fastimpute.nn.score_mlp import ScoreMLP
from fastimpute.nn.unrolled_transformer import UnrolledTransformer

__all__ = ["DiT", "EnergyMLP", "Modulation", "ScoreMLP", "UnrolledTransformer", "gap_features"]

"""Networks: ordinary torch modules whose weights the kernels read."""

from fastimpute.nn.conditioning import Modulation
from fastimpute.nn.energy_mlp import EnergyMLP
from fastimpute.nn.score_mlp import ScoreMLP

__all__ = ["EnergyMLP", "Modulation", "ScoreMLP"]

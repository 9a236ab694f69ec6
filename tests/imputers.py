"""Every imputer, cheap enough to try on everything: the tests of the shared behaviour run over this list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from fastimpute import DiTImputer, GaussianImputer, LinearImputer, SPIRITImputer
from fastimpute.imputer import BaseImputer

Factory = Callable[..., BaseImputer[Any]]


def linear(**settings: Any) -> BaseImputer[Any]:
    return LinearImputer(**settings)


def spirit(**settings: Any) -> BaseImputer[Any]:
    budget = {"loops": 1, "train_steps": 4, "iterations": 2, "hidden_dim": 32, "random_state": 0, "verbose": False}
    return SPIRITImputer(**{**budget, **settings})


def gaussian(**settings: Any) -> BaseImputer[Any]:
    return GaussianImputer(**{"random_state": 0, **settings})


def dit(**settings: Any) -> BaseImputer[Any]:
    budget = {"window": 6, "train_steps": 2, "hidden": 32, "layers": 1, "evaluations": 2, "n_samples": 2}
    return DiTImputer(**{**budget, "random_state": 0, "verbose": False, **settings})


FACTORIES: dict[str, Factory] = {"linear": linear, "spirit": spirit, "gaussian": gaussian, "dit": dit}


def gappy(rows: int = 60, sensors: int = 4, rate: float = 0.3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Waves with holes; the first two rows are complete, so that every sensor is observed and not constant."""
    rng = np.random.default_rng(seed)
    table = np.sin(np.arange(rows)[:, None] / 5.0 + np.arange(sensors)) * 10 + 50 + rng.normal(size=(rows, sensors))
    holes = rng.random((rows, sensors)) < rate
    holes[:2] = False
    table[holes] = np.nan
    return table


def gappy_frame(rows: int = 60, sensors: int = 4, step: str = "5min", **settings: Any) -> pd.DataFrame:
    index = pd.date_range("2026-01-05", periods=rows, freq=step, name="time")
    return pd.DataFrame(gappy(rows, sensors, **settings), index=index, columns=[f"s{i}" for i in range(sensors)])

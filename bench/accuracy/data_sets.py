"""The data sets of the accuracy scripts, and the cells that these hide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import fastimpute as fi

SETS = {
    "etth1": "etth1.csv",
    "illness": "illness.csv",
    "exchange": "exchange.csv",
    "metr_la_week": "metr_la_week.csv",
    "traffic20": "traffic20.csv",
    "guangzhou": "guangzhou.csv",
}


def table(folder: Path, name: str) -> np.ndarray:
    """The truth (T, N) without time stamps: the imputer finds its periods by itself."""
    frame = pd.read_csv(folder / SETS[name])
    return frame.drop(columns="date", errors="ignore").to_numpy(np.float64)


def hidden_cells(shape: tuple[int, int], mask: str, seed: int) -> np.ndarray:
    """(T, N) bool: "block", or single cells with the share that `mask` says."""
    return fi.masks.block(shape, 0.3, seed) if mask == "block" else fi.masks.point(shape, float(mask), seed)

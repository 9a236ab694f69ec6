"""CSDI of PyPOTS on one data set with cells hidden, given a budget of processor time: the peer of the transformer.

    python bench/accuracy/csdi.py DATA.csv HIDDEN.npy --seconds 800 [--windows 40] [--samples 20] [--json F]

Runs in an environment of its own, with `pip install pypots`; it needs numpy and pandas besides, not fastimpute. Windows
of 48 rows side by side, standardised by the observed cells, the network of the sizes below, 50 noise levels; trained
on all windows until the budget is spent, the number of epochs set from the first one's time. All times are the
processor's, which on a shared machine do not depend on the neighbours. Only some windows are sampled, as a sample takes
seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

WINDOW = 48
SIZES = {
    "n_layers": 4, "n_heads": 8, "n_channels": 64, "d_time_embedding": 128, "d_feature_embedding": 16,
    "d_diffusion_embedding": 128, "n_diffusion_steps": 50,
}  # fmt: skip


def model(features: int, epochs: int, batch: int) -> Any:
    from pypots.imputation import CSDI

    return CSDI(n_steps=WINDOW, n_features=features, batch_size=batch, epochs=epochs, verbose=False, **SIZES)


def crps(samples: np.ndarray, truth: np.ndarray) -> float:
    """Fair estimate over cells: samples (Z, m), truth (m,)."""
    count = len(samples)
    ordered = np.sort(samples, 0)
    rank = np.arange(1, count + 1)[:, None]
    between = ((2 * rank - count - 1) * ordered).sum(0) / (count * (count - 1))
    return float((np.abs(samples - truth).mean(0) - between).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("hidden", type=Path, help=".npy file of the hidden cells (T, N), True = hidden")
    parser.add_argument("--seconds", type=float, required=True, help="processor time for training")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    truth = pd.read_csv(options.data).drop(columns="date", errors="ignore").to_numpy(np.float64)
    hidden = np.load(options.hidden)
    given = np.where(hidden, np.nan, truth)
    mean, deviation = np.nanmean(given, 0), np.nanstd(given, 0)
    rows = len(truth) // WINDOW * WINDOW
    shape = (-1, WINDOW, truth.shape[1])
    x, y = (((part[:rows] - mean) / deviation).reshape(shape).astype(np.float32) for part in (given, truth))
    model(shape[2], 1, options.batch).fit({"X": x[: options.batch]})  # whatever is set up once
    begin = time.process_time()
    model(shape[2], 1, options.batch).fit({"X": x})
    epochs = max(1, int(options.seconds / (time.process_time() - begin)))
    begin = time.process_time()
    peer = model(shape[2], epochs, options.batch)
    peer.fit({"X": x})
    trained = time.process_time() - begin
    chosen = np.random.default_rng(0).permutation(len(x))[: options.windows]
    begin = time.process_time()
    drawn = peer.predict({"X": x[chosen]}, n_sampling_times=options.samples)["imputation"]
    seconds = time.process_time() - begin
    asked = hidden[:rows].reshape(shape)[chosen]
    drawn = np.moveaxis(np.asarray(drawn), 1, 0)[:, asked]
    middle = np.median(drawn, 0)
    error = middle - y[chosen][asked]
    found = {
        "data": options.data.stem,
        "hidden": options.hidden.stem,
        "epochs": epochs,
        "train_seconds": round(trained, 1),
        "windows": len(chosen),
        "window_numbers": chosen.tolist(),
        "samples": options.samples,
        "mae": round(float(np.abs(error).mean()), 5),
        "mse": round(float(np.square(error).mean()), 5),
        "crps": round(crps(drawn, y[chosen][asked]), 5),
        "window_samples_per_second": round(len(chosen) * options.samples / seconds, 3),
    }
    print(json.dumps({key: value for key, value in found.items() if key != "window_numbers"}))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

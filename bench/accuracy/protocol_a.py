"""Accuracy and time of the default imputer on whole series with cells hidden, linear interpolation beside it.

    python bench/accuracy/protocol_a.py DATA_FOLDER [--sets etth1 ...] [--masks 0.3 block ...] [--seeds 0 1] [--json F]

Every row is one data set, mask and mask seed: default settings, `random_state=0`, errors over the hidden cells in units
of each sensor's deviation (scaler fitted on the observed cells). Nothing is chosen per data set.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from data_sets import SETS, hidden_cells, table

import fastimpute as fi
from fastimpute.evaluation import impute_and_score, standardised_scores
from fastimpute.layouts import read_layout

MASKS = ("0.1", "0.3", "0.5", "0.7", "block")


def row(truth: np.ndarray, name: str, mask: str, seed: int) -> dict[str, object]:
    hidden = hidden_cells(truth.shape, mask, seed)
    layout = read_layout(truth)
    ours, _ = impute_and_score(fi.SPIRITImputer(random_state=0, verbose=False), layout, hidden)
    straight = fi.LinearImputer().fit_transform(np.where(hidden, np.nan, truth))
    linear = standardised_scores(truth, straight, hidden)
    return {
        "set": name,
        "mask": mask,
        "seed": seed,
        "mae": round(ours.standardised.mae, 5),
        "mse": round(ours.standardised.mse, 5),
        "linear_mae": round(linear.mae, 5),
        "linear_mse": round(linear.mse, 5),
        "seconds": round(ours.seconds, 1),
    }


def machine() -> dict[str, object]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "isa": fi.ops.isa(),
        "torch": torch.__version__,
        "fastimpute": fi.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=list(MASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    print(f"{'set':14}{'mask':7}{'seed':>4}{'MAE':>9}{'MSE':>9}{'linear':>9}{'':>9}{'s':>8}")
    for name in options.sets:
        truth = table(options.folder, name)
        for mask in options.masks:
            for seed in options.seeds:
                rows.append(row(truth, name, mask, seed))
                print(
                    "{set:14}{mask:7}{seed:4}{mae:9.4f}{mse:9.4f}{linear_mae:9.4f}{linear_mse:9.4f}{seconds:8.1f}".format(
                        **rows[-1]
                    ),
                    flush=True,
                )
                if options.json:
                    options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

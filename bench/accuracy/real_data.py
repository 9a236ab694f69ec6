"""Errors and uncertainty on real data with cells hidden: the transformer beside its Gaussian base and straight lines.

    python bench/accuracy/real_data.py DATA_FOLDER [--sets etth1 ...] [--masks 0.3 block] [--seeds 0] [--json F]

Every row is one data set, mask and mask seed: default settings, `random_state=0`, errors and widths over the hidden
cells in units of each sensor's deviation. "CRPS" takes each interval's 68 % half width as a Gaussian's deviation, "of
draws" the draws themselves; "covers" is the share of hidden cells inside 95 % intervals, "regions" that of windows
inside 95 % balls; both are of the first rows only where there are many sensors ("drawn_rows"). Rows that the JSON file
has already are not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import SETS, hidden_cells, table

import fastimpute as fi
from fastimpute import metrics
from fastimpute.conformal import coverage_report
from fastimpute.intervals import IntervalImputer

LEVEL, ONE_DEVIATION = 0.95, 0.6827
MOST_DRAWN = 4000  # windows, half of their length apart, of one sensor each: draws stop at the row they reach
Table = np.ndarray


class Case:
    """A table with cells hidden, and its scores in units of the sensors' deviations."""

    def __init__(self, truth: Table, hidden: Table) -> None:
        self.given = np.where(hidden, np.nan, truth)
        self.hidden, self.deviation = hidden, np.nanstd(self.given, 0)
        self.deviation[self.deviation == 0] = 1
        self.truth = truth / self.deviation

    def errors(self, filled: Table) -> dict[str, float]:
        scaled = filled / self.deviation
        return {
            "mae": metrics.mae(scaled, self.truth, self.hidden),
            "mse": metrics.mse(scaled, self.truth, self.hidden),
        }

    def run(self, imputer: IntervalImputer[Any]) -> dict[str, float]:
        begin = time.perf_counter()
        imputer.fit(self.given)
        fitted = time.perf_counter()
        filled = imputer.transform(self.given)
        done = time.perf_counter()
        lower, upper = (end / self.deviation for end in imputer.predict_interval(self.given, LEVEL))
        narrow, wide = imputer.predict_interval(self.given, ONE_DEVIATION)
        spread = (wide - narrow) / 2 / self.deviation
        report = coverage_report(lower, upper, self.truth, self.hidden)
        return {
            **self.errors(filled),
            "crps": metrics.crps_gaussian(filled / self.deviation, spread, self.truth, self.hidden),
            "covers": report.coverage,
            "width": report.width,
            "fit_seconds": fitted - begin,
            "transform_seconds": done - fitted,
        }

    def draw(self, imputer: fi.DiTImputer, samples: int) -> dict[str, float]:
        window, sensors = imputer.state_.patches.window, self.given.shape[1]
        part = slice(0, max(window, MOST_DRAWN * window // 2 // sensors))
        given, truth, hidden = self.given[part], self.truth[part], self.hidden[part]
        begin = time.perf_counter()
        drawn = imputer.sample(given, samples) / self.deviation
        seconds = time.perf_counter() - begin
        region = imputer.confidence_region(given, LEVEL, max(samples, 19))
        asked = region.radius > 0
        return {
            "crps_of_draws": metrics.crps_samples(drawn, truth, hidden),
            "drawn_rows": float(len(given)),
            "regions": float(region.holds(truth * self.deviation)[asked].mean()),
            "region_count": float(asked.sum()),
            "sample_seconds": seconds,
        }


def row(truth: Table, mask: str, seed: int, samples: int) -> dict[str, Any]:
    """One data set, mask and seed."""
    case = Case(truth, hidden_cells(truth.shape, mask, seed))
    transformer = fi.DiTImputer(random_state=0, verbose=False)
    ours = case.run(transformer)
    ours |= case.draw(transformer, samples)
    state = transformer.state_
    gaussian = case.run(fi.GaussianImputer(random_state=0))
    lines = case.errors(fi.LinearImputer().fit_transform(case.given))
    found = {"transformer": ours, "gaussian": gaussian, "lines": lines}
    return {
        "base": state.base.kind,
        "window": state.patches.window,
        **{name: {key: round(value, 5) for key, value in scores.items()} for name, scores in found.items()},
    }


def show(name: str, mask: str, seed: int, found: dict[str, Any]) -> None:
    print(f"{name} {mask} seed {seed}  base {found['base']}, window {found['window']}", flush=True)
    for method in ("transformer", "gaussian", "lines"):
        print(f"  {method:12}" + "  ".join(f"{key} {value:.4g}" for key, value in found[method].items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--masks", nargs="+", default=["0.3", "block"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())["rows"]
    for name in options.sets:
        truth = table(options.folder, name)
        for mask in options.masks:
            for seed in options.seeds:
                key = f"{name} {mask} {seed}"
                if key not in rows:
                    rows[key] = row(truth, mask, seed, options.samples)
                show(name, mask, seed, rows[key])
                if options.json:
                    setting = {
                        "fastimpute": fi.__version__,
                        "torch": torch.__version__,
                        "threads": torch.get_num_threads(),
                        "machine": platform.machine(),
                        "samples": options.samples,
                    }
                    options.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

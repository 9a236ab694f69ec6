"""Gaussian-process sequences with the exact score (arXiv 2510.02216, synthetic experiments): what sampling alone costs.

    python bench/paper/gp_exact.py [--regions 200] [--samples 100] [--json OUT]

Coverage of 95 % balls by pattern, solver and evaluations, and their radius over the oracle's; beside them straight
lines with a split-conformal ball, and on the latent process the errors of the exact posterior mean and of
straight lines.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastimpute import gp, ops
from fastimpute.diffusion import GaussianDenoiser, Plan, plan, sample
from fastimpute.ops.ball_quantile import order_statistic

CHANNELS = 8
LEVEL = 0.95
DRAWS = 200
SETTINGS = [
    *(("dpm-solver++", evaluations) for evaluations in (8, 12, 20)),
    *(("heun", evaluations) for evaluations in (9, 13, 19)),
    *(("euler-maruyama", evaluations) for evaluations in (20, 100)),
]


def sampled_region(law: gp.Conditional, steps: Plan, regions: int, samples: int) -> dict[str, float]:
    """Coverage in %, its standard error, and radius over the oracle's; every region sees fresh draws of the truth."""
    cells = len(law.variances) * CHANNELS
    keys = torch.cat(
        [torch.arange(regions)[:, None] * len(law.variances), torch.arange(CHANNELS).expand(regions, CHANNELS)], 1
    )
    # In units of the conditional deviation around the conditional mean: what is sampled has cells of unit variance.
    everything = torch.ones(len(law.variances), dtype=torch.bool)
    denoise = GaussianDenoiser(torch.zeros(regions, cells), law.correlation, everything, CHANNELS)
    missing = torch.ones(regions, cells, dtype=torch.bool)
    drawn = sample(denoise, torch.zeros(regions, cells), missing, keys, samples=samples, steps=steps)
    drawn *= law.deviation.repeat_interleave(CHANNELS).float()
    centre, radius = ops.ball_quantile(drawn, missing, LEVEL)
    truth = law.draw(
        torch.zeros(DRAWS, regions, len(law.variances), CHANNELS, dtype=torch.float64),
        generator=torch.Generator().manual_seed(1),
    )
    inside = ((truth.flatten(2) - centre).norm(dim=2) <= radius).double()
    return {
        "coverage": 100 * float(inside.mean()),
        "standard_error": 100 * float(inside.mean(0).std()) / math.sqrt(regions),
        "radius_over_oracle": float(radius.mean()) / law.radius(LEVEL, CHANNELS),
    }


def straight_lines(missing: Tensor) -> Tensor:
    """(m, o) weights of the observed frames in each missing one; ends hold the nearest observed value."""
    observed = (~missing).nonzero().flatten()
    weights = torch.zeros(int(missing.sum()), len(observed), dtype=torch.float64)
    for row, frame in enumerate(missing.nonzero().flatten()):
        after = int(torch.searchsorted(observed, frame))
        before = max(after - 1, 0)
        after = min(after, len(observed) - 1)
        span = int(observed[after] - observed[before])
        share = float(frame - observed[before]) / span if span else 0.0
        weights[row, before] += 1 - share
        weights[row, after] += share
    return weights


def conformal_lines(law: gp.Conditional, sequences: int) -> dict[str, float]:
    """Straight lines: error, and the ball whose radius other sequences calibrate."""
    lines = straight_lines(law.missing)

    def errors(seed: int) -> Tensor:
        x = gp.simulate(sequences, CHANNELS, generator=torch.Generator().manual_seed(seed))
        return x[:, law.missing] - lines @ x[:, ~law.missing]

    calibration, test = errors(2), errors(3)
    radius = calibration.flatten(1).norm(dim=1).sort().values[order_statistic(sequences, LEVEL) - 1]
    return {
        "mse": float(test.square().mean()),
        "least_mse": float(law.deviation.square().mean()),
        "coverage": 100 * float((test.flatten(1).norm(dim=1) <= radius).double().mean()),
        "radius_over_oracle": float(radius) / law.radius(LEVEL, CHANNELS),
    }


def latent_errors(missing: Tensor, sequences: int) -> dict[str, float]:
    """Mean squared errors on Y = phi(X) + eps."""
    x = gp.simulate(sequences, CHANNELS, generator=torch.Generator().manual_seed(4))
    y = gp.observe(x, generator=torch.Generator().manual_seed(5))
    exact = (gp.posterior_mean(y, missing) - y)[:, missing].square().mean((1, 2))
    lines = (straight_lines(missing) @ y[:, ~missing] - y[:, missing]).square()
    return {
        "posterior_mean": float(exact.mean()),
        "standard_error": float(exact.std()) / math.sqrt(sequences),
        "straight_lines": float(lines.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=200)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--sequences", type=int, default=2000, help="of straight lines; a tenth on the latent process")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    laws = {name: gp.Conditional(gp.kernel(), gp.pattern(name)) for name in gp.PATTERNS}
    rows: list[dict[str, Any]] = []
    for solver, evaluations in SETTINGS:
        steps, begin = plan(evaluations, solver), time.perf_counter()
        found = {name: sampled_region(law, steps, options.regions, options.samples) for name, law in laws.items()}
        rows.append({"solver": solver, "evaluations": evaluations, "inflation": steps.inflation, "patterns": found})
        shown = "".join(
            f"{one['coverage']:7.2f} ±{one['standard_error']:.2f} {one['radius_over_oracle']:.3f}"
            for one in found.values()
        )
        print(f"{solver:15}{evaluations:5}{shown}   {time.perf_counter() - begin:.0f} s", flush=True)
    lines = {name: conformal_lines(law, options.sequences) for name, law in laws.items()}
    latent = {name: latent_errors(law.missing, options.sequences // 10) for name, law in laws.items()}
    for name in laws:
        print(name, {key: round(value, 4) for key, value in {**lines[name], **latent[name]}.items()}, flush=True)
    if options.json:
        setting = {
            "level": LEVEL, "channels": CHANNELS, "regions": options.regions, "samples": options.samples,
            "draws_per_region": DRAWS, "sequences": options.sequences,
            "oracle_radius": {name: law.radius(LEVEL, CHANNELS) for name, law in laws.items()},
        }  # fmt: skip
        found_all = {"setting": setting, "exact_score": rows, "conformal_lines": lines, "latent": latent}
        options.json.write_text(json.dumps(found_all, indent=1) + "\n")


if __name__ == "__main__":
    main()

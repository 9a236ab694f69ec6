"""How fast unrolled attention converges (arXiv 2510.02216, Theorem 1): error by iterations beside what kappa predicts.

    python bench/paper/unrolled_convergence.py [--json OUT] [--plot OUT.png]

Outer system at sigma .01, inner one solved: the factor by which the error of the score falls per step, for gd
(kappa - 1) / (kappa + 1), for chebyshev the same of sqrt(kappa), on the paper's patterns and on a well-conditioned
process, where the transformer of Theorem 1 itself is run too. Inner system: iterations until the conditional mean is
within .01 of its deviation. float64.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastimpute import gp
from fastimpute.ops.lag_heads import transformer
from fastimpute.ops.rates import Rates, spectral_rates, spectrum
from fastimpute.ops.unrolled_attention import reference

SIGMA = 0.01
TOLERANCE = 0.01
MOST = 4096
# Short memory and a nugget: kappa of S_obs is about 12, and no preconditioner is needed.
WELL_FRAMES, WELL_LENGTH, WELL_NUGGET, WELL_INNER = 24, 2.0, 0.1, 120


class Problem:
    """One mask of one process: data, the exact score, and the spectra of both systems."""

    def __init__(self, kernel: Tensor, missing: Tensor, *, preconditioned: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        self.law, self.missing, self.table = gp.Conditional(kernel, missing), missing[None], kernel[0].clone()
        white = torch.randn(2, len(kernel), 1, generator=generator, dtype=torch.float64)
        self.x = torch.linalg.cholesky(kernel) @ white
        # White residuals excite every eigendirection: the slowest one shows.
        self.v = self.law.filled(self.x) + torch.randn(white.shape, generator=generator, dtype=torch.float64)
        self.length, self.inner = (gp.sequences.LENGTH, 20) if preconditioned else (None, WELL_INNER)
        bounds = spectrum(self.missing, self.table)[0]
        self.outer_bounds = bounds[2:] + SIGMA**2
        self.kappa = float(self.outer_bounds[1] / self.outer_bounds[0])
        self.kappa_inner = float(bounds[1] / bounds[0])
        residual = self.v[:, missing] - self.law.mean(self.x)
        noisy = self.law.covariance + SIGMA**2 * torch.eye(int(missing.sum()), dtype=torch.float64)
        self.exact = -torch.linalg.solve(noisy, residual)

    def score(self, solver: str, iterations: int) -> Tensor:
        options: dict[str, Any] = {"length": self.length, "iterations": iterations, "inner_iterations": self.inner}
        rates = None
        if solver != "cg":
            bounds = torch.cat([spectrum(self.missing, self.table, length=self.length)[0, :2], self.outer_bounds])
            ones = torch.ones(1, dtype=torch.float64)
            outer = spectral_rates(solver, bounds[None], ones, 0 * ones, iterations, 0).outer
            inner = spectral_rates("chebyshev", bounds[None], ones, 0 * ones, 0, self.inner).inner
            rates = Rates(outer, inner)
        masks = self.missing.expand(2, -1)
        arguments = (self.v, self.x, masks, self.table, 1.0, SIGMA, None, None, rates)
        score: Tensor = reference(*arguments, solver=solver, **options)[0][:, self.missing[0]]
        return score

    def literal_score(self, iterations: int) -> Tensor:
        """By the heads and blocks of Theorem 1, gradient descent inside and outside."""
        low, high = spectrum(self.missing, self.table)[0, :2].tolist()
        score, _ = transformer(
            self.v,
            self.x,
            self.missing.expand(2, -1),
            self.table,
            1.0,
            SIGMA,
            torch.eye(1, dtype=torch.float64),
            theta=2 / (low + high),
            eta=2 / float(self.outer_bounds.sum()),
            iterations=iterations,
            inner_iterations=WELL_INNER,
        )
        return score[:, self.missing[0]]

    def error(self, score: Tensor) -> float:
        return float((score - self.exact).norm() / self.exact.norm())

    def mean_error(self, solver: str, length: float | None, iterations: int) -> float:
        """Of the conditional mean, largest over cells, in conditional deviations."""
        masks = self.missing.expand(2, -1)
        options: dict[str, Any] = {"solver": solver, "length": length, "iterations": 0, "inner_iterations": iterations}
        mean = reference(self.v, self.x, masks, self.table, 1.0, SIGMA, **options)[1][:, self.missing[0]]
        return float(((mean - self.law.mean(self.x)).abs() / self.law.deviation[:, None]).max())


def fewest(error: Callable[[int], float]) -> int | None:
    """The first number of iterations with an error below the tolerance; None: more than MOST."""
    high = 1
    while error(high) >= TOLERANCE:
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) < TOLERANCE else (middle, high)
    return high


def predicted_rate(solver: str, kappa: float) -> float:
    root = kappa if solver == "gd" else math.sqrt(kappa)
    return (root - 1) / (root + 1)


def outer_convergence(problem: Problem, solvers: dict[str, Callable[[int], Tensor]]) -> dict[str, Any]:
    found: dict[str, Any] = {"kappa": problem.kappa, "kappa of S_obs": problem.kappa_inner}
    for name, score in solvers.items():
        rate = predicted_rate("gd" if name in ("gd", "literal") else name, problem.kappa)
        steps = max(2, min(MOST, round(math.log(1e-5) / math.log(rate))))
        counts = sorted({max(1, steps * part // 12) for part in range(1, 13)})
        errors = [problem.error(score(count)) for count in counts]
        found[name] = {"iterations": counts, "errors": errors, "predicted rate": rate}
        found[name]["iterations to .01"] = fewest(lambda count, score=score: problem.error(score(count)))
        if name != "cg":  # which ends at once when the eigenvalues are used up
            # The slope over the later half: by then the slowest eigendirection is what remains.
            half = len(counts) // 2
            found[name]["rate"] = (errors[-1] / errors[half]) ** (1 / (counts[-1] - counts[half]))
        print(f"  {name}: " + ", ".join(f"{key} {found[name][key]:.4g}" for key in [*found[name]][2:]), flush=True)
    return found


def inner_convergence(problem: Problem) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for length in (None, 100.0, 256.0):
        for solver in ("chebyshev", "cg") if length is None else ("gd", "chebyshev", "cg"):
            name = f"{solver}, {'no preconditioner' if length is None else f'length {length:.0f}'}"
            found[name] = fewest(lambda count, solver=solver, length=length: problem.mean_error(solver, length, count))
            print(f"  mean by {name}: {found[name]}")
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(found), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, results) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        for solver in ("gd", "chebyshev", "cg"):
            line = results[solver]
            counts, errors = line["iterations"], line["errors"]
            (drawn,) = axes.loglog(counts, errors, "o", markersize=3, label=solver)
            if solver != "cg":
                predicted = [errors[-1] * line["predicted rate"] ** (count - counts[-1]) for count in counts]
                axes.loglog(counts, predicted, color=drawn.get_color(), linewidth=1)
        axes.set(title=f"{name}, kappa {results['kappa']:.3g}", xlabel="outer iterations")
    figure.axes[0].set_ylabel("relative error of the score")
    figure.axes[0].legend(title="lines: predicted slope", fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    kernel = gp.kernel(WELL_FRAMES, length=WELL_LENGTH, nugget=WELL_NUGGET)
    problems = {"well-conditioned": Problem(kernel, torch.arange(WELL_FRAMES) // 6 % 2 == 1, preconditioned=False)}
    problems |= {name: Problem(gp.kernel(), gp.pattern(name), preconditioned=True) for name in gp.PATTERNS}
    for name, problem in problems.items():
        print(f"{name}: kappa {problem.kappa:.2f}, of S_obs {problem.kappa_inner:.3g}", flush=True)
        solvers = {
            solver: lambda count, solver=solver, problem=problem: problem.score(solver, count)
            for solver in ("gd", "chebyshev", "cg")
        }
        if name == "well-conditioned":
            solvers["literal"] = problem.literal_score
        found[name] = outer_convergence(problem, solvers)
        if name in gp.PATTERNS:
            found[name]["iterations of the mean"] = inner_convergence(problem)
    if options.json:
        setting = {"sigma": SIGMA, "tolerance": TOLERANCE, "most": MOST, "dtype": "float64"}
        options.json.write_text(json.dumps({"setting": setting, "patterns": found}, indent=1) + "\n")
    if options.plot:
        draw(found, options.plot)


if __name__ == "__main__":
    main()

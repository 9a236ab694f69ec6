"""Noise levels, the linear steps of each solver between them, and by how much few steps inflate deviations.

Every solver is a list of steps with one evaluation each, v <- state v + clean D(v, sigma) + earlier D_before +
spread z, so one sampler (and one kernel) runs them all and their effect on a Gaussian is a closed recursion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from fastimpute.ops.diffusion_step import StepCoefficients

SMALLEST = 0.02
LARGEST = 40.0


@dataclass(frozen=True)
class Step:
    """One evaluation of the denoiser at `sigma`, and what becomes of the state."""

    sigma: float
    coefficients: StepCoefficients


@dataclass(frozen=True)
class Plan:
    """Steps from noise of deviation `start` (observed cells aside) to a sample."""

    start: float
    steps: tuple[Step, ...]

    @property
    def inflation(self) -> float:
        """c(K): the deviation the plan gives y ~ N(0, 1), whose denoiser is v / (1 + sigma^2); 1 for ever more steps.

        Deviations of samples are divided by it. In units where y has about unit variance it holds for other shapes
        too: linear errors of a step depend on the noise level far more than on the law of y.
        """
        variance, earlier, shared = self.start**2, 0.0, 0.0  # of the state, of the denoised one before, and jointly
        for step in self.steps:
            state, clean, before, spread = step.coefficients
            shrink = 1 / (1 + step.sigma**2)
            own = state + clean * shrink
            variance, shared, earlier = (
                own**2 * variance + 2 * own * before * shared + before**2 * earlier + spread**2,
                shrink * (own * variance + before * shared),
                shrink**2 * variance,
            )
        return math.sqrt(variance)


def log_sigma_grid(levels: int, smallest: float = SMALLEST, largest: float = LARGEST) -> tuple[float, ...]:
    """Noise levels, falling, at equal ratios.

    Args:
        levels: how many, at least 2.
        smallest: the last; well below the deviation of the narrowest direction of y that matters.
        largest: the first; well above the deviation of the widest, which noise then hides.

    Raises:
        ValueError: fewer than two levels, or bounds that do not satisfy 0 < smallest < largest.

    Example:
        >>> [round(sigma, 3) for sigma in log_sigma_grid(3, 0.1, 10.0)]
        [10.0, 1.0, 0.1]
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    if not 0 < smallest < largest < math.inf:
        raise ValueError(f"smallest and largest must satisfy 0 < smallest < largest, got {smallest} and {largest}")
    ratio = math.log(smallest / largest)
    return tuple(largest * math.exp(ratio * level / (levels - 1)) for level in range(levels))


def _dpm_solver(sigmas: tuple[float, ...]) -> Iterator[Step]:
    """DPM-Solver++(2M), arXiv 2211.01095, algorithm 2, with lambda = -log sigma."""
    before: float | None = None
    for sigma, following in pairwise(sigmas):
        kept, stride = following / sigma, math.log(sigma / following)
        trend = 0.0 if before is None else stride / (2 * before)
        yield Step(sigma, StepCoefficients(kept, (1 - kept) * (1 + trend), -(1 - kept) * trend))
        before = stride
    yield Step(sigmas[-1], StepCoefficients(0.0, 1.0))


def _heun(sigmas: tuple[float, ...]) -> Iterator[Step]:
    """Heun's method on dv/dsigma = (v - D) / sigma (arXiv 2206.00364, algorithm 1), two evaluations a step.

    The second is written in the Euler point u = r v + (1 - r) D1 instead of v. The end is stochastic: the mean of y
    given v plus sigma / sqrt(1 + sigma^2) z, which is what y ~ N(0, 1) deviates from it.
    """
    for sigma, following in pairwise(sigmas):
        kept, half = following / sigma, (following - sigma) / 2
        yield Step(sigma, StepCoefficients(kept, 1 - kept))
        own = 1 + half / sigma
        state, before = own / kept + half / following, -own * (1 - kept) / kept - half / sigma
        yield Step(following, StepCoefficients(state, -half / following, before))
    last = sigmas[-1]
    yield Step(last, StepCoefficients(0.0, 1.0, spread=last / math.hypot(1, last)))


def _euler_maruyama(sigmas: tuple[float, ...]) -> Iterator[Step]:
    """Euler-Maruyama on the paper's reverse process, x <- x + h (x/2 + score) + sqrt(h) z, written in v = x / alpha."""
    for sigma, following in pairwise(sigmas):
        interval = math.log1p(sigma**2) - math.log1p(following**2)
        pull = interval * (1 + 1 / sigma**2)  # h / sigma_t^2
        rescale = math.exp(-interval / 2)  # alpha now over alpha then
        spread = math.sqrt(interval * (1 + following**2))
        yield Step(sigma, StepCoefficients(rescale * (1 + interval / 2 - pull), rescale * pull, spread=spread))
    yield Step(sigmas[-1], StepCoefficients(0.0, 1.0))


_STEPS: dict[str, tuple[Callable[[tuple[float, ...]], Iterator[Step]], Callable[[int], int]]] = {
    "dpm-solver++": (_dpm_solver, lambda evaluations: evaluations),
    "heun": (_heun, lambda evaluations: (evaluations + 1) // 2),
    "euler-maruyama": (_euler_maruyama, lambda evaluations: evaluations),
}
SOLVERS = tuple(_STEPS)


def plan(
    evaluations: int = 20,
    solver: str = "dpm-solver++",
    *,
    smallest: float = SMALLEST,
    largest: float = LARGEST,
) -> Plan:
    """The steps of a solver on a log-sigma grid, for y with cells of about unit variance.

    With the exact score DPM-Solver++ covers within .2 of 95 % on all test patterns from 8 evaluations, Heun within .5
    from 13; Euler-Maruyama, most at fault where directions differ in variance (P1), still misses by 2 with 100.

    Args:
        evaluations: of the denoiser per sample, at least 2 (Heun: 3, and one less where it is even).
        solver: "dpm-solver++", "heun" or "euler-maruyama".
        smallest, largest: noise levels, in units of y.

    Raises:
        ValueError: an unknown solver, too few evaluations, or impossible bounds.

    Example:
        >>> round(plan(8, smallest=0.01, largest=20.0).inflation, 2)
        1.03
    """
    if solver not in _STEPS:
        raise ValueError(f"solver must be one of {SOLVERS}, got {solver!r}")
    steps, levels = _STEPS[solver]
    least = next(count for count in (2, 3) if levels(count) >= 2)
    if evaluations < least:
        raise ValueError(f"evaluations must be at least {least} for {solver}, got {evaluations}")
    return Plan(largest, tuple(steps(log_sigma_grid(levels(evaluations), smallest, largest))))

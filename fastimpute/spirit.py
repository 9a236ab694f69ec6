"""SPIRITImputer: SPIRIT (semi-proximal transport, arXiv 2602.01182) from a series with gaps to a filled one."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastimpute import ops
from fastimpute.arguments import check_choice, check_count, seed_of
from fastimpute.blend import Trial, scores
from fastimpute.conformal import needed
from fastimpute.crew import crew
from fastimpute.device import device_of, sufficient_memory
from fastimpute.fold import HELD_OUT_LEAST, START, Fold, cautious_blend, fit_fold, folds_wanted, mean_fill
from fastimpute.intervals import IntervalImputer
from fastimpute.ladder import SPIRIT
from fastimpute.linear_start import linear_start
from fastimpute.ops.registry import BACKENDS
from fastimpute.profile import Period
from fastimpute.progress import progress
from fastimpute.recursion import Dynamics, Engine, Plan
from fastimpute.referee import halves
from fastimpute.residuals import ResidualIntervals, residual_intervals
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, choose_columns, choose_stride, choose_train_steps, choose_window
from fastimpute.spirit_state import SpiritState, pack, unpack
from fastimpute.start import Start, choose_start
from fastimpute.train.data_parallel import Replicas
from fastimpute.train.score_matching import ScoreMatching

BATCH, SMALL_BATCH, LEARNING_RATE = 512, 256, 2e-3
ENOUGH_FOR_INTERVALS = 300  # cells held out of new data, from which their own residuals say more than those of fit


class SPIRITImputer(IntervalImputer[SpiritState]):
    """Fill gaps by proximal recursion with semi-proximal transport.

    A score network learns the density of short windows of the current filling by denoising score matching; the windows
    then move along that score on their missing cells only, with SPT weights and without a dissipative term; overlapping
    windows are averaged, and the whole alternates down a ladder of noise levels. The default adds what real data asks
    for: a Gaussian start, an analytic Gaussian part of the energy, calendar conditions, and a blend of the candidates
    whose weights are chosen on held-out observed cells (which are restored for the result). `transform` chooses them
    anew for other data than that of fit, which may be of another kind.

    Args:
        window: rows of a patch; None chooses from the lengths of the gaps.
        neighbors: companions of each sensor in a patch; None chooses (all sensors together when they are few).
        stride: rows between windows; None chooses.
        head: "direct" (score = net / sigma) or "energy" (score = gradient of log p).
        gaussian: whether the energy has its analytic Gaussian part, or everything is left to the network.
        start: "auto" (chosen on held-out cells) or "linear".
        sigma: noise levels (first, last) in standardised units; None chooses from the start's held-out error.
        loops: outer loops; those after which held-out cells are filled clearly worse than before are dropped.
        train_steps: optimiser steps per loop, None chooses.
        iterations: particle steps per loop.
        eta: step length; None is sigma^2, Tweedie's denoising step. Diverges beyond 2 sigma^2.
        gamma: weight of the squared gradient norm (energy head only).
        rho: price of changing mass in semi-proximal transport; inf keeps the weights uniform. With a finite rho
            unlikely windows count less, in training, in the particles' steps and in the overlap average.
        robust_weights: measure likelihood for the weights in interquartile ranges from the median of a group.
        adam: particle steps by Adam (of length eta, about .01) instead of plain ones.
        dissipation: put back the entropy term that SPIRIT removes (for ablation).
        hidden_dim: width of the network.
        blend: False returns the last filling instead of the blend with the start.
        all_missing: a sensor without any observation: "raise", "mean_of_neighbors" or "keep".
        precision: operands of the recursion kernel's matrix products, "fp32" or "bf16"; "auto" is bf16 where the
            device multiplies it natively. Sums, weights, the Gaussian part and training are always fp32.
        backend: of the recursion kernel: "auto", "cpu", "cuda", "triton" or "torch".
        device: "cpu", or a CUDA device ("cuda", "cuda:1") that holds the series, trains the scores (in TF32 unless
            `precision` is "fp32") and moves the particles; the start is computed on the processor. MemoryError where
            its memory does not suffice, not even for smaller blocks of work.
        random_state: seed; the same seed gives the same bits on any number of threads. Another device draws other
            numbers.
        verbose: show progress on a terminal.

    Source: arXiv 2602.01182. `SPIRITImputer.faithful()` is the published variant.

    Example:
        >>> import fastimpute as fi
        >>> filled = fi.SPIRITImputer(random_state=0).fit_transform(X)  # doctest: +SKIP
    """

    bytes_per_cell = 1600

    def __init__(
        self,
        *,
        window: int | None = None,
        neighbors: int | None = None,
        stride: int | None = None,
        head: str = "direct",
        gaussian: bool = True,
        start: str = "auto",
        sigma: tuple[float, float] | None = None,
        loops: int = 12,
        train_steps: int | None = None,
        iterations: int = 10,
        eta: float | None = None,
        gamma: float = 0.0,
        rho: float = math.inf,
        robust_weights: bool = True,
        adam: bool = False,
        dissipation: bool = False,
        hidden_dim: int = 256,
        blend: bool = True,
        all_missing: str = "raise",
        precision: str = "auto",
        backend: str = "auto",
        device: str = "cpu",
        random_state: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.window = window
        self.neighbors = neighbors
        self.stride = stride
        self.head = head
        self.gaussian = gaussian
        self.start = start
        self.sigma = sigma
        self.loops = loops
        self.train_steps = train_steps
        self.iterations = iterations
        self.eta = eta
        self.gamma = gamma
        self.rho = rho
        self.robust_weights = robust_weights
        self.adam = adam
        self.dissipation = dissipation
        self.hidden_dim = hidden_dim
        self.blend = blend
        self.all_missing = all_missing
        self.precision = precision
        self.backend = backend
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def faithful(cls, **changes: Any) -> Self:
        """The published variant: fixed sigma .1, eta .01, gamma .01, energy head, no Gaussian part, linear start."""
        published: dict[str, Any] = {
            "head": "energy",
            "gaussian": False,
            "start": "linear",
            "sigma": (0.1, 0.1),
            "eta": 0.01,
            "gamma": 0.01,
            "rho": 1.0,
            "robust_weights": False,
            "iterations": 50,
            "blend": False,
        }
        return cls(**{**published, **changes})

    # ---- hooks of BaseImputer ----------------------------------------------------------------------------------

    def _fit_series(self, series: Series) -> SpiritState:
        return self._fit_impute_series(series)[0]

    def _fit_impute_series(self, series: Series) -> tuple[SpiritState, NDArray[np.float32]]:
        self._check()
        wanted = folds_wanted(series.missing, self._seed())
        replicas = Replicas.here()
        shown = self.verbose and replicas.number == 0
        with progress("SPIRIT", wanted * self.loops, cells=series.missing.size, verbose=shown) as advance:

            def round_of(number: int) -> tuple[Start, Fold, Trial, dict[str, NDArray[np.float32]]]:
                start = self._start(series, None, number)
                cycles = Cycles.of(series, start.period)
                fold, trial = fit_fold(series, start, cycles, self._plan, lambda note: advance(1, note=note))
                return start, fold, trial, fold.fill(series, start, cycles)

            with sufficient_memory(self.device, series.missing.size):
                if wanted == 1 or replicas.count > 1:  # replicas share each round: all are at the same one
                    rounds = [round_of(number) for number in range(wanted)]
                else:
                    with crew() as workers:
                        rounds = workers.map(round_of, range(wanted))
        starts, folds, trials, fillings = (list(part) for part in zip(*rounds, strict=True))
        known = {**starts[0].candidates, **trials[0].candidates}
        errors = {name: scores(table, series.values, trials[0].held) for name, table in known.items()}
        if not self.blend and folds[0].ladder is not None:
            trials = [Trial({SPIRIT: trial.candidates[SPIRIT]}, trial.held, trial.hidden) for trial in trials]
        blend = cautious_blend(trials, series.values)
        intervals = residual_intervals(blend, trials, series)
        period = starts[0].period
        state = SpiritState(tuple(folds), blend, period, Cycles.of(series, period), errors, intervals, series.digest)
        return state, mean_fill(blend, fillings, series)

    def _impute_series(self, series: Series, state: SpiritState) -> NDArray[np.float32]:
        return self._refilled(series, state)[0]

    def _spread_series(
        self, series: Series, state: SpiritState, level: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        filled, intervals = self._refilled(series, state, needed(level))
        return filled, intervals.half_width(series.missing, level)

    def _pack_state(self, state: SpiritState) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return pack(state)

    def _unpack_state(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> SpiritState:
        return unpack(arrays, facts)

    # ---- steps -------------------------------------------------------------------------------------------------

    def _seed(self) -> int:
        return seed_of(self.random_state)

    def _check(self) -> None:
        """Refuse settings that cannot work, before anything is computed."""
        check_choice("head", self.head, ("direct", "energy"))
        check_choice("start", self.start, ("auto", "linear"))
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        check_choice("backend", self.backend, ("auto", *BACKENDS))
        device_of(self.device)
        for name in ("window", "stride", "train_steps"):
            check_count(name, getattr(self, name), optional=True)
        check_count("neighbors", self.neighbors, least=0, optional=True)
        for name in ("loops", "iterations", "hidden_dim"):
            check_count(name, getattr(self, name))
        if self.sigma is not None and (len(self.sigma) != 2 or not 0 < self.sigma[1] <= self.sigma[0]):
            raise ValueError(f"sigma: expected None or (first, last) with 0 < last <= first, got {self.sigma!r}")
        if self.eta is not None and not self.eta > 0:
            raise ValueError(f"eta: expected None or a positive number, got {self.eta!r}")
        if not self.rho > 0:
            raise ValueError(f"rho: expected a positive number or inf, got {self.rho!r}")
        if self.gamma < 0 or (self.gamma > 0 and self.head == "direct"):
            raise ValueError(f"gamma: expected 0, or more with head='energy', got {self.gamma!r} with {self.head!r}")

    def _refilled(
        self, series: Series, state: SpiritState, least: int = 0
    ) -> tuple[NDArray[np.float32], ResidualIntervals]:
        """A filling by what was learned, weighed by how it does on this series' own held-out cells.

        Scores learned elsewhere can be worse than the start, which is fitted anew, and nothing but a trial shows it.
        Where too few cells can be held out for that (or for intervals, of which `least` are wanted), for samples that
        do not follow on one another, and for the very series of fit, the weights and intervals of fit are kept.
        """
        device_of(self.device)
        start = self._start(series, state.period)
        folds = [fold.on(self.device) for fold in state.folds]
        blend, intervals = state.blend, state.intervals
        judged = int(halves(start.holdout)[1].sum())
        anew = self.blend and len(series.segments) == 1 and judged >= HELD_OUT_LEAST and series.digest != state.digest
        with sufficient_memory(self.device, series.missing.size):
            if anew:
                trials: list[Trial] = []
                for number, fold in enumerate(folds):
                    folds[number], trial = fold.on_trial(series, start, state.cycles)
                    trials.append(trial)
                blend = cautious_blend(trials, series.values, trusted=(START,))
                if judged >= max(least, ENOUGH_FOR_INTERVALS):
                    intervals = residual_intervals(blend, trials, series)
            fillings = [fold.fill(series, start, state.cycles) for fold in folds]
        return mean_fill(blend, fillings, series), intervals

    def _start(self, series: Series, period: Period | None, fold: int = 0) -> Start:
        """The filling to begin from; samples that do not follow on one another begin from straight lines."""
        seed = self._seed() + fold
        if self.start == "linear" or len(series.segments) > 1:
            return linear_start(series.values, series.missing, series.segments, seed)
        day, week = (None, None) if period is None else (period.day, period.week)
        return choose_start(series.values, series.missing, day, week, seed)

    def _plan(self, series: Series, filled: NDArray[np.float32]) -> tuple[Patches, Plan]:
        """What is not given is chosen from the data."""
        window = self.window or choose_window(series.missing, series.segments)
        columns = choose_columns(filled, series.missing, self.neighbors)
        stride = self.stride or choose_stride(window, series.shape[0], len(columns))
        count = series.shape[0] // stride * len(columns)
        fast = self.backend != "torch" and (self.device != "cpu" or ops.isa() == "avx512bf16")
        precision = ("bf16" if fast else "fp32") if self.precision == "auto" else self.precision
        plan = Plan(
            head=self.head,
            gaussian=self.gaussian,
            hidden_dim=self.hidden_dim,
            sigma=self.sigma,
            loops=self.loops,
            training=ScoreMatching(
                steps=self.train_steps or choose_train_steps(window * columns.shape[1], count),
                batch=BATCH if count >= 8 * BATCH else SMALL_BATCH,
            ),
            learning_rate=LEARNING_RATE,
            dynamics=Dynamics(
                iterations=self.iterations,
                eta=self.eta,
                gamma=self.gamma,
                rho=self.rho,
                robust=self.robust_weights,
                adam=self.adam,
                dissipation=self.dissipation,
            ),
            engine=Engine(self.backend, precision, self.device),
            seed=self._seed(),
        )
        return Patches(window, stride, columns), plan

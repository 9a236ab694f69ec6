"""DiTImputer: a conditional diffusion transformer over a closed-form base, with draws, intervals and regions."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastimpute.arguments import check_choice, check_count, seed_of
from fastimpute.bases import Base, Filling, choose_base, fill, refit
from fastimpute.bases.choose import KINDS
from fastimpute.conformal import distance_class, needed, quantile
from fastimpute.crew import Crew, crew
from fastimpute.denoising import Denoising
from fastimpute.diffusion.schedule import plan
from fastimpute.dit_calibration import Calibrated, believe, calibrate, hold_out_all, narrowing
from fastimpute.dit_state import DiTState, drawing_patches, new_net, pack_dit, unpack_dit
from fastimpute.draws import Draws
from fastimpute.gaps import Mask
from fastimpute.gaussian import at_least, choose_patches
from fastimpute.intervals import IntervalImputer
from fastimpute.layouts import read_layout
from fastimpute.nn.dit import DiT
from fastimpute.profile import Period, detect_period
from fastimpute.progress import progress
from fastimpute.regions import ConfidenceRegion, distances, tiles
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table
from fastimpute.train.checkpoint import Checkpoint, run
from fastimpute.train.data_parallel import Replicas
from fastimpute.train.diffusion import DiffusionTraining, Training, WindowData
from fastimpute.train.masking import Asked, check_masking, read_masking
from fastimpute.train.windows import PatchSampler

PRECISIONS = ("fp32", "bf16")
FEWEST_STEPS, MOST_STEPS, CELLS_PER_STEP = 60, 4000, 20
ROUNDS, FEW_CELLS = 4, 20_000  # small data has few gaps to calibrate on: other ones are held out of further trainings


class DiTImputer(IntervalImputer[DiTState]):
    """Fill gaps with a diffusion transformer that learns what a closed-form base leaves over.

    The base (Gaussian windows by default) whitens the missing cells of a window; the transformer denoises them, so that
    an untrained one draws the base's joint conditional. `transform` takes the mean by one step, `sample` draws whole
    fillings. Intervals and regions are calibrated on observed cells that neither base nor network saw.

    Args:
        window: rows of a window; None chooses from the lengths of the gaps. Longer than the series: it shrinks.
        masking: gaps in training: "look-alike" (those of the data), "mixed" (blocks), "random" (cells), several with
            their shares, as {"look-alike": 3, "mixed": 1}, "adaptive" (all three, more of those learned badly), or
            blocks of your own, as [(4, 6), (1, 24)] for windows with four blocks of 6 rows or one of 24.
        hidden: width of the transformer, a multiple of 32. layers: blocks of its encoder, and of its decoder.
        train_steps: optimiser steps; None chooses from the size of the data.
        neighbors: companions of each sensor in a window; None chooses (all sensors together when they are few).
        base: "auto" (chosen on held-out cells), "gaussian", "increments", "profile" or "linear".
        n_samples: draws of `sample` and `confidence_region`.
        evaluations: of the network per draw.
        precision: of the network's products, "fp32" or "bf16".
        checkpoint: a file the training is laid aside in from time to time; a `fit` that broke off goes on from it.
        all_missing: a sensor without any observation: "raise", "mean_of_neighbors" or "keep".
        random_state: seed; the same seed gives the same bits on any number of threads.
        verbose: show progress on a terminal.

    Source: arXiv 2510.02216; base, white coordinates and calibration are this project's.

    Example:
        >>> import fastimpute as fi
        >>> imputer = fi.DiTImputer(random_state=0).fit(X)  # doctest: +SKIP
        >>> filled, draws = imputer.transform(X), imputer.sample(X, n_samples=50)  # doctest: +SKIP
    """

    bytes_per_cell = 2100

    def __init__(
        self,
        *,
        window: int | None = None,
        masking: Asked = "look-alike",
        hidden: int = 64,
        layers: int = 2,
        train_steps: int | None = None,
        neighbors: int | None = None,
        base: str = "auto",
        n_samples: int = 50,
        evaluations: int = 12,
        precision: str = "fp32",
        checkpoint: str | os.PathLike[str] | None = None,
        all_missing: str = "raise",
        random_state: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.window = window
        self.masking = masking
        self.hidden = hidden
        self.layers = layers
        self.train_steps = train_steps
        self.neighbors = neighbors
        self.base = base
        self.n_samples = n_samples
        self.evaluations = evaluations
        self.precision = precision
        self.checkpoint = checkpoint
        self.all_missing = all_missing
        self.random_state = random_state
        self.verbose = verbose

    # ---- draws -------------------------------------------------------------------------------------------------

    def sample(self, X: Any, n_samples: int | None = None) -> NDArray[Any]:
        """Whole fillings of X, drawn jointly within each window, around what `transform` fills.

        Args:
            X: as for `transform`.
            n_samples: S; None takes that of the constructor.

        Returns:
            (S, *shape of X), in the units of X; observed cells are themselves in every draw, bit for bit.

        Raises:
            NotFittedError: before fit.
            TypeError, ValueError: as `transform`; or a number of samples below one.
        """
        self._require_fit()
        count = self.n_samples if n_samples is None else n_samples
        check_count("n_samples", count)
        layout = read_layout(X)
        self._check_sensors(layout)
        series = Series.from_layout(layout, self.scaler_)
        alive = series.select(np.flatnonzero(self.live_))
        with self._drawing(alive, count) as draws:
            drawn = draws.departures()[:, : alive.shape[0]]
        drawn *= self.state_.calibrated.scale[distance_class(alive.missing)]
        drawn += self._fill(alive, self.state_).mean
        return np.stack([_array(self._close(layout, series, self.live_, one)) for one in drawn])

    def confidence_region(self, X: Any, level: float = 0.95, n_samples: int | None = None) -> ConfidenceRegion:
        """A ball per window that holds all its missing cells together with probability `level`.

        The centre is the mean of draws and the radius a multiple of their typical distance from it, calibrated on
        windows some of whose cells were held out. No draw is kept: more of them take more time, not more memory.

        Args:
            X: as for `transform`; without sensors that `fit` saw nothing of.
            level: between 0 and 1.
            n_samples: draws, as many as the level needs (19 for .95); None takes that of the constructor.

        Raises:
            NotFittedError: before fit.
            TypeError, ValueError: as `transform`; too few samples for the level, or too few windows that had held-out
                cells.
        """
        self._require_fit()
        least = needed(level)
        count = self.n_samples if n_samples is None else n_samples
        check_count("n_samples", count, least=max(2, least))
        if not self.live_.all():
            raise ValueError("X: fit saw no observation of some sensors, which have no region: fit without them")
        factor = quantile(self.state_.calibrated.regions, level)
        layout = read_layout(X)
        self._check_sensors(layout)
        series = Series.from_layout(layout, self.scaler_)
        with self._drawing(series, count) as draws:
            departures = draws.moments().widened(self.state_.calibrated.scale[distance_class(draws.hidden)])
        moved, deviation = (part[: len(layout.raw)] for part in (departures.mean, departures.deviation))
        mean = series.scaler.unscale(self._fill(series, self.state_).mean + moved)
        centre = np.where(series.missing, mean, layout.raw).astype(np.float64)
        rows = tiles(series, self.state_.patches.window)
        radius = factor * distances(deviation, series.missing, rows)
        return ConfidenceRegion(rows, centre, radius, series.missing, series.scaler.std)

    # ---- hooks of BaseImputer ----------------------------------------------------------------------------------

    def _fit_series(self, series: Series) -> DiTState:
        self._check()
        patches = self._patches(series)
        rounds = ROUNDS if (~series.missing).sum() < FEW_CELLS else 1
        states = [self._round(series, patches, number) for number in range(rounds)]
        pooled = Calibrated.pooled([state.calibrated for state in states], seed_of(self.random_state))
        return replace(states[0], calibrated=pooled)

    def _round(self, series: Series, patches: Patches, number: int) -> DiTState:
        """Fit, and calibrate on cells held out from all that was fitted; another number holds out other ones."""
        seed = seed_of(self.random_state)
        table, wide = (patch_table(one, series, Cycles()) for one in (patches, drawing_patches(patches)))
        period = Period() if len(series.segments) > 1 else detect_period(series.values, series.missing)
        held_out = hold_out_all(series, patches.window, seed + number)
        own = series.missing | held_out.union
        kinds = tuple(KINDS) if self.base == "auto" else (self.base,)
        choice = choose_base(series, held_out.union, table, period=period, seed=seed, kinds=kinds)
        base = refit(choice.base, series, own, table, period=period, seed=seed)
        final = refit(choice.base, series, series.missing, table, period=period, seed=seed)
        with crew() as workers:
            net = self._train(series, own, base, patches, workers, self.checkpoint if number == 0 else None)
            model = Denoising(base, net, workers, self.precision)
            scores = believe(series, held_out.thin, model, table)
            calibrated = calibrate(series, held_out, model, table, wide, seed)
        return DiTState(final, net, patches, calibrated.over(narrowing(base, final, series, table)), scores)

    def _impute_series(self, series: Series, state: DiTState) -> NDArray[np.float32]:
        return self._fill(series, state).mean

    def _fill(self, series: Series, state: DiTState) -> Filling:
        long = at_least(series, state.patches.window)
        table = state.table(long)
        with crew() as workers:
            model = Denoising(state.base.bind(long, table), state.net, workers, self.precision)
            mean, deviation = fill(model, long, long.missing, table)
        return Filling(mean[: series.shape[0]], deviation[: series.shape[0]])

    @contextmanager
    def _drawing(self, series: Series, count: int) -> Iterator[Draws]:
        """Draws of a series that may have got rows at its end."""
        long = at_least(series, self.state_.patches.window)
        table, seed = self.state_.drawing_table(long), seed_of(self.random_state)
        with crew() as workers:
            model = Denoising(self.state_.base.bind(long, table), self.state_.net, workers, self.precision)
            yield Draws(model, long, long.missing, long.missing, table, count, plan(self.evaluations), seed)

    def _spread_series(
        self, series: Series, state: DiTState, level: float
    ) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]]]:
        mean, deviation = self._fill(series, state)
        return mean, state.calibrated.intervals.radius(distance_class(series.missing), level) * deviation

    def _pack_state(self, state: DiTState) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return pack_dit(state)

    def _unpack_state(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> DiTState:
        return unpack_dit(arrays, facts)

    # ---- steps -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse settings that cannot work, before anything is computed."""
        check_choice("base", self.base, ("auto", *KINDS))
        check_choice("precision", self.precision, PRECISIONS)
        check_masking(self.masking)
        for name, least in (("window", 1), ("train_steps", 1), ("neighbors", 0)):
            check_count(name, getattr(self, name), least=least, optional=True)
        for name, least in (("hidden", 32), ("layers", 1), ("n_samples", 1), ("evaluations", 2)):
            check_count(name, getattr(self, name), least=least)
        if self.checkpoint is not None and not Path(self.checkpoint).absolute().parent.is_dir():
            raise ValueError(f"checkpoint: expected a file in a folder that exists, got {os.fspath(self.checkpoint)!r}")
        if self.hidden % 32:
            raise ValueError(f"hidden: expected a multiple of 32, got {self.hidden}")

    def _patches(self, series: Series) -> Patches:
        patches = choose_patches(series, self.window, self.neighbors)
        if self.window is not None and patches.window < self.window:
            warnings.warn(
                f"window: {self.window} rows are more than X has, {patches.window} are taken", UserWarning, stacklevel=4
            )
        return patches

    def _train(
        self,
        series: Series,
        own: Mask,
        base: Base,
        patches: Patches,
        workers: Crew,
        checkpoint: str | os.PathLike[str] | None,
    ) -> DiT:
        """A denoiser of the windows of a series whose own cells (T, N) it may not know."""
        columns, seed = patches.columns, seed_of(self.random_state)
        dense = patches if len(columns) > 1 else Patches(patches.window, 1, columns)
        table = patch_table(dense, series, Cycles())
        steps = self.train_steps or int(np.clip((~own).sum() / CELLS_PER_STEP, FEWEST_STEPS, MOST_STEPS))
        net = new_net(columns.shape[1], patches.window, self.hidden, self.layers, seed)
        sampler = PatchSampler(table, torch.Generator())
        filling = fill(base, series, own, patch_table(patches, series, Cycles()))
        data = WindowData(torch.from_numpy(filling.mean), torch.from_numpy(own), sampler)
        masking = read_masking(self.masking, torch.from_numpy(series.missing), sampler)
        how = DiffusionTraining(steps, precision=self.precision)
        whiten, replicas = base.bind(series, table).whiten, Replicas.here()
        training = Training(net, data, whiten, masking, how, workers, seed=seed, replicas=replicas)
        kept = None
        if checkpoint is not None:
            kept = Checkpoint(checkpoint, self._fingerprint(series, steps), replicas=replicas)
            kept.restore(training)
        shown = self.verbose and replicas.number == 0
        with progress("DiT", steps, done=training.done, cells=steps * table.dim, verbose=shown) as advance:
            for loss in run(training, kept):
                advance(1, note=f"loss {loss:.3f}")
        training.finish()
        return net

    def _fingerprint(self, series: Series, steps: int) -> str:
        """Of the series and of the settings that training depends on."""
        names = ("window", "masking", "hidden", "layers", "neighbors", "base", "precision", "random_state")
        digest = hashlib.sha256(json.dumps([steps, *(getattr(self, name) for name in names)]).encode())
        for array in (series.values, series.missing):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _array(filled: Any) -> NDArray[Any]:
    """What `transform` returns, as an array."""
    return np.asarray(filled["X"] if isinstance(filled, dict) else filled)

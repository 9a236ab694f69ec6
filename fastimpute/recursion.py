"""The alternation of SPIRIT: train the score on the current filling, let the particles recur, average, repeat."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastimpute import ops
from fastimpute.crew import Crew
from fastimpute.device import tensor_float32
from fastimpute.nn import EnergyMLP, ScoreMLP
from fastimpute.ops.library import on_device_of
from fastimpute.referee import Referee
from fastimpute.train import window_gaussian
from fastimpute.train.adam import Adam
from fastimpute.train.data_parallel import Replicas
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.score_matching import ScoreMatching, ScoreNet, condition, train_score
from fastimpute.train.windows import PatchSampler, PatchTable

GAUSSIAN_SAMPLE = 16384  # patches the covariance is estimated from
WARM_UP_STEPS = 5  # of Gaussian EM
SIGMA_LEAST, SIGMA_MOST, SIGMA_FALL = 0.01, 0.5, 6.0  # of the first noise level, and how far the ladder goes down


@dataclass(frozen=True)
class Dynamics:
    """The inner loop: how particles and their weights move at one noise level.

    Attributes:
        iterations: steps K.
        eta: step length; None is sigma^2, Tweedie's denoising step. Beyond 2 sigma^2 it diverges.
        gamma: weight of the squared gradient norm in Phi, 0 without.
        rho: SPT's price for changing mass; inf keeps the weights uniform.
        robust: SPT weights from the likelihood's distance to its median in interquartile ranges.
        tau: pull of the weights back to their reference, per step.
        bound: largest |log(B w)|; below log 2, as a particle of mass 2 takes twice Tweedie's step, which diverges.
        group: particles whose weights are normalised together, B.
        adam: Adam instead of plain steps.
        dissipation: add the noise and drift that SPIRIT leaves out (samples instead of a point estimate).
    """

    iterations: int = 20
    eta: float | None = None
    gamma: float = 0.0
    rho: float = math.inf
    robust: bool = False
    tau: float = 0.1
    bound: float = 0.6
    group: int = 128
    adam: bool = False
    dissipation: bool = False


@dataclass(frozen=True)
class Stage:
    """One rung of the ladder: a trained score at one noise level, or a Gaussian without network (sigma 0, exact)."""

    sigma: float
    net: ScoreNet | None
    gaussian: GaussianPart | None

    def to(self, device: torch.device | str) -> Stage:
        """A copy on another device, which later training of the network leaves alone."""
        net = None if self.net is None else copy.deepcopy(self.net).to(device)
        return Stage(self.sigma, net, None if self.gaussian is None else self.gaussian.to(device))


@dataclass(frozen=True)
class Engine:
    """Where the ladder is trained and walked, and how exactly.

    Attributes:
        backend: of the recursion kernel. No influence on what is computed beyond rounding.
        precision: of the recursion's matrix products; on a GPU also of the direct head's in training, whatever else is
            trained there takes TF32 for "bf16".
        device: where the series, the network and the particles lie. Another device draws other random numbers.
    """

    backend: str = "auto"
    precision: str = "fp32"
    device: str = "cpu"


def recur(
    stage: Stage,
    filled: Tensor,
    missing: Tensor,
    table: PatchTable,
    dynamics: Dynamics,
    engine: Engine,
    seed: int,
    threads: int,
) -> tuple[Tensor, Tensor]:
    """One pass of the inner loop over all patches (of a stage that has a network).

    Args:
        stage: the score and its noise level, on the device of the series.
        filled: (T, N) float32, current values; observed cells are returned bit for bit.
        missing: (T, N) bool.
        table: the patches.
        dynamics: the inner loop's constants.
        engine: backend and precision of the kernel.
        seed: of the dissipative variant's noise.
        threads: of the kernel, which gives the same bits on any number of them.

    Returns:
        The new filling (T, N) and the particles' log weights (S * G,).
    """
    sigma = stage.sigma
    assert stage.net is not None
    with torch.no_grad():
        w1, b1, w2, b2, w3, b3 = (weight.detach() for weight in stage.net.weights())
        place = filled.device
        level = torch.full((len(table.conditions), 1), math.log(sigma), device=place)
        modulation = stage.net.modulation(condition(level, table.conditions.to(place)))
        precision_matrix = mean = None
        if stage.gaussian is not None:
            precision_matrix, mean = stage.gaussian.precision_matrix(sigma), stage.gaussian.mean
        result: tuple[Tensor, Tensor] = ops.proximal_recursion(
            filled,
            missing,
            torch.from_numpy(table.starts).to(place),
            torch.from_numpy(table.columns).to(place),
            table.window,
            w1,
            b1,
            w2,
            b2,
            w3,
            b3,
            modulation,
            torch.from_numpy(table.condition_index).to(place),
            precision_matrix,
            mean,
            head="direct" if isinstance(stage.net, ScoreMLP) else "energy",
            sigma=sigma,
            iterations=dynamics.iterations,
            eta=sigma**2 if dynamics.eta is None else dynamics.eta,
            gamma=dynamics.gamma,
            rho=dynamics.rho,
            tau=dynamics.tau,
            bound=dynamics.bound,
            group=dynamics.group,
            robust=dynamics.robust,
            adam=dynamics.adam,
            dissipation=dynamics.dissipation,
            seed=seed,
            backend=engine.backend,
            precision=engine.precision,
            threads=threads,
        )
    return result


def new_net(head: str, dim: int, cond_dim: int, hidden_dim: int, seed: int) -> ScoreNet:
    """A fresh network whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ScoreMLP(dim, cond_dim, hidden_dim) if head == "direct" else EnergyMLP(dim, cond_dim, hidden_dim)


@dataclass(frozen=True)
class Plan:
    """All that the alternation needs besides data.

    Attributes:
        head: "direct" or "energy".
        gaussian: whether the analytic part is used.
        hidden_dim: width of the network.
        sigma: first and last noise level; None takes them from the error of the filling to begin from.
        loops: outer loops.
        training: score matching per outer loop.
        learning_rate: Adam's.
        dynamics: the inner loop.
        engine: the kernel's backend and precision.
        seed: of everything random.
    """

    head: str
    gaussian: bool
    hidden_dim: int
    sigma: tuple[float, float] | None
    loops: int
    training: ScoreMatching
    learning_rate: float
    dynamics: Dynamics
    engine: Engine
    seed: int


def warm_up(
    filled: NDArray[np.float32],
    missing: NDArray[np.bool_],
    table: PatchTable,
    plan: Plan,
    referee: Referee,
    workers: Crew,
) -> tuple[NDArray[np.float32], list[Stage]]:
    """Gaussian EM over the patches: the filling it ends with and its rungs; early where it clearly does harm."""
    place = torch.device(plan.engine.device)
    hidden = torch.from_numpy(missing).to(place)
    sampler = PatchSampler(table, torch.Generator(place).manual_seed(plan.seed), device=place)
    stages: list[Stage] = []
    moved, gaussian = filled, None
    for _ in range(WARM_UP_STEPS):
        series = torch.from_numpy(moved).to(place)
        gaussian = window_gaussian.maximise(series, hidden, sampler, gaussian)
        moved = window_gaussian.expect(series, hidden, sampler, gaussian, workers).numpy(force=True)
        stages.append(Stage(0.0, None, gaussian.to("cpu")))
        if referee.clearly_worse(moved, filled):
            break
    return moved, stages


def alternate(
    filled: NDArray[np.float32],
    missing: NDArray[np.bool_],
    table: PatchTable,
    plan: Plan,
    sigmas: Sequence[float],
    watch: Callable[[Stage, NDArray[np.float32]], None],
    workers: Crew,
) -> None:
    """Climb down the noise levels: train, recur, average; ``watch(stage, filling)`` sees every rung, in main memory.

    Source: SPIRIT (arXiv 2602.01182), alternating training and recursion; the annealed noise level is ours.
    """
    place = torch.device(plan.engine.device)
    series, hidden = torch.tensor(filled, device=place), torch.from_numpy(missing).to(place)
    generator = torch.Generator(place).manual_seed(plan.seed)
    net = new_net(plan.head, table.dim, 1 + table.conditions.shape[1], plan.hidden_dim, plan.seed).to(place)
    on_gpu = place.type == "cuda"
    optimiser = Adam(net.parameters(), plan.learning_rate)
    mass: Tensor | None = None
    replicas = Replicas.here()
    for loop, sigma in enumerate(sigmas):
        sampler = PatchSampler(table, generator, mass, place)
        gaussian = _gaussian(series, sampler) if plan.gaussian else None
        with on_device_of(series), tensor_float32(on_gpu and plan.engine.precision == "bf16"):
            precision = plan.engine.precision if on_gpu else "fp32"
            how = plan.training
            for _ in train_score(net, optimiser, series, sampler, sigma, gaussian, how, workers, precision, replicas):
                pass
        stage = Stage(sigma, net, gaussian)
        series, log_w = recur(
            stage, series, hidden, table, plan.dynamics, plan.engine, plan.seed + loop, workers.threads
        )
        if math.isfinite(plan.dynamics.rho):
            mass = log_w.exp() * _group_sizes(table.count, plan.dynamics.group).to(place)
        watch(stage.to("cpu"), series.numpy(force=True))


def descend(
    stages: Sequence[Stage],
    filled: NDArray[np.float32],
    missing: NDArray[np.bool_],
    table: PatchTable,
    plan: Plan,
    workers: Crew,
) -> list[NDArray[np.float32]]:
    """Trained stages, one after the other: recursion only. Returns the filling after each."""
    place = torch.device(plan.engine.device)
    series, hidden = torch.from_numpy(filled).to(place), torch.from_numpy(missing).to(place)
    sampler = PatchSampler(table, torch.Generator(place), device=place)
    fillings = []
    for rung, stage in enumerate(stage.to(place) for stage in stages):
        if stage.net is None:
            assert stage.gaussian is not None
            series = window_gaussian.expect(series, hidden, sampler, stage.gaussian, workers)
        else:
            series, _ = recur(
                stage, series, hidden, table, plan.dynamics, plan.engine, plan.seed + rung, workers.threads
            )
        fillings.append(series.numpy(force=True))
    return fillings


def noise_levels(plan: Plan, error: float) -> tuple[float, ...]:
    """The ladder: geometric from the error of the filling to begin from (standardised) down to a sixth of it.

    Below its own error a filling is not to be trusted, so that the first rung smooths just that away.
    """
    first = min(max(error, SIGMA_LEAST), SIGMA_MOST)
    ends = (first, first / SIGMA_FALL) if plan.sigma is None else plan.sigma
    return tuple(float(sigma) for sigma in np.geomspace(*ends, plan.loops))


def _gaussian(series: Tensor, sampler: PatchSampler) -> GaussianPart:
    patches = sampler.some(GAUSSIAN_SAMPLE)
    return GaussianPart.fit(sampler.gather(series, patches), sampler.weights(patches))


def _group_sizes(count: int, group: int) -> Tensor:
    """(count,) number of particles in each particle's weight group."""
    sizes = torch.full((count,), float(group))
    if count % group:
        sizes[count - count % group :] = count % group
    return sizes

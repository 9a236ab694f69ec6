"""Ops against PyTorch: eager, and compiled with its launches in a CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import torch

from fastimpute import _native
from fastimpute.benchmark.gpu import diffusion_problems, spirit_problems
from fastimpute.benchmark.gpu.checks import refusal, usable
from fastimpute.benchmark.gpu.problem import Problem
from fastimpute.benchmark.gpu.timing import Run, medians
from fastimpute.benchmark.network_cases import autograd_hvp, autograd_score

Build = Callable[[], Problem]
MILLION = 1 << 20


@dataclass(frozen=True)
class Timed:
    """One candidate at one shape; `percent` of the ceiling that bounds the op, NaN where it is not known."""

    op: str
    shape: str
    candidate: str
    precision: str
    milliseconds: float
    rate: float
    unit: str
    percent: float

    def as_dict(self) -> dict[str, str | float]:
        return asdict(self)


def problems(quick: bool) -> list[tuple[str, Build, bool]]:
    """Op and shape of what is timed, the most telling first, and whether torch.compile is asked to do it too."""
    spirit, diffusion = spirit_problems, diffusion_problems
    if quick:
        return [
            ("energy_mlp", partial(spirit.energy, 64, 24), False),
            ("spt_weights", partial(spirit.weights, 1024, 32), False),
            ("particle_step", partial(spirit.step, 64, 24), False),
            ("diffusion_step", partial(diffusion.diffusion, 2, 8, 24), False),
        ]
    rows = MILLION // 4
    return [
        ("energy_mlp", partial(spirit.energy, rows, 84), True),
        ("energy_mlp", partial(spirit.energy, rows, 84, hvp=True), False),
        ("score_mlp", partial(spirit.score, rows, 84), True),
        ("proximal_recursion", partial(spirit.recursion, "direct", rows, 84), True),
        ("proximal_recursion", partial(spirit.recursion, "energy", rows, 84), False),
        ("proximal_recursion", partial(spirit.recursion, "direct", rows, 84, rho=1.0), False),
        ("spt_weights", partial(spirit.weights, 64 * MILLION, 512), True),
        ("particle_step", partial(spirit.step, 2 * MILLION, 84), True),
        ("particle_step", partial(spirit.step, 2 * MILLION, 84, kind="adam"), False),
        ("particle_step", partial(spirit.step, 2 * MILLION, 84, kind="noise"), False),
        ("dit_block", partial(diffusion.block, 4096, 48, 256), True),
        ("dit_block", partial(diffusion.block, 4096, 96, 64), False),
        ("dit_block", partial(diffusion.block, 4096, 16, 256, memory=96), False),
        ("unrolled_attention", partial(diffusion.unrolled, 4096, 8), False),
        ("gaussian_conditional", partial(diffusion.gaussian, 4096, 84), False),
        ("gaussian_conditional", partial(diffusion.gaussian, 1024, 336), False),
        ("diffusion_step", partial(diffusion.diffusion, 32, 60_000, 84), True),
        ("diffusion_step", partial(diffusion.diffusion, 32, 60_000, 84, noise=True), False),
        ("ball_quantile", partial(diffusion.ball, 100, 10_000, 168), True),
        ("energy_mlp", partial(spirit.energy, rows, 24), False),
        ("energy_mlp", partial(spirit.energy, rows, 168), False),
        ("energy_mlp", partial(spirit.energy, rows, 480), False),
        ("energy_mlp", partial(spirit.energy, 8192, 84), False),
        ("score_mlp", partial(spirit.score, rows, 168), False),
        ("spt_weights", partial(spirit.weights, 64 * MILLION, 32), False),
        ("spt_weights", partial(spirit.weights, 64 * MILLION, 4096), False),
        ("spt_weights", partial(spirit.weights, 64 * MILLION, 512, robust=True), False),
        ("dit_block", partial(diffusion.block, 4096, 48, 128), False),
        ("gaussian_whitening", partial(diffusion.whitening, 64, 336), False),
        ("score_matching", partial(spirit.matching, 512, 84), False),
        ("dit_block_gradient", partial(diffusion.block_gradient, 512, 72, 64), False),
    ]


def timed(problem: Problem, device: str, ceilings: dict[str, float], compiled: bool, rounds: int) -> Iterator[Timed]:
    """All candidates of a problem; one that fails is left out with its reason in place of a rate."""
    runs: dict[tuple[str, str], Run] = {}
    for precision in problem.precisions:
        for backend in usable(problem.op, device):
            for name, run in _runs_of(problem, backend, precision).items():
                runs[name, precision] = run
        runs["eager", precision] = partial(problem.run, "torch", precision)
        if compiled:
            runs["torch.compile", precision] = _compiled(problem, precision)
    if problem.op == "energy_mlp":
        runs["eager autograd", "fp32"] = _autograd(problem)
    working: dict[str, Run] = {}
    for (name, precision), run in runs.items():
        try:
            run()
            working[f"{name}|{precision}"] = run
        except Exception as error:  # Triton's compiler has errors of its own kinds
            if refusal(error) is not None:
                continue
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Timed(problem.op, problem.shape, name, precision, math.nan, math.nan, reason, math.nan)
    for name, seconds in medians(working, device, rounds).items():
        candidate, precision = name.split("|")
        rate = (problem.flops or problem.bytes) / seconds
        ceiling = ceilings[precision] if problem.flops else ceilings["copy"]
        unit = "TFLOP/s" if problem.flops else "TB/s"
        yield Timed(
            problem.op, problem.shape, candidate, precision, 1e3 * seconds, rate / 1e12, unit, 100 * rate / ceiling
        )


def left_out(op: str) -> Timed:
    """In place of the times of an op whose checks ended or spoilt their process."""
    return Timed(op, "", "", "", math.nan, math.nan, "left out: its checks ended the process", math.nan)


def _runs_of(problem: Problem, backend: str, precision: str) -> dict[str, Run]:
    """The backend's kernel by name; CUDA's `energy_mlp` with both of its bodies, where two can serve."""
    name = f"fastimpute {backend}"
    run: Run = partial(problem.run, backend, precision)
    if (problem.op, backend, precision) != ("energy_mlp", "cuda", "bf16"):
        return {name: run}
    dim, gaussian = problem.tensors["x"].shape[1], "precision_matrix" in problem.tensors
    body = _native.cuda().energy_body(dim, gaussian, "H s" in problem.shape)
    bodies = {f"{name}, {body}": run}
    if body == "wgmma":
        bodies[f"{name}, mma.sync"] = partial(_without_wgmma, run)
    return bodies


def _without_wgmma(run: Run) -> None:
    module = _native.cuda()
    module.permit_wgmma(False)
    try:
        run()
    finally:
        module.permit_wgmma(True)


def _compiled(problem: Problem, precision: str) -> Run:
    """Fused by torch.compile, and replayed as a CUDA graph."""
    torch._dynamo.reset()
    fused = torch.compile(lambda tensors: problem.call(tensors, "torch", precision), mode="reduce-overhead")
    return lambda: fused(problem.tensors)


def _autograd(problem: Problem) -> Run:
    network = spirit_problems.network_of(problem.tensors)
    eager = autograd_hvp if "H s" in problem.shape else autograd_score
    return lambda: eager(problem.tensors["x"], network)

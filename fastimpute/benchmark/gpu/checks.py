"""Every op on every usable backend against double precision, at the shapes where kernels go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fastimpute.benchmark.gpu import diffusion_problems, spirit_problems
from fastimpute.benchmark.gpu.problem import Problem
from fastimpute.ops import backends
from fastimpute.ops.registry import OPS

ROWS = (0, 1, 2, 3, 7, 31, 33, 127, 129, 1023)
DIMS = (1, 7, 24, 84, 144, 168, 480, 2048)
FEW_ROWS, FEW_DIMS = (0, 3, 129), (7, 84)
ANY_DIM, ANY_ROWS = 84, 129
FAR_ROWS = 1024
RIGHT, REFUSED = "right", "refused: "
# As in the tests: twice the error of PyTorch in the same precision, plus so many roundings of the largest value.
FLOOR = {"fp32": 16.0 * 2.0**-23, "bf16": 2.0**-8}


@dataclass(frozen=True)
class Check:
    """One answer: `error` against double precision and the `limit` it must keep; `outcome`: "right", "refused: " with
    the reason, or what is wrong."""

    op: str
    shape: str
    backend: str
    precision: str
    error: float
    limit: float
    outcome: str

    def as_dict(self) -> dict[str, str | float]:
        return asdict(self)


def usable(op: str, device: str) -> list[str]:
    """The backends but torch whose kernels run on that kind of device here."""
    kind = device.split(":", maxsplit=1)[0]
    return [name for name in OPS[op].backends if backends.DEVICES.get(name) == kind and backends.probe(name).available]


def sweep(op: str, quick: bool) -> Iterator[Problem]:
    """The problems an op is checked on."""
    rows, dims = (FEW_ROWS, FEW_DIMS) if quick else (ROWS, DIMS)
    for build, sizes in _SWEEPS[op]:
        usual = min(sizes, key=lambda size: abs(size - ANY_DIM))
        yield from (build(count, usual) for count in rows)
        yield from (build(ANY_ROWS, size) for size in sizes if size != usual and (size in dims or not quick))


def check(problem: Problem, backend: str, precision: str) -> Check:
    """One backend's answer."""
    names = (problem.op, problem.shape, backend, precision)
    try:
        exact = problem.exact()
        plain = problem.run_on_copies("torch", precision)
        found = problem.run_on_copies(backend, precision)
    except Exception as error:  # Triton's compiler has errors of its own kinds
        return Check(*names, float("nan"), float("nan"), refusal(error) or f"{type(error).__name__}: {error}")
    worst, limit = 0.0, 0.0
    for value, right, rough in zip(found, exact, plain, strict=True):
        deviation = _error(value, right)
        most = 2 * _error(rough, right) + FLOOR[precision] * _largest(right)
        if value.shape != right.shape or not deviation <= most:
            return Check(*names, deviation, most, "too far from double precision")
        if deviation * limit >= worst * most or limit == 0:
            worst, limit = deviation, most
    return Check(*names, worst, limit, RIGHT)


def refusal(error: Exception) -> str | None:
    """The outcome where a backend says that it does not take these arguments."""
    _, cannot, reason = str(error).partition("cannot serve: ")
    return REFUSED + reason if cannot else None


def checks_of(op: str, device: str, quick: bool, only: str | None = None) -> Iterator[Check]:
    """All checks of an op, of `only` one backend where it is given; a single one tells that nothing serves it there."""
    serving = [name for name in usable(op, device) if only in (None, name)]
    if not serving:
        reasons = "; ".join(f"{name}: {backends.probe(name).reason}" for name in OPS[op].backends[:-1])
        yield Check(op, "", "", "", float("nan"), float("nan"), f"{REFUSED}no kernel on {device} ({reasons})")
        return
    with torch.device(device):
        for problem in sweep(op, quick):
            for backend in serving:
                for precision in problem.precisions:
                    yield check(problem, backend, precision)


def far_checks(names: list[str], device: str, quick: bool) -> Iterator[Check]:
    """The last rows of arrays of more than 2^31 elements, against the same rows alone: equal in every bit."""
    elements = 1 << (12 if quick else 31)
    for op, build in _FAR.items():
        if op in names:
            for backend in usable(op, device):
                with torch.device(device):
                    yield _far_check(build(elements), backend)
                if device.startswith("cuda"):
                    torch.cuda.empty_cache()


def _far_check(problem: Problem, backend: str) -> Check:
    precision = problem.precisions[-1]
    names = (problem.op, f"{problem.shape}, last rows", backend, precision)
    rows = max(len(tensor) for tensor in problem.tensors.values())
    last = {name: part[-FAR_ROWS:] if len(part) == rows else part for name, part in problem.tensors.items()}
    try:
        whole, alone = problem.run(backend, precision), problem.call(last, backend, precision)
    except Exception as error:  # Triton's compiler has errors of its own kinds
        return Check(*names, float("nan"), 0.0, refusal(error) or f"{type(error).__name__}: {error}")
    worst = max(_error(value[-FAR_ROWS:], right) for value, right in zip(whole, alone, strict=True))
    return Check(*names, worst, 0.0, RIGHT if worst == 0 else "the last rows differ from the same rows alone")


def _error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact.double()).abs().max()) if exact.numel() and value.numel() else 0.0


def _largest(exact: Tensor) -> float:
    return float(exact.double().abs().max()) if exact.numel() else 0.0


_FAR: dict[str, Callable[[int], Problem]] = {
    "energy_mlp": lambda elements: spirit_problems.energy(elements // 84 + FAR_ROWS, 84),
    "score_mlp": lambda elements: spirit_problems.score(elements // 84 + FAR_ROWS, 84),
    "spt_weights": lambda elements: spirit_problems.weights(elements + FAR_ROWS, 32),
    "particle_step": lambda elements: spirit_problems.step(elements // 84 + FAR_ROWS, 84),
    # The leading dimension, of which the last rows are taken, is the samples' here and the windows' there.
    "diffusion_step": lambda elements: diffusion_problems.diffusion(elements // (8 * 84) + FAR_ROWS, 8, 84),
    "ball_quantile": lambda elements: diffusion_problems.ball(40, elements // (40 * 84) + FAR_ROWS, 84, together=True),
}
FAR_OPS = tuple(_FAR)
Build = Callable[[int, int], Problem]
_SWEEPS: dict[str, list[tuple[Build, tuple[int, ...]]]] = {
    "energy_mlp": [
        (lambda rows, dim: spirit_problems.energy(rows, dim), DIMS),
        (lambda rows, dim: spirit_problems.energy(rows, dim, hvp=True), (7, 84, 480)),
        (lambda rows, dim: spirit_problems.energy(rows, dim, hvp=True, gaussian=True), (84,)),
    ],
    "score_mlp": [(spirit_problems.score, DIMS)],
    "score_matching": [(lambda rows, dim: spirit_problems.matching(max(rows, 1), dim), DIMS)],
    "spt_weights": [
        (lambda rows, group: spirit_problems.weights(max(rows, 1) * 7, group), (1, 7, 32, 84, 512, 4096)),
        (lambda rows, group: spirit_problems.weights(rows * 7 + 1, group, robust=True), (32, 512)),
    ],
    "particle_step": [
        (lambda rows, dim, kind=kind: spirit_problems.step(rows, dim, kind=kind), DIMS)  # type: ignore[misc]
        for kind in ("plain", "adam", "noise")
    ],
    "proximal_recursion": [
        (lambda rows, dim: spirit_problems.recursion("direct", max(rows, 1), dim, iterations=3), (24, 84, 168)),
        (lambda rows, dim: spirit_problems.recursion("energy", max(rows, 1), dim, iterations=3, rho=1.0), (24, 84)),
    ],
    "dit_block": [
        (lambda rows, hidden: diffusion_problems.block(min(max(rows, 1), 33), 48, hidden), (64, 128, 256)),
        (lambda rows, hidden: diffusion_problems.block(min(max(rows, 1), 7), 16, hidden, memory=96), (64, 256)),
    ],
    "dit_block_gradient": [
        (lambda rows, hidden: diffusion_problems.block_gradient(min(max(rows, 1), 7), 72, hidden), (64, 128)),
    ],
    "diffusion_step": [
        (lambda rows, dim: diffusion_problems.diffusion(3, rows, dim), DIMS),
        (lambda rows, dim: diffusion_problems.diffusion(3, rows, dim, noise=True), DIMS),
    ],
    "ball_quantile": [(lambda rows, dim: diffusion_problems.ball(40, rows, dim), DIMS)],
    "gaussian_conditional": [(lambda rows, dim: diffusion_problems.gaussian(min(rows, 129), dim), (7, 84, 168, 336))],
    "gaussian_whitening": [(lambda rows, dim: diffusion_problems.whitening(min(rows, 33), dim), (7, 84, 168))],
    "unrolled_attention": [(lambda rows, channels: diffusion_problems.unrolled(max(rows, 1), channels), (1, 8))],
}

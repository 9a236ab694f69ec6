"""proximal_recursion: the fused loop against its parts and float64; promises about cells, threads and memory."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from closeness import assert_within, limit, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor

from fastimpute import ops
from fastimpute.ops.network import Network
from fastimpute.ops.proximal_recursion import reference
from fastimpute.ops.recursion_arguments import Patches

op = torch.ops.fastimpute.proximal_recursion.default


class Problem:
    """A series with gaps, overlapping patches of sensor pairs, and a network for them."""

    def __init__(
        self,
        head: str = "energy",
        length: int = 60,
        window: int = 12,
        stride: int = 3,
        *,
        modulations: int = 1,
        gaussian: bool = True,
        share: float = 0.3,
    ) -> None:
        self.series, self.missing = torch.randn(length, 4), torch.rand(length, 4) < share
        self.starts = torch.arange(0, length - window + 1, stride)
        self.columns = torch.tensor([[0, 1], [1, 2], [3, 0]])
        self.window, self.head = window, head
        network = random_network(
            head, 2 * window, modulations=modulations, particles=len(self.starts), gaussian=gaussian
        )
        self.network = rounded(network)

    @property
    def patches(self) -> int:
        return len(self.starts) * len(self.columns)

    def run(self, backend: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Tensor, Tensor]:
        series, network = self.series.to(dtype), to_dtype(self.network, dtype)
        defaults: dict[str, Any] = {"iterations": 4, "eta": 0.02, "group": 16, "head": self.head}
        if self.head == "direct":
            defaults["sigma"] = 0.2
        if options.get("log_ref") is not None:
            options["log_ref"] = options["log_ref"].to(dtype)
        arguments = (series, self.missing, self.starts, self.columns, self.window)
        return ops.proximal_recursion(*arguments, *network, backend=backend, **{**defaults, **options})


def check(problem: Problem, backend: str, precision: str = "fp32", slack: float = 1.0, **options: Any) -> None:
    """Series and log w within the limit around float64; `slack` for iterations that amplify rounding."""
    value, log_w = problem.run(backend, precision=precision, **options)
    exact, exact_log_w = problem.run("torch", torch.float64, **options)
    plain, plain_log_w = problem.run("torch", precision=precision, **options)
    assert_within("series", value, exact, slack * limit(exact, plain, precision))
    assert_within("log_w", log_w, exact_log_w, slack * limit(exact_log_w, plain_log_w, precision))


VARIANTS = {
    "plain": {},
    "no steps": {"iterations": 0},
    "weights": {"rho": 0.5, "tau": 0.2, "bound": 4.0},
    "robust weights": {"rho": 0.05, "robust": True},
    "bounded weights": {"rho": 0.02, "bound": 0.5},
    "adam": {"adam": True},
    "dissipation": {"dissipation": True, "seed": 11},
    "all": {"rho": 0.5, "adam": True, "dissipation": True, "robust": True},
    "one group": {"rho": 0.5, "group": 1000},
    "groups of one": {"rho": 0.5, "group": 1},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("head", ["energy", "direct"])
def test_matches_float64(backend: str, head: str, variant: str) -> None:
    check(Problem(head), backend, **VARIANTS[variant])


@pytest.mark.parametrize("variant", ["plain", "weights", "adam"])
def test_gamma_adds_the_hessian_vector_product(backend: str, variant: str) -> None:
    check(Problem(), backend, gamma=0.01, **VARIANTS[variant])


@pytest.mark.parametrize("head", ["energy", "direct"])
@pytest.mark.parametrize("variant", ["plain", "weights"])
def test_every_precision_matches_float64(precision: str, head: str, variant: str) -> None:
    check(Problem(head), "cpu", precision, **VARIANTS[variant])


@pytest.mark.parametrize("head", ["energy", "direct"])
def test_each_window_has_its_own_modulation(backend: str, head: str) -> None:
    check(Problem(head, modulations=5, gaussian=False), backend, rho=1.0)


def test_reference_measure_per_patch(backend: str) -> None:
    problem = Problem()
    log_ref = torch.randn(problem.patches)
    check(problem, backend, log_ref=log_ref)
    check(problem, backend, log_ref=log_ref, rho=0.5)


@pytest.mark.parametrize("stride", [1, 5, 12, 17])
@pytest.mark.parametrize("window", [1, 7, 12])
def test_windows_and_strides(backend: str, window: int, stride: int) -> None:
    check(Problem(length=53, window=window, stride=stride), backend, rho=1.0)


def test_repeated_starts_are_allowed(backend: str) -> None:
    problem = Problem()
    problem.starts = torch.tensor([0, 0, 5, 5, 40, 48])
    check(problem, backend)


def test_equals_its_parts() -> None:
    problem = Problem(length=20, window=5, stride=5)
    series, network = problem.series, to_dtype(problem.network, torch.float32)
    rows, columns = Patches(problem.starts, problem.columns, 5).cells(torch.arange(problem.patches))
    x, missing = series[rows, columns], problem.missing[rows, columns]
    log_w = torch.full((problem.patches,), -math.log(problem.patches))
    for _ in range(3):
        log_p, score = ops.energy_mlp(x, *network)
        log_w, mass = ops.spt_weights(
            log_w, log_p, score.square().sum(1), group=problem.patches, gamma=0.0, eta_w=0.08, tau=0.1, bound=8.0
        )
        x = ops.particle_step(x, score, mass, missing, eta=0.02)
    filled, weights = problem.run("auto", iterations=3, eta=0.02, rho=0.5, tau=0.1, bound=8.0, group=problem.patches)
    total, weight = torch.zeros(20, 4), torch.zeros(20, 4)
    total.index_put_((rows, columns), mass[:, None] * x, accumulate=True)
    weight.index_put_((rows, columns), mass[:, None].expand_as(x), accumulate=True)
    expected = torch.where(problem.missing & (weight > 0), total / weight, series)
    torch.testing.assert_close(filled, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights, log_w, rtol=1e-4, atol=1e-4)


# What never changes


@pytest.mark.parametrize("variant", VARIANTS)
def test_observed_and_uncovered_cells_keep_their_bits(backend: str, variant: str) -> None:
    problem = Problem(length=64, window=12, stride=20)
    filled, _ = problem.run(backend, **VARIANTS[variant])
    covered = torch.zeros(64, 4, dtype=torch.bool)
    covered[Patches(problem.starts, problem.columns, 12).cells(torch.arange(problem.patches))] = True
    fixed = ~problem.missing | ~covered
    assert same_bits(filled[fixed], problem.series[fixed])
    moved = filled[problem.missing & covered] != problem.series[problem.missing & covered]
    assert bool(moved.all()) or variant == "no steps"


@pytest.mark.parametrize("rho", [math.inf, 0.5])
def test_a_complete_series_comes_back_untouched(backend: str, rho: float) -> None:
    problem = Problem(share=0.0)
    filled, _ = problem.run(backend, rho=rho)
    assert same_bits(filled, problem.series)


def test_patches_without_gaps_do_not_disturb_the_others(isa: str) -> None:
    problem = Problem(length=200, window=10, stride=10)
    problem.missing[:150] = False
    filled, _ = problem.run("cpu")
    late = problem.starts >= 150
    problem.starts = problem.starts[late]
    alone, _ = problem.run("cpu")
    assert same_bits(alone, filled)


def test_no_patches_return_the_series(backend: str) -> None:
    problem = Problem()
    problem.starts = problem.starts[:0]
    filled, log_w = problem.run(backend)
    assert same_bits(filled, problem.series)
    assert log_w.shape == (0,)


def test_without_rho_weights_stay_at_the_reference(backend: str) -> None:
    problem = Problem()
    log_ref = torch.randn(problem.patches)
    _, log_w = problem.run(backend, log_ref=log_ref)
    expected = torch.cat([torch.log_softmax(part, 0) for part in log_ref.split(16)])
    torch.testing.assert_close(log_w, expected, rtol=1e-5, atol=1e-5)


def test_strided_series(isa: str) -> None:
    problem = Problem()
    expected, _ = problem.run("cpu")
    wide = torch.full((60, 9), float("nan"))
    wide[:, 2:6] = problem.series
    problem.series = wide[:, 2:6]
    problem.missing = problem.missing.T.contiguous().T
    strided, _ = problem.run("cpu")
    assert same_bits(strided, expected)


# Threads, batches, noise


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_threads_give_the_bits_of_one(precision: str, variant: str) -> None:
    problem = Problem(length=400)
    once = problem.run("cpu", precision=precision, threads=1, **VARIANTS[variant])
    twice = problem.run("cpu", precision=precision, threads=2, **VARIANTS[variant])
    assert all(same_bits(left, right) for left, right in zip(once, twice, strict=True))


@pytest.mark.parametrize("variant", ["plain", "adam", "dissipation"])
def test_windows_that_do_not_overlap_can_be_run_apart(precision: str, variant: str) -> None:
    problem = Problem(length=96, window=12, stride=12)
    options = {"precision": precision, **VARIANTS[variant]}
    whole, _ = problem.run("cpu", **options)
    parts, starts = problem.series.clone(), problem.starts
    for begin, end in ((0, 1), (1, 6), (6, 8)):
        problem.starts = starts[begin:end]
        part, _ = problem.run("cpu", **options)
        rows = slice(int(starts[begin]), int(starts[end - 1]) + 12)
        parts[rows] = part[rows]
    assert same_bits(parts, whole)


def test_dissipation_draws_by_the_seed(backend: str) -> None:
    problem = Problem()
    first, again, other = (problem.run(backend, dissipation=True, seed=seed)[0] for seed in (1, 1, 2))
    assert same_bits(first, again)
    assert not bool((first == other)[problem.missing & (first != problem.series)].any())


MEMORY_PROGRAM = """
import resource, sys
import torch
from fastimpute import ops

torch.set_num_threads(1)
stride, length, dim = int(sys.argv[1]), 120_000, 84
series, missing = torch.zeros(length, 7), torch.zeros(length, 7, dtype=torch.bool)
missing[:, ::6] = torch.rand(length, 2) < 0.02
starts = torch.arange(0, length - 12, stride)
weights = (torch.zeros(256, dim), torch.zeros(256), torch.zeros(256, 256), torch.zeros(256), torch.zeros(dim, 256))
arguments = (*weights, torch.zeros(dim), torch.zeros(1, 4, 256))
options = {"head": "direct", "sigma": 0.1, "iterations": 1, "eta": 0.01, "backend": "cpu"}
columns = torch.arange(7)[None]
ops.proximal_recursion(series[:600], missing[:600], starts[starts < 588], columns, 12, *arguments, **options)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ops.proximal_recursion(series, missing, starts, columns, 12, *arguments, **options)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_does_not_grow_with_the_number_of_windows() -> None:
    result = subprocess.run(
        [sys.executable, "-P", "-c", MEMORY_PROGRAM, "1"], capture_output=True, text=True, check=True
    )
    output = 120_000 * 7 * 4 + 120_000 * 4
    windows = 120_000 * 84 * 4
    grown = int(result.stdout)
    assert grown <= output + 64 * 2**20
    assert grown < windows


# Registration and errors


def arguments_of_the_op(problem: Problem) -> tuple[Any, ...]:
    network: Network = to_dtype(problem.network, torch.float32)
    tables = (problem.series, problem.missing, problem.starts, problem.columns, problem.window)
    settings = ("energy", 1.0, 2, 0.01, 0.0, 0.04, 0.1, 8.0, 16, False, False, False, 0)
    return (*tables, *network, *settings, None, "fp32", 1, "cpu")


def test_opcheck() -> None:
    torch.library.opcheck(op, arguments_of_the_op(Problem()))


def test_reference_and_public_function_agree_on_the_torch_backend() -> None:
    problem = Problem()
    filled, log_w = problem.run("torch", torch.float64)
    tables = (problem.series.double(), problem.missing, problem.starts, problem.columns, problem.window)
    again, log_w_again = reference(*tables, *problem.network, iterations=4, eta=0.02, group=16)
    assert same_bits(filled, again)
    assert same_bits(log_w, log_w_again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"eta": -0.1}, "eta must be at least 0, got -0.1"),
        ({"rho": 0.0}, "rho must be greater than 0, got 0.0"),
        ({"gamma": -1.0}, "gamma must be at least 0, got -1.0"),
        ({"group": 0}, "group must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"head": "both"}, r"head must be one of \('energy', 'direct'\), got 'both'"),
        ({"log_ref": torch.zeros(3)}, r"log_ref must have shape \(51,\), got \(3,\)"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"proximal_recursion: {message}"):
        Problem().run("auto", **change)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("starts", torch.tensor([3, 1]), "starts must be sorted ascending"),
        ("starts", torch.tensor([-1, 1]), "starts must be at least 0, got -1"),
        ("starts", torch.tensor([0, 49]), "starts must be at most 48, got 49"),
        ("columns", torch.tensor([[0, 4]]), "columns must be at most 3, got 4"),
        ("window", 11, r"w1 must have shape \('any', 22\)"),
        ("window", 61, "window must be at most 60, got 61"),
    ],
)
def test_bad_tables_name_the_argument(name: str, value: object, message: str) -> None:
    problem = Problem()
    setattr(problem, name, value)
    with pytest.raises(ValueError, match=f"proximal_recursion: {message}"):
        problem.run("auto")


def test_direct_head_needs_sigma_and_takes_no_gamma() -> None:
    with pytest.raises(ValueError, match="sigma must be given for the direct head"):
        Problem("direct").run("auto", sigma=None)
    with pytest.raises(ValueError, match="gamma must be 0 for the direct head"):
        Problem("direct").run("auto", gamma=0.1)

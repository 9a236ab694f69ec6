"""The Triton form of proximal_recursion: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from closeness import assert_close, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton_kernels.guarded import among_nan

from fastimpute.kernels import particle_loop, particle_step, proximal_recursion, score_mlp, spt_weights
from fastimpute.ops import particle_waves
from fastimpute.ops.particle_waves import ParticleWaves, start_weights
from fastimpute.ops.proximal_recursion import _triton, reference
from fastimpute.ops.recursion_arguments import Patches, Settings

CALM: dict[str, Any] = {"iterations": 2, "eta": 0.02, "group": 8}


class Problem:
    """A series of four sensors with gaps, overlapping patches of sensor pairs, and a network for them."""

    def __init__(
        self,
        head: str = "direct",
        length: int = 12,
        window: int = 3,
        stride: int = 2,
        *,
        share: float = 0.3,
        **kind: Any,
    ) -> None:
        self.series, self.missing = torch.randn(length, 4), torch.rand(length, 4) < share
        self.patches = Patches(
            torch.arange(0, length - window + 1, stride), torch.tensor([[0, 1], [1, 2], [3, 0]]), window
        )
        windows = len(self.patches.starts)
        self.network = rounded(random_network(head, 2 * window, 64, particles=windows, **kind))
        self.head, self.sigma = head, 0.2 if head == "direct" else None

    def run(self, **options: Any) -> tuple[Tensor, Tensor]:
        chosen = {**CALM, "gamma": 0.0, "rho": math.inf, "tau": 0.1, "bound": 8.0, "robust": False, "adam": False}
        chosen |= {"dissipation": False, "seed": 0, "log_ref": None, **options}
        chosen["eta_w"] = 2 * chosen["eta"] / chosen.pop("rho")
        log_ref = chosen.pop("log_ref")
        settings = Settings(head=self.head, sigma=self.sigma or 1.0, **chosen)
        network = to_dtype(self.network, torch.float32)
        return _triton(self.series, self.missing, *self.patches, *network, *settings, log_ref, "fp32", 1)

    def reference(self, dtype: torch.dtype, **options: Any) -> tuple[Tensor, Tensor]:
        if options.get("log_ref") is not None:
            options["log_ref"] = options["log_ref"].to(dtype)
        return reference(
            self.series.to(dtype), self.missing, *self.patches, *to_dtype(self.network, dtype),
            **{"head": self.head, "sigma": self.sigma, **CALM, **options},
        )  # fmt: skip


def check(problem: Problem, **options: Any) -> None:
    exact, plain = (problem.reference(dtype, **options) for dtype in (torch.float64, torch.float32))
    for name, value, right, rough in zip(("series", "log_w"), problem.run(**options), exact, plain, strict=True):
        assert_close(name, value, right, rough)


@pytest.fixture
def small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waves of eight patches, which is one group."""
    monkeypatch.setattr(ParticleWaves, "_capacity", lambda self, device: 8)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no steps": {"iterations": 0},
    "weights": {"rho": 0.5, "tau": 0.2, "bound": 4.0},
    "robust weights": {"rho": 0.05, "robust": True},
    "bounded weights": {"rho": 0.02, "bound": 0.5, "iterations": 1},
    "adam": {"adam": True},
    "dissipation": {"dissipation": True, "seed": 2**40 + 11},
    "all": {"rho": 0.5, "adam": True, "dissipation": True, "robust": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_matches_float64(variant: str) -> None:
    check(Problem(), **VARIANTS[variant])


@pytest.mark.parametrize("variant", ["plain", "all"])
def test_the_energy_head_matches_float64(variant: str) -> None:
    check(Problem("energy"), **VARIANTS[variant])


@pytest.mark.parametrize("variant", ["plain", "weights"])
def test_gamma_adds_the_hessian_vector_product(variant: str) -> None:
    check(Problem("energy"), gamma=0.01, **VARIANTS[variant])


@pytest.mark.parametrize("head", ["energy", "direct"])
def test_each_window_has_its_own_modulation_beside_a_gaussian_part(head: str) -> None:
    check(Problem(head, modulations=5, gaussian=True), rho=1.0)


@pytest.mark.parametrize("rho", [math.inf, 0.5])
def test_reference_measure_per_patch(rho: float) -> None:
    problem = Problem()
    check(problem, log_ref=torch.randn(problem.patches.total), rho=rho)


@pytest.mark.usefixtures("small_waves")
@pytest.mark.parametrize(("window", "stride", "rho"), [(1, 1, math.inf), (7, 1, 0.5), (3, 5, math.inf)])
def test_waves_that_share_windows_and_rows(window: int, stride: int, rho: float) -> None:
    check(Problem(window=window, stride=stride), rho=rho)


@pytest.mark.parametrize("variant", ["plain", "all"])
def test_the_waves_do_not_change_the_bits(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(modulations=5)
    whole = problem.run(**VARIANTS[variant])
    monkeypatch.setattr(ParticleWaves, "_capacity", lambda self, device: 8)
    assert all(same_bits(left, right) for left, right in zip(problem.run(**VARIANTS[variant]), whole, strict=True))


def test_repeated_starts_are_allowed() -> None:
    problem = Problem()
    problem.patches = problem.patches._replace(starts=torch.tensor([0, 0, 5, 5, 7, 9]))
    check(problem)


@pytest.mark.usefixtures("small_waves")
@pytest.mark.parametrize("rho", [math.inf, 0.5])
def test_observed_and_uncovered_cells_keep_their_bits(rho: float) -> None:
    problem = Problem(length=19, stride=5)
    filled, _ = problem.run(rho=rho)
    covered = torch.zeros(19, 4, dtype=torch.bool)
    covered[problem.patches.cells(torch.arange(problem.patches.total))] = True
    assert same_bits(filled[~problem.missing | ~covered], problem.series[~problem.missing | ~covered])
    moved = problem.missing & covered
    assert bool((filled[moved] != problem.series[moved]).all())


@pytest.mark.parametrize("rho", [math.inf, 0.5])
def test_a_complete_series_comes_back_untouched(rho: float) -> None:
    problem = Problem(share=0.0)
    assert same_bits(problem.run(rho=rho)[0], problem.series)


@pytest.mark.usefixtures("small_waves")
def test_patches_without_gaps_are_left_out_and_do_not_disturb_the_others() -> None:
    problem = Problem(length=24, window=4, stride=4)
    problem.missing[:13] = False
    check(problem)
    whole, _ = problem.run()
    problem.patches = problem.patches._replace(starts=problem.patches.starts[3:])
    assert same_bits(problem.run()[0], whole)


def test_no_patches_return_the_series() -> None:
    problem = Problem()
    problem.patches = problem.patches._replace(starts=torch.zeros(0, dtype=torch.int64))
    filled, log_w = problem.run(rho=0.5)
    assert same_bits(filled, problem.series)
    assert log_w.shape == (0,)


def test_a_series_with_gaps_between_rows_is_read_where_it_lies() -> None:
    problem = Problem()
    expected, _ = problem.run(rho=0.5)
    problem.series, problem.missing = among_nan(problem.series), among_nan(problem.missing)
    strided, _ = problem.run(rho=0.5)
    assert same_bits(strided, expected)


@pytest.mark.parametrize("count", [3, 8, 19])
def test_weights_start_at_the_reference_measure(count: int) -> None:
    log_ref = torch.randn(count)
    for reference_measure in (torch.zeros(count), log_ref):
        given = None if reference_measure is not log_ref else log_ref
        expected = torch.cat([torch.log_softmax(part, 0) for part in reference_measure.split(8)])
        torch.testing.assert_close(start_weights(count, 8, given, log_ref), expected)


def test_the_iterations_of_a_wave_are_launches_at_the_same_addresses_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a CUDA graph can hold them."""
    launched: list[tuple[int, ...]] = []

    def record(*tensors: Any, **numbers: Any) -> None:
        launched.append(tuple(tensor.data_ptr() for tensor in tensors if isinstance(tensor, Tensor)))

    for module in (score_mlp, spt_weights, particle_step):
        monkeypatch.setattr(module, "launch", record)
    monkeypatch.setattr(proximal_recursion, "direct", record)
    iterate = ParticleWaves._iterate

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func.is_view, f"{func} between the launches"
            return func(*args, **(kwargs or {}))

    def watched(self: ParticleWaves, part: Any) -> None:
        with Watch():
            iterate(self, part)

    monkeypatch.setattr(ParticleWaves, "_iterate", watched)
    Problem(length=5).run(iterations=6, rho=0.5, adam=True, dissipation=True)
    assert len(launched) == 6 * 4
    assert launched[: 4 * 4] == launched[4 * 2 :]  # log w goes to and fro between two places


@pytest.mark.parametrize("rho", [math.inf, 0.5])
def test_waves_are_smaller_where_memory_is_short(monkeypatch: pytest.MonkeyPatch, rho: float) -> None:
    problem, tried = Problem(), []
    expected = problem.run(rho=rho, group=2)
    of = particle_waves._Wave.of

    def limited(capacity: int, *rest: Any) -> Any:
        tried.append(capacity)
        if capacity > 8:
            raise torch.OutOfMemoryError
        return of(capacity, *rest)

    monkeypatch.setattr(particle_waves._Wave, "of", limited)
    found = problem.run(rho=rho, group=2)
    assert len(tried) > 1
    assert tried[-1] <= 8
    assert all(map(same_bits, found, expected))


@pytest.mark.usefixtures("small_waves")
def test_where_weights_are_at_rest_a_wave_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[int] = []
    monkeypatch.setattr(particle_loop, "launch", lambda x, *rest, **numbers: launched.append(len(x)))
    Problem(stride=3, share=1.0).run(iterations=6)
    assert launched == [8, 4]


def test_a_wave_holds_whole_groups_and_stays_in_the_cache() -> None:
    problem = Problem("direct", window=12, length=30)
    network = to_dtype(problem.network, torch.float32)
    for rho, group in ((math.inf, 7), (0.5, 7), (0.5, 10**6)):
        settings = Settings("direct", 0.2, 1, 0.01, 0.0, 0.02 / rho, 0.1, 8.0, group, False, True, False, 0)
        waves = ParticleWaves(problem.patches, network, settings, "fp32")
        capacity = waves._capacity(problem.series.device)
        assert capacity % group == 0 or rho == math.inf
        assert capacity == group or capacity * problem.patches.dim * 17 <= particle_waves.WAVE_BYTES

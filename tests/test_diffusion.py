"""diffusion: schedules, solvers and their closed-form inflation, exact denoiser, sampling, streamed regions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from closeness import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import gp, ops
from fastimpute.diffusion import (
    SOLVERS,
    GaussianDenoiser,
    Plan,
    RegionStream,
    log_sigma_grid,
    one_step_mean,
    plan,
    sample,
    sample_chunks,
)

every_solver = pytest.mark.parametrize("solver", SOLVERS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def window_keys(windows: int, sensors: int, length: int) -> Tensor:
    """Keys of windows one after another in time."""
    starts = length * torch.arange(windows)[:, None]
    return torch.cat([starts, torch.arange(sensors).expand(windows, sensors)], 1)


def damped(v: Tensor, sigma: float) -> Tensor:
    """The denoiser of N(0, 1) cells, elementwise, so the same for a row whatever is computed beside it."""
    return v / (1 + sigma**2)


# Schedules and solvers


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 60), st.floats(1e-3, 0.5), st.floats(1.0, 100.0))
def test_levels_fall_at_equal_ratios(levels: int, smallest: float, largest: float) -> None:
    sigmas = log_sigma_grid(levels, smallest, largest)
    assert len(sigmas) == levels
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(largest), pytest.approx(smallest))
    assert [low / high for high, low in pairwise(sigmas)] == pytest.approx(
        [(smallest / largest) ** (1 / (levels - 1))] * (levels - 1)
    )


@every_solver
@pytest.mark.parametrize("evaluations", [3, 9, 21])
def test_a_plan_evaluates_as_often_as_it_says(solver: str, evaluations: int) -> None:
    assert len(plan(evaluations, solver).steps) == evaluations


@pytest.mark.parametrize(("evaluations", "factor"), [(8, 1.034), (12, 1.021), (20, 1.008)])
def test_inflation_of_the_multistep_solver(evaluations: int, factor: float) -> None:
    assert plan(evaluations, smallest=0.01, largest=20.0).inflation == pytest.approx(factor, abs=0.0015)


@every_solver
def test_inflation_vanishes_with_the_steps(solver: str) -> None:
    factors = [abs(plan(evaluations, solver).inflation - 1) for evaluations in (11, 41, 161, 1281)]
    assert factors[0] > 4 * factors[1] > 4 * factors[-1]
    assert factors[-1] < 0.001  # what the bounds of the grid leave


@every_solver
def test_inflation_is_the_deviation_that_samples_get(solver: str) -> None:
    chosen = plan(9, solver)
    missing = torch.ones(40, 500, dtype=torch.bool)
    drawn = sample(damped, torch.zeros(40, 500), missing, window_keys(40, 1, 500), samples=8, steps=chosen)
    # sample() has divided by the inflation.
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    assert abs(chosen.inflation - 1) > 0.02


@every_solver
def test_solvers_are_exact_for_a_known_target(solver: str) -> None:
    """Where E[y | v] is constant, y is that constant, and every solver ends there up to its last noise."""
    chosen, missing = plan(15, solver), torch.ones(1, 50, dtype=torch.bool)
    drawn = sample(
        lambda v, sigma: torch.full_like(v, 3.0), torch.zeros(1, 50), missing, window_keys(1, 1, 50), samples=4,
        steps=chosen,
    )  # fmt: skip
    last = chosen.steps[-1].coefficients.spread
    assert float((drawn - 3).abs().max()) <= 5 * last + 1e-5


def test_euler_maruyama_is_the_reverse_process_of_the_paper() -> None:
    """One step in x = alpha v, as printed: x + h (x / 2 + score) + sqrt(h) z."""
    chosen = plan(30, "euler-maruyama")
    for now, then in pairwise(chosen.steps):
        t, t_next = (math.log1p(step.sigma**2) for step in (now, then))
        alpha, alpha_next, h = math.exp(-t / 2), math.exp(-t_next / 2), t - t_next
        v, denoised, z = 1.7, -0.4, 0.9
        x = alpha * v
        score = -(x - alpha * denoised) / (1 - alpha**2)
        x_next = x + h * (x / 2 + score) + math.sqrt(h) * z
        state, clean, _, spread = now.coefficients
        assert state * v + clean * denoised + spread * z == pytest.approx(x_next / alpha_next)


def test_heun_is_the_mean_of_two_slopes() -> None:
    chosen = plan(5, "heun").steps
    first, second = chosen[0], chosen[1]
    v, d1, d2 = 1.7, -0.4, 0.3
    h = second.sigma - first.sigma
    euler = v + h * (v - d1) / first.sigma
    expected = v + h / 2 * ((v - d1) / first.sigma + (euler - d2) / second.sigma)
    assert first.coefficients.state * v + first.coefficients.clean * d1 == pytest.approx(euler)
    state, clean, earlier, _ = second.coefficients
    assert state * euler + clean * d2 + earlier * d1 == pytest.approx(expected)


# The exact denoiser


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(gp.PATTERNS)), st.floats(0.01, 40.0), st.integers(0, 2**31))
def test_the_exact_denoiser_gives_the_exact_score(name: str, sigma: float, seed: int) -> None:
    """score(x_t) = -(x_t - alpha D(x_t / alpha, sigma_t / alpha)) / sigma_t^2."""
    law = gp.Conditional(gp.kernel(), gp.pattern(name))
    x = gp.simulate(2, 3, generator=generator(seed))
    filled = law.filled(x).flatten(1)
    denoise = GaussianDenoiser(filled, law.covariance, law.missing, channels=3)
    v = torch.randn(4, 2, 96 * 3, generator=generator(seed), dtype=torch.float64)
    denoised = denoise(v, sigma).view(4, 2, 96, 3)[:, :, law.missing]
    noised = v.view(4, 2, 96, 3)[:, :, law.missing]
    t = math.log1p(sigma**2)
    alpha, sigma_sq = math.exp(-t / 2), -math.expm1(-t)
    expected = law.score(alpha * noised, law.mean(x), t)
    torch.testing.assert_close(-(alpha * noised - alpha * denoised) / sigma_sq, expected, rtol=1e-7, atol=1e-7)


def test_the_exact_denoiser_keeps_what_is_known() -> None:
    mean = torch.randn(2, 6)
    denoise = GaussianDenoiser(mean, torch.eye(2), torch.tensor([True, False, True]), channels=2)
    assert torch.equal(denoise(torch.randn(5, 2, 6), 1.0)[:, :, 2:4], mean[:, 2:4].expand(5, 2, 2))


def test_one_call_at_the_largest_level_gives_the_mean() -> None:
    law = gp.Conditional(gp.kernel(), gp.pattern("P3"))
    x = gp.simulate(3, 2, generator=generator())
    filled, missing = law.filled(x).flatten(1), law.missing.repeat_interleave(2).expand(3, -1)
    denoise = GaussianDenoiser(filled, law.covariance, law.missing, channels=2)
    torch.testing.assert_close(one_step_mean(denoise, x.flatten(1), missing, 40.0), filled, rtol=0, atol=1e-3)


# Sampling


def test_samples_do_not_depend_on_how_they_are_cut() -> None:
    known, keys = torch.randn(6, 35), window_keys(6, 7, 5)
    missing = torch.rand(6, 35) < 0.5
    chosen = plan(6, "euler-maruyama")
    whole = sample(damped, known, missing, keys, samples=7, seed=3, steps=chosen, chunk=7)
    for rows in (slice(0, 2), slice(2, 6)):
        part = sample(damped, known[rows], missing[rows], keys[rows], samples=7, seed=3, steps=chosen, chunk=2)
        assert same_bits(part, whole[:, rows])


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_samples_of_one() -> None:
    known, keys = torch.randn(300, 35), window_keys(300, 7, 5)
    missing = torch.rand(300, 35) < 0.5
    twice = sample(damped, known, missing, keys, samples=20, steps=plan(4))
    torch.set_num_threads(1)
    assert same_bits(sample(damped, known, missing, keys, samples=20, steps=plan(4)), twice)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from(SOLVERS))
def test_what_is_known_stays_bit_for_bit(windows: int, dim: int, seed: int, solver: str) -> None:
    torch.manual_seed(seed)
    known, missing = torch.randn(windows, dim), torch.rand(windows, dim) < 0.5
    known[missing] = math.nan
    known[~missing & (torch.rand(windows, dim) < 0.2)] = -0.0
    drawn = sample(damped, known, missing, window_keys(windows, 1, dim), samples=3, steps=plan(5, solver))
    assert all(same_bits(part[~missing], known[~missing]) for part in drawn)
    assert bool(drawn.isfinite().all())


def test_seeds_and_samples_differ() -> None:
    known, missing, keys = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool), window_keys(1, 1, 4)
    first, second = sample(damped, known, missing, keys, samples=2, steps=plan(3))
    other = sample(damped, known, missing, keys, samples=1, seed=1, steps=plan(3))[0]
    assert not bool((first == second).any() | (first == other).any())


def test_chunks_hold_no_more_samples_than_asked() -> None:
    known, missing = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
    chunks = sample_chunks(damped, known, missing, window_keys(1, 1, 4), samples=7, steps=plan(3), chunk=3)
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]


def coverage(name: str, chosen: Plan, samples: int, regions: int = 150, draws: int = 150) -> float:
    """Share of draws from the true conditional inside the balls of samples by the exact score, in %."""
    law, channels = gp.Conditional(gp.kernel(), gp.pattern(name)), 8
    cells = 16 * channels
    everything = torch.ones(16, dtype=torch.bool)
    denoise = GaussianDenoiser(torch.zeros(regions, cells), law.correlation, everything, channels)
    missing = torch.ones(regions, cells, dtype=torch.bool)
    keys = window_keys(regions, channels, 16)
    drawn = sample(denoise, torch.zeros(regions, cells), missing, keys, samples=samples, steps=chosen)
    scale = law.deviation.repeat_interleave(channels).float()
    centre, radius = ops.ball_quantile(drawn * scale, missing, 0.95)
    truth = law.draw(torch.zeros(draws, regions, 16, channels, dtype=torch.float64), generator=generator())
    return 100 * float(((truth.flatten(2) - centre).norm(dim=2) <= radius).double().mean())


@pytest.mark.parametrize("name", gp.PATTERNS)
@pytest.mark.parametrize(("solver", "evaluations"), [("dpm-solver++", 12), ("heun", 19)])
def test_exact_scores_cover_95_percent(name: str, solver: str, evaluations: int) -> None:
    # Standard error .25: radii of 150 regions (.18), 150 draws in each (.15).
    assert coverage(name, plan(evaluations, solver), samples=100) == pytest.approx(95, abs=1)


@pytest.mark.parametrize("samples", [20, 40])
def test_few_samples_cover_as_well(samples: int) -> None:
    assert coverage("P4", plan(12), samples, regions=600) == pytest.approx(95.2, abs=1)


def test_few_steps_of_euler_maruyama_do_not() -> None:
    assert coverage("P1", plan(20, "euler-maruyama"), samples=50, regions=60) < 88


# Streamed regions


def streamed(drawn: Tensor, missing: Tensor, level: float, chunk: int) -> RegionStream:
    stream = RegionStream(missing, len(drawn), level)
    for part in torch.split(drawn, chunk):
        stream.add(part)
    for part in torch.split(drawn, chunk + 1):
        stream.add_distances(part)
    return stream


@settings(deadline=None, max_examples=25)
@given(st.integers(39, 90), st.integers(0, 4), st.integers(1, 20), st.integers(1, 50), st.integers(0, 2**31))
def test_streamed_regions_equal_those_of_all_samples(
    samples: int, windows: int, dim: int, chunk: int, seed: int
) -> None:
    torch.manual_seed(seed)
    missing = torch.rand(windows, dim) < 0.6
    drawn = torch.where(missing, torch.randn(samples, windows, dim), 2.0)
    region = streamed(drawn, missing, 0.95, chunk).region()
    centre, radius = ops.ball_quantile(drawn, missing, 0.95)
    torch.testing.assert_close(region.centre, centre, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(region.radius, radius, rtol=1e-5, atol=1e-6)
    tail = math.floor((samples + 1) * 0.025 + 1e-9)
    ordered = drawn.sort(0).values
    assert torch.equal(region.lower, torch.where(missing, ordered[tail - 1], region.centre))
    assert torch.equal(region.upper, torch.where(missing, ordered[samples - tail], region.centre))


def test_intervals_hold_a_new_draw_as_often_as_promised() -> None:
    drawn = torch.randn(40, 1, 40_000, generator=generator())
    region = streamed(drawn[1:], torch.ones(1, 40_000, dtype=torch.bool), 0.95, 13).region()
    inside = (region.lower <= drawn[0]) & (drawn[0] <= region.upper)
    assert float(inside.double().mean()) == pytest.approx(0.95, abs=0.004)


def test_a_stream_keeps_a_twentieth_of_the_samples() -> None:
    stream = RegionStream(torch.ones(2, 3, dtype=torch.bool), 1000, 0.95)
    for _ in range(10):
        stream.add(torch.randn(100, 2, 3))
    kept = sum(part.numel() for part in vars(stream).values() if isinstance(part, Tensor) and part.dim() == 3)
    assert kept == 2 * 25 * 6


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_sigma_grid(1), "levels must be at least 2, got 1"),
        (lambda: log_sigma_grid(5, 2.0, 1.0), "0 < smallest < largest, got 2.0 and 1.0"),
        (lambda: plan(20, "ddim"), "solver must be one of .*, got 'ddim'"),
        (lambda: plan(2, "heun"), "evaluations must be at least 3 for heun, got 2"),
        (
            lambda: GaussianDenoiser(torch.zeros(1, 3), torch.eye(1), torch.ones(2) == 1),
            r"mean must have shape \(n, 2\)",
        ),
        (
            lambda: GaussianDenoiser(torch.zeros(1, 2), torch.eye(1), torch.ones(2) == 1),
            r"covariance must have shape \(2, 2\), got \(1, 1\)",
        ),
        (
            lambda: GaussianDenoiser(torch.zeros(1, 2), -torch.eye(2), torch.ones(2) == 1),
            "covariance must have no negative eigenvalue, got -1.0",
        ),
        (
            lambda: sample(damped, torch.zeros(1, 2), torch.ones(1, 2) == 1, window_keys(1, 1, 2), samples=4097),
            "samples must be between 1 and 4096, got 4097",
        ),
        (
            lambda: sample(damped, torch.zeros(1, 3), torch.ones(1, 2) == 1, window_keys(1, 1, 2), samples=2),
            r"known must have shape \(1, 2\), got \(1, 3\)",
        ),
        (
            lambda: sample(damped, torch.zeros(1, 2), torch.ones(1, 2) == 1, window_keys(1, 1, 2), samples=2, chunk=0),
            "chunk must be at least 1, got 0",
        ),
        (lambda: RegionStream(torch.ones(1, 1) == 1, 38, 0.95), "samples must be at least 39 for intervals"),
        (lambda: RegionStream(torch.ones(1, 1) == 1, 39, 0.95).region(), "samples must all have been added, 39"),
        (
            lambda: RegionStream(torch.ones(1, 1) == 1, 39, 0.95).add(torch.zeros(40, 1, 1)),
            "chunk must complete 39 samples, got 40",
        ),
        (
            lambda: RegionStream(torch.ones(1, 1) == 1, 39, 0.95).add(torch.zeros(9, 1, 2)),
            r"chunk must have shape \(s, 1, 1\), got \(9, 1, 2\)",
        ),
    ],
)
def test_bad_values_name_the_argument(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_a_region_needs_both_passes() -> None:
    stream = RegionStream(torch.ones(1, 1, dtype=torch.bool), 39, 0.95)
    stream.add(torch.randn(39, 1, 1))
    with pytest.raises(ValueError, match="distances must all have been added, 39 of them, got 0"):
        stream.region()

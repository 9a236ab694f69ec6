"""ball_quantile: mean of samples, leave-one-out distances and their finite-sample quantile."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops.ball_quantile import order_statistic, reference

WINDOWS = (0, 1, 2, 3, 7, 31, 33, 127, 129)
DIMS = (1, 7, 24, 84, 144, 168, 480, 2048)
op = torch.ops.fastimpute.ball_quantile.default


def inputs(samples: int, windows: int, dim: int) -> tuple[Tensor, Tensor]:
    """Samples that agree where nothing is missing, as those of an imputer do."""
    missing = torch.rand(windows, dim) < 0.4
    return torch.randn(windows, dim) + torch.randn(samples, windows, dim) * missing, missing


@pytest.mark.parametrize("dim", DIMS)
def test_matches_float64_at_every_size(isa: str, dim: int) -> None:
    for windows in WINDOWS:
        samples, missing = inputs(21, windows, dim)
        centre, radius = ops.ball_quantile(samples, missing, 0.9, backend="cpu")
        exact = reference(samples.double(), missing, 0.9)
        plain = reference(samples, missing, 0.9)
        assert_close("centre", centre, exact[0], plain[0])
        assert_close("radius", radius, exact[1], plain[1])


@pytest.mark.parametrize("count", [2, 3, 7, 8, 9, 31, 64, 100, 1001])
def test_matches_float64_for_any_number_of_samples(isa: str, count: int) -> None:
    samples, missing = inputs(count, 3, 45)
    centre, radius = ops.ball_quantile(samples, missing, 0.5, backend="cpu")
    exact, plain = reference(samples.double(), missing, 0.5), reference(samples, missing, 0.5)
    assert_close("centre", centre, exact[0], plain[0])
    assert_close("radius", radius, exact[1], plain[1])


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    samples, missing = inputs(25, 9, 14)
    centre, radius = op(samples.double(), missing, order_statistic(25, 0.9), "cpu")
    exact = reference(samples.double(), missing, 0.9)
    torch.testing.assert_close(centre, exact[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(radius, exact[1], rtol=1e-12, atol=1e-12)


def test_a_distance_is_the_one_from_the_mean_of_the_other_samples(backend: str) -> None:
    samples, missing = inputs(6, 4, 5)
    apart = torch.stack([samples[z] - samples[torch.arange(6) != z].mean(0) for z in range(6)])
    distances = torch.where(missing, apart, 0).norm(dim=2).sort(0).values
    for rank in range(1, 7):
        _, radius = ops.ball_quantile(samples, missing, rank / 7, backend=backend)
        torch.testing.assert_close(radius, distances[rank - 1])


def test_balls_hold_a_new_draw_as_often_as_promised() -> None:
    """Small Z included, where distances from a mean that contains the sample would cover too little."""
    for count in (19, 39):
        samples = torch.randn(count + 1, 20_000, 6)
        everything = torch.ones(20_000, 6, dtype=torch.bool)
        centre, radius = ops.ball_quantile(samples[1:], everything, 0.95)
        inside = float(((samples[0] - centre).norm(dim=1) <= radius).double().mean())
        # The ball is around the mean of all Z, a new draw a little closer to it than a sample to that of the others.
        assert 0.945 < inside < 0.962


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_radii_grow_with_the_level(count: int, windows: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    samples, missing = inputs(count, windows, dim)
    radii = [ops.ball_quantile(samples, missing, rank / (count + 1))[1] for rank in range(1, count + 1)]
    assert all(bool((low <= high).all()) for low, high in pairwise(radii))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(0, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_observed_cells_are_those_of_the_first_sample(count: int, windows: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    samples, missing = inputs(count, windows, dim)
    samples[:, torch.rand(windows, dim) < 0.1] = -0.0
    samples[:, ~missing & (torch.rand(windows, dim) < 0.5)] = float("nan")
    centre, radius = ops.ball_quantile(samples, missing, 0.5)
    assert same_bits(centre[~missing], samples[0][~missing])
    assert bool(radius.isfinite().all())


def test_nothing_missing_has_no_radius(backend: str) -> None:
    samples, missing = inputs(20, 3, 18)
    _, radius = ops.ball_quantile(samples, torch.zeros_like(missing), 0.9, backend=backend)
    assert torch.equal(radius, torch.zeros(3))


def test_a_nan_spoils_its_window_alone(backend: str) -> None:
    samples, missing = inputs(20, 3, 18)
    missing[1, 4] = True
    samples[7, 1, 4] = math.nan
    _, radius = ops.ball_quantile(samples, missing, 0.5, backend=backend)
    assert radius.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(("count", "level", "rank"), [(19, 0.95, 19), (99, 0.95, 95), (100, 0.95, 96), (9, 0.1, 1)])
def test_order_statistics(count: int, level: float, rank: int) -> None:
    assert order_statistic(count, level) == rank


# Memory and threads


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    samples, missing = inputs(40, 300, 84)
    twice = ops.ball_quantile(samples, missing, 0.9, backend="cpu")
    torch.set_num_threads(1)
    once = ops.ball_quantile(samples, missing, 0.9, backend="cpu")
    assert same_bits(once[0], twice[0])
    assert same_bits(once[1], twice[1])


def test_bits_do_not_depend_on_how_windows_are_cut(isa: str) -> None:
    samples, missing = inputs(20, 9, 37)
    whole = ops.ball_quantile(samples, missing, 0.9, backend="cpu")
    for rows in (slice(0, 1), slice(1, 9)):
        part = ops.ball_quantile(samples[:, rows], missing[rows], 0.9, backend="cpu")
        assert same_bits(part[0], whole[0][rows])
        assert same_bits(part[1], whole[1][rows])


def test_strided_inputs(isa: str) -> None:
    samples, missing = inputs(20, 9, 13)
    expected = ops.ball_quantile(samples, missing, 0.9, backend="cpu")
    wide = torch.full((9, 20, 17), math.nan)
    wide[..., 3:16] = samples.transpose(0, 1)
    backwards = samples.flip(2).contiguous().flip(2).mT.contiguous().mT
    for given_samples in (wide[..., 3:16].transpose(0, 1), backwards):
        found = ops.ball_quantile(given_samples, missing.T.contiguous().T, 0.9, backend="cpu")
        assert same_bits(found[0], expected[0])
        assert same_bits(found[1], expected[1])


def test_writes_nothing_beyond_its_output(isa: str) -> None:
    samples, missing = inputs(20, 9, 13)
    centre, radius = torch.full((11, 19), 7.0), torch.full((11,), 7.0)
    _native.core().ball_quantile(
        isa, 1, (20, 9, 13), (samples.data_ptr(), 9 * 13, 13), (missing.data_ptr(), 13), 19, (centre.data_ptr(), 19),
        radius.data_ptr(),
    )  # fmt: skip
    assert bool((centre[9:] == 7).all())
    assert bool((centre[:, 13:] == 7).all())
    assert bool((radius[9:] == 7).all())


# Registration and errors


def test_gradients_take_the_torch_backend() -> None:
    samples, missing = inputs(4, 3, 5)
    samples.requires_grad_()
    ops.ball_quantile(samples, missing, 0.5)[0].sum().backward()
    assert samples.grad is not None
    with pytest.raises(ValueError, match="gradients are required"):
        ops.ball_quantile(samples, missing, 0.5, backend="cpu")


def test_opcheck() -> None:
    samples, missing = inputs(20, 4, 6)
    torch.library.opcheck(op, (samples, missing, 19, "cpu"))


def test_compiles_without_graph_breaks() -> None:
    samples, missing = inputs(20, 4, 6)
    region = torch.compile(
        lambda samples: ops.ball_quantile(samples, missing, 0.9)[1] + 1, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(region(samples), ops.ball_quantile(samples, missing, 0.9)[1] + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": torch.zeros(18, 4, 6)}, "samples must be at least 19 for level 0.95, got 18"),
        ({"samples": torch.zeros(1, 4, 6), "level": 0.1}, "samples must be at least 2 for level 0.1, got 1"),
        ({"samples": torch.zeros(4, 6)}, r"samples must have shape \('any', 'any', 'any'\), got \(4, 6\)"),
        ({"missing": torch.ones(4, 5, dtype=torch.bool)}, r"missing must have shape \(4, 6\), got \(4, 5\)"),
        ({"level": 0.0}, "level must be greater than 0, got 0.0"),
        ({"level": 1.0}, "level must be less than 1, got 1.0"),
        ({"level": math.nan}, "level must be greater than 0, got nan"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    samples, missing = inputs(19, 4, 6)
    arguments = {"samples": samples, "missing": missing, "level": 0.95, **change}
    with pytest.raises(ValueError, match=f"ball_quantile: .*{message}"):
        ops.ball_quantile(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (1, 4, 6)}, "samples must be at least 2, got 1"),
        ({"rank": 21}, "rank must be between 1 and the number of samples, got 21"),
        ({"radius": 0}, "radius must be non-null, got null"),
        ({"x": (8, 24, 5)}, "window_stride must be at least the row length, got 5"),
    ],
)
def test_the_kernel_checks_again(change: dict[str, object], message: str) -> None:
    arguments = {
        "sizes": (20, 4, 6), "x": (8, 24, 6), "missing": (8, 6), "rank": 19, "centre": (8, 6), "radius": 8, **change
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"ball_quantile: .*{message}"):
        _native.core().ball_quantile("ref", 1, **arguments)

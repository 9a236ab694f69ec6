"""The Triton kernel of particle_step: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels.particle_step import launch
from fastimpute.ops.particle_step import AdamState, Noise, _triton, reference

SIZES = [(0, 5), (1, 1), (3, 7), (31, 24), (33, 33), (5, 0)]


def inputs(rows: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, direction, mass, missing."""
    x, direction, mass = torch.randn(rows, dim), 5 * torch.randn(rows, dim), 2 * torch.rand(rows)
    return x.to(dtype), direction.to(dtype), mass.to(dtype), torch.rand(rows, dim) < 0.4


def noise_keys(rows: int, sensors: int) -> Tensor:
    return torch.cat([torch.randint(0, 2**40, (rows, 1)), torch.randint(0, 1000, (rows, sensors))], 1)


def double(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


@pytest.mark.parametrize(("rows", "dim"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_plain_step_matches_float64(rows: int, dim: int, dtype: torch.dtype) -> None:
    x, direction, mass, missing = inputs(rows, dim, dtype)
    out = Guarded(rows, dim, dtype=dtype)
    launch(x, direction, mass, missing, out.inside, eta=0.05, drift=0.3)
    exact = reference(*double(x, direction, mass), missing, eta=0.05, drift=0.3)
    plain = reference(x, direction, mass, missing, eta=0.05, drift=0.3)
    assert_close("x", out.inside, exact, plain, "fp32" if dtype == torch.float32 else "bf16")
    assert same_bits(out.inside[~missing], x[~missing])
    assert out.guards_untouched()


@pytest.mark.parametrize(("rows", "dim"), [(3, 7), (33, 24)])
def test_adam_matches_float64_and_leaves_observed_cells_alone(rows: int, dim: int) -> None:
    x, direction, mass, missing = inputs(rows, dim)
    state = AdamState(torch.randn(rows, dim), torch.rand(rows, dim), 3)
    exact_state = AdamState(*double(state.m, state.v), 3)
    plain_state = AdamState(state.m.clone(), state.v.clone(), 3)
    before = state.m.clone(), state.v.clone()
    exact = reference(*double(x, direction, mass), missing, eta=0.05, adam=exact_state)
    plain = reference(x, direction, mass, missing, eta=0.05, adam=plain_state)
    state.step += 1
    moments = (state.m, state.v, state.beta1, state.beta2, state.eps, *state.corrections())
    out = Guarded(rows, dim)
    launch(x, direction, mass, missing, out.inside, eta=0.05, drift=0.0, moments=moments)
    assert_close("x", out.inside, exact, plain)
    assert_close("m", state.m, exact_state.m, plain_state.m)
    assert_close("v", state.v, exact_state.v, plain_state.v)
    assert same_bits(state.m[~missing], before[0][~missing])
    assert same_bits(state.v[~missing], before[1][~missing])


@pytest.mark.parametrize("sensors", [1, 7])
def test_noise_matches_float64(sensors: int) -> None:
    x, direction, mass, missing = inputs(9, 14)
    drawn = Noise(2**62 + 123456789, noise_keys(9, sensors), sample=4095, step=2**32 - 1)
    out = Guarded(9, 14)
    launch(
        x, direction, mass, missing, out.inside, eta=0.05, drift=1.0,
        noise=(drawn.keys, drawn.seed, drawn.sample, drawn.step),
    )  # fmt: skip
    exact = reference(*double(x, direction, mass), missing, eta=0.05, drift=1.0, noise=drawn)
    assert_close("x", out.inside, exact, reference(x, direction, mass, missing, eta=0.05, drift=1.0, noise=drawn))


def test_noise_of_small_keys() -> None:
    x, _, mass, missing = inputs(4, 6)
    keys = torch.zeros(4, 2, dtype=torch.int64)
    out = Guarded(4, 6)
    launch(x, x, mass, missing, out.inside, eta=0.5, drift=0.0, noise=(keys, 0, 0, 1))
    drawn = Noise(0, keys, 0, 1)
    exact = reference(*double(x, x, mass), missing, eta=0.5, noise=drawn)
    assert_close("x", out.inside, exact, reference(x, x, mass, missing, eta=0.5, noise=drawn))


def test_observed_cells_keep_nan_and_signs_of_zero() -> None:
    x, direction, mass, missing = inputs(9, 12)
    x[torch.rand(9, 12) < 0.3] = math.nan
    x[torch.rand(9, 12) < 0.3] = -0.0
    out = Guarded(9, 12)
    launch(x, direction, mass, missing, out.inside, eta=0.1, drift=0.5)
    assert same_bits(out.inside[~missing], x[~missing])


def test_rows_with_gaps_are_read_where_they_lie() -> None:
    x, direction, mass, missing = inputs(9, 12)
    packed, apart = Guarded(9, 12), Guarded(9, 12)
    launch(x, direction, mass, missing, packed.inside, eta=0.1, drift=0.5)
    parts = (among_nan(x), among_nan(direction), mass, among_nan(missing))
    launch(*parts, apart.inside, eta=0.1, drift=0.5)
    assert same_bits(apart.inside, packed.inside)


def test_the_op_hands_strided_tensors_over() -> None:
    x, direction, mass, missing = inputs(9, 12)
    expected = Guarded(9, 12)
    launch(x, direction, mass, missing, expected.inside, eta=0.1, drift=0.5)
    transposed = direction.T.contiguous().T
    moved = _triton(among_nan(x), transposed, mass, missing, 0.1, 0.5, None, 0, 0, 0)
    assert same_bits(moved, expected.inside)

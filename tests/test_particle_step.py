"""particle_step: masked, weighted steps, Adam, and noise that depends on nothing but its keys."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops import AdamState, Noise
from fastimpute.ops.particle_step import reference
from fastimpute.ops.philox import philox4x32, standard_normal

SIZES = (0, 1, 2, 3, 7, 31, 33, 127, 129, 1023)
DIMS = (1, 7, 24, 84, 144, 168, 480, 2048)
op = torch.ops.fastimpute.particle_step.default


def inputs(rows: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, direction, mass, missing."""
    return torch.randn(rows, dim), 5 * torch.randn(rows, dim), 2 * torch.rand(rows), torch.rand(rows, dim) < 0.4


def noise_keys(rows: int, sensors: int) -> Tensor:
    starts = torch.randint(0, 2**40, (rows, 1))
    return torch.cat([starts, torch.stack([torch.randperm(1000)[:sensors] for _ in range(rows)])], 1)


def adam_state(x: Tensor, step: int = 3) -> AdamState:
    return AdamState(torch.randn_like(x), torch.rand_like(x), step)


def to_double(state: AdamState) -> AdamState:
    return AdamState(state.m.double(), state.v.double(), state.step)


@pytest.mark.parametrize("dim", DIMS)
def test_matches_float64_at_every_size(isa: str, dim: int) -> None:
    for rows in SIZES:
        x, direction, mass, missing = inputs(rows, dim)
        value = ops.particle_step(x, direction, mass, missing, eta=0.05, drift=0.3, backend="cpu")
        exact = reference(x.double(), direction.double(), mass.double(), missing, eta=0.05, drift=0.3)
        assert_close("x", value, exact, reference(x, direction, mass, missing, eta=0.05, drift=0.3))


@pytest.mark.parametrize("dim", [1, 7, 24, 168])
def test_adam_matches_float64(isa: str, dim: int) -> None:
    x, direction, mass, missing = inputs(37, dim)
    state = adam_state(x)
    exact_state, plain_state = to_double(state), AdamState(state.m.clone(), state.v.clone(), state.step)
    exact = reference(x.double(), direction.double(), mass.double(), missing, eta=0.05, adam=exact_state)
    plain = reference(x, direction, mass, missing, eta=0.05, adam=plain_state)
    value = ops.particle_step(x, direction, mass, missing, eta=0.05, adam=state, backend="cpu")
    assert_close("x", value, exact, plain)
    assert_close("m", state.m, exact_state.m, plain_state.m)
    assert_close("v", state.v, exact_state.v, plain_state.v)
    assert state.step == exact_state.step == 4


@pytest.mark.parametrize(("dim", "sensors"), [(1, 1), (7, 7), (24, 2), (168, 7), (480, 20)])
def test_noise_matches_float64(isa: str, dim: int, sensors: int) -> None:
    x, direction, mass, missing = inputs(37, dim)
    noise = Noise(123456789012345, noise_keys(37, sensors), sample=2, step=17)
    arguments = {"eta": 0.05, "noise": noise, "drift": 1.0}
    value = ops.particle_step(x, direction, mass, missing, backend="cpu", **arguments)
    exact = reference(x.double(), direction.double(), mass.double(), missing, **arguments)
    assert_close("x", value, exact, reference(x, direction, mass, missing, **arguments))


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    x, direction, mass, _ = (part.double() for part in inputs(9, 14))
    missing = torch.rand(9, 14) < 0.4
    keys = noise_keys(9, 7)
    value = op(x, direction, mass, missing, 0.05, 0.3, keys, 7, 1, 2, "cpu")
    exact = reference(x, direction, mass, missing, eta=0.05, drift=0.3, noise=Noise(7, keys, 1, 2))
    torch.testing.assert_close(value, exact, rtol=1e-12, atol=1e-12)


def test_adam_follows_torch_optim(backend: str) -> None:
    target = torch.randn(5, 8)
    x, state = torch.zeros(5, 8), AdamState.zeros_like(target)
    parameter = torch.zeros(5, 8, requires_grad=True)
    optimiser = torch.optim.Adam([parameter], lr=0.1)
    everything = torch.ones(5, 8, dtype=torch.bool)
    for _ in range(10):
        x = ops.particle_step(x, target - x, torch.ones(5), everything, eta=0.1, adam=state, backend=backend)
        parameter.grad = parameter.detach() - target
        optimiser.step()
    torch.testing.assert_close(x, parameter.detach(), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 40), st.integers(1, 70), st.integers(0, 2**31), st.booleans(), st.booleans())
def test_observed_cells_keep_their_bits(rows: int, dim: int, seed: int, adam: bool, noise: bool) -> None:
    torch.manual_seed(seed)
    x, direction, mass, missing = inputs(rows, dim)
    x[torch.rand(rows, dim) < 0.2] = float("nan")
    x[torch.rand(rows, dim) < 0.2] = -0.0
    state = adam_state(x) if adam else None
    drawn = Noise(3, noise_keys(rows, 1)) if noise and rows else None
    moved = ops.particle_step(x, direction, mass, missing, eta=0.1, adam=state, noise=drawn)
    assert same_bits(moved[~missing], x[~missing])


def test_adam_leaves_moments_of_observed_cells_alone(backend: str) -> None:
    x, direction, mass, missing = inputs(9, 13)
    state = adam_state(x)
    before = state.m.clone(), state.v.clone()
    ops.particle_step(x, direction, mass, missing, eta=0.1, adam=state, backend=backend)
    assert same_bits(state.m[~missing], before[0][~missing])
    assert same_bits(state.v[~missing], before[1][~missing])


def test_a_massless_particle_stays(backend: str) -> None:
    x, direction, _, missing = inputs(9, 13)
    assert torch.equal(ops.particle_step(x, direction, torch.zeros(9), missing, eta=0.1, backend=backend), x)


# Noise


def test_philox_gives_the_published_words() -> None:
    zero, ones = torch.tensor(0), torch.tensor(0xFFFFFFFF)
    words = [hex(int(word)) for word in philox4x32((zero,) * 4, (zero,) * 2)]
    assert words == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    words = [hex(int(word)) for word in philox4x32((ones,) * 4, (ones,) * 2)]
    assert words == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


def test_noise_is_standard_normal() -> None:
    keys = torch.cat([torch.arange(2000)[:, None], torch.arange(10).expand(2000, 10)], 1)
    noise = standard_normal(0, keys, 100, 0, 0, torch.float64).flatten()
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("change", [{"seed": 1}, {"sample": 1}, {"step": 1}, {"start": 1}, {"sensor": 1}])
def test_every_key_changes_the_noise(change: dict[str, int]) -> None:
    key = {"seed": 0, "sample": 0, "step": 0, "start": 0, "sensor": 0}

    def draw(seed: int, sample: int, step: int, start: int, sensor: int) -> Tensor:
        return standard_normal(seed, torch.tensor([[start, sensor]]), 8, sample, step, torch.float64)

    assert not bool((draw(**key) == draw(**{**key, **change})).any())


def test_noise_does_not_depend_on_the_batch(isa: str) -> None:
    x, direction, mass, missing = inputs(40, 21)
    keys = noise_keys(40, 7)
    whole = ops.particle_step(x, direction, mass, missing, eta=0.1, noise=Noise(5, keys), backend="cpu")
    for begin, end in ((0, 1), (1, 17), (17, 40)):
        rows = slice(begin, end)
        part = ops.particle_step(
            x[rows], direction[rows], mass[rows], missing[rows], eta=0.1, noise=Noise(5, keys[rows]), backend="cpu"
        )
        assert same_bits(part, whole[rows])


# Memory and threads


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    x, direction, mass, missing = inputs(5000, 84)
    twice = ops.particle_step(x, direction, mass, missing, eta=0.1, backend="cpu")
    torch.set_num_threads(1)
    assert same_bits(ops.particle_step(x, direction, mass, missing, eta=0.1, backend="cpu"), twice)


def test_strided_inputs(isa: str) -> None:
    x, direction, mass, missing = inputs(9, 13)
    expected = ops.particle_step(x, direction, mass, missing, eta=0.1, backend="cpu")
    wide = torch.full((9, 20), float("nan"))
    wide[:, 3:16] = x
    transposed = direction.T.contiguous().T
    assert same_bits(ops.particle_step(wide[:, 3:16], transposed, mass, missing, eta=0.1, backend="cpu"), expected)
    shared = direction[:1].expand(9, 13)
    by_copy = ops.particle_step(x, shared.contiguous(), mass, missing, eta=0.1, backend="cpu")
    assert same_bits(ops.particle_step(x, shared, mass, missing, eta=0.1, backend="cpu"), by_copy)


def test_writes_nothing_beyond_its_output(isa: str) -> None:
    x, direction, mass, missing = inputs(9, 13)
    out = torch.full((11, 19), 7.0)
    _native.core().particle_step(
        isa, 1, 9, 13, x.data_ptr(), 13, direction.data_ptr(), 13, mass.data_ptr(), missing.data_ptr(), 13,
        out.data_ptr(), 19, 0.1, 0.0, (0, 0, 0, 0, 0.0, 0.0, 0.0, 1.0, 1.0), (0, 0, 1, 1, 0, 0),
    )  # fmt: skip
    assert bool((out[9:] == 7).all())
    assert bool((out[:, 13:] == 7).all())


# Registration and errors


def test_gradients_take_the_torch_backend() -> None:
    x, direction, mass, missing = inputs(4, 5)
    direction.requires_grad_()
    ops.particle_step(x, direction, mass, missing, eta=0.5).sum().backward()
    torch.testing.assert_close(direction.grad, 0.5 * mass[:, None] * missing)
    with pytest.raises(ValueError, match="gradients are required"):
        ops.particle_step(x, direction, mass, missing, eta=0.5, backend="cpu")


def test_opcheck() -> None:
    x, direction, mass, missing = inputs(4, 6)
    keys = noise_keys(4, 3)
    torch.library.opcheck(op, (x, direction, mass, missing, 0.1, 0.0, keys, 1, 2, 3, "cpu"))
    state = adam_state(x)
    moments = (state.m, state.v, 0.9, 0.999, 1e-8, 0.1, 0.001)
    torch.library.opcheck(
        torch.ops.fastimpute.particle_step_adam.default,
        (x, direction, mass, missing, 0.1, 0.0, None, 0, 0, 0, *moments, "cpu"),
    )


def test_compiles_without_graph_breaks() -> None:
    x, direction, mass, missing = inputs(4, 6)
    step = torch.compile(
        lambda x: ops.particle_step(x, direction, mass, missing, eta=0.1) + 1, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(step(x), ops.particle_step(x, direction, mass, missing, eta=0.1) + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": -0.1}, "eta must be at least 0, got -0.1"),
        ({"eta": math.nan}, "eta must be at least 0, got nan"),
        ({"mass": torch.ones(3)}, r"mass must have shape \(4,\), got \(3,\)"),
        ({"missing": torch.ones(4, 5, dtype=torch.bool)}, r"missing must have shape \(4, 6\), got \(4, 5\)"),
        ({"noise": Noise(1, torch.zeros(4, 5, dtype=torch.int64))}, "sensors a divisor of 6, got 5"),
        ({"noise": Noise(1, torch.zeros(4, 4, dtype=torch.int64), sample=4096)}, "noise.sample must be at most 4095"),
        ({"adam": AdamState(torch.zeros(4, 5), torch.zeros(4, 6))}, r"adam.m must have shape \(4, 6\)"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    x, direction, mass, missing = inputs(4, 6)
    arguments = {"x": x, "direction": direction, "mass": mass, "missing": missing, "eta": 0.1, **change}
    with pytest.raises(ValueError, match=f"particle_step: .*{message}"):
        ops.particle_step(**arguments)


def test_a_mask_that_is_not_boolean_raises() -> None:
    x, direction, mass, missing = inputs(4, 6)
    with pytest.raises(TypeError, match=r"missing must be torch\.bool, got torch\.float32"):
        ops.particle_step(x, direction, mass, missing.float(), eta=0.1)

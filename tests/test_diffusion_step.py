"""diffusion_step: linear steps on missing cells, and noise keyed by window, cell, sample and step."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops import Noise, StepCoefficients
from fastimpute.ops.diffusion_step import reference
from fastimpute.ops.philox import standard_normal

SIZES = (0, 1, 2, 3, 7, 31, 33, 127, 129, 1023)
DIMS = (1, 7, 24, 84, 144, 168, 480, 2048)
PLAIN = StepCoefficients(0.3, 0.9)
MULTISTEP = StepCoefficients(0.3, 0.9, -0.2)
op = torch.ops.fastimpute.diffusion_step.default


def inputs(*shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """v, denoised, previous, missing."""
    return 9 * torch.randn(shape), torch.randn(shape), torch.randn(shape), torch.rand(shape[-2:]) < 0.4


def noise_keys(windows: int, sensors: int) -> Tensor:
    starts = torch.randint(0, 2**40, (windows, 1))
    return torch.cat([starts, torch.randint(0, 1000, (windows, sensors))], 1)


@pytest.mark.parametrize("dim", DIMS)
def test_matches_float64_at_every_size(isa: str, dim: int) -> None:
    for rows in SIZES:
        v, denoised, previous, missing = inputs(rows, dim)
        value = ops.diffusion_step(v, denoised, previous, missing, MULTISTEP, backend="cpu")
        exact = reference(v.double(), denoised.double(), previous.double(), missing, MULTISTEP)
        assert_close("v", value, exact, reference(v, denoised, previous, missing, MULTISTEP))


@pytest.mark.parametrize(("dim", "sensors"), [(1, 1), (7, 7), (24, 2), (168, 7), (480, 20)])
@pytest.mark.parametrize("earlier", [0.0, -0.4])
def test_noise_matches_float64(isa: str, dim: int, sensors: int, earlier: float) -> None:
    v, denoised, previous, missing = inputs(3, 37, dim)
    noise = Noise(123456789012345, noise_keys(37, sensors), sample=2, step=17)
    coefficients = StepCoefficients(0.3, 0.9, earlier, 0.5)
    given_previous = previous if earlier else None
    value = ops.diffusion_step(v, denoised, given_previous, missing, coefficients, noise=noise, backend="cpu")
    doubles = (v.double(), denoised.double(), previous.double() if earlier else None)
    exact = reference(*doubles, missing, coefficients, noise=noise)
    assert_close("v", value, exact, reference(v, denoised, given_previous, missing, coefficients, noise=noise))


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    v, denoised, previous, missing = inputs(2, 9, 14)
    keys, coefficients = noise_keys(9, 7), StepCoefficients(0.3, 0.9, 0.1, 0.5)
    v, denoised, previous = v.double(), denoised.double(), previous.double()
    value = op(v, denoised, previous, missing, *coefficients, keys, 7, 1, 2, "cpu")
    exact = reference(v, denoised, previous, missing, coefficients, noise=Noise(7, keys, 1, 2))
    torch.testing.assert_close(value, exact, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(0, 30), st.integers(1, 70), st.integers(0, 2**31), st.booleans())
def test_observed_cells_keep_their_bits(samples: int, windows: int, dim: int, seed: int, noisy: bool) -> None:
    torch.manual_seed(seed)
    v, denoised, previous, missing = inputs(samples, windows, dim)
    v[torch.rand(v.shape) < 0.2] = float("nan")
    v[torch.rand(v.shape) < 0.2] = -0.0
    coefficients = MULTISTEP._replace(spread=0.5 if noisy else 0.0)
    noise = Noise(3, noise_keys(windows, 1)) if noisy else None
    moved = ops.diffusion_step(v, denoised, previous, missing, coefficients, noise=noise)
    observed = ~missing.expand_as(v)
    assert same_bits(moved[observed], v[observed])


def test_what_is_observed_is_not_read_elsewhere(backend: str) -> None:
    v, denoised, previous, missing = inputs(9, 40)
    expected = ops.diffusion_step(v, denoised, previous, missing, MULTISTEP, backend=backend)
    denoised[~missing] = previous[~missing] = math.nan
    assert same_bits(ops.diffusion_step(v, denoised, previous, missing, MULTISTEP, backend=backend), expected)


# Noise


def test_spread_scales_the_noise_of_the_keys(backend: str) -> None:
    zero, keys = torch.zeros(2, 5, 6), noise_keys(5, 3)
    everything = torch.ones(5, 6, dtype=torch.bool)
    drawn = ops.diffusion_step(
        zero, zero, None, everything, StepCoefficients(1, 0, 0, 2.0), noise=Noise(1, keys, 4, 9), backend=backend
    )
    for sample in range(2):
        expected = 2 * standard_normal(1, keys, 6, 4 + sample, 9, torch.float64)
        torch.testing.assert_close(drawn[sample].double(), expected, rtol=1e-5, atol=1e-5)


def test_noise_does_not_depend_on_how_samples_and_windows_are_cut(isa: str) -> None:
    v, denoised, _, missing = inputs(6, 40, 21)
    keys, coefficients = noise_keys(40, 7), StepCoefficients(0.3, 0.9, 0, 0.5)
    whole = ops.diffusion_step(v, denoised, None, missing, coefficients, noise=Noise(5, keys), backend="cpu")
    for some in (slice(0, 1), slice(1, 6)):
        for rows in (slice(0, 17), slice(17, 40)):
            noise = Noise(5, keys[rows], sample=some.start)
            part = ops.diffusion_step(
                v[some, rows], denoised[some, rows], None, missing[rows], coefficients, noise=noise, backend="cpu"
            )
            assert same_bits(part, whole[some, rows])


def test_no_spread_needs_no_noise(backend: str) -> None:
    v, denoised, _, missing = inputs(4, 6)
    noise = Noise(1, noise_keys(4, 2))
    plain = ops.diffusion_step(v, denoised, None, missing, PLAIN, backend=backend)
    assert same_bits(ops.diffusion_step(v, denoised, None, missing, PLAIN, noise=noise, backend=backend), plain)


# Memory and threads


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    v, denoised, previous, missing = inputs(3, 1700, 84)
    coefficients, noise = MULTISTEP._replace(spread=0.1), Noise(1, noise_keys(1700, 7))
    twice = ops.diffusion_step(v, denoised, previous, missing, coefficients, noise=noise, backend="cpu")
    torch.set_num_threads(1)
    once = ops.diffusion_step(v, denoised, previous, missing, coefficients, noise=noise, backend="cpu")
    assert same_bits(once, twice)


def test_strided_inputs(isa: str) -> None:
    v, denoised, previous, missing = inputs(2, 9, 13)
    expected = ops.diffusion_step(v, denoised, previous, missing, MULTISTEP, backend="cpu")
    wide = torch.full((2, 9, 20), math.nan)
    wide[..., 3:16] = v
    transposed = denoised.mT.contiguous().mT
    mask = missing.T.contiguous().T
    assert same_bits(
        ops.diffusion_step(wide[..., 3:16], transposed, previous, mask, MULTISTEP, backend="cpu"), expected
    )


def test_writes_nothing_beyond_its_output(isa: str) -> None:
    v, denoised, _, missing = inputs(9, 13)
    out = torch.full((11, 19), 7.0)
    _native.core().diffusion_step(
        isa, 1, (1, 9, 13), (v.data_ptr(), 13), (denoised.data_ptr(), 13), (0, 0), (missing.data_ptr(), 13),
        (out.data_ptr(), 19), (0.3, 0.9, 0.0, 0.0), (0, 0, 1, 1, 0, 0),
    )  # fmt: skip
    assert bool((out[9:] == 7).all())
    assert bool((out[:, 13:] == 7).all())
    assert same_bits(out[:9, :13], ops.diffusion_step(v, denoised, None, missing, PLAIN, backend="cpu"))


# Registration and errors


def test_gradients_take_the_torch_backend() -> None:
    v, denoised, _, missing = inputs(4, 5)
    denoised.requires_grad_()
    ops.diffusion_step(v, denoised, None, missing, PLAIN).sum().backward()
    torch.testing.assert_close(denoised.grad, 0.9 * missing)
    with pytest.raises(ValueError, match="gradients are required"):
        ops.diffusion_step(v, denoised, None, missing, PLAIN, backend="cpu")


def test_opcheck() -> None:
    v, denoised, previous, missing = inputs(2, 4, 6)
    torch.library.opcheck(op, (v, denoised, previous, missing, 0.3, 0.9, 0.1, 0.5, noise_keys(4, 3), 1, 2, 3, "cpu"))
    torch.library.opcheck(op, (v[0], denoised[0], None, missing, 0.3, 0.9, 0.0, 0.0, None, 0, 0, 0, "cpu"))


def test_compiles_without_graph_breaks() -> None:
    v, denoised, previous, missing = inputs(2, 4, 6)
    step = torch.compile(
        lambda v: ops.diffusion_step(v, denoised, previous, missing, MULTISTEP) + 1,
        fullgraph=True,
        backend="aot_eager",
    )
    torch.testing.assert_close(step(v), ops.diffusion_step(v, denoised, previous, missing, MULTISTEP) + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denoised": torch.zeros(4, 5)}, r"denoised must have shape \(4, 6\), got \(4, 5\)"),
        ({"previous": torch.zeros(3, 6)}, r"previous must have shape \(4, 6\), got \(3, 6\)"),
        ({"missing": torch.ones(4, 5, dtype=torch.bool)}, r"missing must have shape \(4, 6\), got \(4, 5\)"),
        ({"v": torch.zeros(6)}, r"v must have shape \('any', 'any'\), got \(6,\)"),
        ({"coefficients": MULTISTEP}, "previous must be given when earlier is not zero, got None"),
        ({"coefficients": PLAIN._replace(spread=0.1)}, "noise must be given when spread is positive, got None"),
        ({"coefficients": PLAIN._replace(spread=math.nan)}, "spread must be at least 0, got nan"),
        ({"noise": Noise(1, torch.zeros(4, 5, dtype=torch.int64))}, "sensors a divisor of 6, got 5"),
        ({"noise": Noise(1, torch.zeros(4, 4, dtype=torch.int64), 4096)}, "noise.sample must be at most 4095"),
        ({"noise": Noise(-1, torch.zeros(4, 4, dtype=torch.int64))}, "noise.seed must be at least 0, got -1"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    v, denoised, _, missing = inputs(4, 6)
    arguments = {
        "v": v, "denoised": denoised, "previous": None, "missing": missing, "coefficients": PLAIN, **change
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"diffusion_step: .*{message}"):
        ops.diffusion_step(**arguments)


def test_a_mask_that_is_not_boolean_raises() -> None:
    v, denoised, _, missing = inputs(4, 6)
    with pytest.raises(TypeError, match=r"missing must be torch\.bool, got torch\.float32"):
        ops.diffusion_step(v, denoised, None, missing.float(), PLAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (1, -1, 6)}, "windows must be at least 0, got -1"),
        ({"v": (0, 6)}, "addresses must be non-null, got null"),
        ({"missing": (1, 5)}, "missing_stride must be at least the row length, got 5"),
        ({"coefficients": (1.0, 1.0, 1.0, 0.0)}, "previous must be given when earlier is not zero"),
        ({"coefficients": (1.0, 1.0, 0.0, 1.0)}, "noise must be given when spread is positive"),
        ({"coefficients": (1.0, 1.0, 0.0, 1.0), "noise": (0, 8, 3, 4, 0, 0)}, "sensors must be a divisor of dim"),
        ({"coefficients": (1.0, 1.0, 0.0, 1.0), "noise": (0, 8, 4, 3, 4095, 0)}, "sample must be below 4096"),
    ],
)
def test_the_kernel_checks_again(change: dict[str, object], message: str) -> None:
    arguments = {
        "sizes": (2, 4, 6), "v": (8, 6), "denoised": (8, 6), "previous": (0, 0), "missing": (8, 6), "v_new": (8, 6),
        "coefficients": (1.0, 1.0, 0.0, 0.0), "noise": (0, 0, 1, 1, 0, 0), **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"diffusion_step: .*{message}"):
        _native.core().diffusion_step("ref", 1, **arguments)

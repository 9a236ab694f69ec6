"""The Triton kernel of diffusion_step: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels.diffusion_step import launch
from fastimpute.ops.diffusion_step import StepCoefficients, _triton, reference
from fastimpute.ops.particle_step import Noise

SIZES = [(1, 0, 5), (0, 4, 3), (1, 1, 1), (2, 3, 7), (3, 31, 24), (1, 33, 33), (2, 1, 40), (2, 5, 0)]
PLAIN = StepCoefficients(0.3, 0.9)
MULTISTEP = StepCoefficients(0.3, 0.9, -0.2)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """v, denoised, previous, missing."""
    v, denoised, previous = 9 * torch.randn(shape), torch.randn(shape), torch.randn(shape)
    return v.to(dtype), denoised.to(dtype), previous.to(dtype), torch.rand(shape[-2:]) < 0.4


def noise_keys(windows: int, sensors: int) -> Tensor:
    return torch.cat([torch.randint(0, 2**40, (windows, 1)), torch.randint(0, 1000, (windows, sensors))], 1)


def check(
    v: Tensor,
    denoised: Tensor,
    previous: Tensor | None,
    missing: Tensor,
    coefficients: StepCoefficients,
    noise: Noise | None = None,
) -> None:
    out = Guarded(*v.shape, dtype=v.dtype)
    drawn = None if noise is None else (noise.keys, noise.seed, noise.sample, noise.step)
    launch(v, denoised, previous, missing, out.inside, coefficients=coefficients, noise=drawn)
    given = (v, denoised, previous)
    # Draws in half precision would overflow in plain PyTorch: in float32, rounded at the end as the kernel does.
    exact, plain = (
        reference(*(None if part is None else part.to(dtype) for part in given), missing, coefficients, noise=noise)
        for dtype in (torch.float64, torch.float32)
    )
    assert_close("v", out.inside, exact, plain.to(v.dtype), "fp32" if v.dtype == torch.float32 else "bf16")
    observed = ~missing.expand_as(v)
    assert same_bits(out.inside[observed], v[observed])
    assert out.guards_untouched()


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_matches_float64(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    v, denoised, previous, missing = inputs(*shape, dtype=dtype)
    check(v, denoised, None, missing, PLAIN)
    check(v, denoised, previous, missing, MULTISTEP)


@pytest.mark.parametrize("sensors", [1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_noise_matches_float64(sensors: int, dtype: torch.dtype) -> None:
    v, denoised, previous, missing = inputs(3, 9, 14, dtype=dtype)
    noise = Noise(2**62 + 123456789, noise_keys(9, sensors), sample=4093, step=2**32 - 1)
    check(v, denoised, None, missing, PLAIN._replace(spread=0.5), noise)
    check(v, denoised, previous, missing, MULTISTEP._replace(spread=0.5), noise)


def test_noise_of_small_keys() -> None:
    v, denoised, _, missing = inputs(1, 1, 6)
    check(v, denoised, None, missing, PLAIN._replace(spread=2.0), Noise(0, torch.zeros(1, 2, dtype=torch.int64), 0, 1))


def test_noise_where_whole_blocks_are_observed() -> None:
    v, denoised, _, missing = inputs(2, 40, 24)
    missing[3:20] = False
    check(v, denoised, None, missing, PLAIN._replace(spread=0.5), Noise(3, noise_keys(40, 4)))


def test_bits_do_not_depend_on_how_samples_and_windows_are_cut() -> None:
    v, denoised, previous, missing = inputs(4, 33, 24)
    keys, coefficients = noise_keys(33, 3), (0.3, 0.9, -0.2, 0.5)
    whole = Guarded(4, 33, 24)
    launch(v, denoised, previous, missing, whole.inside, coefficients=coefficients, noise=(keys, 5, 0, 2))
    for some, rows in ((slice(0, 1), slice(0, 17)), (slice(1, 4), slice(17, 33))):
        part = Guarded(some.stop - some.start, rows.stop - rows.start, 24)
        arguments = (v[some, rows], denoised[some, rows], previous[some, rows], missing[rows], part.inside)
        launch(*arguments, coefficients=coefficients, noise=(keys[rows], 5, some.start, 2))
        assert same_bits(part.inside, whole.inside[some, rows])


def test_observed_cells_keep_nan_and_signs_of_zero_and_read_nothing_else() -> None:
    v, denoised, previous, missing = inputs(2, 9, 12)
    v[torch.rand(v.shape) < 0.3] = math.nan
    v[torch.rand(v.shape) < 0.3] = -0.0
    denoised[:, ~missing] = previous[:, ~missing] = math.nan
    out = Guarded(2, 9, 12)
    launch(v, denoised, previous, missing, out.inside, coefficients=MULTISTEP)
    assert same_bits(out.inside[:, ~missing], v[:, ~missing])


def test_strided_tensors_are_read_where_they_lie() -> None:
    v, denoised, previous, missing = inputs(2, 9, 12)
    apart = [among_nan(part.view(18, 12)).unflatten(0, (2, 9)) for part in (v, denoised, previous)]
    by_window = previous.transpose(0, 1).contiguous().transpose(0, 1)
    packed = Guarded(2, 9, 12)
    launch(v, denoised, previous, missing, packed.inside, coefficients=MULTISTEP)
    for parts in (apart, (v, denoised, by_window), (apart[0], denoised, by_window)):
        out = Guarded(2, 9, 12)
        launch(*parts, among_nan(missing), out.inside, coefficients=MULTISTEP)
        assert same_bits(out.inside, packed.inside)
        assert out.guards_untouched()


def test_samples_may_share_what_they_read() -> None:
    v, denoised, _, missing = inputs(3, 9, 12)
    check(v, denoised[0].expand(3, 9, 12), None, missing, PLAIN)
    check(v[:, :1].expand(3, 9, 12), denoised, None, missing, PLAIN)


def test_the_op_hands_strided_tensors_over() -> None:
    v, denoised, previous, missing = inputs(2, 9, 12)
    keys, expected = noise_keys(9, 4), Guarded(2, 9, 12)
    launch(v, denoised, previous, missing, expected.inside, coefficients=(0.3, 0.9, -0.2, 0.5), noise=(keys, 1, 2, 3))
    arguments = (denoised.mT.contiguous().mT, previous, missing.T.contiguous().T, 0.3, 0.9, -0.2, 0.5, keys.T.clone().T)
    moved = _triton(v, *arguments, 1, 2, 3)
    assert same_bits(moved, expected.inside)


def test_the_op_takes_windows_of_one_sample() -> None:
    v, denoised, _, missing = inputs(9, 12)
    moved = _triton(v, denoised, None, missing, 0.3, 0.9, 0.0, 0.0, noise_keys(9, 4), 1, 2, 3)
    exact = reference(v.double(), denoised.double(), None, missing, PLAIN)
    assert_close("v", moved, exact, reference(v, denoised, None, missing, PLAIN))

"""diffusion_step and ball_quantile on the CUDA backend without a GPU: kernels on emulated lanes, against float64."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import cuda_emulation
import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops import Noise, StepCoefficients, backends
from fastimpute.ops.ball_quantile import reference as ball_reference
from fastimpute.ops.diffusion_step import reference as step_reference

SIZES = (0, 1, 3, 31, 33, 129)


@pytest.fixture(scope="module")
def module(emulated_cuda: Path) -> ModuleType:
    return cuda_emulation.module(emulated_cuda)


@pytest.fixture(autouse=True)
def _main_memory_is_the_gpu(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: module)
    monkeypatch.setitem(backends.DEVICES, "cuda", "cpu")
    monkeypatch.setitem(backends._PROBES, "cuda", lambda: backends.Availability(True, "emulated"))


# ---- diffusion_step --------------------------------------------------------------------------------------------------

MULTISTEP = StepCoefficients(0.3, 0.9, -0.2)


class Step:
    """A step of `samples` draws of some windows; what observed cells need not read is NaN there."""

    def __init__(self, samples: int, windows: int, dim: int, *, noisy: bool = False, previous: bool = True) -> None:
        self.missing = torch.rand(windows, dim) < 0.4
        self.missing[::3] = False  # whole windows without a gap
        self.v, self.denoised, earlier = torch.randn(3, samples, windows, dim)
        self.previous = earlier if previous else None
        for part in (self.denoised, self.previous):
            if part is not None:
                part[:, ~self.missing] = math.nan
        self.coefficients = MULTISTEP._replace(earlier=-0.2 * previous, spread=0.5 * noisy)
        sensors = math.gcd(dim, 3)
        keys = torch.cat([torch.randint(2**40, (windows, 1)), torch.randint(9999, (windows, sensors))], 1)
        self.noise = Noise(2**50 + 7, keys, sample=3, step=11) if noisy else None

    def run(self, backend: str = "cuda") -> Tensor:
        parts = (self.v, self.denoised, self.previous, self.missing, self.coefficients)
        return ops.diffusion_step(*parts, noise=self.noise, backend=backend)

    def check(self) -> None:
        exact = step_reference(
            self.v.double(),
            self.denoised.double(),
            None if self.previous is None else self.previous.double(),
            self.missing,
            self.coefficients,
            noise=self.noise,
        )
        found = self.run()
        assert_close("v", found, exact, self.run("torch"))
        assert same_bits(found[..., ~self.missing], self.v[..., ~self.missing])


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("dim", [12, 7])
def test_a_step_is_as_close_as_torch(dim: int, previous: bool, noisy: bool) -> None:
    """Rows of whole accesses and others; of the latter, sizes that are a multiple of four cells and not."""
    for windows in SIZES:
        Step(2, windows, dim, noisy=noisy, previous=previous).check()


@pytest.mark.parametrize("windows", [1, 3, 4])
def test_windows_of_one_sample_may_end_in_part_of_an_access(windows: int) -> None:
    Step(1, windows, 7).check()


def apart(part: Tensor, stride: int, first: int) -> Tensor:
    """The same cells, rows `stride` apart from place `first` on, among NaN (of a mask: among missing cells)."""
    memory = torch.full((first + part[..., 0].numel() * stride,), math.nan).to(part.dtype)
    return memory[first:].view(*part.shape[:-1], stride)[..., : part.shape[-1]].copy_(part)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(("dim", "stride", "first"), [(12, 16, 4), (10, 16, 4), (13, 19, 3), (12, 12, 3)])
def test_rows_may_lie_apart(dim: int, stride: int, first: int, noisy: bool) -> None:
    step = Step(2, 9, dim, noisy=noisy)
    expected = step.run()
    parts = ("v", "denoised", "previous", "missing")
    together = {name: getattr(step, name) for name in parts}
    for chosen in (*((name,) for name in parts), parts):
        for name in parts:
            setattr(step, name, apart(together[name], stride, first) if name in chosen else together[name])
        assert same_bits(step.run(), expected)


def test_noise_has_the_bits_that_its_keys_say() -> None:
    """With nothing but noise, a draw is the normal number that the reference keys alike."""
    step = Step(3, 5, 12, noisy=True)
    step.v, step.denoised, step.previous = torch.zeros(2, 3, 5, 12)[0], torch.zeros(3, 5, 12), None
    step.coefficients = StepCoefficients(0.0, 0.0, spread=1.0)
    together = step.run()
    torch.testing.assert_close(together, step.run("cpu"), atol=1e-5, rtol=0)
    assert step.noise is not None
    for sample in range(3):
        alone = Step(1, 5, 12, noisy=True)
        alone.v, alone.denoised, alone.previous = step.v[sample], step.denoised[sample], None
        alone.missing, alone.coefficients = step.missing, step.coefficients
        alone.noise = step.noise._replace(sample=step.noise.sample + sample)
        assert same_bits(alone.run(), together[sample])


@pytest.mark.parametrize("noisy", [False, True])
def test_bits_of_a_step_do_not_depend_on_the_batch(noisy: bool) -> None:
    step = Step(2, 33, 7, noisy=noisy)
    whole = step.run()
    for rows in (slice(0, 1), slice(1, 33)):
        part = Step(2, 1, 7, noisy=noisy)
        assert step.previous is not None
        part.v, part.denoised, part.previous = step.v[:, rows], step.denoised[:, rows], step.previous[:, rows]
        part.missing = step.missing[rows]
        part.noise = None if step.noise is None else step.noise._replace(keys=step.noise.keys[rows])
        assert same_bits(part.run(), whole[:, rows])


@pytest.mark.parametrize(("dim", "stride"), [(13, 19), (14, 20), (12, 16)])
def test_a_step_writes_nothing_beyond_its_output(module: ModuleType, dim: int, stride: int) -> None:
    step = Step(1, 9, dim, previous=False)
    out = torch.full((11, stride), 7.0)
    module.diffusion_step(
        0, (1, 9, dim), (step.v.data_ptr(), dim), (step.denoised.data_ptr(), dim), (0, 0),
        (step.missing.data_ptr(), dim), (out.data_ptr(), stride), tuple(step.coefficients), (0, 0, 1, 1, 0, 0),
    )  # fmt: skip
    assert bool((out[9:] == 7).all())
    assert bool((out[:, dim:] == 7).all())
    assert same_bits(out[:9, :dim], step.run()[0])


def test_a_step_may_be_taken_in_place(module: ModuleType) -> None:
    step = Step(2, 9, 7, previous=False)
    expected = step.run()
    v = step.v.clone()
    module.diffusion_step(
        0, (2, 9, 7), (v.data_ptr(), 7), (step.denoised.data_ptr(), 7), (0, 0), (step.missing.data_ptr(), 7),
        (v.data_ptr(), 7), tuple(step.coefficients), (0, 0, 1, 1, 0, 0),
    )  # fmt: skip
    assert same_bits(v, expected)


# ---- ball_quantile ---------------------------------------------------------------------------------------------------


def drawn(samples: int, windows: int, dim: int) -> tuple[Tensor, Tensor]:
    """Samples, with NaN at observed cells of all but the first, and a mask that leaves some windows without a gap."""
    missing = torch.rand(windows, dim) < 0.4
    missing[::5] = False
    values = torch.randn(samples, windows, dim)
    values[1:, ~missing] = math.nan
    return values, missing


def check_ball(samples: Tensor, missing: Tensor, level: float = 0.9) -> None:
    centre, radius = ops.ball_quantile(samples, missing, level, backend="cuda")
    exact, plain = ball_reference(samples.double(), missing, level), ball_reference(samples, missing, level)
    assert_close("centre", centre, exact[0], plain[0])
    assert_close("radius", radius, exact[1], plain[1])
    assert same_bits(centre[~missing], samples[0][~missing])


@pytest.mark.parametrize("dim", [1, 12, 37])
def test_balls_are_as_close_as_torch(dim: int) -> None:
    for windows in (0, 1, 3, 33):
        check_ball(*drawn(21, windows, dim))


# A warp to a window, blocks whose lanes hold few samples and many, and more samples than they hold.
@pytest.mark.parametrize("count", [2, 3, 31, 33, 129, 256, 257, 1024, 1025])
def test_windows_have_any_number_of_samples(count: int) -> None:
    check_ball(*drawn(count, 2, 35), level=0.5)
    check_ball(*drawn(count, 1, 36), level=0.4)


def test_every_rank_is_found() -> None:
    samples, missing = drawn(33, 2, 5)
    samples[:, 1] = samples[:1, 1]  # all distances alike
    for rank in range(1, 34):
        check_ball(samples, missing, level=rank / 34)


@pytest.mark.parametrize("count", [20, 40, 1100])
def test_a_nan_spoils_its_window_alone(count: int) -> None:
    samples, missing = drawn(count, 3, 18)
    missing[1, 4] = True
    samples[:, 1, 4] = 1.0
    samples[count - 1, 1, 4] = math.nan
    radius = ops.ball_quantile(samples, missing, 0.5, backend="cuda")[1]
    assert radius.isnan().tolist() == [False, True, False]


def test_windows_without_cells_have_no_radius() -> None:
    samples, missing = torch.zeros(20, 3, 0), torch.zeros(3, 0, dtype=torch.bool)
    assert torch.equal(ops.ball_quantile(samples, missing, 0.5, backend="cuda")[1], torch.zeros(3))


@pytest.mark.parametrize("count", [20, 40, 1100])
def test_bits_of_a_ball_depend_on_no_batch_and_no_alignment(count: int) -> None:
    samples, missing = drawn(count, 3, 12)
    centre, radius = ops.ball_quantile(samples, missing, 0.9, backend="cuda")
    unaligned = torch.full((count, 3, 17), math.nan)[..., 3:15].copy_(samples)
    apart = torch.full((count, 3, 16), math.nan)[..., :12].copy_(samples)
    for rows in (slice(0, 1), slice(1, 3)):
        for part in (samples[:, rows], unaligned[:, rows], apart[:, rows]):
            found = ops.ball_quantile(part, missing[rows], 0.9, backend="cuda")
            assert same_bits(found[0], centre[rows])
            assert same_bits(found[1], radius[rows])


@pytest.mark.parametrize(("dim", "stride"), [(13, 19), (14, 20)])
def test_a_ball_writes_nothing_beyond_its_output(module: ModuleType, dim: int, stride: int) -> None:
    samples, missing = drawn(20, 3, dim)
    centre, radius = torch.full((5, stride), 7.0), torch.full((5,), 7.0)
    given = torch.full((20, 3, stride), math.nan)[..., :dim].copy_(samples)
    masked = torch.ones(3, stride, dtype=torch.bool)[:, :dim].copy_(missing)
    module.ball_quantile(
        0, (20, 3, dim), (given.data_ptr(), 3 * stride, stride), (masked.data_ptr(), stride), 19,
        (centre.data_ptr(), stride), radius.data_ptr(),
    )  # fmt: skip
    assert bool((centre[3:] == 7).all())
    assert bool((centre[:, dim:] == 7).all())
    assert bool((radius[3:] == 7).all())
    expected = ops.ball_quantile(samples, missing, 0.9, backend="cuda")
    assert same_bits(centre[:3, :dim], expected[0])
    assert same_bits(radius[:3], expected[1])


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_what_the_kernels_do_not_take_is_refused() -> None:
    samples, missing = drawn(20, 2, 4)
    many = torch.zeros(8193, 1, 1)
    step = Step(1, 2, 4)
    step.v.requires_grad_()
    with pytest.raises(ValueError, match=r"'cuda' cannot serve: samples is torch\.float64, the kernels take float32"):
        ops.ball_quantile(samples.double(), missing, 0.9, backend="cuda")
    with pytest.raises(ValueError, match="'cuda' cannot serve: samples are 8193 to a window, the kernel takes up to 8"):
        ops.ball_quantile(many, missing[:1, :1], 0.9, backend="cuda")
    with pytest.raises(ValueError, match="'cuda' cannot serve: gradients are required"):
        step.run()


def test_the_binding_checks_what_it_is_given(module: ModuleType) -> None:
    parts = ((8, 6), (8, 6), (0, 0), (8, 6), (8, 6))
    with pytest.raises(ValueError, match="diffusion_step: previous must be given when earlier is not zero, got null"):
        module.diffusion_step(0, (2, 4, 6), *parts, (1.0, 1.0, 1.0, 0.0), (0, 0, 1, 1, 0, 0))
    with pytest.raises(ValueError, match=r"diffusion_step: dim must be below 2\^31 - 15, got 2147483647"):
        module.diffusion_step(0, (1, 1, 2**31 - 1), *[(16, 2**31 - 1)] * 5, (1.0, 1.0, 0.0, 0.0), (0, 0, 1, 1, 0, 0))
    with pytest.raises(ValueError, match="ball_quantile: samples must be at most 8192, got 8193"):
        module.ball_quantile(0, (8193, 1, 6), (8, 24, 6), (8, 6), 19, (8, 6), 8)

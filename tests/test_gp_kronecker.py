"""A Gaussian of frames and channels: its estimate, its conditional, its white coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import gp
from fastimpute.bases import Whitening

FRAMES, CHANNELS = 7, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def truth(seed: int = 0) -> gp.KroneckerGaussian:
    """A mean, and covariances over frames and channels, that have nothing regular about them."""
    mean = torch.randn(FRAMES, CHANNELS, generator=generator(seed), dtype=torch.float64)
    root = torch.randn(CHANNELS, CHANNELS, generator=generator(seed + 1), dtype=torch.float64)
    lam = root @ root.T + 0.3 * torch.eye(CHANNELS, dtype=torch.float64)
    return gp.KroneckerGaussian(mean, gp.kernel(FRAMES, length=4.0, nugget=0.1), CHANNELS * lam / lam.trace())


def draw(law: gp.KroneckerGaussian, count: int, seed: int = 0) -> Tensor:
    white = torch.randn(count, FRAMES, CHANNELS, generator=generator(seed), dtype=torch.float64)
    return law.mean + torch.linalg.cholesky(law.gamma) @ white @ torch.linalg.cholesky(law.lam).T


def whole_frames(count: int, seed: int = 0) -> Tensor:
    """(count, D) bool, three frames of each sequence."""
    hidden = gp.draw_frames(((3, 1),), count, FRAMES, generator=generator(seed))
    return hidden.repeat_interleave(CHANNELS, 1)


def covariance(law: gp.KroneckerGaussian) -> Tensor:
    return torch.kron(law.gamma, law.lam)


def test_the_estimate_recovers_both_covariances_and_the_mean() -> None:
    law = truth()
    found = gp.KroneckerGaussian.fit(draw(law, 20_000))
    torch.testing.assert_close(found.gamma, law.gamma, atol=0.03, rtol=0)
    torch.testing.assert_close(found.lam, law.lam, atol=0.03, rtol=0)
    torch.testing.assert_close(found.mean, law.mean, atol=0.04, rtol=0)


def test_the_estimate_maximises_the_likelihood() -> None:
    """Any change of either covariance makes the sequences less likely."""
    x = draw(truth(), 50)
    found = gp.KroneckerGaussian.fit(x, steps=30)

    def likelihood(law: gp.KroneckerGaussian) -> float:
        joint = torch.distributions.MultivariateNormal(law.mean.flatten(), covariance(law))
        return float(joint.log_prob(x.flatten(1)).sum())

    best = likelihood(found)
    for seed in range(5):
        turn = torch.randn(FRAMES, FRAMES, generator=generator(seed), dtype=torch.float64)
        turn = torch.linalg.matrix_exp(0.02 * (turn + turn.T))
        across = torch.randn(CHANNELS, CHANNELS, generator=generator(seed), dtype=torch.float64)
        across = torch.linalg.matrix_exp(0.02 * (across + across.T))
        gamma, lam = turn @ found.gamma @ turn, across @ found.lam @ across
        assert likelihood(gp.KroneckerGaussian(found.mean, gamma, found.lam)) < best
        assert likelihood(gp.KroneckerGaussian(found.mean, found.gamma, lam)) < best


@pytest.mark.parametrize("name", gp.PATTERNS)
def test_with_the_true_kernel_it_is_the_exact_conditional(name: str) -> None:
    law, missing = gp.Conditional(gp.kernel(), gp.pattern(name)), gp.pattern(name)
    base = gp.KroneckerGaussian(torch.zeros(96, 8, dtype=torch.float64), gp.kernel(), torch.eye(8, dtype=torch.float64))
    x = gp.simulate(3, generator=generator())
    torch.testing.assert_close(base.predict(x, missing), law.mean(x))
    assert base.radius(missing, 0.95) == pytest.approx(law.radius(0.95, 8), rel=1e-6)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_white_coordinates_are_those_of_the_joint_gaussian(seed: int) -> None:
    """Mean, deviation and covariance of white noise are those of `Whitening` with the full precision."""
    law, missing = truth(seed), whole_frames(4, seed)
    x = draw(law, 4, seed).flatten(1).float()
    white = law.whiten(x, missing)
    joint = Whitening.gaussian(x, missing, law.mean.flatten(), torch.linalg.inv(covariance(law)))
    torch.testing.assert_close(white.mean, joint.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(white.deviation, joint.deviation, atol=1e-4, rtol=1e-4)
    unit = torch.eye(missing.shape[1]).repeat_interleave(4, 0)
    steps, expected = (one.outward(unit).view(-1, 4, missing.shape[1]).transpose(0, 1) for one in (white, joint))
    wanted = expected.transpose(1, 2) @ expected
    torch.testing.assert_close(steps.transpose(1, 2) @ steps, wanted, atol=1e-3, rtol=1e-3)


@given(st.integers(0, 1000), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_outward_undoes_inward(seed: int, draws: int) -> None:
    law, missing = truth(seed), whole_frames(5, seed)
    white = law.whiten(draw(law, 5, seed).flatten(1).float(), missing)
    y = torch.where(missing, torch.randn(draws, *missing.shape, generator=generator(seed)), 0.0)
    left = white.outward(y.view(-1, missing.shape[1])).view(y.shape)
    assert not bool(left[:, ~missing].any())
    back = torch.stack([white.inward(white.mean + one) for one in left])
    torch.testing.assert_close(back, y, atol=1e-3, rtol=1e-3)


def test_what_is_missing_is_not_read() -> None:
    law, missing = truth(), whole_frames(4)
    x = draw(law, 4).flatten(1).float()
    white, poisoned = law.whiten(x, missing), law.whiten(x.masked_fill(missing, math.nan), missing)
    assert torch.equal(white.mean, poisoned.mean)
    assert torch.equal(white.mean[~missing], x[~missing])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gp.KroneckerGaussian.fit(torch.zeros(3, 7, 2)), "x must hold at least 4 sequences of 7 x 2, got 3"),
        (lambda: gp.KroneckerGaussian.fit(torch.zeros(9, 7, 2), steps=0), "steps must be at least 1, got 0"),
        (
            lambda: truth().whiten(torch.zeros(1, 21), torch.arange(21)[None] < 4),
            "missing must hold whole frames, as many of every sequence",
        ),
    ],
)
def test_bad_values_name_the_argument(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]

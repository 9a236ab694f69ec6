"""A Gaussian with covariance Gamma (x) Lambda, estimated from sequences: the base of a denoiser of whole frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from fastimpute.gp.ball import ball_radius
from fastimpute.gp.conditional import Conditional

STEPS = 3  # of the flip-flop; with thousands of sequences the second already changes nothing
_CHUNK = 4096


@dataclass(frozen=True)
class FrameWhitening:
    """White coordinates of missing frames under N(mean, Gamma (x) Lambda), and the way back.

    With P = Gamma^-1 and the Cholesky factors L of P_mm and M of Lambda^-1, ``y = L^T (X_m - mean) M`` has unit
    variance and independent cells: an (m, m) and a (d, d) factor instead of the (m d, m d) one of
    `fastimpute.bases.Whitening`, whose coordinates these are.

    Attributes:
        missing: (n, D) bool, D = H d, frame first.
        mean: (n, D) float32, conditional mean at missing cells, the values elsewhere.
        deviation: (n, D) float32, conditional standard deviation, 0 where observed.
        frames: (n, m) int64, the missing frames.
        factor, inverse: (n, m, m) float32, L and L^-1.
        across, back: (d, d) float32, M and M^-1.
    """

    missing: Tensor
    mean: Tensor
    deviation: Tensor
    frames: Tensor
    factor: Tensor
    inverse: Tensor
    across: Tensor
    back: Tensor

    def inward(self, x: Tensor) -> Tensor:
        """White coordinates (n, D) of sequences x (n, D): 0 where observed."""
        return self._through(self.factor, x - self.mean, self.across).view(x.shape)

    def outward(self, y: Tensor) -> Tensor:
        """Departures from the mean (s n, D) of white coordinates (s n, D), row i one of sequence i modulo n."""
        return self._through(self.inverse, y, self.back).view(y.shape)

    def correction(self, said: Tensor) -> Tensor:
        """What a network says (s n, D) taken as white departures themselves, 0 where observed.

        Regions are judged along eigendirections here, the narrowest of them too, which cells hardly show.
        """
        return said.masked_fill(~self.missing.repeat(len(said) // max(len(self.missing), 1), 1), 0)

    def _through(self, factor: Tensor, rows: Tensor, across: Tensor) -> Tensor:
        """factor^T (missing frames of rows) across; zero elsewhere."""
        channels = len(across)
        drawn = rows.view(-1, len(self.missing), self.missing.shape[1] // channels, channels)
        index = self.frames[None, :, :, None].expand(len(drawn), -1, -1, channels)
        turned = factor.transpose(1, 2) @ (drawn.gather(2, index) @ across)
        return torch.zeros_like(drawn).scatter(2, index, turned)


@dataclass(frozen=True)
class KroneckerGaussian:
    """Sequences X (H, d) with vec(X) ~ N(mean, Gamma (x) Lambda).

    Attributes:
        mean: (H, d) float64.
        gamma: (H, H) float64, covariance over the frames.
        lam: (d, d) float64, covariance over the channels, its trace is d.
    """

    mean: Tensor
    gamma: Tensor
    lam: Tensor

    @classmethod
    def fit(cls, x: Tensor, *, steps: int = STEPS) -> Self:
        """Maximum likelihood by flip-flop: each covariance in turn, as if the other were known.

        Args:
            x: (n, H, d) complete sequences, with n d > H and n H > d.
            steps: of the flip-flop, each of both covariances.

        Raises:
            ValueError: too few sequences, or steps below 1.

        Source: P. Dutilleul, The MLE algorithm for the matrix normal distribution, 1999.

        Example:
            >>> from fastimpute import gp
            >>> x = gp.simulate(200, 2, gp.kernel(6), generator=torch.Generator().manual_seed(0))
            >>> KroneckerGaussian.fit(x).gamma.shape
            torch.Size([6, 6])
        """
        count, frames, channels = x.shape
        if count * channels <= frames or count * frames <= channels:
            least = max(frames // channels, channels // frames) + 1
            raise ValueError(f"x must hold at least {least} sequences of {frames} x {channels}, got {count}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        mean = x.mean(0, dtype=torch.float64)
        moment = torch.zeros(frames * channels, frames * channels, dtype=torch.float64)
        for part in torch.split(x, _CHUNK):
            centred = (part.double() - mean).flatten(1)
            moment.addmm_(centred.T, centred)
        moment = moment.view(frames, channels, frames, channels) / count
        lam = torch.eye(channels, dtype=torch.float64)
        for _ in range(steps):
            gamma = torch.einsum("iajb,ab->ij", moment, torch.linalg.inv(lam)) / channels
            lam = torch.einsum("iajb,ij->ab", moment, torch.linalg.inv(gamma)) / frames
            scale = lam.trace() / channels
            lam, gamma = lam / scale, gamma * scale
        return cls(mean, gamma, lam)

    def to(self, device: torch.device | str) -> Self:
        """The same Gaussian on another device."""
        return type(self)(self.mean.to(device), self.gamma.to(device), self.lam.to(device))

    @cached_property
    def _precision(self) -> Tensor:
        return torch.cholesky_inverse(torch.linalg.cholesky(self.gamma))

    @cached_property
    def _across(self) -> tuple[Tensor, Tensor]:
        """M and M^-1, of Lambda^-1 = M M^T."""
        root = _root_of_inverse(self.lam)
        return root.float(), torch.linalg.inv(root).float()

    def predict(self, x: Tensor, missing: Tensor) -> Tensor:
        """Conditional mean (n, m, d) of missing frames (H,) of sequences x (n, H, d); not read there."""
        return self.mean[missing] + Conditional(self.gamma, missing).mean(x.double() - self.mean)

    def radius(self, missing: Tensor, level: float) -> float:
        """Radius of the ball around `predict` that holds missing frames (H,) with probability `level`."""
        across = torch.linalg.eigvalsh(self.lam)
        return ball_radius(level, torch.outer(Conditional(self.gamma, missing).variances, across).flatten())

    def whiten(self, values: Tensor, missing: Tensor, patches: Tensor | None = None) -> FrameWhitening:
        """White coordinates of sequences (n, D) float32 that lack whole frames, as many each (n, D) bool.

        The third argument is the number of a window, which a training on series hands over; nothing depends on it.

        Raises:
            ValueError: missing cells that are not whole frames, or not as many in every sequence.
        """
        shape = (len(values), *self.mean.shape)
        gone = missing.view(shape)
        hidden, most = gone[:, :, 0], int(gone[0, :, 0].sum())
        if not bool((gone == hidden[:, :, None]).all()) or not bool((hidden.sum(1) == most).all()):
            raise ValueError("missing must hold whole frames, as many of every sequence, got other cells")
        frames = hidden.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :most]
        centred = torch.where(gone, 0.0, values.view(shape).double() - self.mean)
        index = frames[:, :, None].expand(-1, -1, shape[2])
        pull = -(self._precision @ centred).gather(1, index)
        factor = torch.linalg.cholesky(self._precision[frames[:, :, None], frames[:, None, :]])
        solved = torch.zeros_like(centred).scatter(1, index, torch.cholesky_solve(pull, factor))
        inverse = torch.linalg.solve_triangular(factor, torch.eye(most).to(factor).expand_as(factor), upper=False)
        spread = inverse.square().sum(1).sqrt()[:, :, None] * self.lam.diagonal().sqrt()
        return FrameWhitening(
            missing,
            torch.where(gone, (solved + self.mean).float(), values.view(shape)).flatten(1),
            torch.zeros_like(centred).scatter(1, index, spread).float().flatten(1),
            frames,
            factor.float(),
            inverse.float(),
            *self._across,
        )


def _root_of_inverse(covariance: Tensor) -> Tensor:
    """The Cholesky factor of the inverse."""
    root: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(covariance)))
    return root

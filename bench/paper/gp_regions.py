"""Judges a trained denoiser on Gaussian-process sequences: its regions against draws from the true conditional."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from gp_exact import straight_lines
from torch import Tensor

from fastimpute import conformal, gp, ops
from fastimpute.diffusion import Plan, sample
from fastimpute.nn import DiT
from fastimpute.nn.white_denoiser import Coordinates, denoise, encode

LEVEL = 0.95
DRAWS = 200  # of the true conditional per region
WINDOWS_AT_ONCE = 50
TEST, CALIBRATION, TRUTH, NOISE = 101, 102, 103, 104  # seeds, apart from those of training


class Base(Protocol):
    """Coordinates that a denoiser works in."""

    def whiten(self, values: Tensor, missing: Tensor, patches: Tensor | None = None) -> Coordinates:
        """Of sequences (n, D)."""


@dataclass(frozen=True)
class Model:
    """A denoiser in the coordinates of a base, on the device of both; sequences come and go on the CPU."""

    net: DiT
    base: Base
    plan: Plan
    device: torch.device

    @torch.no_grad()
    def mean(self, x: Tensor, missing: Tensor) -> Tensor:
        """One step from the largest noise level: missing frames (n, m, d) of sequences x (n, H, d)."""
        return torch.cat([self._one_step(part, missing) for part in torch.split(x, WINDOWS_AT_ONCE)])

    def _one_step(self, x: Tensor, missing: Tensor) -> Tensor:
        white, known = self._coordinates(x, missing)
        memory = encode(self.net, white, known)
        denoised = denoise(self.net, white, memory, torch.zeros_like(known), self.plan.start)
        return self._coloured(white, denoised[None], missing)[0]

    @torch.no_grad()
    def draw(self, x: Tensor, missing: Tensor, samples: int) -> Tensor:
        """Joint draws (samples, n, m, d) of missing frames."""
        firsts = range(0, len(x), WINDOWS_AT_ONCE)
        return torch.cat([self._draw(x[at : at + WINDOWS_AT_ONCE], missing, samples, at) for at in firsts], 1)

    def _draw(self, x: Tensor, missing: Tensor, samples: int, first: int) -> Tensor:
        white, known = self._coordinates(x, missing)
        memory = encode(self.net, white, known)

        def denoised(v: Tensor, sigma: float) -> Tensor:
            rows = v.to(self.device).reshape(-1, v.shape[2])
            return denoise(self.net, white, memory, rows, sigma).view(v.shape).cpu()

        starts = (torch.arange(len(x)) + first) * x.shape[1]
        keys = torch.cat([starts[:, None], torch.arange(x.shape[2]).expand(len(x), -1)], 1)
        blank = torch.zeros(known.shape)
        drawn = sample(denoised, blank, white.missing.cpu(), keys, samples=samples, seed=NOISE, steps=self.plan)
        return self._coloured(white, drawn.to(self.device), missing)

    def _coordinates(self, x: Tensor, missing: Tensor) -> tuple[Coordinates, Tensor]:
        gone = missing.repeat_interleave(x.shape[2]).expand(len(x), -1).contiguous().to(self.device)
        known = x.flatten(1).float().to(self.device).masked_fill(gone, 0)
        return self.base.whiten(known, gone), known

    def _coloured(self, white: Coordinates, y: Tensor, missing: Tensor) -> Tensor:
        x = white.mean + white.outward(y.view(-1, y.shape[2])).view(y.shape)
        return x.view(*y.shape[:2], len(missing), -1)[:, :, missing.to(self.device)].double().cpu()


@dataclass(frozen=True)
class Sizes:
    """How much a model is judged by: regions of so many samples each, calibration sequences."""

    regions: int
    samples: int
    calibration: int


def coverage(law: gp.Conditional, x: Tensor, centre: Tensor, radius: Tensor | float) -> dict[str, float]:
    """Of balls around centres (n, m, d), in %, with its standard error: fresh draws of the truth in every region."""
    generator = torch.Generator().manual_seed(TRUTH)
    truth = law.draw(law.mean(x).expand(DRAWS, *centre.shape), generator=generator)
    inside = ((truth - centre).flatten(2).norm(dim=2) <= radius).double()
    return {
        "coverage": 100 * float(inside.mean()),
        "standard_error": 100 * float(inside.mean(0).std()) / math.sqrt(len(x)),
        "radius_over_oracle": float(torch.as_tensor(radius).double().mean()) / law.radius(LEVEL, x.shape[2]),
    }


def mean_error(law: gp.Conditional, x: Tensor, centre: Tensor) -> dict[str, float]:
    """r: error of a mean in conditional deviations, root mean square over cells, and over eigendirections."""
    error = centre - law.mean(x)
    along = law.axes.T @ error
    return {
        "r": float((error / law.deviation[:, None]).square().mean().sqrt()),
        "r_eigendirections": float((along.square() / law.variances[:, None]).mean().sqrt()),
    }


def spread_ratio(law: gp.Conditional, drawn: Tensor) -> dict[str, float]:
    """c: deviation of samples (Z, n, m, d) over the true one along each eigendirection, pooled over regions and
    channels; its mean over directions, its least and its largest."""
    along = law.axes.T @ (drawn - drawn.mean(0))
    variance = along.square().mean((0, 1, 3)) * len(drawn) / (len(drawn) - 1)
    ratio = (variance / law.variances).sqrt()
    return {"c": float(ratio.mean()), "c_least": float(ratio.min()), "c_largest": float(ratio.max())}


def judge(model: Model, kernel: Tensor, missing: Tensor, sizes: Sizes, channels: int) -> dict[str, Any]:
    """Raw: sampled balls. Calibrated: around the one-step mean, the radius that covers other sequences."""
    law = gp.Conditional(kernel, missing)

    def simulated(count: int, seed: int) -> Tensor:
        return gp.simulate(count, channels, kernel, generator=torch.Generator().manual_seed(seed))

    x, other = simulated(sizes.regions, TEST), simulated(sizes.calibration, CALIBRATION)
    drawn, point = model.draw(x, missing, sizes.samples), model.mean(x, missing)
    centre, radius = ops.ball_quantile(drawn.flatten(2).float(), torch.ones(drawn.shape[1:]).flatten(1) > 0, LEVEL)
    cells = torch.ones(len(other), drawn[0, 0].numel(), dtype=torch.bool).numpy()
    found = (part.flatten(1).numpy() for part in (model.mean(other, missing), other[:, missing]))
    calibrated = conformal.quantile(conformal.ball_scores(*found, cells), LEVEL)
    return {
        "raw": coverage(law, x, centre.double().view(point.shape), radius),
        "calibrated": coverage(law, x, point, calibrated),
        **mean_error(law, x, point),
        "r_of_samples": mean_error(law, x, drawn.mean(0))["r"],
        **spread_ratio(law, drawn),
    }


def judge_base(base: gp.KroneckerGaussian, kernel: Tensor, missing: Tensor, regions: int) -> dict[str, float]:
    """The base alone: balls around its mean, their radius from its covariance."""
    law, channels = gp.Conditional(kernel, missing), len(base.lam)
    x = gp.simulate(regions, channels, kernel, generator=torch.Generator().manual_seed(TEST))
    mean = base.predict(x, missing)
    return {**coverage(law, x, mean, base.radius(missing, LEVEL)), **mean_error(law, x, mean)}


def judge_latent(model: Model, base: gp.KroneckerGaussian, missing: Tensor, sequences: int) -> dict[str, float]:
    """Mean squared errors on Y = phi(X) + eps, and over that of the exact posterior mean on the same sequences."""
    x = gp.simulate(sequences, len(base.lam), generator=torch.Generator().manual_seed(TEST))
    y = gp.observe(x, generator=torch.Generator().manual_seed(TRUTH))
    means = {
        "oracle": gp.posterior_mean(y, missing)[:, missing],
        "network": model.mean(y, missing),
        "base": base.predict(y, missing),
        "straight_lines": straight_lines(missing) @ y[:, ~missing],
    }
    errors = {name: (mean - y[:, missing]).square().mean((1, 2)) for name, mean in means.items()}
    least = errors["oracle"]
    found = {name: float(error.mean()) for name, error in errors.items()}
    for name in ("network", "base"):
        excess = errors[name] - least
        found[f"{name}_over_oracle"] = found[name] / found["oracle"]
        found[f"{name}_standard_error"] = float(excess.std() / least.mean()) / math.sqrt(sequences)
    return found

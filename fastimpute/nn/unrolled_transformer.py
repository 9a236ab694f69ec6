"""A transformer with few, shared, learned weights: unrolled iterations for the score of a masked Gaussian process."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastimpute.ops.lag_heads import head_matrix
from fastimpute.ops.rates import Rates
from fastimpute.ops.unrolled_attention import reference, unrolled_attention


class UnrolledTransformer(nn.Module):
    """The transformer of Theorem 1 with K x K_aux blocks whose lag table, channel covariance and steps are learned.

    All blocks share the heads (a value per lag) and Lambda = L L^T; each has a step and a momentum of its own. The
    outer steps follow the noise as 1 / (alpha^2 c + sigma^2) with c learned. Untrained, it runs gradient descent for an
    exponential kernel with the steps of that kernel's spectrum.

    ``forward(v, x, missing, alpha, sigma)`` gives ``(score, conditional mean)``, each (n, T, d), differentiable.
    ``score`` runs the fused kernel.

    Source: arXiv 2510.02216, algorithm unrolling; learning the tables and steps, and momentum, are chosen here.

    Args:
        frames: T. channels: d. iterations: K, outer blocks, at least 1. inner_iterations: K_aux, inner blocks, at least
        1. length: of the initial exponential kernel, in frames; None: T / 4.

    Raises:
        ValueError: a size below one, or shapes that do not fit.

    Example:
        >>> import torch
        >>> from fastimpute.nn import UnrolledTransformer
        >>> net = UnrolledTransformer(frames=12, channels=2, iterations=4)
        >>> missing = torch.arange(12).expand(3, 12) > 8
        >>> score, mean = net.score(torch.randn(3, 12, 2), torch.randn(3, 12, 2), missing, 1.0, 0.5)
        >>> score.shape
        torch.Size([3, 12, 2])
    """

    def __init__(
        self,
        frames: int,
        channels: int,
        *,
        iterations: int = 8,
        inner_iterations: int = 16,
        length: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in {
            "frames": frames,
            "channels": channels,
            "iterations": iterations,
            "inner_iterations": inner_iterations,
        }.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.iterations, self.inner_iterations = iterations, inner_iterations
        table = torch.exp(-torch.arange(frames) / (length or frames / 4))
        table[0] += 0.1
        values = torch.linalg.eigvalsh(head_matrix(table.double()))
        middle = float(values[0] + values[-1]) / 2  # no mask leaves the interval of the whole sequence's spectrum
        self.lag_table = nn.Parameter(table)
        self.channel_factor = nn.Parameter(torch.eye(channels))
        self.log_middle = nn.Parameter(torch.tensor(middle).log())
        self.log_outer = nn.Parameter(torch.zeros(iterations))
        self.outer_momentum = nn.Parameter(torch.zeros(iterations))
        self.log_inner = nn.Parameter(torch.full((inner_iterations,), 1 / middle).log())
        self.inner_momentum = nn.Parameter(torch.zeros(inner_iterations))

    def channel_covariance(self) -> Tensor:
        """Lambda (d, d)."""
        return self.channel_factor @ self.channel_factor.T

    def rates(self, alpha: Tensor, sigma: Tensor) -> Rates:
        """Steps and momenta of every block at these noise levels, (n,) each."""
        scale = 1 / (alpha.square() * self.log_middle.exp() + sigma.square())
        step = scale[:, None] * self.log_outer.exp()
        outer = torch.stack([step, self.outer_momentum.expand_as(step)], 2)
        return Rates(outer, torch.stack([self.log_inner.exp(), self.inner_momentum], 1)[None])

    def forward(
        self, v: Tensor, x: Tensor, missing: Tensor, alpha: float | Tensor, sigma: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        alpha, sigma = _per_sequence(alpha, v), _per_sequence(sigma, v)
        return reference(
            v,
            x,
            missing,
            self.lag_table,
            alpha,
            sigma,
            None,
            self.channel_covariance(),
            self.rates(alpha, sigma),
            iterations=self.iterations,
            inner_iterations=self.inner_iterations,
            solver="gd",
        )

    def loss(self, y: Tensor, missing: Tensor, alpha: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """Denoising score matching, mean over missing cells of (sigma score + noise)^2 at v = alpha y + sigma noise.

        That is the paper's E |s + z / sigma|^2 weighted by sigma^2.

        Args:
            y: (n, T, d) complete sequences. missing: (n, T) frames to hide. alpha, sigma: (n,). noise: (n, T, d)
            standard normal.
        """
        v = alpha[:, None, None] * y + sigma[:, None, None] * noise
        score, _ = self(v, y, missing, alpha, sigma)
        deviation: Tensor = sigma[:, None, None] * score + noise
        return deviation[missing].square().mean()

    @torch.no_grad()
    def score(
        self,
        v: Tensor,
        x: Tensor,
        missing: Tensor,
        alpha: float | Tensor,
        sigma: float | Tensor,
        *,
        backend: str = "auto",
    ) -> tuple[Tensor, Tensor]:
        """Fused ``(score, conditional mean)``, as ``forward`` without gradients."""
        alpha, sigma = _per_sequence(alpha, v), _per_sequence(sigma, v)
        return unrolled_attention(
            v,
            x,
            missing,
            self.lag_table,
            alpha,
            sigma,
            None,
            self.channel_covariance(),
            self.rates(alpha, sigma),
            iterations=self.iterations,
            inner_iterations=self.inner_iterations,
            solver="gd",
            backend=backend,
        )


def _per_sequence(value: float | Tensor, v: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else v.new_full((v.shape[0],), value)

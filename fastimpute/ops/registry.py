"""Every op of the package, one entry each: the one place that knows which backends serve it.

An op has one name everywhere: `csrc/<name>/`, `kernels/<name>.py`, `fastimpute/ops/<name>.py`, `tests/test_<name>.py`,
`bench/bench_<name>.py`. A backend joins an op by being named here.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "arXiv 2602.01182"


@dataclass(frozen=True)
class Op:
    """One op: its name, what serves it (best first) and the instruction sets its C++ body is compiled for."""

    name: str
    summary: str
    backends: tuple[str, ...]
    isas: tuple[str, ...]
    source: str = SOURCE

    @property
    def module(self) -> str:
        """Where `reference` and the public function live."""
        return f"fastimpute.ops.{self.name}"


OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op(
            "energy_mlp",
            "AdaLN energy network: log p, score and Hessian-vector product in one pass",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512", "avx512bf16"),
        ),
        Op(
            "score_mlp",
            "AdaLN network with a score head",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512", "avx512bf16"),
        ),
        Op(
            "score_matching",
            "loss of denoising score matching of the score head and its gradients: one training step",
            ("triton", "cpu", "torch"),
            ("avx2", "avx512"),
        ),
        Op(
            "spt_weights",
            "semi-proximal-transport weight update per group",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512"),
        ),
        Op(
            "particle_step",
            "weighted, masked step of the particles",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512"),
        ),
        Op(
            "dit_block",
            "adaLN-Zero transformer block: attention and MLP of short sequences",
            ("triton", "cpu", "torch"),
            ("avx2", "avx512", "avx512bf16"),
            source="arXiv 2510.02216",
        ),
        Op(
            "dit_block_gradient",
            "gradients of the transformer block by its inputs and weights",
            ("triton", "cpu", "torch"),
            ("avx2", "avx512"),
            source="arXiv 2510.02216",
        ),
        Op(
            "diffusion_step",
            "reverse diffusion step on missing cells, counter-based noise",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512"),
            source="arXiv 2510.02216",
        ),
        Op(
            "ball_quantile",
            "mean of samples and radius of the ball that holds a level of them",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512"),
            source="arXiv 2510.02216",
        ),
        Op(
            "proximal_recursion",
            "gather patches, iterate score, weights and step, average the overlaps",
            ("cuda", "triton", "cpu", "torch"),
            (),  # runs the bodies of the other ops
        ),
        Op(
            "unrolled_attention",
            "score and conditional mean of a masked Gaussian process by lag-attention iterations",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512"),
            "arXiv 2510.02216",
        ),
        Op(
            "gaussian_conditional",
            "conditional mean and spread of masked Gaussian windows",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512"),
            source="arXiv 2510.02216",
        ),
        Op(
            "gaussian_whitening",
            "conditional mean of masked Gaussian windows and the factors that make the rest white",
            ("cuda", "triton", "cpu", "torch"),
            ("avx2", "avx512"),
            source="arXiv 2510.02216",
        ),
    )
}

# Every backend the package knows, also those no op uses yet: `backends()` reports them with a reason.
BACKENDS: tuple[str, ...] = ("cuda", "triton", "cpu", "torch")

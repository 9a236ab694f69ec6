"""The process, its missing patterns and the mixtures a model is trained on (arXiv 2510.02216)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

FRAMES = 96
CHANNELS = 8
LENGTH = 256.0
NUGGET = 1e-6

# Missing frames of the four test patterns, counted from 0.
PATTERNS: dict[str, tuple[int, ...]] = {
    "P1": tuple(range(80, 96)),
    "P2": (*range(20, 24), *range(44, 48), *range(68, 72), *range(92, 96)),
    "P3": (5, 6, 17, 18, 29, 30, 31, 32, 45, 46, 57, 58, 69, 70, 81, 82),
    "P4": (3, 9, 15, 16, 22, 28, 34, 40, 41, 47, 53, 59, 65, 71, 78, 85),
}

# Training mixtures: equally likely (number of blocks, frames of each), 16 missing frames in all.
MIXTURES: dict[str, tuple[tuple[int, int], ...]] = {
    "S1": ((16, 1),),
    "S2": ((16, 1), (8, 2)),
    "S3": ((16, 1), (8, 2), (4, 4)),
    "S4": ((16, 1), (8, 2), (4, 4), (1, 16)),
}

_CHUNK = 4096


def kernel(frames: int = FRAMES, *, length: float = LENGTH, nugget: float = NUGGET) -> Tensor:
    """Gamma_ij = exp(-|i - j| / length) + nugget [i = j], (frames, frames) float64, frames 0, 1, 2, ...

    Length 256 and nugget 1e-6 reproduce the condition numbers printed in arXiv 2510.02216 (415.40, 29.57, 9.47, 3.00).

    Raises:
        ValueError: frames below 1, length not positive or nugget negative.

    Example:
        >>> kernel(2, length=1.0, nugget=0.0)
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]], dtype=torch.float64)
    """
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    if not length > 0:
        raise ValueError(f"length must be positive, got {length}")
    if not nugget >= 0:
        raise ValueError(f"nugget must be at least 0, got {nugget}")
    at = torch.arange(frames, dtype=torch.float64)
    return torch.exp(-(at[:, None] - at).abs() / length) + nugget * torch.eye(frames, dtype=torch.float64)


def pattern(name: str, frames: int = FRAMES) -> Tensor:
    """A test pattern as (frames,) bool, True where the frame is missing.

    Raises:
        ValueError: an unknown name, or frames that the pattern does not fit in.

    Example:
        >>> int(pattern("P4").sum())
        16
    """
    if name not in PATTERNS:
        raise ValueError(f"pattern must be one of {tuple(PATTERNS)}, got {name!r}")
    if frames <= max(PATTERNS[name]):
        raise ValueError(f"frames must be above {max(PATTERNS[name])} for {name}, got {frames}")
    missing = torch.zeros(frames, dtype=torch.bool)
    missing[list(PATTERNS[name])] = True
    return missing


def draw_frames(
    mixture: str | tuple[tuple[int, int], ...], n: int, frames: int = FRAMES, *, generator: torch.Generator
) -> Tensor:
    """Missing frames of n sequences, (n, frames) bool, each sequence from one part of a mixture.

    Every placement of a part's blocks without overlap is equally likely; blocks may touch, as they do in P3 and P4.

    Args:
        mixture: "S1" to "S4", or pairs (blocks, frames of each), all equally likely.
        n: sequences.
        frames: length of a sequence.
        generator: source of the draws.

    Raises:
        ValueError: an unknown mixture, or blocks that do not fit.

    Example:
        >>> missing = draw_frames("S4", 3, generator=torch.Generator().manual_seed(0))
        >>> missing.sum(1)
        tensor([16, 16, 16])
    """
    if isinstance(mixture, str):
        if mixture not in MIXTURES:
            raise ValueError(f"mixture must be one of {tuple(MIXTURES)}, got {mixture!r}")
        mixture = MIXTURES[mixture]
    for blocks, size in mixture:
        if blocks < 1 or size < 1 or blocks * size > frames:
            raise ValueError(f"mixture must have blocks that fit in {frames} frames, got {blocks} of {size}")
    part = torch.randint(len(mixture), (n,), generator=generator)
    missing = torch.zeros(n, frames, dtype=torch.bool)
    for index, (blocks, size) in enumerate(mixture):
        rows = (part == index).nonzero().flatten()
        missing[rows] = _placed(len(rows), blocks, size, frames, generator)
    return missing


def _placed(n: int, blocks: int, size: int, frames: int, generator: torch.Generator) -> Tensor:
    """Blocks shrunk to one slot each are a random subset of the slots; grown again they shift what follows."""
    slots = frames - blocks * (size - 1)
    chosen = torch.rand(n, slots, generator=generator).argsort(1)[:, :blocks].sort(1).values
    starts = chosen + (size - 1) * torch.arange(blocks)
    cells = (starts[:, :, None] + torch.arange(size)).flatten(1)
    return torch.zeros(n, frames, dtype=torch.bool).scatter_(1, cells, True)


def simulate(
    n: int,
    channels: int = CHANNELS,
    covariance: Tensor | None = None,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """n sequences (n, frames, channels) of the process; channels are independent.

    Args:
        n: sequences.
        channels: d.
        covariance: (frames, frames) float64, `kernel()` by default.
        generator: source of the draws.
        dtype: of the result; drawn in float64 whatever it is.

    Raises:
        ValueError: a covariance that is not positive definite.

    Example:
        >>> simulate(2, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 96, 8])
    """
    covariance = kernel() if covariance is None else covariance
    root, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        raise ValueError(f"covariance must be positive definite, got one whose leading minor {int(failed)} is not")
    drawn = torch.empty(n, len(covariance), channels, dtype=dtype)
    for first, last in pairwise([*range(0, n, _CHUNK), n]):
        white = torch.randn(last - first, len(covariance), channels, generator=generator, dtype=torch.float64)
        drawn[first:last] = root @ white
    return drawn

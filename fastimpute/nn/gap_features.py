"""What a cell's surroundings say about how hard it is to fill."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gap_features(missing: Tensor) -> Tensor:
    """Distances to the nearest observations and length of the gap, (n, L, 3 d) from `missing` (n, L, d) bool.

    Per channel, in frames on a logarithmic scale from 0 (observed) to 1 (nothing observed): back to the last
    observation, ahead to the next one, and the length of the gap the cell lies in. The transformer paper (arXiv
    2510.02216) leaves the inputs open; these features are this project's.

    Raises:
        TypeError: `missing` is not bool.
        ValueError: `missing` has not three dimensions.

    Example:
        >>> import torch
        >>> from fastimpute.nn import gap_features
        >>> gap_features(torch.tensor([[[False], [True], [True]]]))[0, :, 0]  # 0, 1, 2 frames behind
        tensor([0.0000, 0.5000, 0.7925])
    """
    if missing.dtype != torch.bool:
        raise TypeError(f"missing: expected bool, got {missing.dtype}")
    if missing.dim() != 3:
        raise ValueError(f"missing: expected shape (n, L, d), got {tuple(missing.shape)}")
    back, ahead = since_observed(missing), since_observed(missing.flip(1)).flip(1)
    frames = missing.shape[1]
    length = torch.where(missing, back + ahead - 1, 0)
    return torch.cat([back, ahead, length], -1).clamp(max=frames).float().log1p() / math.log1p(max(frames, 1))


def since_observed(missing: Tensor) -> Tensor:
    """Frames (n, L, d) since the last observation, 0 where `missing` (n, L, d) is False, L where there was none."""
    frames = missing.shape[1]
    if frames == 0:
        return missing.long()
    position = torch.arange(frames, device=missing.device)[None, :, None]
    last = torch.where(missing, -frames, position).cummax(1).values
    return (position - last).clamp(max=frames)

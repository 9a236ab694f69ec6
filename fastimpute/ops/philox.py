"""Counter-based normal noise in plain PyTorch: Philox4x32-10 (Salmon et al., SC 2011).

The same words as csrc/common/philox.h makes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words per counter; words are int64 tensors with values in [0, 2^32)."""
    word0, word1, word2, word3 = counter
    key0, key1 = key
    for _ in range(10):
        # The low 64 bits of a product are right although int64 overflows; the shift's copied sign is masked off.
        product0, product1 = word0 * _MULTIPLIERS[0], word2 * _MULTIPLIERS[1]
        word0, word1, word2, word3 = (
            ((product1 >> 32) & _WORD) ^ word1 ^ key0,
            product1 & _WORD,
            ((product0 >> 32) & _WORD) ^ word3 ^ key1,
            product0 & _WORD,
        )
        key0, key1 = (key0 + _KEY_STEPS[0]) & _WORD, (key1 + _KEY_STEPS[1]) & _WORD
    return word0, word1, word2, word3


def standard_normal(seed: int, keys: Tensor, dim: int, sample: int, step: int, dtype: torch.dtype) -> Tensor:
    """Noise (n, dim) of patches.

    Args:
        seed: any integer below 2^64.
        keys: (n, 1 + sensors) int64: absolute start of the window, then the sensor of each column.
        dim: window steps * sensors; element d is window step d // sensors of sensor d % sensors.
        sample: tells imputations of one window apart, below 4096.
        step: iteration.
        dtype: of the result.
    """
    sensors = keys.shape[1] - 1
    start = keys[:, :1]
    element = torch.arange(dim, device=keys.device)
    sensor = keys[:, 1:][:, element % sensors] & _WORD
    shape = sensor.shape
    counter = (
        (start & _WORD).expand(shape),
        sensor,
        torch.full_like(sensor, step & _WORD),
        (sample << 20 | element // sensors).expand(shape),
    )
    key = (torch.full_like(sensor, seed & _WORD), ((start >> 32) & _WORD ^ (seed >> 32 & _WORD)).expand(shape))
    words = philox4x32(counter, key)
    first, second = ((word >> 9).to(dtype).add(0.5).mul(2.0**-23) for word in words[:2])
    return torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * math.pi * second)

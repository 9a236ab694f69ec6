"""Counter-based normal noise inside Triton kernels: Philox4x32-10 (Salmon et al., SC 2011).

The words of `fastimpute.ops.philox` and csrc/common/philox.h, bit for bit; what follows them is float32 rounding.
"""

from __future__ import annotations

import triton
import triton.language as tl

_MULTIPLIER0 = tl.constexpr(0xD2511F53)
_MULTIPLIER1 = tl.constexpr(0xCD9E8D57)
_KEY_STEP0 = tl.constexpr(0x9E3779B9)
_KEY_STEP1 = tl.constexpr(0xBB67AE85)


@triton.jit
def philox4x32(word0, word1, word2, word3, key0, key1):
    """Four random words per counter; all uint32."""
    multiplier0 = tl.full((), _MULTIPLIER0, tl.uint32)
    multiplier1 = tl.full((), _MULTIPLIER1, tl.uint32)
    step0 = tl.full((), _KEY_STEP0, tl.uint32)
    step1 = tl.full((), _KEY_STEP1, tl.uint32)
    for _ in tl.static_range(10):
        low0, high0 = word0 * multiplier0, tl.umulhi(word0, multiplier0)
        low1, high1 = word2 * multiplier1, tl.umulhi(word2, multiplier1)
        word0, word1, word2, word3 = high1 ^ word1 ^ key0, low1, high0 ^ word3 ^ key1, low0
        key0 += step0
        key1 += step1
    return word0, word1, word2, word3


@triton.jit
def uniform(word):
    """In (0, 1), of 23 bits: exact in float32."""
    return ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07


@triton.jit
def cos_turn(turn):
    """cos(2 pi turn) for turn in [0, 1]: a library's cosine would carry the reduction of huge arguments along."""
    # cos(2 pi u) = sin(2 pi (1/4 - |u|)) with u in [-1/2, 1/2], so the sine's argument lies in [-1/4, 1/4] turns.
    centred = tl.where(turn > 0.5, turn - 1.0, turn)
    angle = (0.25 - tl.abs(centred)) * 6.283185307179586
    square = angle * angle
    series = -2.50507478e-8
    series = series * square + 2.75573137e-6
    series = series * square - 1.98412698e-4
    series = series * square + 8.33333333e-3
    series = series * square - 1.66666667e-1
    return angle + angle * square * series


@triton.jit
def standard_normal(seed, start, sensor, sample, step, window_step):
    """N(0, 1) per element.

    seed, sample, step: integers of one launch. start (absolute start of the window) and sensor: int64 tensors;
    window_step: int32 tensor; all of one shape.
    """
    seed = tl.cast(seed, tl.int64)
    key0 = tl.zeros_like(start).to(tl.uint32) + (seed & 0xFFFFFFFF).to(tl.uint32)
    key1 = ((start >> 32) ^ (seed >> 32)).to(tl.uint32)
    counter2 = tl.zeros_like(start).to(tl.uint32) + (tl.cast(step, tl.int64) & 0xFFFFFFFF).to(tl.uint32)
    counter3 = ((tl.cast(sample, tl.int32) << 20) | window_step).to(tl.uint32)
    word0, word1, _, _ = philox4x32(start.to(tl.uint32), sensor.to(tl.uint32), counter2, counter3, key0, key1)
    return tl.sqrt(-2.0 * tl.log(uniform(word0))) * cos_turn(uniform(word1))

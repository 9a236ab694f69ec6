"""`spt_weights` on the GPU: the weight update of one group in one pass (arXiv 2602.01182).

    value = log_p - gamma / 2 |score|^2          robust: (value - median) / max(IQR, 1e-6) of the group
    log_w <- log_softmax(log_ref + (1 - tau) (log_w - log_ref) + eta_w value),  |log(B w)| <= bound

Bound by memory: per particle 12 bytes read (16 with log_ref) and 8 written, against some 15 operations. A group lives
in the registers of one program, small groups share one; so every array is read and written once. The bound, where a
weight reaches it, and the quantiles are found by bisection, whose sums stay on chip: 40 halvings, and 32 for the bits
of an order statistic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

GROUP_MOST = 16384

_LEAST_SPREAD = tl.constexpr(1e-6)
_HALVINGS = tl.constexpr(40)
_SIGN = tl.constexpr(-0x80000000)
_INFINITY = tl.constexpr(float("inf"))


class Configuration(NamedTuple):
    """Groups of one program, lanes of a group (a power of two), and warps."""

    groups: int
    lanes: int
    warps: int


# By lanes: few threads where a group is small, so that sums stay within a warp; at most 32 particles to a thread.
_WARPS = ((1024, 4), (4096, 8), (GROUP_MOST, 16))
_LANES_OF_A_PROGRAM = 1024


def configuration(group: int) -> Configuration:
    """How groups of this many particles are laid out."""
    lanes = max(16, triton.next_power_of_2(group))
    warps = next(warps for most, warps in _WARPS if lanes <= most)
    return Configuration(max(1, _LANES_OF_A_PROGRAM // lanes), lanes, warps)


@triton.jit
def spt_weights_kernel(
    log_w_ptr,
    log_p_ptr,
    score_sq_ptr,
    log_ref_ptr,
    log_w_new_ptr,
    mass_ptr,
    row_vectors,
    group_vectors,
    half_gamma,
    eta_w,
    kept,
    tau,
    bound,
    ROBUST: tl.constexpr,
    VECTOR: tl.constexpr,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
):
    """GROUPS groups of `group_vectors` times VECTOR particles each; log_ref_ptr is None where it is uniform."""
    number = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)
    vectors = tl.maximum(tl.minimum(row_vectors - number * group_vectors, group_vectors), 0)
    count = vectors * VECTOR
    lane = tl.arange(0, LANES)[None, :]
    inside = lane // VECTOR < vectors[:, None]  # by vectors, so that the compiler sees whole ones
    offset = (number * group_vectors * VECTOR)[:, None] + lane

    log_w = tl.load(log_w_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(log_p_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    value -= half_gamma * tl.load(score_sq_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    if ROBUST:
        low, median, high = _quartiles(value, inside, count)
        value = (value - median[:, None]) / tl.maximum(high - low, _LEAST_SPREAD)[:, None]
    # The constant that log_softmax removes is taken off first: what remains is small where weights are not.
    value -= tl.max(tl.where(inside, value, -_INFINITY), axis=1)[:, None]
    logit = kept * log_w + eta_w * tl.where(inside, value, 0.0)
    if log_ref_ptr is not None:
        logit += tau * tl.load(log_ref_ptr + offset, mask=inside, other=0.0).to(tl.float32)

    particles = tl.maximum(count, 1).to(tl.float32)
    highest = tl.max(tl.where(inside, logit, -_INFINITY), axis=1)
    highest = tl.where(count > 0, highest, 0.0)
    logit -= highest[:, None]
    mean = tl.sum(tl.where(inside, tl.exp(logit), 0.0), axis=1) / particles
    log_mass = logit - tl.log(tl.where(count > 0, mean, 1.0))[:, None]
    beyond = tl.max(tl.where(inside, tl.abs(log_mass), 0.0), axis=1) > bound
    if tl.max(beyond.to(tl.int32), axis=0) > 0:
        log_mass = tl.where(beyond[:, None], _bounded(log_mass, inside, particles, bound), log_mass)

    element: tl.constexpr = log_w_new_ptr.dtype.element_ty
    tl.store(log_w_new_ptr + offset, (log_mass - tl.log(particles)[:, None]).to(element), mask=inside)
    tl.store(mass_ptr + offset, tl.exp(log_mass).to(element), mask=inside)


@triton.jit
def _bounded(log_mass, inside, particles, bound):
    """clamp(log_mass - shift) with the shift that keeps the mean of its exponential at one."""
    low = tl.min(tl.where(inside, log_mass, _INFINITY), axis=1) - bound
    high = tl.max(tl.where(inside, log_mass, -_INFINITY), axis=1) + bound
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        held = tl.exp(_clamp(log_mass - middle[:, None], bound))
        heavy = tl.sum(tl.where(inside, held, 0.0), axis=1) > particles
        low, high = tl.where(heavy, middle, low), tl.where(heavy, high, middle)
    return _clamp(log_mass - (0.5 * (low + high))[:, None], bound)


@triton.jit
def _clamp(value, bound):
    return tl.maximum(tl.minimum(value, bound), -bound)


@triton.jit
def _quartiles(value, inside, count):
    """Quantiles 1/4, 1/2 and 3/4 of each group, between order statistics as torch.quantile does."""
    # As integers in the order of the floats, -0.0 as 0.0.
    bits = (value + 0.0).to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    low = _quantile(key, value, inside, count, 1)
    median = _quantile(key, value, inside, count, 2)
    high = _quantile(key, value, inside, count, 3)
    return low, median, high


@triton.jit
def _quantile(key, value, inside, count, QUARTERS: tl.constexpr):
    last = tl.maximum(count - 1, 0).to(tl.int32)
    rank = QUARTERS * last // 4
    fraction = (QUARTERS * last % 4).to(tl.float32) * 0.25
    # The largest key with at most `rank` keys below it, bit by bit from the sign down.
    found = tl.full(rank.shape, _SIGN, tl.int32)
    for step in range(32):
        tried = found ^ (tl.full(rank.shape, 1, tl.int32) << (31 - step))
        below = tl.sum((inside & (key < tried[:, None])).to(tl.int32), axis=1)
        found = tl.where(below <= rank, tried, found)
    at_most = tl.sum((inside & (key <= found[:, None])).to(tl.int32), axis=1)
    low = tl.max(tl.where(inside & (key <= found[:, None]), value, -_INFINITY), axis=1)
    next_one = tl.min(tl.where(inside & (key > found[:, None]), value, _INFINITY), axis=1)
    high = tl.where((at_most > rank + 1) | (fraction == 0.0), low, next_one)
    return low + fraction * (high - low)


def launch(
    log_w: Any,
    log_p: Any,
    score_sq: Any,
    log_ref: Any,
    log_w_new: Any,
    mass: Any,
    *,
    group: int,
    gamma: float,
    eta_w: float,
    tau: float,
    bound: float,
    robust: bool,
) -> None:
    """Updates all groups; every tensor (n,) and contiguous, log_ref None where it is uniform, group <= GROUP_MOST."""
    (rows,) = log_w.shape
    if rows == 0:
        return
    group = min(group, rows)
    groups, lanes, warps = configuration(group)
    vector = 4 if rows % 4 == 0 and group % 4 == 0 else 1
    spt_weights_kernel[(triton.cdiv(rows, groups * group),)](
        log_w, log_p, score_sq, log_ref, log_w_new, mass, rows // vector, group // vector,
        0.5 * gamma, eta_w, 1.0 - tau, tau, bound, robust, vector, groups, lanes,
        num_warps=warps, enable_fp_fusion=True,
    )  # fmt: skip

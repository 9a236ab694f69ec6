"""A tile of sequences inside the Triton kernel of `unrolled_attention`.

A row is one channel (or mode) of a sequence along FRAMES frames, the first T of which exist; CHANNELS rows are a
sequence, the first D of which exist. Tiles (ROWS, FRAMES) and tables by sequence and frame lie in a program's own
scratch; the caller sets the barriers between writing and reading one, where nothing else is said.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Tables: the state of each frame, then six for the preconditioner.
TABLES = 7
SEEN, HIDDEN = tl.constexpr(1.0), tl.constexpr(2.0)
CHUNK = tl.constexpr(16)  # frames of the operand multiplied at a time


@triton.jit
def in_state(tables, STATE: tl.constexpr, ROWS: tl.constexpr, FRAMES: tl.constexpr, CHANNELS: tl.constexpr):
    """Which cells of a tile are those of frames in this state."""
    sequence, frame = tl.arange(0, ROWS) // CHANNELS, tl.arange(0, FRAMES)
    return tl.load(tables + (sequence * FRAMES)[:, None] + frame[None, :]) == STATE


@triton.jit
def read(
    x_ptr,
    v_ptr,
    tables,
    inside,
    mean_ptr,
    alpha,
    basis_ptr,
    result,
    channels,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    FRAMES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The modes of x - mean at frames seen and of v - alpha mean at those missing."""
    row, frame = tl.arange(0, ROWS), tl.arange(0, FRAMES)
    column = frame[None, :] * D + (row % CHANNELS)[:, None]
    seen = inside[:, None] & in_state(tables, SEEN, ROWS, FRAMES, CHANNELS)
    hidden = inside[:, None] & in_state(tables, HIDDEN, ROWS, FRAMES, CHANNELS)
    values = tl.load(x_ptr[:, None] + column, mask=seen, other=0.0)
    values += tl.load(v_ptr[:, None] + column, mask=hidden, other=0.0)
    if mean_ptr is not None:
        scale = tl.where(hidden, alpha[:, None], 1.0)
        values -= scale * tl.load(mean_ptr + column, mask=seen | hidden, other=0.0)
    cells = row[:, None] * FRAMES + frame[None, :]
    tl.store(result + cells, values)
    tl.debug_barrier()
    if basis_ptr is not None:
        values = _mixed(result, basis_ptr, channels, True, D, ROWS, FRAMES, CHANNELS)
        tl.debug_barrier()
        tl.store(result + cells, values)
        tl.debug_barrier()


@triton.jit
def write(
    scores,
    means,
    x_ptr,
    tables,
    inside,
    mean_ptr,
    basis_ptr,
    score_ptr,
    filled_ptr,
    channels,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    FRAMES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The score, zero at frames seen, and the conditional mean, there x, bit for bit."""
    row, frame = tl.arange(0, ROWS), tl.arange(0, FRAMES)
    column = frame[None, :] * D + (row % CHANNELS)[:, None]
    seen = inside[:, None] & in_state(tables, SEEN, ROWS, FRAMES, CHANNELS)
    hidden = inside[:, None] & in_state(tables, HIDDEN, ROWS, FRAMES, CHANNELS)
    score = _mixed(scores, basis_ptr, channels, False, D, ROWS, FRAMES, CHANNELS)
    tl.store(score_ptr[:, None] + column, tl.where(hidden, score, 0.0), mask=seen | hidden)
    mean = _mixed(means, basis_ptr, channels, False, D, ROWS, FRAMES, CHANNELS)
    if mean_ptr is not None:
        mean += tl.load(mean_ptr + column, mask=hidden, other=0.0)
    x = tl.load(x_ptr[:, None] + column, mask=seen, other=0.0)
    tl.store(filled_ptr[:, None] + column, tl.where(hidden, mean, x), mask=seen | hidden)


@triton.jit
def _mixed(
    values, basis_ptr, channels, INTO: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, FRAMES: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """The channels' modes (INTO), or the channels from their modes, of a tile of the scratch."""
    row, frame = tl.arange(0, ROWS), tl.arange(0, FRAMES)
    channel = row % CHANNELS
    if basis_ptr is None:
        result = tl.load(values + row[:, None] * FRAMES + frame[None, :])
    else:
        result = tl.zeros((ROWS, FRAMES), tl.float32)
        for source in range(channels):  # D, but not unrolled: all its loads at once do not fit the registers
            place = source * D + channel if INTO else channel * D + source
            weight = tl.load(basis_ptr + place, mask=channel < D, other=0.0)
            result += weight[:, None] * tl.load(values + ((row - channel + source) * FRAMES)[:, None] + frame[None, :])
    return result


@triton.jit
def attend(operand_ptr, lag_table_ptr, T: tl.constexpr, ROWS: tl.constexpr, FRAMES: tl.constexpr):
    """The tile at operand_ptr times the head matrix."""
    frame = tl.arange(0, FRAMES)
    row = tl.arange(0, ROWS) * FRAMES
    total = tl.zeros((ROWS, FRAMES), tl.float32)
    for first in range(0, T, CHUNK):
        part = first + tl.arange(0, CHUNK)
        values = tl.load(operand_ptr + (row[:, None] + part[None, :]))
        lag = tl.abs(part[:, None] - frame[None, :])
        heads = tl.load(lag_table_ptr + lag, mask=lag < T, other=0.0)
        total = tl.dot(values, heads, total, input_precision="ieee")
    return total


@triton.jit
def rate(rates_ptr, offset, inside, index):
    """Step and momentum of each row in one iteration."""
    here = rates_ptr + offset + 2 * index
    return tl.load(here, mask=inside, other=0.0), tl.load(here + 1, mask=inside, other=0.0)


@triton.jit
def dot(left, right, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """The product summed over frames and channels of each sequence, in all its rows."""
    total = tl.sum(left * right, axis=1)
    if CHANNELS > 1:
        of_sequence = tl.sum(tl.reshape(total, (ROWS // CHANNELS, CHANNELS)), axis=1)[:, None]
        total = tl.reshape(tl.broadcast_to(of_sequence, (ROWS // CHANNELS, CHANNELS)), (ROWS,))
    return total


@triton.jit
def quotient(value, by):
    """Zero where the denominator is not positive: a solved sequence stays where it is."""
    return tl.where(by > 0.0, value / tl.where(by > 0.0, by, 1.0), 0.0)


@triton.jit
def tabulate(
    missing_ptr,
    tile,
    sequences,
    missing_stride,
    decay_ptr,
    weight_ptr,
    tables,
    T: tl.constexpr,
    SEQUENCES: tl.constexpr,
    FRAMES: tl.constexpr,
):
    """Lays out the state of each frame of each sequence and what the preconditioner asks of a frame seen.

    That is where the frames seen before and after it are, and their decays and weights. A frame without such a
    neighbour is its own, at gap 0, of decay 0 and weight 1; weights of frames missing are 0.
    """
    TABLE: tl.constexpr = SEQUENCES * FRAMES
    local = tl.arange(0, SEQUENCES)[:, None]
    frame = tl.broadcast_to(tl.arange(0, FRAMES)[None, :], (SEQUENCES, FRAMES))
    sequence = tile * SEQUENCES + local
    exists = (sequence < sequences) & (frame < T)
    mask_ptr = missing_ptr + sequence * missing_stride + frame
    seen = exists & (tl.load(mask_ptr, mask=exists, other=1) == 0)
    place = tables + local * FRAMES + frame
    tl.store(place, tl.where(seen, SEEN, tl.where(exists, HIDDEN, 0.0)))
    if decay_ptr is not None:
        earlier = exists & (frame > 0)
        earlier &= tl.load(mask_ptr - 1, mask=earlier, other=1) == 0
        later = exists & (frame < T - 1)
        later &= tl.load(mask_ptr + 1, mask=later, other=1) == 0
        before = tl.associative_scan(tl.where(earlier, frame - 1, -1), 1, _larger)
        before = tl.where(before < 0, frame, before)
        after = tl.associative_scan(tl.where(later, frame + 1, FRAMES), 1, _smaller, reverse=True)
        after = tl.where(after == FRAMES, frame, after)
        tl.store(place + TABLE, before.to(tl.float32))
        tl.store(place + 2 * TABLE, after.to(tl.float32))
        tl.store(place + 3 * TABLE, tl.load(decay_ptr + (frame - before), mask=seen, other=0.0))
        tl.store(place + 4 * TABLE, tl.load(weight_ptr + (frame - before), mask=seen, other=0.0))
        tl.store(place + 5 * TABLE, tl.load(decay_ptr + (after - frame), mask=seen, other=0.0))
        tl.store(place + 6 * TABLE, tl.load(weight_ptr + (after - frame), mask=seen, other=0.0))
    tl.debug_barrier()


@triton.jit
def precondition(
    residual, residuals, tables, variance, ROWS: tl.constexpr, FRAMES: tl.constexpr, CHANNELS: tl.constexpr
):
    """B^T W B / variance of the residual, B y = y - decay y_before over the frames seen.

    residuals: the residual in the scratch, where each frame finds its neighbours'.
    """
    TABLE: tl.constexpr = ROWS // CHANNELS * FRAMES
    row, frame = tl.arange(0, ROWS), tl.arange(0, FRAMES)
    own = residuals + row[:, None] * FRAMES
    place = tables + (row // CHANNELS * FRAMES)[:, None] + frame[None, :]
    earlier = tl.load(own + tl.load(place + TABLE).to(tl.int32))
    increment = tl.load(place + 4 * TABLE) * (residual - tl.load(place + 3 * TABLE) * earlier)
    later = tl.load(own + tl.load(place + 2 * TABLE).to(tl.int32))
    decay = tl.load(place + 5 * TABLE)
    following = tl.load(place + 6 * TABLE) * (later - decay * residual)
    return (increment - decay * following) / variance[:, None]


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b)

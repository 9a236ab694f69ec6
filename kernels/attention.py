"""Attention of short sequences on the GPU: pieces of work, one to a warp.

    softmax(Q K^T / sqrt(D) + bias) V   over the tokens of a sequence, then those of a memory

A piece is a run of queries of one head of one sequence. The pieces of a program differ in the sequence, so that what
sequences share comes from the L1 cache; their products are batched ones, so that sums over keys stay within a warp.
Operands have the dtype of the queries; scores, sums and softmax are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = 1.4426950408889634

_LOG2_E = tl.constexpr(LOG2_E)
_LOWEST = tl.constexpr(-3.4028234e38)
_INFINITY = tl.constexpr(float("inf"))

_COUNTS = ["first", "count", "tokens", "windows", "bias_rows", "memory_rows", "memory_tokens"]


@triton.jit(do_not_specialize=[*_COUNTS, "bias_stride", "bias_head_stride"])
def attention_kernel(
    qkv_ptr,
    bias_ptr,
    absent_ptr,
    memory_ptr,
    first,
    count,
    tokens,
    windows,
    bias_rows,
    bias_stride,
    bias_head_stride,
    bias_query_stride,
    bias_key_stride,
    memory_rows,
    memory_tokens,
    H: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PART: tl.constexpr,
    PIECES: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    FEATURES: tl.constexpr,
):
    """Puts the attention of `count` sequences in the place of their queries.

    qkv_ptr: a row for every token: queries, keys, values of PART columns each. A head has SIZE of them, zero beyond its
    H / HEADS features. The queries are scaled by log2(e) / sqrt(H / HEADS). absent_ptr: of these sequences; bias and
    memory: their rows modulo the number of the sequence, that of the first is `first`. windows: a divisor of `count`;
    sequences with as many others between them share bias and memory.
    """
    D: tl.constexpr = H // HEADS
    count, tokens, memory_tokens = tl.cast(count, tl.int32), tl.cast(tokens, tl.int32), tl.cast(memory_tokens, tl.int32)
    piece = tl.program_id(0) * PIECES + tl.arange(0, PIECES)
    there = piece < tl.cdiv(tokens, QUERIES) * HEADS * count
    which = _turn(piece % count, count, tl.cast(windows, tl.int32))
    head = piece // count % HEADS
    query = (piece // count // HEADS * QUERIES)[:, None] + tl.arange(0, QUERIES)[None, :]
    asked = there[:, None] & (query < tokens)
    sequence = first + which.to(tl.int64)
    qkv_ptr += which.to(tl.int64) * tokens * (3 * PART) + head * SIZE
    query_ptr = qkv_ptr[:, None] + query * (3 * PART)
    feature = tl.arange(0, SIZE)
    whole = _part(query_ptr, asked, 0, SIZE) if FEATURES == SIZE else 0
    if bias_ptr is not None:
        bias_ptr += (sequence % bias_rows) * bias_stride + head.to(tl.int64) * bias_head_stride
        bias_ptr = bias_ptr[:, None] + query * tl.cast(bias_query_stride, tl.int32)
    highest = tl.full((PIECES, QUERIES), _LOWEST, tl.float32)
    total = tl.zeros((PIECES, QUERIES), tl.float32)
    mean = tl.zeros((PIECES, QUERIES, SIZE), tl.float32)

    for begin in range(0, tokens, KEYS):
        key = begin + tl.arange(0, KEYS)
        present = there[:, None] & (key < tokens)[None, :]
        key_ptr = qkv_ptr[:, None] + PART + (key * (3 * PART))[None, :]
        score = tl.zeros((PIECES, QUERIES, KEYS), tl.float32)
        for from_feature in tl.static_range(0, SIZE, FEATURES):
            queries = whole if FEATURES == SIZE else _part(query_ptr, asked, from_feature, FEATURES)
            part = from_feature + tl.arange(0, FEATURES)
            keys = tl.load(key_ptr[:, None, :] + part[None, :, None], mask=present[:, None, :], other=0.0)
            score = tl.dot(queries, keys, score, input_precision="ieee")
        if bias_ptr is not None:
            score += _bias(bias_ptr, bias_key_stride, asked, present, key)
        values = tl.load(key_ptr[:, :, None] + (PART + feature)[None, None, :], mask=present[:, :, None], other=0.0)
        if absent_ptr is not None:
            place = (which.to(tl.int64) * tokens)[:, None] + key[None, :]
            present = present & (tl.load(absent_ptr + place, mask=present, other=1) == 0)
        highest, total, mean = _further(score, present, values, highest, total, mean)

    if memory_ptr is not None:
        memory_ptr += (sequence % memory_rows) * memory_tokens * (2 * H) + head * D
        for begin in range(0, memory_tokens, KEYS):
            key = begin + tl.arange(0, KEYS)
            present = there[:, None] & (key < memory_tokens)[None, :]
            key_ptr = memory_ptr[:, None] + (key * (2 * H))[None, :]
            score = tl.zeros((PIECES, QUERIES, KEYS), tl.float32)
            for from_feature in tl.static_range(0, SIZE, FEATURES):
                queries = whole if FEATURES == SIZE else _part(query_ptr, asked, from_feature, FEATURES)
                part = from_feature + tl.arange(0, FEATURES)
                inside = present[:, None, :] & (part < D)[None, :, None]
                keys = tl.load(key_ptr[:, None, :] + part[None, :, None], mask=inside, other=0.0)
                score = tl.dot(queries, keys.to(qkv_ptr.dtype.element_ty), score, input_precision="ieee")
            if bias_ptr is not None:
                score += _bias(bias_ptr, bias_key_stride, asked, present, tokens + key)
            inside = present[:, :, None] & (feature < D)[None, None, :]
            values = tl.load(key_ptr[:, :, None] + (H + feature)[None, None, :], mask=inside, other=0.0)
            values = values.to(qkv_ptr.dtype.element_ty)
            highest, total, mean = _further(score, present, values, highest, total, mean)

    mean /= tl.where(total > 0.0, total, 1.0)[:, :, None]  # without any key it is zero
    tl.debug_barrier()  # the queries have been read
    tl.store(query_ptr[:, :, None] + feature[None, None, :], mean, mask=asked[:, :, None])


@triton.jit
def _turn(place, count, windows):
    """The sequence at this place of the order in which those of one window follow each other."""
    draws = count // windows
    return place % draws * windows + place // draws


@triton.jit
def _part(query_ptr, asked, first, FEATURES: tl.constexpr):
    """Some features of the queries."""
    feature = first + tl.arange(0, FEATURES)
    return tl.load(query_ptr[:, :, None] + feature[None, None, :], mask=asked[:, :, None], other=0.0)


@triton.jit
def _bias(bias_ptr, key_stride, asked, present, key):
    """In units of log 2, as the scores are."""
    place = bias_ptr[:, :, None] + (key * tl.cast(key_stride, tl.int32))[None, None, :]
    return _LOG2_E * tl.load(place, mask=asked[:, :, None] & present[:, None, :], other=0.0)


@triton.jit
def _further(score, present, values, highest, total, mean):
    """Highest score, sum of weights and weighted sum of values, with some more keys."""
    score = tl.where(present[:, None, :], score, -_INFINITY)
    raised = tl.maximum(highest, tl.max(score, axis=2))
    weight = tl.exp2(score - raised[:, :, None])
    shrink = tl.exp2(highest - raised)
    mean *= shrink[:, :, None]
    mean = tl.dot(weight.to(values.dtype), values, mean, input_precision="ieee")
    return raised, total * shrink + tl.sum(weight, axis=2), mean

"""The attention of short sequences on the GPU and its gradient: blocks of queries by keys, nothing of their size kept.

    weights = softmax(Q K^T / sqrt(size) + bias), attended = weights V, over the tokens of a sequence, then of a memory
    by scores = weights (by attended V^T - sum(by attended attended)), by Q, K = by scores K, Q / sqrt(size),
    by V = weights^T by attended, by bias = by scores

Rows of queries, keys and values side by side, H each; a memory's rows are keys, then values. What sequences share gets
its gradient from one program, which goes through them in their order: same bits on any GPU. All is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastimpute.kernels.attention import LOG2_E

QUERIES, KEYS = 16, 16  # of a block: more would not fit the registers

_LOG2_E = tl.constexpr(LOG2_E)
_LOWEST = tl.constexpr(-3.4028234e38)
_INFINITY = tl.constexpr(float("inf"))
_QUERIES, _KEYS = tl.constexpr(QUERIES), tl.constexpr(KEYS)
_COUNTS = ["first", "tokens", "memory_tokens", "memory_rows", "bias_rows", "bias_stride", "bias_head_stride"]


@triton.jit(do_not_specialize=_COUNTS)
def attended_kernel(
    qkv_ptr,
    bias_ptr,
    absent_ptr,
    memory_ptr,
    attended_ptr,
    level_ptr,
    first,
    tokens,
    memory_tokens,
    memory_rows,
    bias_rows,
    bias_stride,
    bias_head_stride,
    bias_query_stride,
    bias_key_stride,
    H: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Attention of one block of queries of a head, (.., 3 H), in the first H columns, and log2 of the softmax's
    denominator, (sequences, heads, tokens); a query without any key gets zero."""
    HEADS: tl.constexpr = H // SIZE
    sequence, head = (tl.program_id(0) // HEADS).to(tl.int64), tl.program_id(0) % HEADS
    query = tl.program_id(1) * _QUERIES + tl.arange(0, _QUERIES)
    feature = tl.arange(0, SIZE)
    asked = (query < tokens)[:, None]
    bias_place = _bias_place(first + sequence, head, bias_rows, bias_stride, bias_head_stride)
    own = qkv_ptr + sequence * tokens * (3 * H) + head * SIZE
    queries = tl.load(own + (query[:, None] * (3 * H) + feature[None, :]), mask=asked, other=0.0)
    highest = tl.full((_QUERIES,), _LOWEST, tl.float32)
    total = tl.zeros((_QUERIES,), tl.float32)
    mean = tl.zeros((_QUERIES, SIZE), tl.float32)
    for begin in range(0, tokens, _KEYS):
        key = begin + tl.arange(0, _KEYS)
        score, _ = _scores(
            queries, own + H, bias_ptr, bias_place, absent_ptr, sequence, query, key, tokens, tokens, 0,
            bias_query_stride, bias_key_stride, 3 * H,
        )  # fmt: skip
        highest, total, mean = _further(score, own + 2 * H, key, tokens, highest, total, mean, 3 * H)
    if memory_ptr is not None:
        further = memory_ptr + (first + sequence) % memory_rows * memory_tokens * (2 * H) + head * SIZE
        for begin in range(0, memory_tokens, _KEYS):
            key = begin + tl.arange(0, _KEYS)
            score, _ = _scores(
                queries, further, bias_ptr, bias_place, None, sequence, query, key, tokens, memory_tokens, tokens,
                bias_query_stride, bias_key_stride, 2 * H,
            )  # fmt: skip
            highest, total, mean = _further(score, further + H, key, memory_tokens, highest, total, mean, 2 * H)
    found = total > 0.0
    mean /= tl.where(found, total, 1.0)[:, None]
    place = attended_ptr + sequence * tokens * (3 * H) + head * SIZE
    tl.store(place + (query[:, None] * (3 * H) + feature[None, :]), mean, mask=asked)
    level = tl.where(found, highest + tl.log2(tl.where(found, total, 1.0)), 0.0)
    tl.store(level_ptr + tl.program_id(0).to(tl.int64) * tokens + query, level, mask=query < tokens)


@triton.jit(do_not_specialize=_COUNTS)
def by_queries_kernel(
    qkv_ptr,
    bias_ptr,
    absent_ptr,
    memory_ptr,
    attended_ptr,
    level_ptr,
    by_attended_ptr,
    by_qkv_ptr,
    first,
    tokens,
    memory_tokens,
    memory_rows,
    bias_rows,
    bias_stride,
    bias_head_stride,
    bias_query_stride,
    bias_key_stride,
    H: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Gradient by one block of queries of a head of a sequence; by_attended_ptr: (.., H)."""
    HEADS: tl.constexpr = H // SIZE
    sequence, head = (tl.program_id(0) // HEADS).to(tl.int64), tl.program_id(0) % HEADS
    query = tl.program_id(1) * _QUERIES + tl.arange(0, _QUERIES)
    bias_place = _bias_place(first + sequence, head, bias_rows, bias_stride, bias_head_stride)
    queries, way, own_share, level = _asked(
        qkv_ptr, attended_ptr, level_ptr, by_attended_ptr, sequence, head, query, tokens, H, SIZE
    )
    own = qkv_ptr + sequence * tokens * (3 * H) + head * SIZE
    total = tl.zeros((_QUERIES, SIZE), tl.float32)
    for begin in range(0, tokens, _KEYS):
        key = begin + tl.arange(0, _KEYS)
        score, keys = _scores(
            queries, own + H, bias_ptr, bias_place, absent_ptr, sequence, query, key, tokens, tokens, 0,
            bias_query_stride, bias_key_stride, 3 * H,
        )  # fmt: skip
        _, change = _back(score, own + 2 * H, key, tokens, way, own_share, level, 3 * H)
        total = tl.dot(change, keys, total, input_precision="ieee")
    if memory_ptr is not None:
        further = memory_ptr + (first + sequence) % memory_rows * memory_tokens * (2 * H) + head * SIZE
        for begin in range(0, memory_tokens, _KEYS):
            key = begin + tl.arange(0, _KEYS)
            score, keys = _scores(
                queries, further, bias_ptr, bias_place, None, sequence, query, key, tokens, memory_tokens, tokens,
                bias_query_stride, bias_key_stride, 2 * H,
            )  # fmt: skip
            _, change = _back(score, further + H, key, memory_tokens, way, own_share, level, 2 * H)
            total = tl.dot(change, keys, total, input_precision="ieee")
    place = by_qkv_ptr + sequence * tokens * (3 * H) + head * SIZE
    cells = query[:, None] * (3 * H) + tl.arange(0, SIZE)[None, :]
    tl.store(place + cells, total * (SIZE**-0.5), mask=(query < tokens)[:, None])


@triton.jit(do_not_specialize=["sequences", *_COUNTS])
def by_keys_kernel(
    qkv_ptr,
    bias_ptr,
    absent_ptr,
    memory_ptr,
    attended_ptr,
    level_ptr,
    by_attended_ptr,
    out_ptr,
    first,
    sequences,
    tokens,
    memory_tokens,
    memory_rows,
    bias_rows,
    bias_stride,
    bias_head_stride,
    bias_query_stride,
    bias_key_stride,
    MEMORY: tl.constexpr,
    FURTHER: tl.constexpr,
    H: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Gradient by one block of keys and values of a head: of a sequence, where its queries' is; MEMORY: of a memory,
    over all sequences that read it. FURTHER: it is added to what earlier sequences gave."""
    HEADS: tl.constexpr = H // SIZE
    STRIDE: tl.constexpr = 2 * H if MEMORY else 3 * H
    owner, head = (tl.program_id(0) // HEADS).to(tl.int64), tl.program_id(0) % HEADS
    key = tl.program_id(1) * _KEYS + tl.arange(0, _KEYS)
    feature = tl.arange(0, SIZE)
    if MEMORY:
        count, before = memory_tokens, tokens
        key_ptr = memory_ptr + owner * memory_tokens * STRIDE + head * SIZE
        out_ptr += owner * memory_tokens * STRIDE + head * SIZE
        sequence, step = (owner + memory_rows - first % memory_rows) % memory_rows, memory_rows
    else:
        count, before = tokens, 0
        key_ptr = qkv_ptr + owner * tokens * STRIDE + head * SIZE + H
        out_ptr += owner * tokens * STRIDE + head * SIZE + H
        sequence, step = owner, sequences
    by_keys = tl.zeros((_KEYS, SIZE), tl.float32)
    by_values = tl.zeros((_KEYS, SIZE), tl.float32)
    while sequence < sequences:
        bias_place = _bias_place(first + sequence, head, bias_rows, bias_stride, bias_head_stride)
        for begin in range(0, tokens, _QUERIES):
            query = begin + tl.arange(0, _QUERIES)
            queries, way, own_share, level = _asked(
                qkv_ptr, attended_ptr, level_ptr, by_attended_ptr, sequence, head, query, tokens, H, SIZE
            )
            score, _ = _scores(
                queries, key_ptr, bias_ptr, bias_place, absent_ptr, sequence, query, key, tokens, count, before,
                bias_query_stride, bias_key_stride, STRIDE,
            )  # fmt: skip
            weights, change = _back(score, key_ptr + H, key, count, way, own_share, level, STRIDE)
            by_keys = tl.dot(tl.trans(change), queries, by_keys, input_precision="ieee")
            by_values = tl.dot(tl.trans(weights), way, by_values, input_precision="ieee")
        sequence += step
    cells = key[:, None] * STRIDE + feature[None, :]
    there = (key < count)[:, None]
    by_keys *= SIZE**-0.5
    if FURTHER:
        by_keys += tl.load(out_ptr + cells, mask=there, other=0.0)
        by_values += tl.load(out_ptr + H + cells, mask=there, other=0.0)
    tl.store(out_ptr + cells, by_keys, mask=there)
    tl.store(out_ptr + H + cells, by_values, mask=there)


@triton.jit(do_not_specialize=["sequences", *_COUNTS])
def by_bias_kernel(
    qkv_ptr,
    bias_ptr,
    absent_ptr,
    memory_ptr,
    attended_ptr,
    level_ptr,
    by_attended_ptr,
    out_ptr,
    first,
    sequences,
    tokens,
    memory_tokens,
    memory_rows,
    bias_rows,
    bias_stride,
    bias_head_stride,
    bias_query_stride,
    bias_key_stride,
    FURTHER: tl.constexpr,
    H: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Gradient by the bias of one block of queries and keys of a head, over all sequences that read it.

    Blocks of own keys come first, then those of the memory. out_ptr: (bias rows, heads, keys, queries).
    """
    HEADS: tl.constexpr = H // SIZE
    row, head = (tl.program_id(0) // HEADS).to(tl.int64), tl.program_id(0) % HEADS
    query = tl.program_id(1) * _QUERIES + tl.arange(0, _QUERIES)
    own_blocks = tl.cdiv(tokens, _KEYS)
    of_memory = tl.program_id(2) >= own_blocks
    key = (tl.program_id(2) - tl.where(of_memory, own_blocks, 0)) * _KEYS + tl.arange(0, _KEYS)
    before = tl.where(of_memory, tokens, 0)
    count = tl.where(of_memory, memory_tokens, tokens)
    sequence = (row + bias_rows - first % bias_rows) % bias_rows
    bias_place = _bias_place(row, head, bias_rows, bias_stride, bias_head_stride)
    total = tl.zeros((_QUERIES, _KEYS), tl.float32)
    while sequence < sequences:
        queries, way, own_share, level = _asked(
            qkv_ptr, attended_ptr, level_ptr, by_attended_ptr, sequence, head, query, tokens, H, SIZE
        )
        if of_memory:
            if memory_ptr is not None:
                further = memory_ptr + (first + sequence) % memory_rows * memory_tokens * (2 * H) + head * SIZE
                score, _ = _scores(
                    queries, further, bias_ptr, bias_place, None, sequence, query, key, tokens, count, before,
                    bias_query_stride, bias_key_stride, 2 * H,
                )  # fmt: skip
                _, change = _back(score, further + H, key, count, way, own_share, level, 2 * H)
                total += change
        else:
            own = qkv_ptr + sequence * tokens * (3 * H) + head * SIZE
            score, _ = _scores(
                queries, own + H, bias_ptr, bias_place, absent_ptr, sequence, query, key, tokens, count, before,
                bias_query_stride, bias_key_stride, 3 * H,
            )  # fmt: skip
            _, change = _back(score, own + 2 * H, key, count, way, own_share, level, 3 * H)
            total += change
        sequence += bias_rows
    out_ptr += (row * HEADS + head) * (tokens + memory_tokens) * tokens
    cells = query[:, None] + (before + key)[None, :] * tokens
    there = (query < tokens)[:, None] & (key < count)[None, :]
    if FURTHER:
        total += tl.load(out_ptr + cells, mask=there, other=0.0)
    tl.store(out_ptr + cells, total, mask=there)


@triton.jit
def _bias_place(sequence, head, bias_rows, bias_stride, bias_head_stride):
    """Where the bias of a head of a sequence begins."""
    return (sequence % bias_rows).to(tl.int64) * bias_stride + head.to(tl.int64) * bias_head_stride


@triton.jit
def _asked(
    qkv_ptr, attended_ptr, level_ptr, by_attended_ptr, sequence, head, query, tokens, H: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    """Some queries, the gradient by what they attended to, its product with that, and the level of their softmax."""
    asked = query < tokens
    feature = tl.arange(0, SIZE)
    row = sequence * tokens
    wide = query[:, None] * (3 * H) + feature[None, :]
    queries = tl.load(qkv_ptr + row * (3 * H) + head * SIZE + wide, mask=asked[:, None], other=0.0)
    attended = tl.load(attended_ptr + row * (3 * H) + head * SIZE + wide, mask=asked[:, None], other=0.0)
    way = query[:, None] * H + feature[None, :]
    way = tl.load(by_attended_ptr + row * H + head * SIZE + way, mask=asked[:, None], other=0.0)
    level = tl.load(level_ptr + row * (H // SIZE) + head * tokens + query, mask=asked, other=0.0)
    return queries, way, tl.sum(way * attended, axis=1), level


@triton.jit
def _scores(
    queries, key_ptr, bias_ptr, bias_place, absent_ptr, sequence, query, key, tokens, count, before, query_stride,
    key_stride, STRIDE: tl.constexpr,
):  # fmt: skip
    """Scores of queries and keys in units of log 2, minus infinity where there is no key; and the keys.

    before: keys of the bias before the first of these. absent_ptr: of all sequences' own keys; null for a memory's.
    """
    SIZE: tl.constexpr = queries.shape[1]
    there = key < count
    keys = tl.load(key_ptr + (key[:, None] * STRIDE + tl.arange(0, SIZE)[None, :]), mask=there[:, None], other=0.0)
    score = tl.dot(queries, tl.trans(keys), input_precision="ieee") * (_LOG2_E * SIZE**-0.5)
    if bias_ptr is not None:
        query_stride, key_stride = tl.cast(query_stride, tl.int32), tl.cast(key_stride, tl.int32)
        place = query[:, None] * query_stride + (before + key)[None, :] * key_stride
        score += _LOG2_E * tl.load(
            bias_ptr + bias_place + place, mask=(query < tokens)[:, None] & there[None, :], other=0.0
        )
    if absent_ptr is not None:
        there = there & (tl.load(absent_ptr + sequence * tokens + key, mask=there, other=1) == 0)
    return tl.where(there[None, :], score, -_INFINITY), keys


@triton.jit
def _further(score, value_ptr, key, count, highest, total, mean, STRIDE: tl.constexpr):
    """Highest score, sum of weights and weighted sum of values, with some more keys."""
    feature = tl.arange(0, mean.shape[1])
    cells = key[:, None] * STRIDE + feature[None, :]
    values = tl.load(value_ptr + cells, mask=(key < count)[:, None], other=0.0)
    raised = tl.maximum(highest, tl.max(score, axis=1))
    weight = tl.exp2(score - raised[:, None])
    shrink = tl.exp2(highest - raised)
    mean = tl.dot(weight, values, mean * shrink[:, None], input_precision="ieee")
    return raised, total * shrink + tl.sum(weight, axis=1), mean


@triton.jit
def _back(score, value_ptr, key, count, way, own_share, level, STRIDE: tl.constexpr):
    """The softmax's weights, and the gradient by the scores (not in units of log 2)."""
    cells = key[:, None] * STRIDE + tl.arange(0, way.shape[1])[None, :]
    values = tl.load(value_ptr + cells, mask=(key < count)[:, None], other=0.0)
    weights = tl.exp2(score - level[:, None])
    by_weights = tl.dot(way, tl.trans(values), input_precision="ieee")
    return weights, weights * (by_weights - own_share[:, None])

"""`dit_block`: one adaLN-Zero transformer block on short sequences, forward only.

    x <- x + gate1 * (W_proj attention(LN(x) (1 + gain1) + shift1) + b_proj)
    x <- x + gate2 * (W_down GELU(W_up (LN(x) (1 + gain2) + shift2) + b_up) + b_down)

LN has no affine part, biased variance, eps 1e-5; GELU is the tanh form. Source: DiT (arXiv 2212.09748), section 3.2, as
used for imputation by arXiv 2510.02216; the appended memory keys are this project's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fastimpute.ops.network import LAYER_NORM_EPS, product

OP = "dit_block"


def reference(
    tokens: Tensor,
    modulation: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor,
    w_proj: Tensor,
    b_proj: Tensor,
    w_up: Tensor,
    b_up: Tensor,
    w_down: Tensor,
    b_down: Tensor,
    heads: int,
    attention_bias: Tensor | None = None,
    token_mask: Tensor | None = None,
    memory: Tensor | None = None,
    *,
    precision: str = "fp32",
) -> Tensor:
    """`dit_block` in plain PyTorch for any floating dtype; differentiable in every floating argument."""
    sequences, hidden = tokens.shape[0], tokens.shape[2]
    gain1, shift1, gate1, gain2, shift2, gate2 = _for_each(modulation, sequences).unsqueeze(2).unbind(1)

    normal = functional.layer_norm(tokens, (hidden,), eps=LAYER_NORM_EPS) * (1 + gain1) + shift1
    query, key, value = (product(normal, w_qkv.T, precision) + b_qkv).chunk(3, -1)
    if memory is not None:
        memory_key, memory_value = _for_each(memory, sequences).expand(sequences, -1, -1).chunk(2, -1)
        key, value = torch.cat([key, memory_key], 1), torch.cat([value, memory_value], 1)
    bias = None if attention_bias is None else _for_each(attention_bias, sequences)
    attended = _attention(query, key, value, heads, bias, token_mask, precision)
    tokens = tokens + gate1 * (product(attended, w_proj.T, precision) + b_proj)

    normal = functional.layer_norm(tokens, (hidden,), eps=LAYER_NORM_EPS) * (1 + gain2) + shift2
    up = functional.gelu(product(normal, w_up.T, precision) + b_up, approximate="tanh")
    return tokens + gate2 * (product(up, w_down.T, precision) + b_down)


def _for_each(shared: Tensor, sequences: int) -> Tensor:
    """Rows for every sequence: sequence i reads row i modulo their number."""
    rows = shared.shape[0]
    return shared if rows in (1, sequences) else shared.repeat(sequences // rows, *[1] * (shared.dim() - 1))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    bias: Tensor | None,
    token_mask: Tensor | None,
    precision: str,
) -> Tensor:
    """Softmax attention, (n, t, h) from queries (n, t, h) and keys (n, t + m, h)."""
    count = query.shape[1]
    query, key, value = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in (query, key, value))
    if token_mask is not None:
        absent = functional.pad(token_mask, (0, key.shape[2] - count))[:, None, None, :]
        # A finite number keeps a sequence without any key free of NaN; its attention is zeroed below.
        bias = torch.where(absent, torch.finfo(query.dtype).min / 2, 0 if bias is None else bias).to(query.dtype)
    if precision == "bf16":
        scores = product(query / query.shape[-1] ** 0.5, key.transpose(-1, -2), precision)
        out = product(torch.softmax(scores if bias is None else scores + bias, -1), value, precision)
    else:
        out = functional.scaled_dot_product_attention(query, key, value, bias)
    if token_mask is not None:
        out = torch.where(absent.all(-1, keepdim=True), 0, out)
    return out.transpose(1, 2).flatten(2)

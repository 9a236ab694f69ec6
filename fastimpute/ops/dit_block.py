"""`dit_block`: one adaLN-Zero transformer block on short sequences; its gradient is `dit_block_gradient`.

    x <- x + gate1 * (W_proj attention(LN(x) (1 + gain1) + shift1) + b_proj)
    x <- x + gate2 * (W_down GELU(W_up (LN(x) (1 + gain2) + shift2) + b_up) + b_down)

LN has no affine part, biased variance, eps 1e-5; GELU is the tanh form. Source: DiT (arXiv 2212.09748), section 3.2, as
used for imputation by arXiv 2510.02216; the appended memory keys are this project's.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address, check_number, check_tensor, kernel_refusal, triton_refusal, wants_grad
from fastimpute.ops.dit_pack import dit_pack, dit_triton_pack
from fastimpute.ops.library import on_device_of, register
from fastimpute.ops.network import LAYER_NORM_EPS, check_precision, product
from fastimpute.ops.triton_pack import OPERANDS

OP = "dit_block"
WIDTH_STEP, HIDDEN_MOST = 32, 512
HEAD_STEP, HEAD_MOST = 8, 64
TOKENS_MOST = 288
FAR_BELOW = -1e30  # score of an absent key; bfloat16 holds it


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


class Block(NamedTuple):
    """The floating arguments of one call, as the public function takes them."""

    tokens: Tensor
    modulation: Tensor
    w_qkv: Tensor
    b_qkv: Tensor
    w_proj: Tensor
    b_proj: Tensor
    w_up: Tensor
    b_up: Tensor
    w_down: Tensor
    b_down: Tensor

    @property
    def hidden(self) -> int:
        return self.tokens.shape[2]

    @property
    def inner(self) -> int:
        return self.w_up.shape[0]

    def weights(self) -> list[Tensor]:
        return [*self[2:]]


def dit_block(
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
    backend: str = "auto",
    precision: str = "fp32",
) -> Tensor:
    """adaLN-Zero transformer block (arXiv 2212.09748) as used for imputation (arXiv 2510.02216).

        x <- x + gate1 * (W_proj attention(LN(x) (1 + gain1) + shift1) + b_proj)
        x <- x + gate2 * (W_down GELU(W_up (LN(x) (1 + gain2) + shift2) + b_up) + b_down)

    GELU is the tanh form, attention softmax(Q K^T / sqrt(head size) + bias) V. All values are in the units of the
    caller: the op has none of its own. What sequences share may have fewer rows than there are: sequence i reads row i
    modulo their number, so that many draws of few windows repeat nothing.

    Args:
        tokens: sequences of tokens, (n, t, hidden). The kernels take float32, t up to 288, hidden a multiple of 32 up
            to 512 (on a GPU 256) and a head size that is a multiple of 8 up to 64; the torch backend takes any.
        modulation: (q, 6, hidden) with q a divisor of n: gain1, shift1, gate1, gain2, shift2, gate2.
        w_qkv: (3 hidden, hidden): queries, keys, values. b_qkv: (3 hidden,). w_proj: (hidden, hidden).
        b_proj: (hidden,). w_up: (inner, hidden). b_up: (inner,). w_down: (hidden, inner). b_down: (hidden,).
        heads: attention heads, a divisor of hidden.
        attention_bias: (b, heads, t, t + m) with b a divisor of n, finite, added to the scores: for each query the keys
            of the tokens, then of the memory. The cpu kernel reads it key by key: a transposed view of a contiguous
            (b, heads, t + m, t) needs no copy.
        token_mask: (n, t) bool, True where a token is no key for any query. A sequence without any key gets attention
            zero.
        memory: (w, m, 2 hidden) with w a divisor of n: keys, then values, of m up to 288 further tokens.
        backend: "auto", "cpu", "triton" or "torch". All differentiate, cpu and triton once, and triton at the widths of
            `dit_block_gradient`; its kernels pack weights that require gradients anew in every call.
        precision: "fp32", or "bf16": bfloat16 operands in all products, float32 sums and softmax. The gradient of the
            cpu and triton backends is that of the float32 block in either case.

    Returns:
        The tokens after the block, (n, t, hidden).

    Raises:
        ValueError, TypeError: an argument of the wrong shape or dtype, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.nn.dit_block import DiTBlock
        >>> from fastimpute.ops import dit_block
        >>> weights = DiTBlock(hidden=64, heads=4).weights()
        >>> dit_block(torch.randn(5, 48, 64), torch.zeros(1, 6, 64), *weights, heads=4).shape
        torch.Size([5, 48, 64])
    """
    block = Block(tokens, modulation, w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down)
    check(OP, block, heads, attention_bias, token_mask, memory)
    check_precision(OP, precision)

    def refusal() -> str | None:
        return refusal_of(block, heads, attention_bias, token_mask, memory, precision)

    tensors = tensors_of(block, attention_bias, token_mask, memory)
    refusals = {"cpu": refusal, "triton": lambda: _triton_refusal(block, heads, attention_bias, memory)}
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(*block, heads, attention_bias, token_mask, memory, precision=precision)
    recorded = torch.compiler.is_compiling() or wants_grad(*block, attention_bias, memory)
    run = _impl if chosen == "cpu" and not recorded else _op
    return cast(Tensor, run(*block, heads, attention_bias, token_mask, memory, precision))


def check(
    op: str, block: Block, heads: int, attention_bias: Tensor | None, token_mask: Tensor | None, memory: Tensor | None
) -> None:
    """Refuse shapes and dtypes that do not fit, in the name of `op`."""
    check_tensor(op, "tokens", block.tokens, (None, None, None), None)
    sequences, count, hidden = block.tokens.shape
    dtype = block.tokens.dtype
    check_number(op, "heads", heads, least=1)
    if hidden % heads:
        raise ValueError(f"{op}: heads must divide hidden = {hidden}, got {heads}")
    check_tensor(op, "modulation", block.modulation, (None, 6, hidden), dtype)
    check_tensor(op, "w_qkv", block.w_qkv, (3 * hidden, hidden), dtype)
    check_tensor(op, "b_qkv", block.b_qkv, (3 * hidden,), dtype)
    check_tensor(op, "w_proj", block.w_proj, (hidden, hidden), dtype)
    check_tensor(op, "b_proj", block.b_proj, (hidden,), dtype)
    check_tensor(op, "w_up", block.w_up, (None, hidden), dtype)
    check_tensor(op, "b_up", block.b_up, (block.inner,), dtype)
    check_tensor(op, "w_down", block.w_down, (hidden, block.inner), dtype)
    check_tensor(op, "b_down", block.b_down, (hidden,), dtype)
    keys = count
    if memory is not None:
        check_tensor(op, "memory", memory, (None, None, 2 * hidden), dtype)
        keys += memory.shape[1]
    if attention_bias is not None:
        check_tensor(op, "attention_bias", attention_bias, (None, heads, count, keys), dtype)
    if token_mask is not None:
        check_tensor(op, "token_mask", token_mask, (sequences, count), torch.bool)
    for name, shared in {"modulation": block.modulation, "attention_bias": attention_bias, "memory": memory}.items():
        rows = 1 if shared is None else shared.shape[0]
        if rows < 1 or sequences % rows:
            raise ValueError(f"{op}: {name} must have a number of rows that divides n = {sequences}, got {rows}")


def tensors_of(
    block: Block, attention_bias: Tensor | None, token_mask: Tensor | None, memory: Tensor | None
) -> dict[str, Tensor | None]:
    """The tensor arguments by name."""
    return {**block._asdict(), "attention_bias": attention_bias, "token_mask": token_mask, "memory": memory}


def refusal_of(
    block: Block,
    heads: int,
    attention_bias: Tensor | None,
    token_mask: Tensor | None,
    memory: Tensor | None,
    precision: str,
) -> str | None:
    """Why the cpu kernels cannot serve; None when they can."""
    refusal = kernel_refusal(tensors_of(block, attention_bias, token_mask, memory)) or _length_refusal(block, memory)
    if refusal is not None:
        return refusal
    isa = backends.isa()
    if precision == "bf16" and isa != "avx512bf16":
        return f"precision 'bf16' needs AVX512_BF16, the instruction set in use is {isa}"
    return None if isa == "ref" else _width_refusal(block.hidden, block.inner, heads, HIDDEN_MOST)


def _triton_refusal(block: Block, heads: int, attention_bias: Tensor | None, memory: Tensor | None) -> str | None:
    from fastimpute.kernels.dit_block import HIDDEN_MOST as WIDEST

    if wants_grad(*block, attention_bias, memory):
        return gradient_refusal(block, heads, attention_bias, memory)
    floating = tensors_of(block, attention_bias, None, memory)
    return (
        triton_refusal(floating, (torch.float32,))
        or _length_refusal(block, memory)
        or _width_refusal(block.hidden, block.inner, heads, WIDEST)
    )


def gradient_refusal(block: Block, heads: int, attention_bias: Tensor | None, memory: Tensor | None) -> str | None:
    """Why the triton kernels cannot differentiate the block; None when they can."""
    from fastimpute.kernels.dit_block_gradient import HEAD_SIZES, HIDDEN

    refusal = triton_refusal(tensors_of(block, attention_bias, None, memory), (torch.float32,))
    refusal = refusal or _length_refusal(block, memory)
    if refusal is not None:
        return refusal
    if block.hidden not in HIDDEN:
        return f"hidden width is {block.hidden}, the gradient's kernel takes {' or '.join(map(str, HIDDEN))}"
    if block.inner % WIDTH_STEP or block.inner == 0:
        return f"the MLP's width is {block.inner}, the kernel takes multiples of {WIDTH_STEP}"
    if block.hidden // heads not in HEAD_SIZES:
        sizes = " or ".join(map(str, HEAD_SIZES))
        return f"head size is {block.hidden // heads}, the gradient's kernel takes {sizes}"
    return None


def _length_refusal(block: Block, memory: Tensor | None) -> str | None:
    longest = max(block.tokens.shape[1], 0 if memory is None else memory.shape[1])
    if longest > TOKENS_MOST:
        return f"{longest} tokens in a sequence or its memory, the kernel takes up to {TOKENS_MOST}"
    return None


def _width_refusal(hidden: int, inner: int, heads: int, widest: int) -> str | None:
    if hidden % WIDTH_STEP or not 0 < hidden <= widest:
        return f"hidden width is {hidden}, the kernel takes multiples of {WIDTH_STEP} up to {widest}"
    if inner % WIDTH_STEP or inner == 0:
        return f"the MLP's width is {inner}, the kernel takes multiples of {WIDTH_STEP}"
    size = hidden // heads
    if size % HEAD_STEP or size > HEAD_MOST:
        return f"head size is {size}, the kernel takes multiples of {HEAD_STEP} up to {HEAD_MOST}"
    return None


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
    size = query.shape[-1] // heads
    if token_mask is not None:
        query, key = _with_absence(query, key, heads, token_mask)
    query, key, value = (_per_head(part, heads).transpose(1, 2) for part in (query, key, value))
    if precision == "bf16":
        scores = product(query / size**0.5, key.transpose(-1, -2), precision)
        out = product(torch.softmax(scores if bias is None else scores + bias, -1), value, precision)
    else:
        out = functional.scaled_dot_product_attention(query, key, value, bias, scale=size**-0.5)
    if token_mask is not None and key.shape[2] == token_mask.shape[1]:
        out = torch.where(token_mask.all(1)[:, None, None, None], 0, out)
    return out.transpose(1, 2).flatten(2)


def _per_head(part: Tensor, heads: int) -> Tensor:
    """(n, t, heads, size) from (n, t, heads size); n may be 0."""
    return part.view(*part.shape[:2], heads, part.shape[2] // heads)


def _with_absence(query: Tensor, key: Tensor, heads: int, token_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys with one more feature in every head, whose product is far below zero at absent keys.

    A mask of the scores would be as large as they are, and so would its gradient. A finite number keeps a sequence
    without any key free of NaN.
    """
    below = max(FAR_BELOW, torch.finfo(key.dtype).min / 4)
    far = functional.pad(token_mask, (0, key.shape[1] - token_mask.shape[1])) * below
    query, key = (_per_head(part, heads) for part in (query, key))
    ones, absent = torch.ones_like(query[..., :1]), far.to(key.dtype)[:, :, None, None].expand(*key.shape[:3], 1)
    return torch.cat([query, ones], -1).flatten(2), torch.cat([key, absent], -1).flatten(2)


# The registered op takes float32, and float64 through the scalar oracle.


class Dense(NamedTuple):
    """What the kernels read besides the weights, laid out as they want it."""

    tokens: Tensor
    modulation: Tensor
    bias: Tensor | None
    absent: Tensor | None
    memory: Tensor | None

    @classmethod
    def of(cls, block: Block, attention_bias: Tensor | None, token_mask: Tensor | None, memory: Tensor | None) -> Dense:
        return cls(
            block.tokens.contiguous(),
            block.modulation.contiguous(),
            None if attention_bias is None else _by_key(attention_bias),
            None if token_mask is None else token_mask.contiguous(),
            None if memory is None or memory.shape[1] == 0 else memory.contiguous(),
        )

    def addresses(self) -> tuple[Any, ...]:
        """The arguments of the bindings, from the number of sequences to the memory."""
        tokens, modulation, bias, absent, memory = self
        return (
            *tokens.shape[:2],
            address(tokens),
            (address(modulation), modulation.shape[0]),
            (0, 1, 0, 0, 0)
            if bias is None
            else (address(bias), bias.shape[0], bias.stride(0), bias.stride(1), bias.stride(3)),
            address(absent),
            (0, 1, 0) if memory is None else (address(memory), *memory.shape[:2]),
        )


def _impl(*arguments: Any) -> Tensor:
    *parts, heads, attention_bias, token_mask, memory, precision = arguments
    block = Block(*parts)
    dense = Dense.of(block, attention_bias, token_mask, memory)
    out = torch.empty_like(dense.tokens)
    core = _native.core()
    if block.tokens.dtype == torch.float64:
        weights = [weight.contiguous() for weight in block.weights()]
        sizes = (block.hidden, heads, block.inner)
        core.dit_block_ref_f64(sizes, tuple(map(address, weights)), *dense.addresses(), address(out))
    else:
        pack = dit_pack(block.weights(), heads, precision)
        core.dit_block(pack, torch.get_num_threads(), *dense.addresses(), address(out))
    return out


def _by_key(bias: Tensor) -> Tensor:
    """The (b, heads, t, keys) `bias` with the queries of a key side by side."""
    queries = bias.shape[2]
    if queries <= 1 or (bias.stride(2) == 1 and bias.stride(3) >= queries):
        return bias
    return bias.transpose(2, 3).contiguous().transpose(2, 3)


def _triton(*arguments: Any) -> Tensor:
    from fastimpute.kernels import dit_block as kernel

    *parts, heads, attention_bias, token_mask, memory, precision = arguments
    block = Block(*parts)
    tokens = block.tokens.contiguous()
    sequences, length, hidden = tokens.shape
    out = torch.empty_like(tokens)
    if out.numel() == 0:
        return out
    bias = None if attention_bias is None else reached(attention_bias)
    absent = None if token_mask is None else token_mask.contiguous()
    memory = None if memory is None or memory.shape[1] == 0 else memory.contiguous()
    operands = OPERANDS[precision]
    widths = kernel.layout(hidden, heads, block.inner, operands.itemsize)
    tiles = kernel.configuration(widths.padded, operands.itemsize, block.modulation.shape[0] == 1)
    windows = max([1, *(shared.shape[0] for shared in (bias, memory) if shared is not None)])
    count = kernel.slices(sequences, length, windows, 3 * widths.part * operands.itemsize)
    rows = -(-count * length // tiles.rows) * tiles.rows
    qkv = torch.empty(rows, 3 * widths.part, dtype=operands, device=tokens.device)
    laid = torch.empty(rows, widths.padded, dtype=operands, device=tokens.device) if tiles.slab else None
    with on_device_of(tokens):
        kernel.launch(
            tokens,
            block.modulation.contiguous(),
            dit_triton_pack(block.weights(), precision, widths),
            bias,
            absent,
            memory,
            out,
            (qkv, laid),
            widths=widths,
            tiles=tiles,
            count=count,
            windows=windows,
        )
    return out


def reached(bias: Tensor) -> Tensor:
    """The bias, copied where 32 bits do not reach from one of a head's scores to all others."""
    _, _, queries, keys = bias.shape
    return bias if queries * bias.stride(2) + keys * bias.stride(3) < 2**31 else bias.contiguous()


def _fake(tokens: Tensor, *rest: Any) -> Tensor:
    return tokens.new_empty(tokens.shape)


_op = register(
    "dit_block",
    "(Tensor tokens, Tensor modulation, Tensor w_qkv, Tensor b_qkv, Tensor w_proj, Tensor b_proj, Tensor w_up, "
    "Tensor b_up, Tensor w_down, Tensor b_down, int heads, Tensor? attention_bias, Tensor? token_mask, "
    "Tensor? memory, str precision) -> Tensor",
    _impl,
    _fake,
    _triton,
)

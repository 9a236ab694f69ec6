"""`dit_block_gradient`: the gradient of `dit_block` by all that it reads, the block run once more on the way.

gradient by a of sum(out_gradient * dit_block(...)),  a = tokens, modulation, weights, attention bias, memory
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address, check_tensor
from fastimpute.ops.dit_block import Block, Dense, check, gradient_refusal, reached, refusal_of, tensors_of
from fastimpute.ops.dit_block import reference as block_reference
from fastimpute.ops.library import differentiate, no_gradient, on_device_of, register

OP = "dit_block_gradient"


class BlockGradients(NamedTuple):
    """Gradients by the arguments of `dit_block`, each of the shape of what it belongs to; None where that is None."""

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
    attention_bias: Tensor | None
    memory: Tensor | None


def reference(
    out_gradient: Tensor,
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
) -> BlockGradients:
    """`dit_block_gradient` in plain PyTorch for any floating dtype, by autograd."""
    given = (tokens, modulation, w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down, attention_bias, memory)
    with torch.enable_grad():
        leaves = [None if part is None else part.detach().requires_grad_() for part in given]
        block, bias, further = Block._make(leaves[:10]), leaves[10], leaves[11]
        out = block_reference(*block, heads, bias, token_mask, further)
        found = iter(
            torch.autograd.grad(
                out, [leaf for leaf in leaves if leaf is not None], out_gradient.detach(), materialize_grads=True
            )
        )
    return BlockGradients._make(None if leaf is None else next(found) for leaf in leaves)


def dit_block_gradient(
    out_gradient: Tensor,
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
) -> BlockGradients:
    """Gradient of sum(out_gradient * dit_block(...)) (block of arXiv 2212.09748, as used by arXiv 2510.02216).

    `dit_block` calls it when it is differentiated. The kernels keep nothing of the first run: they repeat it, the cpu's
    sequence by sequence, triton's some at a time, while all that belongs to them is in the cache. Same bits on any
    number of threads, and on any GPU of a kind.

    Args:
        out_gradient: (n, t, hidden), like `tokens`; units of the caller.
        tokens, modulation, w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down, heads, attention_bias,
        token_mask, memory: as for `dit_block`. The kernels take float32, n and t of at least one.
        backend: "auto", "cpu", "triton" (hidden widths 32, 64 and 128, head sizes 16 and 32) or "torch".

    Returns:
        `BlockGradients`. Not differentiable itself.

    Raises:
        ValueError, TypeError: an argument of the wrong shape or dtype, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.nn.dit_block import DiTBlock
        >>> from fastimpute.ops import dit_block_gradient
        >>> weights = [part.detach() for part in DiTBlock(hidden=64, heads=4).weights()]
        >>> tokens = torch.randn(5, 48, 64)
        >>> dit_block_gradient(torch.ones_like(tokens), tokens, torch.zeros(1, 6, 64), *weights, heads=4).w_up.shape
        torch.Size([256, 64])
    """
    block = Block(tokens, modulation, w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down)
    check(OP, block, heads, attention_bias, token_mask, memory)
    check_tensor(OP, "out_gradient", out_gradient, tuple(tokens.shape), tokens.dtype)

    def refusal() -> str | None:
        if tokens.numel() == 0:
            return _NOTHING
        return refusal_of(block, heads, attention_bias, token_mask, memory, "fp32")

    def triton_refusal() -> str | None:
        return _NOTHING if tokens.numel() == 0 else gradient_refusal(block, heads, attention_bias, memory)

    tensors = {"out_gradient": out_gradient, **tensors_of(block, attention_bias, token_mask, memory)}
    chosen = backends.choose(OP, backend, tensors, {"cpu": refusal, "triton": triton_refusal})
    if chosen == "torch":
        return reference(out_gradient, *block, heads, attention_bias, token_mask, memory)
    run = _op if chosen != "cpu" or torch.compiler.is_compiling() else _impl
    found = run(out_gradient, *block, heads, attention_bias, token_mask, memory)
    return _read(found, attention_bias, memory)


_NOTHING = "there is nothing to differentiate"


def _read(found: list[Tensor], attention_bias: Tensor | None, memory: Tensor | None) -> BlockGradients:
    bias, further = found[10:]
    absent = (None if attention_bias is None else bias, None if memory is None else further)
    return BlockGradients._make([*found[:10], *absent])


# The registered op; gradients of what is absent are empty.


def _impl(*arguments: Any) -> list[Tensor]:
    out_gradient, *parts, heads, attention_bias, token_mask, memory = arguments
    block = Block(*parts)
    if block.tokens.dtype != torch.float32:
        raise RuntimeError(f"{OP}: the kernel takes float32, got {block.tokens.dtype}; use backend='torch'")
    dense = Dense.of(block, attention_bias, token_mask, memory)
    weights = [weight.contiguous() for weight in block.weights()]
    gradient = out_gradient.contiguous()
    found = _fake(*arguments)
    bias, further = found[10:]
    outputs = (
        *map(address, found[:10]),
        address(bias) if bias.numel() else 0,
        address(further) if further.numel() else 0,
    )
    _native.core().dit_block_gradient(
        backends.isa(),
        torch.get_num_threads(),
        (block.hidden, heads, block.inner),
        tuple(map(address, weights)),
        *dense.addresses(),
        address(gradient),
        outputs,
    )
    return found


def _triton(*arguments: Any) -> list[Tensor]:
    from fastimpute.kernels import dit_block_gradient as kernel
    from fastimpute.kernels.dit_weight_gradient import squares
    from fastimpute.kernels.weight_gradient import SLICE, STORED

    out_gradient, *parts, heads, attention_bias, token_mask, memory = arguments
    block = Block(*parts)
    x, further = block.tokens.contiguous(), None if memory is None or memory.shape[1] == 0 else memory.contiguous()
    sequences, length, hidden = x.shape
    found = _fake(*arguments)
    bias, by_memory = found[10:]
    layout = kernel.Layout.of(hidden, block.inner, heads)
    count = kernel.slices(sequences, length, layout)
    capacity = kernel.capacity(count, length)
    scratch = torch.split(x.new_empty(capacity * sum(layout)), [capacity * columns for columns in layout])
    partial = x.new_empty(capacity // SLICE * squares(hidden, block.inner) * STORED)
    with on_device_of(x):
        kernel.launch(
            out_gradient.contiguous(),
            x,
            block.modulation.contiguous(),
            tuple(weight.contiguous() for weight in block.weights()),
            None if attention_bias is None else reached(attention_bias),
            None if token_mask is None else token_mask.contiguous(),
            further,
            (*found[:10], bias if bias.numel() else None, None if further is None else by_memory),
            scratch,
            (x.new_empty(count, length, hidden), partial),
            heads=heads,
            count=count,
        )
    return found


def _fake(out_gradient: Tensor, *rest: Any) -> list[Tensor]:
    *parts, _, attention_bias, _, memory = rest
    block = [part.new_empty(part.shape) for part in parts]
    return [*block, _by_key_like(attention_bias, parts[0]), parts[0].new_empty(0 if memory is None else memory.shape)]


def _by_key_like(bias: Tensor | None, tokens: Tensor) -> Tensor:
    """Of the shape of the (b, heads, t, keys) `bias`, the queries of a key side by side."""
    if bias is None:
        return tokens.new_empty(0)
    rows, heads, queries, keys = bias.shape
    return tokens.new_empty(rows, heads, keys, queries).transpose(2, 3)


_op = register(
    OP,
    "(Tensor out_gradient, Tensor tokens, Tensor modulation, Tensor w_qkv, Tensor b_qkv, Tensor w_proj, "
    "Tensor b_proj, Tensor w_up, Tensor b_up, Tensor w_down, Tensor b_down, int heads, Tensor? attention_bias, "
    "Tensor? token_mask, Tensor? memory) -> Tensor[]",
    _impl,
    _fake,
    _triton,
)
no_gradient(OP, "a second derivative needs backend='torch'")


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *block, heads, attention_bias, token_mask, memory, _ = inputs
    ctx.save_for_backward(*block, attention_bias, token_mask, memory)
    ctx.heads = heads


def _backward(ctx: Any, out_gradient: Tensor) -> tuple[Any, ...]:
    *block, attention_bias, token_mask, memory = ctx.saved_tensors
    if out_gradient.numel() == 0:
        zeros = [None if part is None else torch.zeros_like(part) for part in (*block, attention_bias, memory)]
        return (*zeros[:10], None, zeros[10], None, zeros[11], None)
    found = _op(out_gradient, *block, ctx.heads, attention_bias, token_mask, memory)
    gradients = _read(found, attention_bias, memory)
    return (*gradients[:10], None, gradients.attention_bias, None, gradients.memory, None)


differentiate("dit_block", _keep, _backward)

"""Cases of `dit_block` and its gradient: the kernels beside eager PyTorch with its fused attention, autocast,
torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fastimpute import ops
from fastimpute.benchmark.measure import BF16, FP32, Candidate, Case, error
from fastimpute.benchmark.network_cases import compiled, precisions, under_autocast
from fastimpute.ops.dit_block import Block, reference
from fastimpute.ops.dit_block_gradient import BlockGradients
from fastimpute.ops.dit_block_gradient import reference as gradient_reference

HEADS = {64: 4, 96: 4, 128: 8, 256: 16}
WORK = 1e9
TRAINING_WORK = 3e8
TOLERANCE = 1e-4


def block_flops(sequences: int, tokens: int, hidden: int, memory: int) -> float:
    """Multiply-adds, two operations each, of the four layers (the MLP four times as wide) and the attention."""
    return 2.0 * sequences * tokens * hidden * (12 * hidden + 2 * (tokens + memory))


def eager_block(block: Block, heads: int, bias: Tensor, memory: Tensor | None) -> Tensor:
    """The block as one writes it in PyTorch; the bias dense and contiguous."""
    x, modulation, weights = block.tokens, block.modulation, block.weights()
    sequences, tokens, hidden = x.shape
    gain1, shift1, gate1, gain2, shift2, gate2 = modulation.unsqueeze(2).unbind(1)

    def per_head(part: Tensor) -> Tensor:
        return part.reshape(sequences, -1, heads, hidden // heads).transpose(1, 2)

    normal = functional.layer_norm(x, (hidden,)) * (1 + gain1) + shift1
    query, key, value = (per_head(part) for part in functional.linear(normal, *weights[:2]).chunk(3, -1))
    if memory is not None:
        keys, values = (per_head(part.expand(sequences, -1, -1)) for part in memory.chunk(2, -1))
        key, value = torch.cat([key, keys], 2), torch.cat([value, values], 2)
    attended = functional.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
    attended = attended.transpose(1, 2).reshape(sequences, tokens, hidden)
    x = x + gate1 * functional.linear(attended, *weights[2:4])
    normal = functional.layer_norm(x, (hidden,)) * (1 + gain2) + shift2
    up = functional.gelu(functional.linear(normal, *weights[4:6]), approximate="tanh")
    return x + gate2 * functional.linear(up, *weights[6:])


class BlockCase(NamedTuple):
    """Arguments of the block: sequences of one window, which share modulation, bias and memory."""

    block: Block
    heads: int
    bias: Tensor
    by_key: Tensor
    keys: Tensor | None


def random_block(tokens: int, hidden: int, memory: int, work: float) -> BlockCase:
    """As many sequences as a forward run of `work` operations has."""
    torch.manual_seed(tokens + hidden)
    heads = HEADS[hidden]
    sequences = max(2, round(work / block_flops(1, tokens, hidden, memory)))
    layers = ((3 * hidden, hidden), (hidden, hidden), (4 * hidden, hidden), (hidden, 4 * hidden))
    weights = [part for out, size in layers for part in (torch.randn(out, size) / size**0.5, 0.1 * torch.randn(out))]
    block = Block._make([torch.randn(sequences, tokens, hidden), 0.5 * torch.randn(1, 6, hidden), *weights])
    bias = torch.randn(1, heads, tokens, tokens + memory)
    by_key = bias.transpose(2, 3).contiguous().transpose(2, 3)
    return BlockCase(block, heads, bias, by_key, torch.randn(1, memory, 2 * hidden) if memory else None)


def block_case(tokens: int, hidden: int, *, memory: int = 0, compile_baseline: bool) -> Case:
    """Sequences of one window: they share modulation, bias and memory, as draws at one noise level do."""
    block, heads, bias, by_key, keys = random_block(tokens, hidden, memory, WORK)

    def kernel(precision: str) -> Callable[[], Tensor]:
        return lambda: ops.dit_block(*block, heads, by_key, None, keys, backend="cpu", precision=precision)

    def eager() -> Tensor:
        with torch.no_grad():
            return eager_block(block, heads, bias, keys)

    candidates = [Candidate(f"fastimpute {precision}", precision, kernel(precision)) for precision in precisions()]
    candidates += [
        Candidate("eager SDPA fp32", FP32, eager),
        Candidate("eager SDPA autocast bf16", BF16, under_autocast(eager)),
    ]
    if compile_baseline:
        fused = compiled(eager_block)

        def run() -> Tensor:
            with torch.no_grad():
                result: Tensor = fused(block, heads, bias, keys)
            return result

        candidates.append(Candidate("torch.compile fp32", FP32, run))
    doubles = Block._make([part.double() for part in block])
    return Case(
        op="dit_block",
        shape=_shape(block, memory),
        candidates=tuple(candidates),
        exact=reference(*doubles, heads, bias.double(), None, None if keys is None else keys.double()),
        flops=block_flops(len(block.tokens), tokens, hidden, memory),
    )


def _shape(block: Block, memory: int) -> str:
    sequences, tokens, hidden = block.tokens.shape
    return f"n={sequences} t={tokens}{f'+{memory}' if memory else ''} h={hidden}"


def block_gradient_case(tokens: int, hidden: int, *, memory: int = 0, compile_baseline: bool) -> Case:
    """Forward and back, as a step of training takes the block; the work is counted without what is done twice."""
    block, heads, bias, by_key, keys = random_block(tokens, hidden, memory, TRAINING_WORK)
    way = torch.randn_like(block.tokens)
    leaves = Block._make([part.clone().requires_grad_() for part in block])
    dense, spaced = bias.clone().requires_grad_(), by_key.detach().requires_grad_()
    further = None if keys is None else keys.clone().requires_grad_()

    def differentiate(out: Tensor, by: Tensor) -> Tensor:
        inputs = [*leaves, by, *([] if further is None else [further])]
        return torch.autograd.grad(out, inputs, way)[6]

    def kernel() -> Tensor:
        return differentiate(ops.dit_block(*leaves, heads, spaced, None, further, backend="cpu"), spaced)

    doubles = Block._make([part.double() for part in block])
    double_keys = None if keys is None else keys.double()
    exact = gradient_reference(way.double(), *doubles, heads, bias.double(), None, double_keys)
    _check(ops.dit_block_gradient(way, *block, heads, by_key, None, keys, backend="cpu"), exact)
    candidates = [
        Candidate("fastimpute fp32", FP32, kernel),
        Candidate(
            "eager autograd fp32", FP32, lambda: differentiate(eager_block(leaves, heads, dense, further), dense)
        ),
    ]
    if compile_baseline:
        fused = compiled(eager_block)
        candidates.append(
            Candidate("torch.compile fp32", FP32, lambda: differentiate(fused(leaves, heads, dense, further), dense))
        )
    return Case(
        op="dit_block_gradient",
        shape=_shape(block, memory),
        candidates=tuple(candidates),
        exact=exact.w_up,
        flops=3 * block_flops(len(block.tokens), tokens, hidden, memory),
    )


def _check(found: BlockGradients, exact: BlockGradients) -> None:
    """Raises RuntimeError unless all gradients are right: rows compare that by W_up alone."""
    for name, value, right in zip(BlockGradients._fields, found, exact, strict=True):
        if value is not None and right is not None and not error(value, right) <= TOLERANCE:
            raise RuntimeError(f"dit_block_gradient: {name} has error {error(value, right):.2g}, not timed")

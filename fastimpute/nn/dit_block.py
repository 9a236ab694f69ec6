"""One adaLN-Zero block: attention and MLP, each scaled, shifted and gated by the condition."""

from __future__ import annotations

from torch import Tensor, nn

from fastimpute.ops.dit_block import dit_block

MLP_RATIO = 4


class DiTBlock(nn.Module):
    """Transformer block whose condition sets the gains, shifts and gates (adaLN-Zero, arXiv 2212.09748).

    ``forward(tokens, condition, bias, absent, memory)`` maps ``(n, t, hidden)`` to the same shape. ``condition``
    ``(q, hidden)``, ``bias`` ``(b, heads, t, t + m)`` and ``memory`` ``(w, m, 2 hidden)`` (keys, then values) may have
    fewer rows than there are sequences: sequence i reads row i modulo their number. The gates start at zero: an
    untrained block is the identity. Forward and back it runs in fused kernels (`fastimpute.ops.dit_block`).

    Raises:
        ValueError: ``hidden`` is no multiple of ``heads``.

    Example:
        >>> import torch
        >>> from fastimpute.nn.dit_block import DiTBlock
        >>> DiTBlock(hidden=32, heads=4)(torch.randn(5, 7, 32), torch.zeros(1, 32)).shape
        torch.Size([5, 7, 32])
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or hidden % heads:
            raise ValueError(f"hidden: expected a multiple of heads = {heads}, got {hidden}")
        self.heads = heads
        self.modulation = nn.Linear(hidden, 6 * hidden)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.qkv = _linear(hidden, 3 * hidden)
        self.proj = _linear(hidden, hidden)
        self.up = _linear(hidden, MLP_RATIO * hidden)
        self.down = _linear(MLP_RATIO * hidden, hidden)

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The eight tensors in the order in which the kernels take them."""
        qkv, proj, up, down = self.qkv, self.proj, self.up, self.down
        return qkv.weight, qkv.bias, proj.weight, proj.bias, up.weight, up.bias, down.weight, down.bias

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        bias: Tensor | None = None,
        absent: Tensor | None = None,
        memory: Tensor | None = None,
        *,
        backend: str = "auto",
        precision: str = "fp32",
    ) -> Tensor:
        modulation = self.modulation(condition).unflatten(-1, (6, -1))
        return dit_block(
            tokens,
            modulation,
            *self.weights(),
            self.heads,
            bias,
            absent,
            memory,
            backend=backend,
            precision=precision,
        )


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

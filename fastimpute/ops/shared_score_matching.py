"""`score_matching` shared by several processes, to the bits of one.

The kernel goes over a step twice: slices of rows forward and back, then blocks of the weight gradients, each of which
sums over all rows in their order. Neither depends on who does it, so that processes may share both. Gradients of some
of the rows could not be added to the same bits: one process adds row after row, without a cut to add pieces at. What
the processes exchange are therefore the activations in between and the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import address, row_stride, rows_contiguous
from fastimpute.ops.score_matching import OP, LossGradients, check_step, refusal, score_matching

BLOCK = 32  # columns of a block of weight gradients


class Sharers(Protocol):
    """Processes that do a step together: `fastimpute.train.data_parallel.Replicas`."""

    @property
    def number(self) -> int:
        """Of this one."""

    @property
    def count(self) -> int:
        """How many."""

    def exchange(self, owned: Sequence[Sequence[Tensor]]) -> None:
        """``owned[r]`` holds what process r has computed; afterwards it holds that in every process."""


def shared_score_matching(
    x: Tensor,
    target: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    modulation: Tensor,
    weight: Tensor | None,
    sharers: Sharers,
    *,
    precision: str = "fp32",
    threads: int | None = None,
) -> LossGradients:
    """`score_matching` of the same arguments in every process, each of which does its share.

    Where the kernel does not run (a GPU, the scalar instruction set, an unsuitable width), and for one process, every
    process does the whole step.

    Args:
        x, target, w1, b1, w2, b2, w3, b3, modulation, weight: as for `score_matching`.
        sharers: the processes.
        precision: as for `score_matching`.
        threads: of this process; None: torch.get_num_threads().

    Returns:
        The bits of `score_matching`, in every process.

    Raises:
        ValueError, TypeError: as `score_matching`.
    """
    parts = (x, target, w1, b1, w2, b2, w3, b3, modulation, weight)
    check_step(*parts)
    tensors = dict(zip(("x", "target", "w1", "b1", "w2", "b2", "w3", "b3", "modulation", "weight"), parts, strict=True))
    whole = sharers.count == 1 or not x.is_cpu or backends.isa() == "ref"
    refusals = {"cpu": lambda: refusal(tensors, w1.shape[0], precision)}
    if whole or backends.choose(OP, "auto", tensors, refusals) != "cpu":
        return score_matching(*parts, precision=precision, threads=threads)
    with torch.no_grad():
        dense = [part.contiguous() for part in parts[2:9] if part is not None]
        kept = None if weight is None else weight.contiguous()
        step = _Step(rows_contiguous(x), rows_contiguous(target), dense, kept, threads or torch.get_num_threads())
        step.do_slices(sharers)
        step.do_products(sharers)
        return step.result


class _Step:
    """The memory of one shared step."""

    def __init__(self, x: Tensor, target: Tensor, dense: list[Tensor], weight: Tensor | None, threads: int) -> None:
        self.x, self.target, self.dense, self.weight, self.threads = x, target, dense, weight, threads
        self.hidden, self.dim = dense[0].shape
        self.rows, self.runs = len(x), len(dense[6])
        self.isa = backends.isa()
        self.slice_rows, stride, dim_stride = _native.core().score_matching_layout(self.isa, self.hidden, self.dim)
        self.slices = -(-self.rows // self.slice_rows)
        self.wide = [x.new_empty(self.slices * self.slice_rows, stride) for _ in range(4)]  # h1, h2, d1, d2
        self.narrow = [x.new_empty(self.slices * self.slice_rows, dim_stride) for _ in range(2)]  # x, g
        self.narrow[0][: self.rows, : self.dim] = x  # every process knows it
        self.losses = torch.empty(self.slices, dtype=torch.float64, device=x.device)
        self.straddle = x.new_empty(self.slices, *dense[6].shape[1:])
        self.result = LossGradients(x.new_empty(()), *(torch.empty_like(part) for part in dense))

    def do_slices(self, sharers: Sharers) -> None:
        """Rows forward and back: the loss, the gradient by the modulation, and the activations of all rows."""
        shares = _shares(self.slices, sharers.count)
        _native.core().score_matching_slices(
            self.isa,
            self.threads,
            (self.hidden, self.dim, *map(address, self.dense[:6]), 0, 0),
            self.rows,
            address(self.x),
            row_stride(self.x),
            address(self.target),
            row_stride(self.target),
            address(self.weight),
            address(self.dense[6]),
            self.runs,
            tuple(map(address, self.result)),
            tuple(map(address, (*self.narrow, *self.wide, self.losses, self.straddle))),
            *shares[sharers.number],
        )
        sharers.exchange([self._made_of(*share) for share in shares])
        self._add_straddling_runs()
        self.result.loss.fill_(sum(self.losses.tolist()))  # in their order, in double precision

    def _made_of(self, first: int, last: int) -> list[Tensor]:
        """What comes of some slices."""
        begin, end = first * self.slice_rows, min(last * self.slice_rows, self.rows)
        run = self.rows // self.runs
        runs = self.result.modulation[-(-begin // run) : -(-end // run)]  # those that begin in the slices
        made = [part[begin:end] for part in (*self.wide, self.narrow[1])]
        return [*made, self.losses[first:last], runs, self.straddle[first:last]][: 8 if self._straddles() else 7]

    def _straddles(self) -> bool:
        return bool(self.slice_rows % (self.rows // self.runs))

    def _add_straddling_runs(self) -> None:
        """Adds what slices kept aside of runs that began before them."""
        run = self.rows // self.runs
        for number in range(self.slices if self._straddles() else 0):
            if number * self.slice_rows % run:
                self.result.modulation[number * self.slice_rows // run] += self.straddle[number]

    def do_products(self, sharers: Sharers) -> None:
        """Gradients of the weights: each process those of some of the outputs of each layer."""
        h1, h2, d1, d2 = self.wide
        x, g = self.narrow
        result, hidden, dim = self.result, self.hidden, self.dim
        products = (
            (d2, hidden, h1, hidden, result.w2, result.b2),
            (d1, hidden, x, dim, result.w1, result.b1),
            (g, dim, h2, hidden, result.w3, result.b3),
        )
        own, owned = [], [list[Tensor]() for _ in range(sharers.count)]
        for a, outputs, b, inputs, out, sums in products:
            for number, share in enumerate(_shares(-(-outputs // BLOCK), sharers.count)):
                some = slice(*(min(block * BLOCK, outputs) for block in share))
                owned[number] += [out[some], sums[some]]
                if number == sharers.number:
                    left = a[:, some]
                    places = out[some].data_ptr(), sums[some].data_ptr()
                    own.append((left.data_ptr(), len(a[0]), left.shape[1], b.data_ptr(), len(b[0]), inputs, *places))
        _native.core().score_matching_products(self.isa, self.threads, self.rows, own)
        sharers.exchange(owned)


def _shares(pieces: int, count: int) -> list[tuple[int, int]]:
    """Which pieces [first, last) each of some processes does."""
    return list(pairwise(pieces * number // count for number in range(count + 1)))

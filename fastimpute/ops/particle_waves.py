"""`proximal_recursion` through the Triton kernels: wave after wave of patches, from memory allocated once.

Where weights are at rest, all iterations of a wave are one launch. Where they move, an iteration is three or four, and
a wave's particles stay in the L2 cache between them. Either way nothing is allocated then and nobody waits for the GPU:
the same kernels at the same addresses, so that a CUDA graph can hold them.
Beside the result, memory is one wave and 8 bytes a patch (16 more where patches without a gap are left out).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastimpute.ops.checks import rows_contiguous
from fastimpute.ops.library import multiprocessors
from fastimpute.ops.memory import halved_where_short
from fastimpute.ops.network import Network
from fastimpute.ops.particle_step import AdamState
from fastimpute.ops.recursion_arguments import Patches, Settings
from fastimpute.ops.triton_pack import triton_pack

WAVE_BYTES = 32 << 20  # of particles: they are to stay in the L2 cache
_SAMPLE = 0


class ParticleWaves:
    """The recursion of one network on the patches of a series.

    Args:
        patches: index tables, on the device of the series. network: of `settings.head`, float32.
        settings: the numbers. precision: "fp32" or "bf16".
    """

    def __init__(self, patches: Patches, network: Network, settings: Settings, precision: str) -> None:
        self._patches = Patches(patches.starts.contiguous(), patches.columns.contiguous(), patches.window)
        self._network, self._settings = network, settings
        self._moving_weights = settings.eta_w > 0
        self._score = _Score(network, settings, precision)

    def run(self, series: Tensor, missing: Tensor, log_ref: Tensor | None) -> tuple[Tensor, Tensor]:
        """The series after the recursion, (T, N), and log w, (patches,); see `proximal_recursion`."""
        from fastimpute.kernels import proximal_recursion as kernel

        series, missing = rows_contiguous(series), rows_contiguous(missing)
        tables = kernel.Tables(*self._patches[:2], *_owners(self._patches.columns, series.shape[1]), self._patches[2])
        chosen, place = self._chosen(missing, tables)
        count = self._patches.total if chosen is None else len(chosen)
        unit = self._settings.group if self._moving_weights else 1  # a wave has whole groups

        def in_waves(units: int) -> tuple[Tensor, Tensor]:
            return self._all_waves(series, missing, log_ref, tables, (chosen, place), min(units * unit, count))

        return halved_where_short(in_waves, -(-min(self._capacity(series.device), count) // unit))

    def _all_waves(
        self,
        series: Tensor,
        missing: Tensor,
        log_ref: Tensor | None,
        tables: Any,
        moving: tuple[Tensor | None, Tensor | None],
        capacity: int,
    ) -> tuple[Tensor, Tensor]:
        """`run` in waves of `capacity` patches; `moving`: as `_chosen` gives."""
        from fastimpute.kernels import proximal_recursion as kernel

        chosen, place = moving
        series_new = series.clone(memory_format=torch.contiguous_format)
        log_w = start_weights(self._patches.total, self._settings.group, log_ref, series)
        if capacity == 0:
            return series_new, log_w
        count = self._patches.total if chosen is None else len(chosen)
        weighed_by = log_ref if self._moving_weights else None
        wave = _Wave.of(capacity, self._patches, self._settings, weighed_by is not None, series.device)
        self._score.reserve(capacity, series.device)
        rings = torch.zeros(2, 2, self._patches.window, series.shape[1], dtype=torch.float64, device=series.device)
        for number, span in enumerate(self._spans(chosen, count, capacity, series.shape[0])):
            patch = None if chosen is None else chosen[span.first_place : span.last_place]
            part = wave.first(span.last_place - span.first_place)
            kernel.gather(series, missing, tables, patch, span.first_place, part.x, part.missing)
            self._prepare(part, span, patch, log_w, log_ref)
            self._iterate(part)
            if self._moving_weights:
                log_w[span.first_place : span.last_place] = part.log_w[self._settings.iterations % 2]
            turned = (rings[number % 2], rings[1 - number % 2])
            kernel.average(part.x, part.mass, place, tables, missing, series_new, turned, span)
        return series_new, log_w

    def _chosen(self, missing: Tensor, tables: Any) -> tuple[Tensor | None, Tensor | None]:
        """The patches that have to move, in order, and where among them each patch is; None: all of them.

        With moving weights that is all: each is part of its group's sum.
        """
        from fastimpute.kernels.proximal_recursion import any_missing

        if self._moving_weights or self._patches.total == 0:
            return None, None
        found = torch.empty(self._patches.total, dtype=torch.bool, device=missing.device)
        any_missing(missing, tables, found)
        chosen = torch.nonzero(found)[:, 0]
        if len(chosen) == len(found):
            return None, None
        return chosen, torch.where(found, found.cumsum(0) - 1, -1)

    def _capacity(self, device: torch.device) -> int:
        """Patches of a wave: as many as occupy the whole GPU equally, in whole groups where weights move."""
        settings = self._settings
        bytes_of_a_cell = 9 + 4 * (settings.gamma > 0) + 8 * settings.adam
        full = multiprocessors(device) * self._score.tiles.rows
        capacity = max(1, WAVE_BYTES // (bytes_of_a_cell * self._network.dim * full)) * full
        return max(1, capacity // settings.group) * settings.group if self._moving_weights else capacity

    def _spans(self, chosen: Tensor | None, count: int, capacity: int, length: int) -> Iterator[Any]:
        """What each wave has to do with."""
        from fastimpute.kernels.proximal_recursion import Span

        begins = torch.arange(0, count, capacity, device=self._patches.starts.device)
        ends = torch.stack([begins, (begins + (capacity - 1)).clamp_max(count - 1)], 1)
        windows = (ends if chosen is None else chosen[ends]) // self._patches.columns.shape[0]
        table = torch.cat([windows, self._patches.starts[windows]], 1).tolist()
        settled = [*(first_row for _, _, first_row, _ in table[1:]), length]
        carried = 0
        for number, (first, last, first_row, last_start) in enumerate(table):
            place, last_row = number * capacity, last_start + self._patches.window
            places = (place, min(place + capacity, count))
            yield Span(*places, first, last + 1, first_row, last_row, carried, settled[number])
            carried = last_row

    def _prepare(self, part: _Wave, span: Any, patch: Tensor | None, log_w: Tensor, log_ref: Tensor | None) -> None:
        """Everything of a wave but its values: conditions, noise keys, weights, moments."""
        settings, taken = self._settings, slice(span.first_place, span.last_place)
        if patch is None:
            patch = torch.arange(taken.start, taken.stop, device=log_w.device)
        self._score.prepare(patch // self._patches.columns.shape[0])
        if part.keys is not None:
            part.keys.copy_(self._patches.noise_keys(patch))
        if log_ref is None:
            part.mass.fill_(1.0)
        else:
            part.mass.copy_(log_w[patch].exp() * _group_sizes(patch, settings.group, self._patches.total))
        if self._moving_weights:
            part.log_w[0] = log_w[taken]
            if part.log_ref is not None and log_ref is not None:
                part.log_ref.copy_(log_ref[taken])
        if part.moments is not None:
            part.moments.zero_()

    def _iterate(self, part: _Wave) -> None:
        """All iterations of one wave: launches only, a single one where weights are at rest."""
        from fastimpute.kernels import particle_step, proximal_recursion

        settings = self._settings
        if not self._moving_weights:
            self._score.loop(part)
            return
        drift = float(settings.dissipation)
        for iteration in range(settings.iterations):
            self._score.launch(part)
            if settings.head == "direct" or part.curved is not None:
                proximal_recursion.direct(part.direction, part.curved, part.score_sq, settings.gamma)
            self._update_weights(part, iteration)
            noise = None if part.keys is None else (part.keys, settings.seed, _SAMPLE, iteration)
            moments = None if part.moments is None else _adam(part.moments, iteration + 1)
            particle_step.launch(
                part.x, part.direction, part.mass, part.missing, part.x,
                eta=settings.eta, drift=drift, noise=noise, moments=moments,
            )  # fmt: skip

    def _update_weights(self, part: _Wave, iteration: int) -> None:
        from fastimpute.kernels import spt_weights

        settings = self._settings
        # The direct head has no log p: -(sigma^2 / 2) |score|^2 takes its place, beside a log_p of zeros.
        gamma = settings.sigma**2 if settings.head == "direct" else settings.gamma
        old, new = part.log_w[iteration % 2], part.log_w[1 - iteration % 2]
        spt_weights.launch(
            old, part.log_p, part.score_sq, part.log_ref, new, part.mass, group=settings.group, gamma=gamma,
            eta_w=settings.eta_w, tau=settings.tau, bound=settings.bound, robust=settings.robust,
        )  # fmt: skip


class _Wave(NamedTuple):
    """Memory for the particles of a wave, (n, D) where not said otherwise; absent parts are None.

    mass, log_p, score_sq, log_ref: (n,). log_w: (2, n), written in turn. keys: (n, 1 + sensors). moments: (2, n, D).
    """

    x: Tensor
    direction: Tensor
    missing: Tensor
    mass: Tensor
    log_p: Tensor
    score_sq: Tensor
    log_w: Tensor
    log_ref: Tensor | None
    curved: Tensor | None
    moments: Tensor | None
    keys: Tensor | None

    @staticmethod
    def of(capacity: int, patches: Patches, settings: Settings, log_ref: bool, device: torch.device) -> _Wave:
        """Memory for `capacity` patches; log p and |score|^2 are zero until a kernel writes them."""
        shape = (capacity, patches.dim)

        def floats(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        return _Wave(
            floats(*shape),
            floats(*shape),
            torch.empty(shape, dtype=torch.bool, device=device),
            floats(capacity),
            floats(capacity).zero_(),
            floats(capacity).zero_(),
            floats(2, capacity),
            floats(capacity) if log_ref else None,
            floats(*shape) if settings.gamma > 0 else None,
            floats(2, *shape) if settings.adam else None,
            torch.empty(capacity, 1 + patches.columns.shape[1], dtype=torch.int64, device=device)
            if settings.dissipation
            else None,
        )

    def first(self, count: int) -> _Wave:
        """The part for `count` patches."""
        pairs = ("log_w", "moments")
        parts: dict[str, Any] = {
            name: tensor if tensor is None else tensor[:, :count] if name in pairs else tensor[:count]
            for name, tensor in self._asdict().items()
        }
        return _Wave(**parts)


class _Score:
    """The score kernel of one head with its weights and scratch."""

    def __init__(self, network: Network, settings: Settings, precision: str) -> None:
        from fastimpute.kernels import energy_mlp, particle_loop, score_mlp
        from fastimpute.kernels.matrix import padded

        self._network, self._direct, self._hvp = network, settings.head == "direct", settings.gamma > 0
        self._settings = settings
        self._pack = triton_pack(network, precision, padded(network.dim))
        size = self._pack.w1.element_size()
        if settings.eta_w == 0:
            self.tiles = particle_loop.configuration(size, self._direct, self._hvp)
        else:
            self.tiles = score_mlp.configuration(size) if self._direct else energy_mlp.configuration(size, self._hvp)
        self._modulation = network.modulation.contiguous()

    def reserve(self, capacity: int, device: torch.device) -> None:
        """Allocates what waves of `capacity` patches need."""
        from fastimpute.kernels.energy_mlp import state_tiles

        self._programs = min(multiprocessors(device), -(-capacity // self.tiles.rows))
        size = self._programs * self.tiles.rows * self._network.hidden
        states = size * (1 if self._direct else state_tiles(self._hvp))
        operands = torch.empty(size, dtype=self._pack.w1.dtype, device=device)
        self._scratch = (operands, torch.empty(states, dtype=torch.float32, device=device))
        self._sigma = torch.full((capacity,), self._settings.sigma, dtype=torch.float32, device=device)
        steps = [_corrections(step + 1) for step in range(self._settings.iterations if self._settings.adam else 0)]
        self._corrections = torch.tensor(steps, dtype=torch.float32, device=device)
        indexed = self._network.modulation_index is not None
        self._index = torch.empty(capacity, dtype=torch.int64, device=device) if indexed else None

    def prepare(self, windows: Tensor) -> None:
        """Takes the conditions of a wave whose patches lie in these windows."""
        if self._index is not None and self._network.modulation_index is not None:
            self._index[: len(windows)] = self._network.modulation_index[windows]

    def launch(self, part: _Wave) -> None:
        """Writes the wave's direction; of the energy head log p and, where wanted, H v as well."""
        from fastimpute.kernels import energy_mlp, score_mlp

        index, options = self._of(len(part.x))
        network = (self._pack, self._modulation, index)
        if self._direct:
            sigma = self._sigma[: len(part.x)]
            score_mlp.launch(part.x, sigma, *network, part.direction, self._scratch, **options)
        else:
            outputs = (part.log_p, part.direction, part.curved)
            energy_mlp.launch(part.x, None, *network, outputs, self._scratch, **options)

    def loop(self, part: _Wave) -> None:
        """Moves the wave's particles through all iterations; their mass stays what it is."""
        from fastimpute.kernels import particle_loop

        index, options = self._of(len(part.x))
        settings = self._settings
        constants = (AdamState.beta1, AdamState.beta2, AdamState.eps)
        particle_loop.launch(
            part.x,
            part.missing,
            part.mass,
            self._pack,
            self._modulation,
            index,
            (part.log_p, part.direction, part.curved),
            self._scratch,
            sigma=self._sigma[: len(part.x)] if self._direct else None,
            iterations=settings.iterations,
            eta=settings.eta,
            gamma=settings.gamma,
            drift=float(settings.dissipation),
            noise=None if part.keys is None else (part.keys, settings.seed, _SAMPLE),
            moments=None if part.moments is None else (*part.moments, *constants, self._corrections),
            **options,
        )

    def _of(self, count: int) -> tuple[Tensor | None, dict[str, Any]]:
        """Conditions of `count` patches, and how the kernels are laid out."""
        index = None if self._index is None else self._index[:count]
        return index, {"programs": self._programs, "tiles": self.tiles}


def start_weights(count: int, group: int, log_ref: Tensor | None, like: Tensor) -> Tensor:
    """log w before the first iteration, (count,): log_ref or, where it is None, uniform, normalised per group."""
    whole = count - count % group
    if log_ref is None:
        log_w = like.new_full((count,), -math.log(group))
        return log_w.index_fill_(0, torch.arange(whole, count, device=like.device), -math.log(max(count - whole, 1)))
    head = torch.log_softmax(log_ref[:whole].reshape(-1, group), 1).flatten()
    return torch.cat([head, torch.log_softmax(log_ref[whole:], 0)])


def _group_sizes(patch: Tensor, group: int, total: int) -> Tensor:
    """Patches in the group of each of the given ones."""
    return (total - patch // group * group).clamp_max(group)


def _owners(columns: Tensor, sensors: int) -> tuple[Tensor, Tensor]:
    """Places in `columns` in the order of their sensors, and the end of each sensor's run of them."""
    ordered, owner = columns.flatten().sort(stable=True)
    return owner, torch.searchsorted(ordered, torch.arange(sensors, device=columns.device), right=True)


def _adam(moments: Tensor, step: int) -> tuple[Any, ...]:
    """Adam's moments and numbers at the step-th step as `particle_step`'s kernel takes them."""
    return *moments, AdamState.beta1, AdamState.beta2, AdamState.eps, *_corrections(step)


def _corrections(step: int) -> tuple[float, float]:
    """Adam's 1 - beta^step of both moments."""
    return 1 - AdamState.beta1**step, 1 - AdamState.beta2**step

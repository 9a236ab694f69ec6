"""`proximal_recursion` on the GPU: what it does beside the score, `spt_weights` and the particles' steps.

Patches are gathered from the series by their origins, x[l * k + j] = series[starts[s] + l, columns[g, j]] of patch
i = s * G + g, a wave at a time. Where weights move, |s|^2 and T_x = s - gamma H s follow from the network's results.
After the last step each missing cell becomes sum mass x / sum mass over the patches that cover it. There a program
looks for the patches of its cells, in the patches' order, so that nothing is summed by atomics; sums are float64 and
wait in a ring of one window's rows where later waves add to them, so that the bits do not depend on the waves.

Bytes per cell of a patch: gather 10, average 4 where the cell is missing, once per call; direction 4 (with H v 12) per
iteration. Operations are few.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Configuration(NamedTuple):
    """Cells (or patches) of one program, columns of a patch taken at a time, and warps."""

    rows: int
    columns: int
    warps: int


GATHER = Configuration(1024, 1, 8)
AVERAGE = Configuration(256, 1, 4)
ANY_MISSING = Configuration(32, 32, 4)
DIRECTION = Configuration(16, 64, 4)


# Numbers that differ from wave to wave: one compiled kernel serves all.
_OF_A_WAVE = [
    "first_row",
    "last_row",
    "carried_row",
    "settled_row",
    "first_window",
    "last_window",
    "first_place",
    "last_place",
    "halvings",
]


@triton.jit(do_not_specialize=["first_patch", "cells"])
def gather_kernel(
    series_ptr,
    missing_ptr,
    starts_ptr,
    columns_ptr,
    patch_ptr,
    x_ptr,
    hidden_ptr,
    first_patch,
    cells,
    series_stride,
    missing_stride,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    SETS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Values and masks of the patches in patch_ptr or, where that is None, of those from first_patch on."""
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < cells
    place = cell // D
    patch = first_patch + place if patch_ptr is None else tl.load(patch_ptr + place, mask=inside, other=0)
    row, sensor = _origin(starts_ptr, columns_ptr, patch, cell % D, inside, WIDTH, SETS)
    x = tl.load(series_ptr + row * series_stride + sensor, mask=inside, other=0.0)
    hidden = tl.load(missing_ptr + row * missing_stride + sensor, mask=inside, other=0)
    tl.store(x_ptr + cell, x, mask=inside)
    tl.store(hidden_ptr + cell, hidden, mask=inside)


@triton.jit
def any_missing_kernel(
    missing_ptr,
    starts_ptr,
    columns_ptr,
    found_ptr,
    patches,
    missing_stride,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    SETS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Whether each patch has a missing cell: the others need not move."""
    patch = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    found = tl.zeros((ROWS,), tl.int32)
    for first in range(0, D, COLUMNS):
        element = first + tl.arange(0, COLUMNS)
        inside = (patch < patches)[:, None] & (element < D)[None, :]
        row, sensor = _origin(starts_ptr, columns_ptr, patch[:, None], element[None, :], inside, WIDTH, SETS)
        hidden = tl.load(missing_ptr + row * missing_stride + sensor, mask=inside, other=0)
        found = tl.maximum(found, tl.max(hidden.to(tl.int32), axis=1))
    tl.store(found_ptr + patch, found != 0, mask=patch < patches)


@triton.jit
def direction_kernel(
    direction_ptr,
    curved_ptr,
    score_sq_ptr,
    rows,
    gamma,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """|score|^2 of each row and, unless curved_ptr is None, in place score - gamma H score."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    square = tl.zeros((ROWS,), tl.float32)
    for first in range(0, D, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = (row < rows)[:, None] & (column < D)[None, :]
        cells = (row * D)[:, None] + column[None, :]
        score = tl.load(direction_ptr + cells, mask=inside, other=0.0)
        square += tl.sum(score * score, axis=1)
        if curved_ptr is not None:
            curved = tl.load(curved_ptr + cells, mask=inside, other=0.0)
            tl.store(direction_ptr + cells, score - gamma * curved, mask=inside)
    tl.store(score_sq_ptr + row, square, mask=row < rows)


@triton.jit(do_not_specialize=_OF_A_WAVE)
def average_kernel(
    x_ptr,
    mass_ptr,
    place_ptr,
    starts_ptr,
    owner_ptr,
    owner_end_ptr,
    missing_ptr,
    series_ptr,
    carried_ptr,
    carry_ptr,
    missing_stride,
    first_row,
    last_row,
    carried_row,
    settled_row,
    first_window,
    last_window,
    first_place,
    last_place,
    halvings,
    SENSORS: tl.constexpr,
    WINDOW: tl.constexpr,
    WIDTH: tl.constexpr,
    SETS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Missing cells of the rows first_row ... last_row - 1 from the particles of one wave.

    x_ptr and mass_ptr hold the particles at first_place ... last_place - 1; place_ptr says where each patch lies, None:
    at its own number. Rows before carried_row have sums of earlier waves in the ring at carried_ptr; rows from
    settled_row on get more from later ones and go into the ring at carry_ptr, the others into series_ptr.
    """
    first, last = tl.cast(first_row, tl.int64) * SENSORS, tl.cast(last_row, tl.int64) * SENSORS
    cell = first + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, sensor = cell // SENSORS, cell % SENSORS
    inside = cell < last
    needed = inside & (tl.load(missing_ptr + row * missing_stride + sensor, mask=inside, other=0) != 0)
    if tl.max(needed.to(tl.int32), axis=0) > 0:
        low = _windows_before(starts_ptr, row - WINDOW, first_window, last_window, halvings)
        high = _windows_before(starts_ptr, row, first_window, last_window, halvings)
        owner_end = tl.load(owner_end_ptr + sensor, mask=needed, other=0)
        owner = tl.load(owner_end_ptr + sensor - 1, mask=needed & (sensor > 0), other=0)
        slot = row % WINDOW * SENSORS + sensor
        before = needed & (row < carried_row)
        total = tl.load(carried_ptr + slot, mask=before, other=0.0)
        weight = tl.load(carried_ptr + (WINDOW * SENSORS + slot), mask=before, other=0.0)
        owners = tl.max(owner_end - owner, axis=0)
        for step in range(tl.max(tl.where(needed, high - low, 0), axis=0)):
            window = low + step
            covers = needed & (window < high)
            start = tl.load(starts_ptr + window, mask=covers, other=0)
            for turn in range(owners):
                here = covers & (owner + turn < owner_end)
                column = tl.load(owner_ptr + (owner + turn), mask=here, other=0)
                place = window * SETS + column // WIDTH
                if place_ptr is not None:
                    place = tl.load(place_ptr + place, mask=here, other=-1)
                here = here & (place >= first_place) & (place < last_place)
                place -= first_place
                element = (row - start) * WIDTH + column % WIDTH
                mass = tl.load(mass_ptr + place, mask=here, other=0.0).to(tl.float64)
                value = tl.load(x_ptr + place * (WINDOW * WIDTH) + element, mask=here, other=0.0).to(tl.float64)
                total += mass * value
                weight += mass
        settled = needed & (row < settled_row)
        mean = total / tl.where(weight > 0, weight, 1.0)
        tl.store(series_ptr + cell, mean.to(tl.float32), mask=settled & (weight > 0))
        tl.store(carry_ptr + slot, total, mask=needed & (row >= settled_row))
        tl.store(carry_ptr + (WINDOW * SENSORS + slot), weight, mask=needed & (row >= settled_row))


@triton.jit
def _origin(starts_ptr, columns_ptr, patch, element, inside, WIDTH: tl.constexpr, SETS: tl.constexpr):
    """Row and sensor in the series of elements of patches."""
    start = tl.load(starts_ptr + patch // SETS, mask=inside, other=0)
    sensor = tl.load(columns_ptr + (patch % SETS * WIDTH + element % WIDTH), mask=inside, other=0)
    return start + element // WIDTH, sensor


@triton.jit
def _windows_before(starts_ptr, row, first_window, last_window, halvings):
    """Number of the first window that begins after each row."""
    low = tl.zeros_like(row) + first_window
    high = tl.zeros_like(row) + last_window
    for _ in range(halvings):
        middle = (low + high) // 2
        apart = low < high
        earlier = tl.load(starts_ptr + middle, mask=apart, other=0) <= row
        low = tl.where(apart & earlier, middle + 1, low)
        high = tl.where(apart & (earlier == 0), middle, high)
    return low


class Tables(NamedTuple):
    """The patches on the device: starts (S,), columns (G, k), and where each sensor occurs in them.

    owner (G * k,): places in `columns` in the order of sensors, then of places. owner_end (N,): end of each sensor's.
    """

    starts: Any
    columns: Any
    owner: Any
    owner_end: Any
    window: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """D, sensors of a patch, and kinds of patches."""
        sets, width = self.columns.shape
        return self.window * width, width, sets


class Span(NamedTuple):
    """One wave: its particles, its windows, and the rows of the series it has to do with (see `average_kernel`)."""

    first_place: int
    last_place: int
    first_window: int
    last_window: int
    first_row: int
    last_row: int
    carried_row: int
    settled_row: int


def any_missing(missing: Any, tables: Tables, found: Any) -> None:
    """found (patches,) bool: which patches have a missing cell. missing (T, N) bool, cells of a row adjacent."""
    (patches,) = found.shape
    dim, width, sets = tables.sizes
    rows, columns, warps = ANY_MISSING
    any_missing_kernel[(triton.cdiv(patches, rows),)](
        missing, tables.starts, tables.columns, found, patches, missing.stride(0), dim, width, sets, rows, columns,
        num_warps=warps,
    )  # fmt: skip


def gather(series: Any, missing: Any, tables: Tables, patch: Any, first_patch: int, x: Any, hidden: Any) -> None:
    """x and hidden (n, D), contiguous: values and masks of the patches `patch` (n,), None: from first_patch on.

    series (T, N) float32 and missing (T, N) bool, cells of a row adjacent.
    """
    dim, width, sets = tables.sizes
    cells = x.shape[0] * dim
    block, _, warps = GATHER
    gather_kernel[(triton.cdiv(cells, block),)](
        series, missing, tables.starts, tables.columns, patch, x, hidden, first_patch, cells,
        series.stride(0), missing.stride(0), dim, width, sets, block, num_warps=warps,
    )  # fmt: skip


def direct(direction: Any, curved: Any, score_sq: Any, gamma: float) -> None:
    """direction (n, D) contiguous: the score, replaced by score - gamma curved; score_sq (n,): |score|^2.

    curved (n, D) or None: the score stays.
    """
    count, dim = direction.shape
    rows, columns, warps = DIRECTION
    direction_kernel[(triton.cdiv(count, rows),)](
        direction, curved, score_sq, count, gamma, dim, rows, columns, num_warps=warps, enable_fp_fusion=True,
    )  # fmt: skip


def average(
    x: Any,
    mass: Any,
    place: Any,
    tables: Tables,
    missing: Any,
    series: Any,
    rings: tuple[Any, Any],
    span: Span,
) -> None:
    """Averages the overlaps of one wave into the missing cells of series (T, N), contiguous.

    x (n, D), mass (n,): of the wave's particles. place (patches,) int64 or None. rings: float64 (2, window, N) each,
    the one read and the one written.
    """
    dim, width, sets = tables.sizes
    sensors = series.shape[1]
    block, _, warps = AVERAGE
    halvings = (span.last_window - span.first_window).bit_length()
    average_kernel[(triton.cdiv((span.last_row - span.first_row) * sensors, block),)](
        x, mass, place, tables.starts, tables.owner, tables.owner_end, missing, series, *rings, missing.stride(0),
        span.first_row, span.last_row, span.carried_row, span.settled_row, span.first_window, span.last_window,
        span.first_place, span.last_place, halvings, sensors, dim // width, width, sets, block, num_warps=warps,
    )  # fmt: skip

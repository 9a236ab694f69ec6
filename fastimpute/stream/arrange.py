"""Columns in an order in which sensors that move together are neighbours, and so come into one group.

A group is filled from its own sensors alone, and the columns of a file stand in any order: by the numbers of the
detectors, say, which follow neither roads nor traffic. What is looked at is how each sensor departs from all others at
the same time, since the hours of the day move all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastimpute.stream.folder import ARRANGEMENT, WorkFolder
from fastimpute.stream.table import EVERYTHING, Cells, Header, Source
from fastimpute.stream.tiles import Tiles

Order = NDArray[np.int64]

STRETCHES = 4  # bands looked at
STEPS, MOST_STEPS = 32, 255  # departures are counted in 32nds of a deviation, and up to 8 deviations
FEW = 20  # pairs of observations that are too few to tell


def order_of(source: Source, tiles: Tiles, seed: int) -> Order:
    """Which column comes at each place; each district keeps its columns.

    All sums are of whole numbers, so that the order is the same on any number of threads.

    Args:
        source: the table.
        tiles: its tiling.
        seed: of the bands that are looked at.

    Returns:
        (N,) column numbers; as they are if there is but one group.
    """
    order = np.arange(tiles.sensors)
    if tiles.groups == 1:
        return order
    bands = bands_looked_at(tiles, seed)
    for district in range(tiles.districts):
        columns = tiles.district(district)
        likeness = Likeness.none(columns.stop - columns.start)
        for band in bands:
            likeness = likeness + Likeness.of(source.read(tiles.band(band), columns))
        order[columns] = order_of_district(likeness, tiles, district)
    return order


def bands_looked_at(tiles: Tiles, seed: int) -> list[int]:
    """A few bands, by lot."""
    return sorted(int(band) for band in np.random.default_rng(seed).permutation(tiles.bands)[:STRETCHES])


def order_of_district(likeness: Likeness, tiles: Tiles, district: int) -> Order:
    """Which column comes at each place of a district."""
    first = tiles.district(district).start
    ends = [tiles.group(group).start - first for group in tiles.groups_of(district)][1:]
    order: Order = first + arranged(likeness.correlation(), np.diagonal(likeness.pairs) == 0, ends)
    return order


@dataclass(frozen=True)
class Likeness:
    """How the departures of sensors from the mean of all go together, over the rows that both were observed in.

    Attributes:
        products: (n, n) sums of products, whole numbers.
        pairs: (n, n) number of rows.
    """

    products: NDArray[np.float64]
    pairs: NDArray[np.float64]

    @classmethod
    def none(cls, sensors: int) -> Self:
        """Of no rows yet."""
        return cls(np.zeros((sensors, sensors)), np.zeros((sensors, sensors)))

    @classmethod
    def of(cls, cells: Cells) -> Self:
        """Of some rows (r, n), NaN where missing."""
        steps, seen = _departures(cells)
        return cls(steps.T @ steps, seen.T @ seen)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.products + other.products, self.pairs + other.pairs)

    def correlation(self) -> NDArray[np.float64]:
        """(n, n) symmetric, drawn towards 0 where there are few pairs."""
        power = np.sqrt(np.diagonal(self.products) / np.maximum(np.diagonal(self.pairs), 1))
        scale = np.maximum(power[:, None] * power * (self.pairs + FEW), 1e-12)
        return np.clip(self.products / scale, -1, 1)


def _departures(cells: Cells) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(r, N) whole numbers, 0 where missing, and 1 where there is one."""
    seen = np.isfinite(cells)  # infinities are refused later, by name
    count = np.maximum(seen.sum(0), 1)
    known = np.where(seen, cells, 0).astype(np.float64)
    known = np.where(seen, known - known.sum(0) / count, 0)
    spread = np.sqrt(np.square(known).sum(0) / count)
    known /= np.where(spread > 0, spread, 1)
    known -= known.sum(1, keepdims=True) / np.maximum(seen.sum(1, keepdims=True), 1)
    steps = np.clip(np.rint(known * STEPS), -MOST_STEPS, MOST_STEPS)
    return np.where(seen, steps, 0), seen.astype(np.float64)


def arranged(likeness: NDArray[np.float64], silent: NDArray[np.bool_], ends: list[int]) -> Order:
    """Sensors along a tree of average linkage, within each group as they were.

    Args:
        likeness: (n, n) symmetric.
        silent: (n,) sensors that were not observed; they come last.
        ends: where a group ends and the next one begins.

    Returns:
        (n,) their numbers.

    Example:
        >>> likeness = np.array([[1.0, 0.0, 0.9, 0.1], [0, 1, 0, 0.8], [0.9, 0, 1, 0], [0.1, 0.8, 0, 1]])
        >>> arranged(likeness, np.zeros(4, bool), ends=[2]).tolist()
        [0, 2, 1, 3]
    """
    if not ends:
        return np.arange(len(likeness))
    from scipy.cluster.hierarchy import leaves_list, linkage

    above = np.triu_indices(len(likeness), 1)
    leaves: Order = leaves_list(linkage(1 - likeness[above], "average")).astype(np.int64)
    leaves = leaves[np.argsort(silent[leaves], kind="stable")]
    return np.concatenate([np.sort(group) for group in np.split(leaves, ends)])


class ArrangedSource:
    """A table whose columns are taken in another order.

    Attributes:
        table: as it is.
        order: (N,) which column comes at each place.
        header: of the columns in their new order.
    """

    def __init__(self, table: Source, order: Order) -> None:
        self.table, self.order = table, order
        self.header = arranged_header(table.header, order)
        self._as_is = in_order(order)

    def read(self, rows: slice, columns: slice = EVERYTHING) -> Cells:
        """Cells (r, c); reads all columns between the first and the last that are wanted."""
        if self._as_is:
            return self.table.read(rows, columns)
        wanted = self.order[columns]
        first, last = int(wanted.min()), int(wanted.max())
        return np.take(self.table.read(rows, slice(first, last + 1)), wanted - first, axis=1)

    def places(self, columns: slice) -> slice | Order:
        """Where some columns are in the table."""
        return columns if self._as_is else self.order[columns]

    @classmethod
    def kept(cls, table: Source, folder: WorkFolder) -> Self:
        """With the order that the leader of a run has found.

        Raises:
            ValueError: none has.
        """
        arrays = folder.read_arrays(ARRANGEMENT)
        if arrays is None:
            raise ValueError(f"{folder.path}: no job was begun here; all workers have to see the folder of the output")
        return cls(table, arrays["order"])

    def elsewhere(self) -> Callable[[], Source] | None:
        """Of the table as it is."""
        return self.table.elsewhere()

    def close(self) -> None:
        """Let go of the file."""
        self.table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def in_order(order: Order) -> bool:
    """Whether every column stays where it is."""
    return bool((order == np.arange(len(order))).all())


def arranged_header(header: Header, order: Order) -> Header:
    """Of the columns in their new order."""
    return header if in_order(order) else replace(header, names=tuple(header.names[column] for column in order))

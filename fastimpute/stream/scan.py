"""One look at every cell before the work: scale, gaps and damage of each sensor, and a digest of the whole.

The looks at pieces of a table are taken anywhere and in any order, and put together from the top: same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastimpute.series import Scaler
from fastimpute.stream.lots import Lot
from fastimpute.stream.runs import Runs, Zeros
from fastimpute.stream.strips import read_ahead, strips
from fastimpute.stream.table import EVERYTHING, Cells, Header, Source
from fastimpute.stream.tiles import Tile

CONSTANT = 1e-14  # a sensor whose readings differ by less, in units of the largest, is constant


@dataclass(frozen=True)
class Scan:
    """What one pass over a table found.

    Attributes:
        observed: (B, N) int64, observed cells of every sensor by band.
        mean: (N,) float64, NaN without an observation.
        std: (N,) float64, likewise; 0 for a constant sensor.
        longest_gap: (N,) int64, rows of each sensor's longest gap.
        digest: of all cells.
        zeros: of all sensors.
    """

    observed: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    longest_gap: NDArray[np.int64]
    digest: str
    zeros: Zeros

    @classmethod
    def of(cls, bands: Iterable[Look]) -> Self:
        """From the looks at all bands, from the top."""
        moments: Moments | None = None
        gaps: Runs | None = None
        zeros: Runs | None = None
        digest, observed = hashlib.sha256(), list[NDArray[np.int64]]()
        for look in bands:
            moments = moments or Moments(len(look.tally.count))
            moments.add(look.tally, EVERYTHING)
            gaps = look.gaps if gaps is None else gaps.above(look.gaps)
            zeros = look.zeros if zeros is None else zeros.above(look.zeros)
            digest.update(look.digests.tobytes())
            observed.append(look.tally.count)
        if moments is None or gaps is None or zeros is None:
            raise ValueError("bands: expected one or more, got none")
        return cls(np.stack(observed), *moments.result(), gaps.longest, digest.hexdigest(), Zeros.of(zeros))

    @property
    def scaler(self) -> Scaler:
        """Of all sensors."""
        return Scaler(self.mean, self.std)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays."""
        return {
            "observed": self.observed,
            "mean": self.mean,
            "std": self.std,
            "longest_gap": self.longest_gap,
            "digest": np.frombuffer(bytes.fromhex(self.digest), np.uint8),
            "zeros": np.array([getattr(self.zeros, field.name) for field in fields(Zeros)], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Inverse of `arrays`."""
        digest, zeros = arrays["digest"].tobytes().hex(), Zeros(*arrays["zeros"].tolist())
        return cls(arrays["observed"], arrays["mean"], arrays["std"], arrays["longest_gap"], digest, zeros)


@dataclass(frozen=True)
class Look:
    """What there is to see in neighbouring tiles of a band.

    Attributes:
        tally: of their observed cells.
        gaps: runs of missing cells.
        zeros: runs of zeros.
        digests: (tiles, 32) uint8, one of each tile.
    """

    tally: Tally
    gaps: Runs
    zeros: Runs
    digests: NDArray[np.uint8]

    @classmethod
    def at(cls, cells: Cells, tile: Tile, header: Header) -> Self:
        """At the cells (r, c) of a tile, C-contiguous.

        Raises:
            ValueError: one of them is infinite; names its row and its column.
        """
        refuse_infinities(cells, tile, header)
        digest = np.frombuffer(hashlib.sha256(cells.data).digest(), np.uint8)
        missing = np.isnan(cells)
        gaps = Runs.of(missing)
        tally = Tally.of(cells, missing, gaps.count)
        return cls(tally, gaps, Runs.of(cells == 0), digest[None])

    @classmethod
    def beside(cls, parts: list[Look]) -> Self:
        """At the same rows of neighbouring columns."""
        tallies = [part.tally for part in parts]
        tally = Tally(*(np.concatenate([getattr(one, name.name) for one in tallies]) for name in fields(Tally)))
        gaps, zeros = (Runs.beside([getattr(part, kind) for part in parts]) for kind in ("gaps", "zeros"))
        return cls(tally, gaps, zeros, np.concatenate([part.digests for part in parts]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays."""
        parts = {"tally": self.tally, "gaps": self.gaps, "zeros": self.zeros}
        named = {
            f"{kind}.{field.name}": np.asarray(getattr(part, field.name))
            for kind, part in parts.items()
            for field in fields(part)  # type: ignore[arg-type]
        }
        return {**named, "digests": self.digests}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Inverse of `arrays`."""

        def part(kind: str) -> dict[str, Any]:
            return {name.removeprefix(f"{kind}."): array for name, array in arrays.items() if name.startswith(kind)}

        def runs(kind: str) -> Runs:
            facts = part(kind)
            return Runs(int(facts.pop("rows")), **facts)

        return cls(Tally(**part("tally")), runs("gaps"), runs("zeros"), arrays["digests"])


def looks(source: Source, lots: Sequence[Lot], strip_bytes: int) -> Generator[Look]:
    """Read some lots of tiles once, one after the other; to be closed where it is left early.

    Args:
        source: the table.
        lots: of its tiles; sums are taken tile by tile, so that they are the same bits wherever it is done.
        strip_bytes: about how much to read at a time.

    Raises:
        ValueError: an infinite cell, or data that cannot be read.
    """
    header = source.header
    wanted = [(lot, strip) for lot in lots for strip in strips(lot, strip_bytes, header.floating.itemsize)]
    found: list[Look] = []
    with closing(read_ahead(source, [(strip.rows, strip.columns) for _, strip in wanted])) as cells_of:
        for (lot, strip), cells in zip(wanted, cells_of, strict=True):
            parts = ((np.ascontiguousarray(strip.part(cells, tile)), tile) for tile in strip.tiles)
            found += [Look.at(part, tile, header) for part, tile in parts]
            if strip.tiles[-1] == lot[-1]:
                yield Look.beside(found)
                found = []


def refuse_infinities(cells: Cells, tile: Tile, header: Header) -> None:
    """Refuse an infinite cell among those of a tile.

    Raises:
        ValueError: names its row and its column.
    """
    infinite = np.isinf(cells)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        name = header.names[tile.columns.start + column]
        raise ValueError(
            f"column {name!r} holds an infinity at row {tile.rows.start + row}: "
            "replace infinities by NaN if they mean missing"
        )


@dataclass(frozen=True)
class Tally:
    """What the observed cells of some rows of some sensors add up to.

    Attributes:
        count: (c,) int64, observed cells of each.
        mean: (c,) float64, 0 without any.
        squares: (c,) float64, sum of the squared distances from that mean.
        lowest: (c,) least observed cell, inf without any.
        highest: (c,) likewise.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.floating[Any]]
    lowest: NDArray[np.floating[Any]]
    highest: NDArray[np.floating[Any]]

    @classmethod
    def of(cls, cells: Cells, missing: NDArray[np.bool_], gaps: NDArray[np.int64]) -> Self:
        """Of cells (r, c), C-contiguous so that they are added in the same order wherever they come from.

        Args:
            cells: NaN where missing.
            missing: where that is.
            gaps: (c,) how many cells are missing.
        """
        count = len(cells) - gaps
        own = cells.astype(np.float64)
        np.copyto(own, 0.0, where=missing)
        mean = own.sum(0) / np.maximum(count, 1)
        own -= mean
        np.copyto(own, 0.0, where=missing)
        lowest, highest = np.fmin.reduce(cells, axis=0), np.fmax.reduce(cells, axis=0)
        lowest[count == 0], highest[count == 0] = np.inf, -np.inf
        return cls(count, mean, np.einsum("rc,rc->c", own, own), lowest, highest)


class Moments:
    """Mean and deviation of the observed cells of each sensor, merged band by band (Chan, Golub, LeVeque 1983)."""

    def __init__(self, sensors: int) -> None:
        self.count = np.zeros(sensors)
        self.mean, self.squares = np.zeros(sensors), np.zeros(sensors)
        self.lowest, self.highest = np.full(sensors, np.inf), np.full(sensors, -np.inf)

    def add(self, tally: Tally, columns: slice) -> None:
        """Take in some rows of some columns; the result depends on the order of the rows in its last bits."""
        self.lowest[columns] = np.minimum(self.lowest[columns], tally.lowest)
        self.highest[columns] = np.maximum(self.highest[columns], tally.highest)
        before, step = self.count[columns], tally.mean - self.mean[columns]
        share = tally.count / np.maximum(before + tally.count, 1)
        self.squares[columns] += tally.squares + np.square(step) * before * share
        self.mean[columns] += step * share
        self.count[columns] += tally.count

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation, NaN without observations, 0 for a constant sensor, whose mean is its own value."""
        seen = self.count > 0
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        largest = np.maximum(np.abs(self.lowest), np.abs(self.highest))
        constant = seen & (self.highest - self.lowest <= CONSTANT * np.where(seen, largest, 1.0))
        mean = np.where(constant, self.lowest, self.mean)
        std = np.where(constant, 0.0, std)
        return np.where(seen, mean, np.nan), np.where(seen, std, np.nan)

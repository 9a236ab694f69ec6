"""The scan of a table shared out: what was seen of each lot of tiles lies in the folder until all of them are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from fastimpute.stream.clock import Clock, Log
from fastimpute.stream.folder import WorkFolder
from fastimpute.stream.lots import Lot, lots
from fastimpute.stream.memory import strip_bytes
from fastimpute.stream.scan import Look, Scan, looks
from fastimpute.stream.table import Source
from fastimpute.stream.wish import Wish


@dataclass(frozen=True)
class Survey:
    """A scan under way; a worker that is lost costs the lot it was at.

    Attributes:
        source: the table.
        folder: of unfinished work.
        lots: of its tiles.
        key: what was seen under another one is not counted: the input may be another, or cut in other lots.
        strip_bytes: about how much to read at a time.
        clock: where the time goes.
        log: told of every event.
    """

    source: Source
    folder: WorkFolder
    lots: list[Lot]
    key: str
    strip_bytes: int
    clock: Clock = field(default_factory=Clock)
    log: Log = lambda event: None

    @classmethod
    def of(cls, source: Source, wish: Wish, folder: WorkFolder, workers: int, clock: Clock, log: Log) -> Self:
        """The survey that so many workers begin, or go on with."""
        tiles = wish.tiles(source.header)
        dealt = lots(tiles, workers)
        key = f"{wish.order(tiles).fingerprint}-{len(dealt)}"
        return cls(source, folder, dealt, key, strip_bytes(wish.memory), clock, log)

    @property
    def cells(self) -> int:
        """Cells of the table."""
        return self.source.header.rows * self.source.header.sensors

    def look(self, numbers: Iterable[int], advance: Callable[[int], None]) -> None:
        """Look at some lots that were not looked at yet.

        Args:
            numbers: of lots.
            advance: told the cells of every lot seen.

        Raises:
            ValueError: an infinite cell, or data that cannot be read.
        """
        left = [number for number in numbers if self._kept(number) is None]
        key = np.frombuffer(self.key.encode(), np.uint8)
        with closing(looks(self.source, [self.lots[number] for number in left], self.strip_bytes)) as found:
            for number in left:
                with self.clock.spent("scanning"):
                    self.folder.write_arrays(_place(number), {**next(found).arrays(), "key": key})
                self.log({"event": "scanned", "lot": number, "lots": len(self.lots)})
                advance(sum(tile.cells for tile in self.lots[number]))

    def result(self) -> Scan:
        """What all of it makes.

        Raises:
            ValueError: a lot was not looked at.
        """
        with self.clock.spent("scanning"):
            return Scan.of(self._bands())

    def _bands(self) -> Iterator[Look]:
        parts: list[Look] = []
        for number, lot in enumerate(self.lots):
            kept = self._kept(number)
            if kept is None:
                raise ValueError(f"{self.folder.path / _place(number)}: what was seen there is gone")
            parts.append(kept)
            if number + 1 == len(self.lots) or self.lots[number + 1][0].band != lot[0].band:
                yield Look.beside(parts)
                parts = []

    def _kept(self, number: int) -> Look | None:
        arrays = self.folder.read_arrays(_place(number))
        if arrays is None or arrays.pop("key").tobytes().decode() != self.key:
            return None
        return Look.from_arrays(arrays)


def _place(number: int) -> str:
    return f"scan/{number:06d}.safetensors"

"""The folder of unfinished work beside the output: what was asked for, and every tile that is done.

Files appear in it only when complete (written aside, flushed, renamed), one per tile with a checksum instead of the
flush, so that whatever ends the work, a later run knows what is left of it. One lock keeps a second process out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastimpute.atomic import written_aside
from fastimpute.stream.tiles import Tile

FORMAT = 2
MANIFEST, LOCK, ASSEMBLED = "manifest.json", "lock", "assembled"
SCAN, ARRANGEMENT = "scan.safetensors", "arrangement.safetensors"
FOLDERS = ("tiles", "models", "scan")


class DamagedTile(ValueError):
    """A finished tile is not what was written."""


@dataclass(frozen=True)
class Order:
    """What was asked for; a run goes on only from one that was asked the same.

    Attributes:
        version: of fastimpute.
        source: name, stamp and digest of the input, and how it is read.
        method: the imputer's class and settings, or the digest of a fitted model.
        level: of the intervals; None without.
        tiles: the tiling.
    """

    version: str
    source: dict[str, Any]
    method: dict[str, Any]
    level: float | None
    tiles: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """Changes with anything the result depends on."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Filling:
    """What fills a tile.

    Attributes:
        values: (k, m) for its m missing cells, row by row.
        missing: (r,) how many of them each row has.
    """

    values: NDArray[np.floating[Any]]
    missing: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class WorkFolder:
    """Paths of one unfinished output, and the files in them."""

    path: Path

    @classmethod
    def beside(cls, target: Path) -> WorkFolder:
        """The folder that belongs to an output."""
        return cls(target.with_name(f"{target.name}.partial"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; the system lets go of it whatever ends the process.

        Raises:
            ValueError: another process holds it, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        try:
            for folder in ("", *FOLDERS):
                (self.path / folder).mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror}") from None
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{self.path}: another process is at work on this output; wait for it or end it") from None
        try:
            yield
        finally:
            lock.release()

    def spool(self, worker: str = "0") -> Path:
        """An empty folder for what a format has to lay aside, of one worker's own."""
        place = self.path / f"spool-{worker}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def is_new(self) -> bool:
        """Whether nothing was begun here yet."""
        return not (self.path / MANIFEST).exists()

    # ---- what was asked for ------------------------------------------------------------------------------------

    def read_order(self) -> Order | None:
        """What an earlier run was asked for; None where there was none.

        Raises:
            ValueError: it is damaged, or of another version of this format.
        """
        place = self.path / MANIFEST
        if not place.is_file():
            return None
        try:
            facts = json.loads(place.read_text(encoding="utf-8"))
            if facts.pop("format") != FORMAT:
                raise ValueError("it is of another version of fastimpute")
            return Order(**facts)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{place} is damaged ({error}): delete {self.path} to begin anew") from None

    def write_order(self, order: Order) -> None:
        """Keep what was asked for."""
        with written_aside(self.path / MANIFEST) as aside:
            aside.write_text(json.dumps({"format": FORMAT, **asdict(order)}, indent=2) + "\n", encoding="utf-8")

    # ---- arrays ------------------------------------------------------------------------------------------------

    def write_arrays(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Arrays under a name of the folder's own."""
        from safetensors.numpy import save_file

        with written_aside(self.path / name) as aside:
            save_file(arrays, aside)

    def read_arrays(self, name: str) -> dict[str, NDArray[Any]] | None:
        """What `write_arrays` kept; None where there is nothing readable."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self.path / name)
        except (OSError, SafetensorError):
            return None

    def forget(self, name: str) -> None:
        """Delete what a folder of the folder's own holds."""
        for place in (self.path / name).iterdir():
            place.unlink()

    def model(self, group: int) -> Path:
        """Where the fitted imputer of a group of sensors is kept."""
        return self.path / "models" / f"{group:04d}.safetensors"

    # ---- tiles -------------------------------------------------------------------------------------------------

    def tile(self, tile: Tile) -> Path:
        """Where a finished tile is kept."""
        return self.path / "tiles" / f"{tile.name}.safetensors"

    def write_tile(self, tile: Tile, filling: Filling) -> None:
        """Keep what fills a tile."""
        from safetensors.numpy import save_file

        kept = Filling(np.ascontiguousarray(filling.values), filling.missing)
        with written_aside(self.tile(tile), flushed=False) as aside:  # a torn one has a wrong checksum
            save_file(vars(kept), aside, {"crc32": _checksum(kept)})

    def read_tile(self, tile: Tile) -> Filling:
        """What `write_tile` kept.

        Raises:
            DamagedTile: the file is not readable, or its checksum is wrong; names file and tile.
        """
        from safetensors import SafetensorError, safe_open

        place = self.tile(tile)
        try:
            with safe_open(place, framework="numpy") as file:
                filling = Filling(file.get_tensor("values"), file.get_tensor("missing"))
                checksum = (file.metadata() or {}).get("crc32")
        except (OSError, SafetensorError) as error:
            raise DamagedTile(f"{place}: tile {tile.name} is not readable ({error})") from None
        if checksum != _checksum(filling):
            raise DamagedTile(f"{place}: tile {tile.name} has a wrong checksum")
        return filling

    def finished(self, tile: Tile) -> bool:
        """Whether a tile is done; `read_tile` says whether it is still what was written."""
        return self.tile(tile).is_file()

    def drop_damaged(self, tiles: Iterator[Tile], report: Callable[[str], None]) -> int:
        """Delete finished tiles that are not what was written, so that they are done again; returns how many."""
        dropped = 0
        for tile in tiles:
            if not self.finished(tile):
                continue
            try:
                self.read_tile(tile)
            except DamagedTile as damage:
                report(f"{damage}: it is imputed again")
                self.tile(tile).unlink()
                dropped += 1
        return dropped

    # ---- the end -----------------------------------------------------------------------------------------------

    @property
    def assembled(self) -> Path:
        """Stands when the output is complete and only has to be moved into its place."""
        return self.path / ASSEMBLED

    def remove(self) -> None:
        """Delete the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _checksum(filling: Filling) -> str:
    return f"{zlib.crc32(filling.missing.data, zlib.crc32(filling.values.data)):08x}"

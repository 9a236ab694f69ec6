"""What is asked for, and whether a run may go on from an earlier one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import fastimpute
from fastimpute.imputer import BaseImputer
from fastimpute.stream.folder import Order, WorkFolder
from fastimpute.stream.models import is_dead
from fastimpute.stream.scan import Scan
from fastimpute.stream.table import Header
from fastimpute.stream.tiles import Tiles

WITHOUT_INFLUENCE = frozenset({"verbose", "checkpoint"})  # settings that the result does not depend on


@dataclass(frozen=True)
class Wish:
    """What is to be imputed, and how.

    Attributes:
        name: of the input.
        stamp: of the input, JSON-able; where it is the same, so are the cells.
        reading: how the input is read, JSON-able.
        imputer: fitted to all sensors, or with the settings to fit by.
        model: digest of the fitted imputer; None if it has to be fitted.
        level: of intervals beside the filling; None without.
        memory: bytes that the work may take beyond what the libraries themselves do.
        seed: of the rows learned from.
    """

    name: str
    stamp: dict[str, Any]
    reading: dict[str, Any]
    imputer: BaseImputer[Any]
    model: str | None
    level: float | None
    memory: int
    seed: int

    def tiles(self, header: Header) -> Tiles:
        """The tiling: a fitted imputer knows all sensors, and fills them together."""
        return Tiles.of(header.rows, header.sensors, groups=None if self.model is None else 1)

    def order(self, tiles: Tiles, digest: str | None = None) -> Order:
        """In the form that is kept, as it comes back from JSON."""
        settings = {name: value for name, value in self.imputer.get_params().items() if name not in WITHOUT_INFLUENCE}
        order = Order(
            version=fastimpute.__version__,
            source={"name": self.name, "stamp": self.stamp, "digest": digest, **self.reading},
            method={"class": type(self.imputer).__name__, "model": self.model, "seed": self.seed, **settings},
            level=self.level,
            tiles=asdict(tiles),
        )
        return Order(**json.loads(json.dumps(asdict(order))))


def check_settings(earlier: Order, order: Order, folder: WorkFolder) -> None:
    """Refuse to mix two results in one output.

    Raises:
        ValueError: the earlier run was asked for something else; names what.
    """
    before, now = (_flat(asdict(one)) for one in (earlier, order))
    keys = {key for key in before.keys() | now.keys() if not key.startswith(("source.stamp", "source.digest"))}
    changed = sorted(key for key in keys if before.get(key) != now.get(key))
    if changed:
        told = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed[:3])
        raise ValueError(
            f"{folder.path} holds an unfinished run of other settings ({told}): use those, or delete the folder to "
            "begin anew"
        )


def check_data(earlier: Order, digest: str, folder: WorkFolder) -> None:
    """Refuse to go on with other data.

    Raises:
        ValueError: the cells are not those the earlier run saw.
    """
    if earlier.source["digest"] != digest:
        raise ValueError(
            f"{earlier.source['name']} has changed since the unfinished run in {folder.path}: delete the folder to "
            "begin anew"
        )


def check_sensors(wish: Wish, header: Header, found: Scan, tiles: Tiles) -> None:
    """Refuse sensors that nothing is known of, unless the user said what to do with them.

    Raises:
        ValueError: names the first of them.
    """
    policy, dead = wish.imputer.all_missing, np.flatnonzero(np.isnan(found.mean))
    if len(dead) == header.sensors:
        raise ValueError(f"the table of {header.rows} rows and {header.sensors} sensors has no observed cell at all")
    if wish.model is not None or policy == "keep" or not dead.size:
        return
    if policy == "raise":
        more = f" (and {dead.size - 1} more)" if dead.size > 1 else ""
        raise ValueError(
            f"column {header.names[dead[0]]!r}{more} has no observed value: drop it, or choose "
            "all_missing='mean_of_neighbors' or all_missing='keep'"
        )
    alone = next((group for group in range(tiles.groups) if is_dead(found, tiles, group)), None)
    if alone is not None:
        first = header.names[tiles.group(alone).start]
        raise ValueError(
            f"column {first!r} has no observed value, nor has any of its neighbours: drop them, or choose "
            "all_missing='keep'"
        )


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat

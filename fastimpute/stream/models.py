"""A fitted imputer for every group of sensors, each learned from one stretch of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastimpute.imputer import BaseImputer
from fastimpute.series import Scaler
from fastimpute.stream.scan import Scan
from fastimpute.stream.table import Cells, Source
from fastimpute.stream.tiles import Tiles


def fit_group(
    template: BaseImputer[Any], source: Source, scan: Scan, tiles: Tiles, group: int, seed: int
) -> BaseImputer[Any]:
    """Fit a copy of `template` to a group of sensors.

    It learns from the context of one band, drawn by lot from those that show most of the sensors: as many rows as it
    will be given to fill, so that it meets there what it met here. The scale of each sensor is that of all its rows.

    Args:
        template: an imputer, whose settings are taken.
        source: the table.
        scan: what is known of it.
        tiles: its tiling.
        group: number of the group.
        seed: of the lot.
    """
    band = sample_band(scan, tiles, group, seed)
    rows, columns = tiles.context(band), tiles.group(group)
    scaler = Scaler(scan.mean[columns], scan.std[columns])
    cells = source.read(rows, columns)
    _show_all(cells, scaler)
    return template.clone().fit_sample(source.header.frame(cells, rows, columns), scaler)


def sample_band(scan: Scan, tiles: Tiles, group: int, seed: int) -> int:
    """The band to learn from."""
    seen = (scan.observed[:, tiles.group(group)] > 0).sum(1)
    best = np.flatnonzero(seen == seen.max())
    return int(np.random.default_rng((seed, group)).choice(best))


def _show_all(cells: Cells, scaler: Scaler) -> None:
    """A sensor that is silent throughout the sample shows its mean once: an imputer learns of observed ones only."""
    silent = np.isnan(cells).all(0) & np.isfinite(scaler.mean)
    cells[len(cells) // 2, silent] = scaler.mean[silent]


def is_dead(scan: Scan, tiles: Tiles, group: int) -> bool:
    """Whether no sensor of a group was ever observed: there is nothing to fit."""
    return bool(np.isnan(scan.mean[tiles.group(group)]).all())

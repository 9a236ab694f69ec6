"""One picture of an evaluation: the truth, what was hidden, and both fillings, where the gaps are longest."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastimpute.atomic import written_aside
from fastimpute.evaluation import Comparison
from fastimpute.layouts import Layout, Mask

PANELS = 3
CONTEXT = 2.0  # rows shown on either side, in lengths of the gap
MIN_CONTEXT = 24
ENDINGS = (".png", ".svg", ".pdf")


def check_figure_target(path: str | os.PathLike[str]) -> None:
    """Refuse an ending no figure can be written with.

    Raises:
        ValueError: the ending is not .png, .svg or .pdf.
    """
    if Path(path).suffix.lower() not in ENDINGS:
        raise ValueError(f"{path} has the ending {Path(path).suffix!r}: figures are {', '.join(ENDINGS)}")


def draw_gaps(path: str | os.PathLike[str], layout: Layout, hidden: Mask, comparison: Comparison, title: str) -> None:
    """Draw the longest hidden gaps of as many sensors as there are panels; the file appears only when complete.

    Raises:
        ValueError: unknown ending or an unwritable place.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_figure_target(path)
    gaps = longest_gaps(hidden, PANELS)
    figure = Figure(figsize=(10, 2.6 * len(gaps) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(len(gaps), 1, squeeze=False)[:, 0]
    for axes, (sensor, start, stop) in zip(panels, gaps, strict=True):
        context = max(MIN_CONTEXT, int(CONTEXT * (stop - start)))
        rows = np.arange(max(0, start - context), min(hidden.shape[0], stop + context))
        times = rows if layout.index is None else layout.index[rows]
        truth, away = layout.raw[rows, sensor].astype(np.float64), hidden[rows, sensor]
        axes.plot(times, np.where(away, np.nan, truth), ".", color="0.25", markersize=4, label="observed")
        axes.plot(times, np.where(away, truth, np.nan), ".", color="0.7", markersize=4, label="hidden truth")
        shown = _with_neighbours(away)
        for name, table in {"linear": comparison.linear_filled, comparison.result.method: comparison.filled}.items():
            axes.plot(times, np.where(shown, table[rows, sensor], np.nan), linewidth=1.4, label=name)
        axes.set_ylabel(str(layout.names[sensor]))
    panels[0].legend(loc="best", fontsize="small", ncols=4)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120)


def longest_gaps(hidden: Mask, count: int) -> list[tuple[int, int, int]]:
    """(sensor, start, stop) of the longest gap of the sensors with the longest gaps, at most `count`."""
    gaps = []
    for sensor in np.flatnonzero(hidden.any(axis=0)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden[:, sensor].astype(np.int8), [0]])))
        starts, stops = edges[::2], edges[1::2]
        longest = int(np.argmax(stops - starts))
        gaps.append((int(sensor), int(starts[longest]), int(stops[longest])))
    return sorted(gaps, key=lambda gap: gap[1] - gap[2])[:count]


def _with_neighbours(away: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Hidden cells and those beside them, so that a filled line meets the observations."""
    padded = np.concatenate([[False], away, [False]])
    return np.asarray(padded[:-2] | padded[1:-1] | padded[2:])

"""Figure of `gp_coverage.py`: coverage by mixture and pattern, and by length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KINDS = {"raw": "o", "calibrated": "D"}


def draw(results: dict[str, Any], path: Path) -> None:
    """One panel for each mixture and one for the lengths, as far as there are results."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = {found["setting"]["frames"]: found for name, found in results.items() if name.startswith("S1, H")}
    panels = {name: found["patterns"] for name, found in results.items() if not name.startswith(("S1, H", "latent"))}
    if lengths:
        panels["S1, P4 by length"] = {str(frames): lengths[frames]["patterns"]["P4"] for frames in sorted(lengths)}
    figure = Figure(figsize=(2.6 * max(len(panels), 2), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0] if panels else []
    for axes, (name, patterns) in zip(rows, panels.items(), strict=True):
        at = range(len(patterns))
        published = [found["published"] for found in patterns.values()]
        axes.plot(at, published, "s", color="0.6", label="published")
        axes.plot(
            at,
            [found["gaussian_base"]["coverage"] for found in patterns.values()],
            "_",
            markersize=12,
            color="k",
            label="Gaussian base alone",
        )
        for kind, marker in KINDS.items():
            axes.plot(at, [found[kind]["coverage"] for found in patterns.values()], marker, markersize=4, label=kind)
        axes.axhline(95, color="0.3", linewidth=0.8)
        axes.set(title=name, xticks=at, xticklabels=list(patterns), ylim=(0, 102))
    if panels:
        rows[0].set_ylabel("coverage of 95 % balls, %")
        rows[0].legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=120)

"""The table on the screen and the JSON file of a benchmark run."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fastimpute.benchmark.measure import Row, machine

COLUMNS = ("shape", "candidate", "threads", "ms", "rate", "% of peak", "error", "kernel is faster by")


def print_table(rows: list[Row], console: Console | None = None) -> None:
    """One table per op."""
    console = console or Console(width=140)
    for op in dict.fromkeys(row.op for row in rows):
        table = Table(*COLUMNS, title=op, title_justify="left")
        shown = ""
        for row in rows:
            if row.op == op:
                table.add_row(
                    *_cells(row, row.shape != shown), style="bold" if row.candidate.startswith("fast") else ""
                )
                shown = row.shape
        console.print(table)
    console.print("[dim]" + ", ".join(f"{key} {value}" for key, value in machine().items()) + "[/dim]")


def _cells(row: Row, first: bool) -> tuple[str, ...]:
    return (
        row.shape if first else "",
        row.candidate,
        str(row.threads),
        f"{row.milliseconds:.3g}",
        f"{row.rate:.1f} {row.unit}",
        "" if math.isnan(row.percent_of_peak) else f"{row.percent_of_peak:.0f} %",
        "" if math.isnan(row.error) else f"{row.error:.1e}",
        f"{row.kernel_is_faster_by:.2f}x",
    )


def write_json(rows: list[Row], path: Path) -> None:
    """Machine and rows; numbers that do not exist are null."""
    cleaned = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.as_dict().items()}
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": cleaned}, indent=1) + "\n")

"""What a run did, in numbers and in sentences."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastimpute.progress import cells_per_second
from fastimpute.stream.job import Job

NAMED = 5  # sensors of a kind that are named


@dataclass(frozen=True)
class Summary:
    """A finished run.

    Attributes:
        cells: of the table.
        missing: of those.
        retried: tiles that were done again.
        silent: sensors without any observation.
        longest_gaps: (sensor, rows) of the longest gaps, falling.
        seconds: wall time of this run; an earlier one that was broken off does not count.
        seconds_of: by kind of work.
    """

    cells: int
    missing: int
    retried: int
    silent: tuple[Hashable, ...]
    longest_gaps: tuple[tuple[Hashable, int], ...]
    seconds: float
    seconds_of: dict[str, float]

    @classmethod
    def of(cls, job: Job, seconds: float) -> Summary:
        """Of a job that is complete."""
        header, found = job.source.table.header, job.found
        cells = header.rows * header.sensors
        places = np.argsort(job.source.order)  # of the table's own columns among the arranged ones
        silent = np.isnan(found.mean)[places]
        gaps = np.where(silent, 0, found.longest_gap[places])
        longest = [int(column) for column in np.argsort(-gaps, kind="stable")[:NAMED] if gaps[column]]
        return cls(
            cells=cells,
            missing=cells - int(found.observed.sum()),
            retried=job.retried,
            silent=tuple(header.names[column] for column in np.flatnonzero(silent)),
            longest_gaps=tuple((header.names[column], int(gaps[column])) for column in longest),
            seconds=seconds,
            seconds_of=job.clock.facts(),
        )

    def facts(self) -> dict[str, Any]:
        """For a log: JSON-able."""
        return {
            "event": "done",
            "cells": self.cells,
            "missing": self.missing,
            "retried": self.retried,
            "silent": [str(name) for name in self.silent],
            "longest_gaps": [[str(name), rows] for name, rows in self.longest_gaps],
            "seconds": round(self.seconds, 3),
            "cells_per_second": round(self.cells / max(self.seconds, 1e-9)),
            **self.seconds_of,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.missing:,} of {self.cells:,} cells were missing ({self.missing / self.cells:.1%}); "
            f"{self.seconds:.1f} s, {cells_per_second(self.cells, self.seconds)}"
        ]
        if self.longest_gaps:
            gaps = ", ".join(f"{name} ({rows:,} rows)" for name, rows in self.longest_gaps)
            lines.append(f"longest gaps: {gaps}")
        if self.silent:
            more = f" and {len(self.silent) - NAMED} more" if len(self.silent) > NAMED else ""
            lines.append(f"never observed: {', '.join(map(str, self.silent[:NAMED]))}{more}")
        if self.retried:
            lines.append(f"damaged tiles imputed again: {self.retried}")
        return "\n".join(lines)

"""The command under measurement, and what its log says."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHASES = ("scanning", "fitting", "reading", "computing", "writing", "assembling")
METHOD = ("fitting", "computing")  # the phases that are not input, output or orchestration


@dataclass(frozen=True)
class Job:
    """One imputation of an archive under a memory limit; the result and its log lie in a folder of their own."""

    source: Path
    folder: Path
    method: str = "linear"
    memory: str = "512MB"
    workers: int = 1

    @property
    def target(self) -> Path:
        return self.folder / "OUT.zarr"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def command(self) -> list[str]:
        """One process; several as torchrun starts them."""
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.workers}"]
        how = ["--method", self.method, "--memory", self.memory, "--all-missing", "mean_of_neighbors"]
        return [
            *(sys.executable, *(launcher if self.workers > 1 else []), "-m", "fastimpute", "impute"),
            *(str(self.source), str(self.target), *how, "--log-json", str(self.log), "--quiet"),
        ]

    def clear(self) -> None:
        """Begin with an empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def events(self) -> Iterator[dict[str, Any]]:
        """Lines of the log; a last one that was cut off by a kill is left out."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        for number, line in enumerate(lines):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                if number + 1 < len(lines) and not lines[number + 1].startswith("{"):
                    raise

    def done(self) -> dict[str, Any]:
        """The last line of a run that came to its end.

        Raises:
            ValueError: it did not.
        """
        last = list(self.events())[-1:]
        if not last or last[0].get("event") != "done":
            raise ValueError(f"{self.log} does not end with the event done, but with {last}")
        return last[0]


def phase_shares(done: dict[str, Any]) -> dict[str, float]:
    """What part of its time each phase took or waited for, by the last line of a log; of several workers the first."""
    return {phase: float(done[f"seconds_{phase}"]) / done["seconds"] for phase in PHASES}

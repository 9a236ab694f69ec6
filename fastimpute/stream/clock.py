"""Where the time of a run goes, and who is told of its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Log = Callable[[dict[str, Any]], None]  # told of every event

KINDS = ("scanning", "fitting", "reading", "computing", "writing", "assembling")


@dataclass
class Clock:
    """Seconds the main thread spent on, or waited for, each kind of work.

    Attributes:
        seconds: by kind.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))

    @contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """Count the block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - begun

    def facts(self) -> dict[str, float]:
        """As {"seconds_reading": ...}."""
        return {f"seconds_{kind}": round(seconds, 3) for kind, seconds in self.seconds.items()}

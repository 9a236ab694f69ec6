"""A training laid aside on disk, and taken up again where it stood."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastimpute.atomic import written_aside
from fastimpute.train.data_parallel import ONE, Replicas

EVERY = 30.0  # seconds
FINGERPRINT = "fastimpute.training"
Arrays = dict[str, NDArray[Any]]


class Resumable(Protocol):
    """What can be laid aside: `fastimpute.train.diffusion.Training`."""

    done: int

    @property
    def steps(self) -> int:
        """How many in all."""

    def step(self) -> float:
        """One step; its loss."""

    def pack(self) -> Arrays:
        """All that the steps to come depend on."""

    def unpack(self, arrays: Arrays) -> None:
        """Inverse of `pack`."""


@dataclass
class Checkpoint:
    """A file that holds a training; it is replaced as a whole or not at all.

    Attributes:
        path: of the file, safetensors.
        fingerprint: of the data and the settings; another one is refused.
        every: seconds between two writings.
        replicas: who trains; the first of them writes, all read.
    """

    path: str | os.PathLike[str]
    fingerprint: str
    every: float = EVERY
    replicas: Replicas = ONE
    _written: float = field(default_factory=time.monotonic)

    def restore(self, training: Resumable) -> bool:
        """Set a training to where the file stands; False without a file.

        Raises:
            ValueError: the file is damaged, no checkpoint, or one of other data or settings.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(self.path).exists():
            return False
        try:
            with safe_open(os.fspath(self.path), framework="numpy") as file:
                fingerprint = (file.metadata() or {}).get(FINGERPRINT)
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise ValueError(f"checkpoint: {self.path} cannot be read: {error}") from None
        if fingerprint is None:
            raise ValueError(f"checkpoint: {self.path} is no checkpoint of a training")
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"checkpoint: {self.path} belongs to other data or settings; delete it or name another file"
            )
        training.unpack(arrays)
        return True

    def write(self, training: Resumable) -> None:
        """Lay the training aside now; a rank other than the first leaves that to it.

        Raises:
            ValueError: the path cannot be written.
        """
        from safetensors.numpy import save_file

        if self.replicas.number > 0:
            return
        arrays = {name: np.ascontiguousarray(array) for name, array in training.pack().items()}
        with written_aside(self.path) as aside:
            save_file(arrays, aside, {FINGERPRINT: self.fingerprint})
        self._written = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= self.every


def run(training: Resumable, checkpoint: Checkpoint | None = None) -> Iterator[float]:
    """Train to the end and yield the loss of each step.

    The checkpoint is written between steps only: a training that breaks off loses the time since the last writing, and
    ends with the bits of one that did not.
    """
    while training.done < training.steps:
        yield training.step()
        if checkpoint is not None and (training.done == training.steps or checkpoint.due()):
            checkpoint.write(training)

"""Fits for tests/test_data_parallel.py: what each process that torchrun starts there does, and what one does alone."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imputers import dit, gappy, spirit
from numpy.typing import NDArray

from fastimpute import dit as dit_module
from fastimpute.train import score_matching
from fastimpute.train.checkpoint import Checkpoint
from fastimpute.train.data_parallel import Replicas, data_parallel
from fastimpute.train.diffusion import Training

KINDS = ("direct", "energy", "denoiser")
STEPS = 6
KILLED = {"direct": "0", "denoiser": "1"}  # in which attempt the last rank is killed in its third step


def table(seed: int = 0) -> NDArray[np.float64]:
    return gappy(rows=200, seed=seed)


def bits(kind: str, X: NDArray[np.float64], checkpoint: Path | None = None) -> str:
    """Of all that a fit learns, and of the filling."""
    dit_module.ROUNDS = 1
    if kind == "denoiser":
        imputer = dit(train_steps=STEPS, base="linear", checkpoint=checkpoint)
    else:
        width = score_matching.SHARED_WIDTH if kind == "direct" else 32
        imputer = spirit(train_steps=STEPS, start="linear", head=kind, hidden_dim=width)
    digest = hashlib.sha256(imputer.fit_transform(X).tobytes())
    for name, array in sorted(imputer._pack_state(imputer.state_)[0].items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def together(folder: Path, replicas: Replicas) -> None:
    """Fit each kind, a checkpoint being written after every step; then let the ranks have other data."""
    Checkpoint.due = lambda _: True  # type: ignore[method-assign]
    steps = counted_steps()
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    for kind in KINDS:
        if replicas.number == replicas.count - 1 and KILLED.get(kind) == attempt:
            die_in_third_step(kind)
        note(folder, replicas, kind, bits(kind, table(), folder / "training.safetensors"))
        note(folder, replicas, "attempt", attempt)
    note(folder, replicas, "steps", str(len(steps)))
    for kind in ("direct", "denoiser"):
        try:
            bits(kind, table(seed=replicas.number))
        except ValueError as error:
            note(folder, replicas, f"{kind} of other data", str(error))


def die_in_third_step(kind: str) -> None:
    """Let this process end without a word."""
    steps = 0

    def dying(original: Any) -> Any:
        def step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        return step

    if kind == "denoiser":
        Training.step = dying(Training.step)  # type: ignore[method-assign]
    else:
        score_matching._differentiate = dying(score_matching._differentiate)


def counted_steps() -> list[int]:
    """The steps of the denoiser that this process has taken, from now on."""
    steps: list[int] = []
    step = Training.step

    def counted(training: Training) -> float:
        steps.append(training.done)
        return step(training)

    Training.step = counted  # type: ignore[method-assign]
    return steps


def note(folder: Path, replicas: Replicas, name: str, text: str) -> None:
    (folder / f"{name}.{replicas.number}").write_text(text)


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with data_parallel() as replicas:
        together(folder, replicas)
    note(folder, replicas, "own", bits("direct", table(seed=replicas.number)))


if __name__ == "__main__":
    main()

"""kill -9 at random moments: the same command again has to end with the same bytes."""

from __future__ import annotations

import hashlib
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from scaling.impute import Job
from scaling.watch import kill_all, started, watch


def digest(path: Path) -> str:
    """Of a file or a folder: names and contents."""
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            found.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
            with file.open("rb") as content:
                found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def kill_and_resume(job: Job, times: int, seed: int = 0) -> dict[str, Any]:
    """Run a job undisturbed; then, `times` times, kill it at a random moment, run it again, and compare the results.

    Moments are uniform over the undisturbed run; where a run has ended before its moment, it is not counted, and the
    later moments are drawn from before it.

    Returns:
        how many resumed to identical bytes; and of each trial the moment in seconds, how many lines the log had by then
        and how long the rest took.

    Raises:
        RuntimeError: the undisturbed run fails.
    """
    job.clear()
    whole = watch(job.command())
    if whole.status:
        raise RuntimeError(f"the undisturbed run ended with status {whole.status}: {whole.error}")
    expected, rng, latest = digest(job.target), np.random.default_rng(seed), whole.seconds
    trials: list[dict[str, Any]] = []
    while len(trials) < times:
        moment = float(rng.uniform(0.0, latest))
        if _killed(job, moment):
            trials.append({"moment": round(moment, 2), **_resumed(job, expected)})
        else:
            latest = moment
    return {
        "times": times,
        "identical": sum(trial["identical"] for trial in trials),
        "with_work_done_before": sum(trial["logged_before"] > 0 for trial in trials),
        "complete_before": sum(trial["complete_before"] for trial in trials),
        "undisturbed_seconds": round(whole.seconds, 2),
        "trials": trials,
    }


def _killed(job: Job, moment: float) -> bool:
    """Kill the job that many seconds after its start; False if it has ended by then."""
    job.clear()
    with started(job.command()) as (process, _):
        time.sleep(moment)
        kill_all(process.pid)
        return process.wait() == -signal.SIGKILL


def _resumed(job: Job, expected: str) -> dict[str, Any]:
    logged, complete = sum(1 for _ in job.events()), job.target.exists()
    rest = watch(job.command())
    return {
        "logged_before": logged,
        "complete_before": complete,
        "seconds_of_the_rest": round(rest.seconds, 2),
        "status": rest.status,
        "identical": rest.status == 0 and digest(job.target) == expected,
    }

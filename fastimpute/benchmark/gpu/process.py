"""The checks of an op in a process of its own: a crash is one op's, compilers run side by side, tools can watch it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence


def check_process(
    op: str,
    device: str,
    options: Sequence[str] = (),
    *,
    under: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `--check op`, which prints a line of JSON for each answer.

    Args:
        op: its name. device: of the tensors. options: further ones of the benchmark.
        under: a command that runs the process; none: it runs by itself.
        settings: environment variables beside those of this process.
        seconds: that it may take.

    Raises:
        subprocess.TimeoutExpired: it took longer than `seconds`; with what it had said by then.
    """
    # -P: of a checkout in the working directory, not the sources but what was built of them.
    command = [*under, sys.executable, "-P", "-m", "fastimpute.benchmark.gpu", "--check", op, "--device", device]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(settings or {})}
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as late:
            os.killpg(process.pid, signal.SIGKILL)
            late.output = process.communicate()[0]
            raise
        except BaseException:  # its children would go on, and keep the pipes open
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)

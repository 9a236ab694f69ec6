"""What a command costs: time, memory of all its processes, bytes in and out."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import psutil

EVERY = 0.02  # seconds between two looks at the memory
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Cost:
    """What a command and its children took.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: of all processes.
        peak_bytes: largest resident set of the largest process: the kernel's own high-water mark.
        peak_together_bytes: largest sum of the resident sets of all processes, sampled.
        processes: most of them at a time.
        read_bytes, written_bytes: through system calls; the second pair is what of it reached the disk.
        status: exit status.
        error: the end of what it wrote to stderr.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    peak_together_bytes: int
    processes: int
    read_bytes: int
    written_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    status: int
    error: str


def watch(command: Sequence[str]) -> Cost:
    """Run a command, every process of it on one thread, to its end."""
    with started(command) as (process, error):
        begin, peak, together, processes = time.perf_counter(), 0, 0, 0
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now, marks = resident_bytes(process.pid)
            peak, together, processes = max(peak, *marks), max(together, sum(now)), max(processes, len(now))
            time.sleep(EVERY)
        seconds = time.perf_counter() - begin
        # Ended but not yet waited for: the counts are final, and include those of its children.
        moved = _counts(Path(f"/proc/{process.pid}/io"))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return Cost(
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_bytes=peak,
            peak_together_bytes=together,
            processes=processes,
            read_bytes=moved["rchar"],
            written_bytes=moved["wchar"],
            disk_read_bytes=moved["read_bytes"],
            disk_written_bytes=moved["write_bytes"],
            status=process.returncode,
            error=error()[-2000:],
        )


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A command under way, and what it has written to stderr so far; what still runs at the block's end is killed."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            env=os.environ | ONE_THREAD,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield process, lambda: _read_all(errors)
        finally:
            if process.returncode is None:
                kill_all(process.pid)
                process.wait()


def kill_all(pid: int) -> None:
    """kill -9 of a process and of everything it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def resident_bytes(pid: int) -> tuple[list[int], list[int]]:
    """Resident sets of a process and of everything it started: now, and the largest each has been.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """
    now, largest = [], [0]
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
                status = _counts(Path(f"/proc/{process.pid}/status"))
                now.append(status["VmRSS"])
                largest.append(status["VmHWM"])
    return now, largest


@cache
def importing_bytes() -> int:
    """Peak of a process that merely imports torch and fastimpute."""
    return watch([sys.executable, "-c", "import torch, fastimpute"]).peak_bytes


def forget(path: Path) -> None:
    """Have files written out and dropped from the page cache, so that the next reader reads the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _counts(path: Path) -> dict[str, int]:
    """The numbers of a file of /proc, in bytes where they have a unit."""
    fields = (line.split() for line in path.read_text().splitlines())
    return {
        field[0].rstrip(":"): int(field[1]) * 1024 ** len(field[2:3])
        for field in fields
        if "".join(field[1:2]).isdigit()
    }


def _read_all(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

"""Damaged files by the hundred thousand for every reader: no crash, no hang, no cells other than announced.

    python bench/fuzz_readers.py --count 100000 --json bench/results/fuzz.json

The inputs are numbered: input n is always the same file. They are read in a process of its own with a limit on its
memory, which is begun anew behind an input that kills it or that it does not finish in time.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PART = 1000  # inputs for one process
STARTING = 300  # seconds for its imports
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


@dataclass
class Tally:
    """What became of the inputs."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, line: dict[str, Any]) -> None:
        self.outcomes.setdefault(line["file"], Counter())[line["outcome"]] += 1
        self.slowest = max(self.slowest, line["seconds"])
        if "fault" in line:
            self.faults.append({name: line[name] for name in ("number", "file", "fault")})


def worker(seeds: Path, first: int, last: int, memory: int) -> None:
    """Read the inputs, one line of JSON each."""
    from fuzzing import Damage, attempt

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    files = sorted(seeds.iterdir())
    for number in range(first, last):
        seed = files[number % len(files)]
        print(json.dumps({"number": number, "file": seed.name}), flush=True)
        folder = Path(tempfile.mkdtemp(dir=seeds.parent))
        (folder / "spool").mkdir()
        begin = time.perf_counter()
        line: dict[str, Any] = {"number": number, "file": seed.name}
        try:
            line["outcome"] = attempt(Damage(seed, number).write(folder), folder / "spool")
        except BaseException as error:  # whatever a reader lets through is a fault
            line |= {"outcome": "fault", "fault": f"{type(error).__name__}: {error}"[:600]}
        print(json.dumps({**line, "seconds": round(time.perf_counter() - begin, 3)}), flush=True)
        shutil.rmtree(folder, ignore_errors=True)


def supervise(seeds: Path, options: argparse.Namespace, tally: Tally) -> None:
    """Run workers until all inputs are through, or the time is up."""
    first, last, memory = options.first, options.first + options.count, options.memory
    end = time.monotonic() + 60 * options.minutes
    while first < last and time.monotonic() < end:
        part = str(min(last, first + PART))
        command = [sys.executable, __file__, "--worker", str(seeds), str(first), part, "--memory", str(memory)]
        said = seeds.parent / "said"
        with said.open("wb") as out, said.open("rb") as lines:
            run = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
            current, fault = follow(run, lines, options.limit, tally)
        if "file" not in current:
            raise RuntimeError(f"the worker did not begin: {fault}")
        if fault is not None:
            tally.add({**current, "outcome": "fault", "fault": fault, "seconds": 0})
        elif run.returncode:
            raise RuntimeError(f"the worker ended with {run.returncode} at input {current['number']}")
        first = current["number"] + 1


def follow(
    run: subprocess.Popen[bytes], lines: IO[bytes], limit: float, tally: Tally
) -> tuple[dict[str, Any], str | None]:
    """Count what a worker says until it ends; the input it was at, and what was wrong with it then."""
    current: dict[str, Any] = {"number": -1, "seconds": 0}
    begun, rest = time.monotonic(), b""
    while True:
        ended = run.poll() is not None
        *whole, rest = (rest + lines.read()).split(b"\n")
        for current in map(json.loads, whole):
            begun = time.monotonic()
            if "seconds" in current:
                tally.add(current)
        if ended:
            died = run.returncode != 0 and "seconds" not in current
            return current, f"the process died with {run.returncode}" if died else None
        if time.monotonic() - begun > (limit if "file" in current else STARTING):
            run.kill()
            run.wait()
            return current, f"no answer in {limit} s"
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", default="", help="only files whose name holds this, such as .h5")
    parser.add_argument("--limit", type=float, default=30, help="seconds for one input")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop early after so many")
    parser.add_argument("--memory", type=int, default=6 * 2**30, help="address space of the process, bytes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        seeds, first, last = options.worker
        worker(Path(seeds), int(first), int(last), options.memory)
        return
    from fuzzing import write_seeds

    tally = Tally()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        seeds = Path(place) / "seeds"
        seeds.mkdir()
        write_seeds(seeds)
        for path in seeds.iterdir():
            if options.only not in path.name:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        supervise(seeds, options, tally)
    result = {
        "inputs": sum(sum(count.values()) for count in tally.outcomes.values()),
        "first": options.first,
        "limits": {"seconds": options.limit, "bytes": options.memory},
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "slowest_seconds": tally.slowest,
        "outcomes": {name: dict(sorted(count.items())) for name, count in sorted(tally.outcomes.items())},
        "faults": tally.faults,
    }
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()

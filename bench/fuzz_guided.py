"""Inputs guided by coverage of our own readers, for the formats that are small enough to be found by chance.

    pip install atheris
    python bench/fuzz_guided.py .csv -max_total_time=600

All arguments behind the ending go to libFuzzer. An input that breaks a reader is kept as crash-* in the current folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["fastimpute.io"]):
    import fastimpute.io
    import fastimpute.io.pieces.csv
    import fastimpute.io.pieces.npz
    import fastimpute.io.pieces.parquet
    import fastimpute.io.repair  # noqa: F401

from fuzzing import attempt, write_seeds  # noqa: E402


def main() -> None:
    suffix, *arguments = sys.argv[1:]
    place = Path(tempfile.mkdtemp())
    corpus, spool, target = place / "corpus", place / "spool", place / f"input{suffix}"
    for folder in (corpus, spool, place / "seeds"):
        folder.mkdir()
    write_seeds(place / "seeds")
    for seed in (place / "seeds").glob(f"*{suffix}"):
        (corpus / seed.name).write_bytes(seed.read_bytes())

    def read(content: bytes) -> None:
        target.write_bytes(content)
        attempt(target, spool)

    atheris.Setup([sys.argv[0], *arguments, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Damaged files: small valid ones of every format, ways to damage them, and what a reader may do with the result."""

from __future__ import annotations

import shutil
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from imputers import gappy_frame
from test_io_sources import FILES

from fastimpute import io
from fastimpute.io.source import Source, open_source

PACKAGE = str(Path(io.__file__).parents[1])
SLIPS = (NameError, AttributeError, AssertionError, IndexError, KeyError, TypeError, ZeroDivisionError)
EXTREMES = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**40, 2**62)
WORDS = (
    b"nan",
    b"-inf",
    b"1e999",
    b"9" * 30,
    b'"',
    b",",
    b",,",
    b"\n",
    b"\r",
    b"\n\n",
    b"\x00",
    b"\xff\xfe",
    b"#",
    b"2026-02-30",
)
MOST_CELLS = 2**20


def write_seeds(folder: Path) -> None:
    """One small valid file of every kind."""
    frame = gappy_frame(rows=24)
    for name, write in FILES.items():
        write(folder / name, frame)
    frame.assign(s1=np.arange(24)).to_csv(folder / "integers.csv")
    frame.iloc[[0, 1, 2, 4, 3, 3, 9]].to_csv(folder / "faulty.csv")
    frame.to_hdf(folder / "deflated.h5", key="df", complevel=1)


class Damage:
    """What happens to a file, told by one number."""

    def __init__(self, seed: Path, number: int) -> None:
        self._rng = np.random.default_rng(number)
        self._seed = seed

    def write(self, folder: Path) -> Path:
        """A damaged copy of the seed."""
        target = folder / f"damaged {self._seed.name}"
        if self._seed.is_file():
            target.write_bytes(self._damaged(self._seed.read_bytes()))
            return target
        shutil.copytree(self._seed, target)
        files = sorted(path for path in target.rglob("*") if path.is_file())
        victim = files[self._below(len(files))]
        if self._rng.random() < 0.05:
            victim.unlink()
        else:
            victim.write_bytes(self._damaged(victim.read_bytes()))
        return target

    def _below(self, stop: int) -> int:
        return int(self._rng.integers(max(1, stop)))

    def _damaged(self, content: bytes) -> bytes:
        ways = (self._flip, self._number, self._drop, self._double, self._insert, self._word, self._digit, self._cut)
        for _ in range(1 + self._below(1 + self._below(4))):
            content = ways[self._below(len(ways))](content)
        return content

    def _flip(self, content: bytes) -> bytes:
        changed = bytearray(content or b"0")
        changed[self._below(len(changed))] ^= 1 << self._below(8)
        return bytes(changed)

    def _number(self, content: bytes) -> bytes:
        at, size = self._below(len(content)), (1, 2, 4, 8)[self._below(4)]
        value = EXTREMES[self._below(len(EXTREMES))] % 2 ** (8 * size)
        return content[:at] + value.to_bytes(size, "little") + content[at + size :]

    def _drop(self, content: bytes) -> bytes:
        at = self._below(len(content))
        return content[:at] + content[at + 1 + self._below(64) :]

    def _double(self, content: bytes) -> bytes:
        at = self._below(len(content))
        part = content[at : at + 1 + self._below(64)]
        return content[:at] + part * (1 + self._below(3)) + content[at:]

    def _insert(self, content: bytes) -> bytes:
        at = self._below(len(content))
        return content[:at] + self._rng.bytes(1 + self._below(8)) + content[at:]

    def _word(self, content: bytes) -> bytes:
        at = self._below(len(content))
        return content[:at] + WORDS[self._below(len(WORDS))] + content[at + self._below(4) :]

    def _digit(self, content: bytes) -> bytes:
        places = [at for at, byte in enumerate(content[:4096]) if chr(byte).isdigit()]
        if not places:
            return self._flip(content)
        at = places[self._below(len(places))]
        return content[:at] + str(10 ** self._below(19) + self._below(9)).encode() + content[at + 1 :]

    def _cut(self, content: bytes) -> bytes:
        return content[: self._below(len(content) + 1)] if self._rng.random() < 0.3 else content


def attempt(path: Path, spool: Path) -> str:
    """Read a file whole and in pieces; "read" or "refused".

    Raises:
        AssertionError: a reader said something other than a refusal, or gave cells that are not what it announced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = None if path.suffix == ".zarr" else _whole(path)  # which is read whole through its pieces
        outcome = _in_pieces(path, spool, whole, repair=False)
        if outcome == "repairable":
            outcome = _in_pieces(path, spool, whole, repair=True)
    left = [file.name for file in spool.iterdir()]
    assert left == [], f"{left} stayed in the spool"
    return outcome


def _whole(path: Path) -> np.ndarray | None:  # type: ignore[type-arg]
    try:
        data = io.read(path).data
    except ValueError as error:
        _check_refusal(error, path)
        return None
    return data.to_numpy() if isinstance(data, pd.DataFrame) else np.asarray(data)


def _in_pieces(path: Path, spool: Path, whole: np.ndarray | None, repair: bool) -> str:  # type: ignore[type-arg]
    try:
        with open_source(path, spool=spool, repair=repair) as source:
            cells = _read(source)
            wide = not repair and "long" not in path.name
            if wide and whole is not None and cells is not None and whole.dtype.kind in "fiub":
                assert whole.shape == cells.shape, f"{whole.shape} read whole, {cells.shape} in pieces"
                np.testing.assert_array_equal(whole.astype(cells.dtype), cells)
    except ValueError as error:
        _check_refusal(error, path)
        return "repairable" if "--repair" in str(error) and not repair else "refused"
    return "read"


def _read(source: Source) -> np.ndarray | None:  # type: ignore[type-arg]
    """All cells in two pieces, or the ends of a table that claims to be large."""
    header = source.header
    assert header.rows > 0
    assert len(header.names) > 0
    assert header.index is None or len(header.index) == header.rows
    small = header.rows * len(header.names) <= MOST_CELLS
    half = header.rows // 2
    rows = (slice(0, half), slice(half, None)) if small else (slice(0, 2), slice(header.rows - 2, None))
    columns = slice(None) if small else slice(0, 2)
    pieces = [source.read(part, columns) for part in rows]
    for part, piece in zip(rows, pieces, strict=True):
        height = len(range(header.rows)[part])
        assert piece.shape == (height, len(range(len(header.names))[columns]))
        assert piece.dtype == header.floating
    return np.concatenate(pieces) if small else None


def _check_refusal(error: ValueError, path: Path) -> None:
    """A refusal names the file, in a sentence, and is no slip of our own that looks like one."""
    assert path.name in str(error), f"does not name the file: {error}"
    cause = error.__cause__
    while cause is not None:
        innermost = traceback.extract_tb(cause.__traceback__)[-1]
        slip = isinstance(cause, SLIPS) and innermost.filename.startswith(PACKAGE)
        assert not slip, "".join(traceback.format_exception(cause))
        cause = cause.__cause__

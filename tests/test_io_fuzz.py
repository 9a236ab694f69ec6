"""Damaged files of every format are read as announced or refused by name: no crash, no hang, no silent wrong shape.

`bench/fuzz_readers.py` does the same by the hundred thousand, in a process whose death it survives.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import Damage, attempt, write_seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Deterministic: the libraries under h5 and zarr are not ours, and a crash found at random would take the suite along.
FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
EXAMPLES = {".csv": 100, ".parquet": 150, ".npy": 300, ".npz": 200, ".h5": 100, ".zarr": 40}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    write_seeds(folder)
    return folder


@pytest.mark.parametrize("suffix", EXAMPLES)
def test_a_damaged_file_is_read_as_announced_or_refused(
    suffix: str, seeds: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = sorted(path for path in seeds.iterdir() if path.suffix == suffix)

    @given(seed=st.sampled_from(files), number=st.integers(0, 2**32 - 1))
    @settings(FUZZ, max_examples=EXAMPLES[suffix])
    def read(seed: Path, number: int) -> None:
        folder = tmp_path_factory.mktemp("damaged")
        (folder / "spool").mkdir()
        attempt(Damage(seed, number).write(folder), folder / "spool")

    read()


def test_an_undamaged_file_is_read(seeds: Path, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    assert {attempt(path, tmp_path / "spool") for path in seeds.iterdir()} == {"read"}

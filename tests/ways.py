"""The two ways that a file is filled: whole in memory, and in pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastimpute import LinearImputer, io
from fastimpute.files import Reading, impute_file

Fill = Callable[..., None]


def whole(source: Path, target: Path, **choice: Any) -> None:
    table = io.read(source, **choice)
    io.write(target, table.holding(LinearImputer().fit_transform(table.data)))


def in_pieces(source: Path, target: Path, **choice: Any) -> None:
    impute_file(
        source, target, LinearImputer(), reading=Reading(**choice), report=lambda line: None, verbose=False
    )


WAYS = [pytest.param(whole, id="whole"), pytest.param(in_pieces, id="in pieces")]

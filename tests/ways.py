"""The two ways that a file is filled: whole in memory, and in pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastimpute import LinearImputer, io
from fastimpute.files import Reading, impute_file

Fill = Callable[..., None]


def whole(source: Path, target: Path, zeros_as_missing: bool = False, **choice: Any) -> None:
    table = io.read(source, **choice)
    if zeros_as_missing:
        table = table.holding(io.zeros_to_missing(table.data))
    io.write(target, table.holding(LinearImputer().fit_transform(table.data)))


def in_pieces(source: Path, target: Path, **choice: Any) -> None:
    impute_file(source, target, LinearImputer(), reading=Reading(**choice), report=lambda line: None, verbose=False)


WAYS = [pytest.param(whole, id="whole"), pytest.param(in_pieces, id="in pieces")]

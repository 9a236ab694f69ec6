"""The package as a whole: cheap to import, honest about its names, and its examples run."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys

import pytest

import fastimpute

MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastimpute.__path__, "fastimpute.")
    if "._core" not in module.name and ".kernels" not in module.name
]


def test_importing_loads_neither_torch_nor_pandas() -> None:
    code = "import sys, fastimpute; print([m for m in ('torch', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name", fastimpute.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fastimpute, name) is not None
    assert name in dir(fastimpute)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fastimpute.nonsense


def test_evaluate_stays_a_function_whatever_is_imported() -> None:
    importlib.import_module("fastimpute.evaluation")
    assert callable(fastimpute.evaluate)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0

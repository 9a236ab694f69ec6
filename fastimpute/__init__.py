"""fastimpute: fills the gaps in large traffic data sets.

Names are loaded on first use, so that `import fastimpute` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import fastimpute.distributed.dask as dask
    import fastimpute.masks as masks
    import fastimpute.metrics as metrics
    import fastimpute.nn as nn
    import fastimpute.ops as ops
    import fastimpute.simulate as simulate
    from fastimpute.dit import DiTImputer
    from fastimpute.evaluation import evaluate
    from fastimpute.files import impute_file
    from fastimpute.gaussian import GaussianImputer
    from fastimpute.linear import LinearImputer
    from fastimpute.ops.backends import backends
    from fastimpute.saved import load
    from fastimpute.spirit import SPIRITImputer

__version__ = "0.1.0"
__all__ = [
    "DiTImputer",
    "GaussianImputer",
    "LinearImputer",
    "SPIRITImputer",
    "backends",
    "dask",
    "evaluate",
    "impute_file",
    "load",
    "masks",
    "metrics",
    "nn",
    "ops",
    "simulate",
]

_HOMES = {
    "DiTImputer": "fastimpute.dit",
    "GaussianImputer": "fastimpute.gaussian",
    "LinearImputer": "fastimpute.linear",
    "SPIRITImputer": "fastimpute.spirit",
    "backends": "fastimpute.ops.backends",
    "evaluate": "fastimpute.evaluation",
    "impute_file": "fastimpute.files",
    "load": "fastimpute.saved",
}
_FOLDERS = {"dask": "fastimpute.distributed.dask"}  # modules that are public under a shorter name


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fastimpute' has no attribute {name!r}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        value = importlib.import_module(_FOLDERS.get(name, f"fastimpute.{name}"))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

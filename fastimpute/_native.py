"""The compiled module, loaded by the ops: fastimpute imports without it, and says why it is missing."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType


@functools.cache
def why_missing() -> str | None:
    """Why the compiled kernels cannot be used here; None when they can."""
    try:
        importlib.import_module("fastimpute._core").isas()
    except ImportError as error:
        return f"the compiled kernels do not load ({error}); build them with `pip install .`"
    except ValueError as error:  # FASTIMPUTE_CPU names what this machine lacks
        return str(error)
    return None


@functools.cache
def core() -> ModuleType:
    """The module `fastimpute._core`.

    Raises:
        RuntimeError: it does not load; the message says why.
    """
    reason = why_missing()
    if reason is not None:
        raise RuntimeError(f"fastimpute: {reason}")
    return importlib.import_module("fastimpute._core")

"""The compiled modules, loaded by the ops: fastimpute imports without them, and says why one is missing."""

from __future__ import annotations

import functools
import importlib
import importlib.util
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


@functools.cache
def why_cuda_missing() -> str | None:
    """Why the CUDA kernels cannot be used here (not built, no driver, an old one, no device); None when they can.

    The first call loads the module; it starts no work on a device.
    """
    if importlib.util.find_spec("fastimpute._cuda") is None:
        return "the CUDA kernels were not built; build them with `pip install . -C cmake.define.FASTIMPUTE_CUDA=ON`"
    try:
        reason: str | None = importlib.import_module("fastimpute._cuda").why_unusable()
    except ImportError as error:
        return f"the CUDA kernels do not load ({error})"
    return reason


@functools.cache
def cuda() -> ModuleType:
    """The module `fastimpute._cuda`.

    Raises:
        RuntimeError: it does not load, or finds no device; the message says why.
    """
    reason = why_cuda_missing()
    if reason is not None:
        raise RuntimeError(f"fastimpute: {reason}")
    return importlib.import_module("fastimpute._cuda")

"""Which backend serves a call: probing this machine, choosing, and saying why not."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from fastimpute import _native
from fastimpute.ops.registry import BACKENDS, OPS

_log = logging.getLogger("fastimpute")

# Settled once, at import: torch.compile can then read them as constants.
_WHY_MISSING: str | None = _native.why_missing()
_BEST_ISA: str = _native.core().isas()[-1] if _WHY_MISSING is None else "none"


class Availability(NamedTuple):
    """Whether a backend can serve, and why or with what."""

    available: bool
    reason: str


def _probe_torch() -> Availability:
    return Availability(True, f"torch {torch.__version__}")


def _probe_cpu() -> Availability:
    if _WHY_MISSING is not None:
        return Availability(False, _WHY_MISSING)
    return Availability(True, f"compiled kernels, {isa()}")


def _probe_triton() -> Availability:
    if importlib.util.find_spec("triton") is None:
        return Availability(False, "triton is not installed")
    return _needs_gpu()


def _probe_cuda() -> Availability:
    return _needs_gpu()


def _needs_gpu() -> Availability:
    if not torch.cuda.is_available():
        return Availability(False, "torch finds no CUDA device")
    return Availability(True, torch.cuda.get_device_name())


_PROBES = {"torch": _probe_torch, "cpu": _probe_cpu, "triton": _probe_triton, "cuda": _probe_cuda}


def probe(backend: str) -> Availability:
    """Whether this machine can run `backend` at all.

    Raises:
        ValueError: no backend of that name.
    """
    if backend not in _PROBES:
        raise ValueError(f"backend must be one of {('auto', *BACKENDS)}, got {backend!r}")
    return _PROBES[backend]()


def backends() -> dict[str, dict[str, Availability]]:
    """Every op x backend, with `available` and `reason`.

    Example:
        >>> import fastimpute as fi
        >>> fi.backends()["energy_mlp"]["torch"].available
        True
    """
    table: dict[str, dict[str, Availability]] = {}
    for op in OPS.values():
        table[op.name] = {
            backend: probe(backend)
            if backend in op.backends
            else Availability(False, f"no {backend} kernel for this op")
            for backend in BACKENDS
        }
    return table


class _Forced:
    isa: str | None = None


def isa() -> str:
    """The instruction set the cpu kernels run on: the best usable one, or the one `use_isa` or FASTIMPUTE_CPU
    forces."""
    return _Forced.isa or _BEST_ISA


@contextlib.contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Runs the cpu kernels on another usable instruction set, to compare them.

    Raises:
        ValueError: this machine cannot run it.
    """
    usable = _native.core().isas()
    if name not in usable:
        raise ValueError(f"instruction set must be one of {tuple(usable)}, got {name!r}")
    previous, _Forced.isa = _Forced.isa, name
    try:
        yield
    finally:
        _Forced.isa = previous


def choose(op: str, requested: str, refusal: Callable[[], str | None]) -> str:
    """The backend for one call: "cpu" or "torch".

    Args:
        op: name of the op.
        requested: "auto" or a backend.
        refusal: says why the kernels cannot serve these arguments (dtype, device, sizes, gradients); None when they
        can.

    Raises:
        ValueError: an explicit backend that cannot serve, with the reason.
    """
    if requested == "torch":
        return "torch"
    if requested not in ("auto", "cpu"):
        known = probe(requested)
        why = f"no {requested} kernel for this op" if known.available else known.reason
        raise ValueError(f"{op}: backend {requested!r} cannot serve: {why}")
    reason = _WHY_MISSING or refusal()
    if reason is None:
        return "cpu"
    if requested == "cpu":
        raise ValueError(f"{op}: backend 'cpu' cannot serve: {reason}")
    if not torch.compiler.is_compiling():
        _log_fallback(op, reason, logging.INFO if _WHY_MISSING is None else logging.WARNING)
    return "torch"


@functools.cache
def _log_fallback(op: str, reason: str, level: int) -> None:
    _log.log(level, "%s runs on the torch backend: %s", op, reason)

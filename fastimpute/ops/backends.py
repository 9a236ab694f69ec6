"""Which backend serves a call: probing this machine, choosing, and saying why not."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops.registry import BACKENDS, OPS

_log = logging.getLogger("fastimpute")

# Settled once, at import: torch.compile can then read them as constants.
_WHY_MISSING: str | None = _native.why_missing()
_BEST_ISA: str = _native.core().isas()[-1] if _WHY_MISSING is None else "none"
_TRITON_MISSING: str | None = None if importlib.util.find_spec("triton") else "triton is not installed"
_LEAST_CAPABILITY = (8, 0)

# The kind of device whose tensors a backend's kernels read.
DEVICES = {"cuda": "cuda", "triton": "cuda", "cpu": "cpu"}


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
    return Availability(False, _TRITON_MISSING) if _TRITON_MISSING is not None else _needs_gpu()


def _probe_cuda() -> Availability:
    status = _needs_gpu()
    reason = _native.why_cuda_missing() if status.available else None
    return status if reason is None else Availability(False, reason)


def _needs_gpu() -> Availability:
    if not torch.cuda.is_available():
        return Availability(False, _why_no_device())
    if torch.version.hip is not None or torch.cuda.get_device_capability() < _LEAST_CAPABILITY:
        least = ".".join(map(str, _LEAST_CAPABILITY))
        return Availability(
            False, f"{torch.cuda.get_device_name()} is no NVIDIA GPU of compute capability {least} or above"
        )
    return Availability(True, torch.cuda.get_device_name())


def _why_no_device() -> str:
    """What keeps torch from finding a GPU: its own build, no driver, one that is too old, or no device."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return f"torch finds no CUDA device: {str(error).partition('. ')[0]}"
    return "torch finds no CUDA device"


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


Refusals = Mapping[str, Callable[[], str | None]]


def choose(op: str, requested: str, tensors: Mapping[str, Tensor | None], refusals: Refusals) -> str:
    """The backend for one call: with "auto" the first of the op's backends, best first, that can serve.

    Args:
        op: name of the op.
        requested: "auto" or a backend.
        tensors: the tensor arguments by name, None where absent.
        refusals: per backend but "torch", says why its kernels cannot serve these arguments (dtype, sizes, gradients);
        None when they can.

    Raises:
        ValueError: tensors on several devices, or an explicit backend that cannot serve, with the reason.
    """
    place = _common_place(op, tensors)
    if requested == "torch":
        return "torch"
    if requested != "auto":
        reason = _why_not(op, requested, place, refusals)
        if reason is not None:
            raise ValueError(f"{op}: backend {requested!r} cannot serve: {reason}")
        return requested
    reason = f"it has no kernel for tensors on {place}"
    for backend in OPS[op].backends[:-1]:
        if DEVICES[backend] == place:
            refused = _why_missing(backend) or refusals[backend]()
            if refused is None:
                return backend
            reason = refused
    if not torch.compiler.is_compiling():
        missing = all(_why_missing(name) for name in refusals if DEVICES[name] == place)
        _log_fallback(op, reason, logging.WARNING if missing else logging.INFO)
    return "torch"


def _common_place(op: str, tensors: Mapping[str, Tensor | None]) -> str:
    """The kind of device where all the tensors lie.

    Raises:
        ValueError: they lie on several devices.
    """
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if all([tensor.is_cpu for tensor in present.values()]):  # noqa: C419 - the usual case, and a list is faster here
        return "cpu"
    devices = {name: tensor.device for name, tensor in present.items()}
    first = next(iter(devices.values()))
    if any(device != first for device in devices.values()):
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{op}: tensors must lie on one device, got {places}")
    return first.type


def _why_not(op: str, backend: str, place: str, refusals: Refusals) -> str | None:
    """Why this very backend cannot serve; None when it can."""
    known = probe(backend)
    if not known.available:
        return known.reason
    if backend not in OPS[op].backends:
        return f"no {backend} kernel for this op"
    if DEVICES[backend] != place:
        return f"the tensors are on {place}, its kernels read tensors on {DEVICES[backend]}"
    return refusals[backend]()


def _why_missing(backend: str) -> str | None:
    """Why a backend is not here at all, known without asking the device; None when it is."""
    return _WHY_MISSING if backend == "cpu" else _why_no_gpu_kernels(backend)


@functools.cache
def _why_no_gpu_kernels(backend: str) -> str | None:
    status = probe(backend)
    return None if status.available else status.reason


# What torch.compiler.assume_constant_result does, which would load the whole compiler (150 MB) to do it.
_why_no_gpu_kernels._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _log_fallback(op: str, reason: str, level: int) -> None:
    _log.log(level, "%s runs on the torch backend: %s", op, reason)

"""`proximal_recursion`: the whole inner loop of SPIRIT in one call (arXiv 2602.01182, order of the steps).

Gather patches from the series; K times score (+ gamma H s), `spt_weights`, `particle_step`; average the overlaps back
into the missing cells. Patch i = s * G + g holds the window `starts[s] ... starts[s] + L - 1` of the sensors
`columns[g]`, D = L * k: x[l * k + j] = series[starts[s] + l, columns[g, j]].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends, recursion_cuda
from fastimpute.ops.checks import (
    address,
    check_choice,
    check_number,
    check_tensor,
    kernel_refusal,
    row_stride,
    rows_contiguous,
    wants_grad,
)
from fastimpute.ops.energy_mlp import reference as energy_reference
from fastimpute.ops.library import by_backend, no_gradient, on_device_of, register
from fastimpute.ops.network import (
    NETWORK_SCHEMA,
    Network,
    check_network,
    check_precision,
    network_refusal,
    triton_network_refusal,
)
from fastimpute.ops.pack import mlp_pack
from fastimpute.ops.particle_step import AdamState, Noise
from fastimpute.ops.particle_step import reference as step_reference
from fastimpute.ops.particle_waves import ParticleWaves
from fastimpute.ops.recursion_arguments import Patches, Settings
from fastimpute.ops.score_mlp import reference as score_reference
from fastimpute.ops.spt_weights import reference as weights_reference

OP = "proximal_recursion"


def reference(
    series: Tensor,
    missing: Tensor,
    starts: Tensor,
    columns: Tensor,
    window: int,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    modulation: Tensor,
    modulation_index: Tensor | None = None,
    precision_matrix: Tensor | None = None,
    mean: Tensor | None = None,
    *,
    head: str = "energy",
    sigma: float | None = None,
    iterations: int,
    eta: float,
    gamma: float = 0.0,
    rho: float = math.inf,
    tau: float = 0.1,
    bound: float = 8.0,
    group: int = 512,
    log_ref: Tensor | None = None,
    robust: bool = False,
    adam: bool = False,
    dissipation: bool = False,
    seed: int = 0,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """`proximal_recursion` in plain PyTorch for any floating dtype, one group of patches at a time."""
    network = Network(w1, b1, w2, b2, w3, b3, modulation, modulation_index, precision_matrix, mean)
    settings = Settings(
        head, sigma or 1.0, iterations, eta, gamma, 2 * eta / rho, tau, bound, group, robust, adam, dissipation, seed
    )
    with torch.no_grad():
        return _recurse(series, missing, Patches(starts, columns, window), network, settings, log_ref, precision)


def _recurse(
    series: Tensor,
    missing: Tensor,
    patches: Patches,
    network: Network,
    settings: Settings,
    log_ref: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor]:
    total, weight = torch.zeros_like(series), torch.zeros_like(series)
    log_w_new = torch.empty(patches.total, dtype=series.dtype, device=series.device)
    for patch in _groups(patches.total, settings.group, series.device):
        rows, columns = patches.cells(patch)
        chosen = network._replace(modulation_index=_index_of(patch, patches, network))
        reference_measure = None if log_ref is None else log_ref[patch]
        keys = patches.noise_keys(patch) if settings.dissipation else None
        x, log_w, mass = _run_group(
            series[rows, columns], missing[rows, columns], chosen, settings, reference_measure, keys, precision
        )
        total.index_put_((rows, columns), mass[:, None] * x, accumulate=True)
        weight.index_put_((rows, columns), mass[:, None].expand_as(x), accumulate=True)
        log_w_new[patch] = log_w
    return torch.where(missing & (weight > 0), total / weight, series), log_w_new


def _groups(count: int, group: int, device: torch.device) -> Iterator[Tensor]:
    for begin in range(0, count, group):
        yield torch.arange(begin, min(begin + group, count), device=device)


def _index_of(patch: Tensor, patches: Patches, network: Network) -> Tensor | None:
    if network.modulation_index is None:
        return None
    return network.modulation_index[patch // patches.columns.shape[0]]


def _run_group(
    x: Tensor,
    missing: Tensor,
    network: Network,
    settings: Settings,
    log_ref: Tensor | None,
    keys: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """K iterations of one group: its particles, log w and mass B w afterwards."""
    log_w = torch.log_softmax(x.new_zeros(len(x)) if log_ref is None else log_ref, 0)
    mass = torch.exp(log_w) * len(x)
    state = AdamState.zeros_like(x) if settings.adam else None
    for iteration in range(settings.iterations):
        log_p, direction, score_sq = _direction(x, network, settings, precision)
        if settings.eta_w > 0:
            log_w, mass = weights_reference(
                log_w,
                log_p,
                score_sq,
                group=len(x),
                gamma=settings.gamma,
                eta_w=settings.eta_w,
                tau=settings.tau,
                bound=settings.bound,
                log_ref=log_ref,
                robust=settings.robust,
            )
        noise = None if keys is None else Noise(settings.seed, keys, step=iteration)
        drift = 1.0 if settings.dissipation else 0.0
        x = step_reference(x, direction, mass, missing, eta=settings.eta, adam=state, noise=noise, drift=drift)
    return x, log_w, mass


def _direction(x: Tensor, network: Network, settings: Settings, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """log p (or its stand-in), T_x and |score|^2."""
    if settings.head == "direct":
        score = score_reference(x, *network[:6], settings.sigma, *network[6:], precision=precision)
        score_sq = score.square().sum(-1)
        return -0.5 * settings.sigma**2 * score_sq, score, score_sq
    log_p, score, *curved = energy_reference(x, *network, hvp=settings.gamma > 0, precision=precision)
    direction = score - settings.gamma * curved[0] if curved else score
    return log_p, direction, score.square().sum(-1)


def proximal_recursion(
    series: Tensor,
    missing: Tensor,
    starts: Tensor,
    columns: Tensor,
    window: int,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    modulation: Tensor,
    modulation_index: Tensor | None = None,
    precision_matrix: Tensor | None = None,
    mean: Tensor | None = None,
    *,
    head: str = "energy",
    sigma: float | None = None,
    iterations: int,
    eta: float,
    gamma: float = 0.0,
    rho: float = math.inf,
    tau: float = 0.1,
    bound: float = 8.0,
    group: int = 512,
    log_ref: Tensor | None = None,
    robust: bool = False,
    adam: bool = False,
    dissipation: bool = False,
    seed: int = 0,
    backend: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The inner loop of SPIRIT: every patch moves `iterations` steps, then overlaps are averaged (arXiv 2602.01182).

    The cpu kernel never builds an array of windows: beside the result it needs less than 64 MB, however many patches.
    Its bits do not depend on the number of threads, the triton kernels' not on the waves they take the patches in.
    Observed cells, and cells no patch covers, come back bit for bit. The cuda kernel sums the overlaps in integers, so
    its bits do not depend on a schedule: cells of a patch that diverged (mass times value beyond 2^26 over the patches
    that share a cell) become NaN.

    Args:
        series: (T, N), standardised units, gaps filled by a start. The kernels take float32.
        missing: (T, N) bool, True where missing.
        starts: (S,) int64, first time step of each window, ascending.
        columns: (G, k) int64, the sensors of each kind of patch, each at most once in a row.
        window: L, time steps per patch.
        w1, b1, w2, b2, w3, b3: weights for D = L * k as in `energy_mlp` or, for the direct head, `score_mlp`.
        modulation: (m, 4, hidden). modulation_index: (S,) int64, its row for each window; None when m is 1.
        precision_matrix: (D, D), mean: (D,): the Gaussian part; None: none.
        head: "energy", or "direct": log p is then replaced by -(sigma^2 / 2) |score|^2.
        sigma: noise level of the direct head, standardised units.
        iterations: K.
        eta: step size, standardised units squared (with `adam`: standardised units).
        gamma: weight of |score|^2 / 2; above 0 it costs a Hessian-vector product per step. 0 for the direct head.
        rho: cost of departing from the reference measure; infinity keeps the weights at it (eta_w = 2 eta / rho).
        tau, bound, robust: as in `spt_weights`; unused when rho is infinite.
        group: consecutive patches that share their weights.
        log_ref: (S * G,) log of the reference measure; None: uniform.
        adam: steps by Adam (.9, .999, 1e-8) instead of plain ones.
        dissipation: adds the drift -eta x and the noise sqrt(2 eta) N(0, 1).
        seed: of that noise.
        backend: "auto", "cpu", "cuda", "triton" or "torch".
        precision: "fp32" or "bf16", as in `energy_mlp`.
        threads: of the cpu kernel; None: torch.get_num_threads().

    Returns:
        The series after the step, (T, N), and log w, (S * G,).

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import proximal_recursion
        >>> series, missing = torch.randn(50, 2), torch.rand(50, 2) < 0.3
        >>> w1, w2, b, w3 = torch.randn(256, 24), torch.randn(256, 256) / 16, torch.zeros(256), torch.randn(256) / 16
        >>> filled, _ = proximal_recursion(
        ...     series, missing, torch.arange(0, 39), torch.tensor([[0, 1]]), 12, w1, b, w2, b, w3, torch.zeros(1),
        ...     torch.zeros(1, 4, 256), iterations=2, eta=0.01)
        >>> bool((filled[~missing] == series[~missing]).all())
        True
    """
    network = Network(w1, b1, w2, b2, w3, b3, modulation, modulation_index, precision_matrix, mean)
    patches = Patches(starts, columns, window)
    _check_series(series, missing, patches)
    _check_network(series, patches, network, head, sigma, precision)
    _check_numbers(patches, head, iterations, eta, gamma, rho, tau, bound, group, threads)
    if log_ref is not None:
        check_tensor(OP, "log_ref", log_ref, (patches.total,), series.dtype)
    check_number(OP, "seed", seed, least=0, most=2**63 - 1)
    settings = Settings(
        head, sigma or 1.0, iterations, eta, gamma, 2 * eta / rho, tau, bound, group, robust, adam, dissipation, seed
    )
    tensors = {
        "series": series,
        "missing": missing,
        "starts": starts,
        "columns": columns,
        **network._asdict(),
        "log_ref": log_ref,
    }
    refusals = {
        "cpu": lambda: _refusal(series, network, log_ref, precision),
        "cuda": lambda: recursion_cuda.refusal(series, network, settings, log_ref, precision),
        "triton": lambda: _triton_refusal(series, network, log_ref, settings),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        with torch.no_grad():
            return _recurse(series, missing, patches, network, settings, log_ref, precision)
    run = _by_backend if chosen == "cpu" and not torch.compiler.is_compiling() else _op
    workers = torch.get_num_threads() if threads is None else threads
    series_new, log_w = run(series, missing, *patches, *network, *settings, log_ref, precision, workers, chosen)
    return series_new, log_w


def _check_series(series: Tensor, missing: Tensor, patches: Patches) -> None:
    check_tensor(OP, "series", series, (None, None), None)
    length, sensors = series.shape
    check_tensor(OP, "missing", missing, (length, sensors), torch.bool)
    check_tensor(OP, "starts", patches.starts, (None,), torch.int64)
    check_tensor(OP, "columns", patches.columns, (None, None), torch.int64)
    check_number(OP, "window", patches.window, least=1, most=max(length, 1))
    if patches.starts.numel():
        if bool((patches.starts.diff() < 0).any()):
            raise ValueError(f"{OP}: starts must be sorted ascending")
        check_number(OP, "starts", int(patches.starts[0]), least=0)
        check_number(OP, "starts", int(patches.starts[-1]), most=length - patches.window)
    if patches.columns.numel():
        check_number(OP, "columns", int(patches.columns.min()), least=0)
        check_number(OP, "columns", int(patches.columns.max()), most=sensors - 1)


def _check_network(
    series: Tensor, patches: Patches, network: Network, head: str, sigma: float | None, precision: str
) -> None:
    check_choice(OP, "head", head, ("energy", "direct"))
    check_precision(OP, precision)
    check_network(OP, network, head, patches.starts.shape[0])
    check_tensor(OP, "w1", network.w1, (None, patches.dim), series.dtype)
    if head == "direct":
        if sigma is None:
            raise ValueError(f"{OP}: sigma must be given for the direct head, got None")
        check_number(OP, "sigma", sigma, above=0)


def _check_numbers(
    patches: Patches,
    head: str,
    iterations: int,
    eta: float,
    gamma: float,
    rho: float,
    tau: float,
    bound: float,
    group: int,
    threads: int | None,
) -> None:
    check_number(OP, "iterations", iterations, least=0)
    check_number(OP, "eta", eta, least=0)
    check_number(OP, "gamma", gamma, least=0)
    if head == "direct" and gamma != 0:
        raise ValueError(f"{OP}: gamma must be 0 for the direct head, got {gamma}")
    check_number(OP, "rho", rho, above=0)
    check_number(OP, "tau", tau, least=0, most=1)
    check_number(OP, "bound", bound, above=0)
    check_number(OP, "group", group, least=1)
    if threads is not None:
        check_number(OP, "threads", threads, least=1)


def _refusal(series: Tensor, network: Network, log_ref: Tensor | None, precision: str) -> str | None:
    if wants_grad(series):
        return "gradients are required, which the kernel does not compute"
    return kernel_refusal({"series": series, "log_ref": log_ref}) or network_refusal(network, precision, backends.isa())


def _triton_refusal(series: Tensor, network: Network, log_ref: Tensor | None, settings: Settings) -> str | None:
    from fastimpute.kernels.matrix import WIDTHS
    from fastimpute.kernels.spt_weights import GROUP_MOST

    if wants_grad(series, log_ref):
        return "gradients are required, which the kernels do not compute"
    if settings.eta_w > 0 and settings.group > GROUP_MOST:
        return f"group is {settings.group}, the kernels take up to {GROUP_MOST}"
    return triton_network_refusal(network, {"series": series, "log_ref": log_ref}, WIDTHS)


# The registered op takes float32, and float64 through the scalar oracle.

_ADAM = (AdamState.beta1, AdamState.beta2, AdamState.eps)
_SAMPLE = 0


def _compiled(
    backend: str, series: Tensor, missing: Tensor, starts: Tensor, columns: Tensor, window: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    """The kernels of `_core` and `_cuda`, which take the same arguments."""
    network, settings = Network(*rest[:10]), Settings(*rest[10:23])
    log_ref, precision, threads = rest[23:]
    series, missing = rows_contiguous(series), rows_contiguous(missing)
    starts, columns, modulation = starts.contiguous(), columns.contiguous(), network.modulation.contiguous()
    index = None if network.modulation_index is None else network.modulation_index.contiguous()
    log_ref = None if log_ref is None else log_ref.contiguous()
    length, sensors = series.shape
    windows, (sets, width) = starts.shape[0], columns.shape
    series_new = torch.empty(length, sensors, dtype=series.dtype, device=series.device)
    log_w = torch.empty(windows * sets, dtype=series.dtype, device=series.device)
    arguments = (
        (
            length,
            sensors,
            address(series),
            row_stride(series),
            address(missing),
            row_stride(missing),
            address(series_new),
            sensors,
        ),
        (windows, address(starts), window, sets, width, address(columns)),
        (address(modulation), modulation.shape[0], address(index), settings.sigma),
        settings.iterations,
        settings.eta,
        (
            settings.group,
            address(log_ref),
            settings.gamma,
            settings.eta_w,
            settings.tau,
            settings.bound,
            settings.robust,
            address(log_w),
        ),
        _ADAM if settings.adam else None,
        (settings.seed, _SAMPLE) if settings.dissipation else None,
    )
    if backend == "cuda":
        recursion_cuda.run(arguments, Patches(starts, columns, window), network, settings.head, series)
        return series_new, log_w
    core = _native.core()
    if series.dtype == torch.float64:
        weights = network.dense_weights()
        described = (network.hidden, network.dim, *map(address, weights))
        core.proximal_recursion_ref_f64(described, settings.head, *arguments)
    else:
        core.proximal_recursion(mlp_pack(network, settings.head, precision), threads, *arguments)
    return series_new, log_w


def _triton(
    series: Tensor, missing: Tensor, starts: Tensor, columns: Tensor, window: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    network, settings = Network(*rest[:10]), Settings(*rest[10:23])
    log_ref, precision, _ = rest[23:]
    with on_device_of(series):
        return ParticleWaves(Patches(starts, columns, window), network, settings, precision).run(
            series, missing, log_ref
        )


def _fake(series: Tensor, missing: Tensor, starts: Tensor, columns: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return series.new_empty(series.shape), series.new_empty(starts.shape[0] * columns.shape[0])


_by_backend = by_backend(
    {
        "cpu": functools.partial(_compiled, "cpu"),
        "cuda": functools.partial(_compiled, "cuda"),
        "triton": _triton,
    }
)
_op = register(
    "proximal_recursion",
    f"(Tensor series, Tensor missing, Tensor starts, Tensor columns, int window, {NETWORK_SCHEMA}, str head, "
    "float sigma, int iterations, float eta, float gamma, float eta_w, float tau, float bound, "
    "int group, bool robust, bool adam, bool dissipation, int seed, Tensor? log_ref, "
    "str precision, int threads, str backend) -> (Tensor, Tensor)",
    _by_backend,
    _fake,
    _by_backend,
)
no_gradient("proximal_recursion", "the kernels compute no gradients; use backend='torch'")

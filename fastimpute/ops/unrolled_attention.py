"""`unrolled_attention`: score and conditional mean of a masked Gaussian process by lag-attention iterations.

arXiv 2510.02216, algorithm unrolling (Theorem 1). Frames have covariance gamma_|i-k|, channels Lambda; o are the frames
seen, m those missing. K outer iterations solve for the score s, each product running K_aux inner ones for u:

    (alpha^2 (S_miss - S_cor^T S_obs^-1 S_cor) + sigma^2) s = -(v - alpha mu),  S_obs u = S_cor s
    mu = mean_m + S_cor^T S_obs^-1 (x_o - mean_o)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.channel_modes import ChannelModes, exponential_links, modes_on_gpu
from fastimpute.ops.checks import (
    address,
    check_choice,
    check_number,
    check_tensor,
    kernel_refusal,
    row_stride,
    rows_contiguous,
    triton_refusal,
    wants_grad,
)
from fastimpute.ops.lag_heads import head_matrix
from fastimpute.ops.library import by_backend, multiprocessors, no_gradient, on_device_of, register, stream_of
from fastimpute.ops.rates import OP, Rates, spectral_rates, spectrum

SOLVERS = ("gd", "chebyshev", "cg")
_Map = Callable[[Tensor], Tensor]


def reference(
    v: Tensor,
    x: Tensor,
    missing: Tensor,
    lag_table: Tensor,
    alpha: float | Tensor,
    sigma: float | Tensor,
    mean: Tensor | None = None,
    channel_covariance: Tensor | None = None,
    rates: Rates | None = None,
    *,
    iterations: int = 16,
    inner_iterations: int = 32,
    solver: str = "cg",
    length: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`unrolled_attention` in plain PyTorch for any floating dtype; differentiable, also in the table and the rates."""
    alpha, sigma = (_per_sequence(value, v) for value in (alpha, sigma))
    if solver != "cg" and rates is None:
        rates = spectral_rates(
            solver, spectrum(missing, lag_table, channel_covariance, length), alpha, sigma, iterations, inner_iterations
        )
    outer_rates, inner_rates = (None, None) if rates is None else (table.to(v.dtype) for table in rates)
    heads = head_matrix(lag_table)
    hidden = missing[..., None]
    seen = (~hidden).to(v.dtype)
    alpha, sigma = alpha[:, None, None], sigma[:, None, None]
    base = torch.zeros_like(v[0] if len(v) else v.new_empty(v.shape[1:])) if mean is None else mean

    def attend(values: Tensor) -> Tensor:
        weighted = heads @ values
        return weighted if channel_covariance is None else weighted @ channel_covariance

    precondition = _identity if length is None else _tridiagonal(~missing, length, v.dtype, channel_covariance)

    def solve_seen(right: Tensor) -> Tensor:
        return _solve(lambda u: seen * attend(u), right, inner_rates, inner_iterations, precondition)

    def product(s: Tensor) -> Tensor:
        from_hidden = attend(s)
        from_seen = attend(solve_seen(seen * from_hidden))
        return torch.where(hidden, alpha.square() * (from_hidden - from_seen) + sigma.square() * s, 0.0)

    mu = base + attend(solve_seen(torch.where(hidden, 0.0, x - base)))
    right = torch.where(hidden, alpha * mu - v, 0.0)
    return _solve(product, right, outer_rates, iterations, _identity), torch.where(hidden, mu, x)


def _identity(values: Tensor) -> Tensor:
    return values


def _per_sequence(value: float | Tensor, v: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else v.new_full((v.shape[0],), value)


def _solve(apply: _Map, right: Tensor, rates: Tensor | None, iterations: int, precondition: _Map) -> Tensor:
    """`iterations` steps from zero on apply(y) = right, for each sequence (n, T, d) by itself."""
    if rates is None:
        return _conjugate_gradients(apply, right, iterations, precondition)
    solution = direction = torch.zeros_like(right)
    for index in range(iterations):
        residual = right if index == 0 else right - apply(solution)
        step, momentum = rates[:, index].T[..., None, None]
        direction = precondition(residual) + momentum * direction
        solution = solution + step * direction
    return solution


def _conjugate_gradients(apply: _Map, right: Tensor, iterations: int, precondition: _Map) -> Tensor:
    """A quotient whose denominator is not positive is taken as zero: a solved sequence stays where it is."""
    solution, residual = torch.zeros_like(right), right
    direction = preconditioned = precondition(residual)
    energy = _dot(residual, preconditioned)
    for index in range(iterations):
        image = apply(direction)
        step = _quotient(energy, _dot(direction, image))
        solution = solution + step * direction
        if index + 1 < iterations:
            residual = residual - step * image
            preconditioned = precondition(residual)
            previous, energy = energy, _dot(residual, preconditioned)
            direction = preconditioned + _quotient(energy, previous) * direction
    return solution


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum((1, 2), keepdim=True)


def _quotient(value: Tensor, by: Tensor) -> Tensor:
    positive = by > 0
    return torch.where(positive, value / torch.where(positive, by, 1.0), 0.0)


def _tridiagonal(seen: Tensor, length: float, dtype: torch.dtype, channel_covariance: Tensor | None) -> _Map:
    """Precision of the exponential kernel exp(-|i - k| / length) on the frames seen, times Lambda's inverse.

    The kernel is a Markov chain, also on a subset: W = 1 / (1 - r^2) of the steps between neighbours, r their
    correlation, gives B^T W B with B y = y_i - r_i y_previous.
    """
    position = torch.arange(seen.shape[1], device=seen.device)
    latest = torch.where(seen, position, -1).cummax(1).values
    previous = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], 1)
    linked = seen & (previous >= 0)
    decay = torch.where(linked, torch.exp(-(position - previous).double() / length), 0.0)[..., None]
    weight = (seen[..., None] / (1 - decay.square())).to(dtype)
    decay, source = decay.to(dtype), previous.clamp_min(0)[..., None]
    inverse = None if channel_covariance is None else torch.linalg.inv(channel_covariance)

    def apply(values: Tensor) -> Tensor:
        index = source.expand_as(values)
        increments = weight * (values - decay * values.gather(1, index))
        result = increments.scatter_add(1, index, -decay * increments)
        return result if inverse is None else result @ inverse

    return apply


def unrolled_attention(
    v: Tensor,
    x: Tensor,
    missing: Tensor,
    lag_table: Tensor,
    alpha: float | Tensor,
    sigma: float | Tensor,
    mean: Tensor | None = None,
    channel_covariance: Tensor | None = None,
    rates: Rates | None = None,
    *,
    iterations: int = 16,
    inner_iterations: int = 32,
    solver: str = "cg",
    length: float | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Score of v = alpha y + sigma noise and the conditional mean, by unrolled attention (arXiv 2510.02216, Theorem 1).

    Sequences of T frames and d channels, each with its own missing frames; frames i, k and channels a, b have
    covariance lag_table[|i - k|] Lambda[a, b]. (n, T, d) throughout; values in standardised units.

    Args:
        v: (n, T, d) noisy values; read at missing frames.
        x: (n, T, d) values; read at observed frames.
        missing: (n, T) bool, True = the whole frame is missing.
        lag_table: (T,) covariance by lag, in frames; learned or that of a known process.
        alpha: scale of the signal in v, one number or (n,); exp(-t / 2) in the paper's process.
        sigma: scale of the noise in v, one number or (n,); sqrt(1 - exp(-t)) in the paper's process.
        mean: (T, d); None: zero.
        channel_covariance: (d, d) Lambda, symmetric positive definite; None: identity.
        rates: steps and momenta themselves, for solvers "gd" and "chebyshev"; None: computed from the exact spectrum
            of each distinct mask (`fastimpute.ops.rates`), of the order of T^3 each.
        iterations: K, outer steps from score zero; 0: only the conditional mean is wanted.
        inner_iterations: K_aux, steps on the observed frames from zero, for the mean and in every outer step.
        solver: "gd" (the paper's; steps 2 / (lmin + lmax)), "chebyshev" or "cg", for both systems.
        length: frames of the exponential kernel whose tridiagonal precision preconditions the inner system; None: no
            preconditioner.
        backend: "auto", "cpu", "cuda", "triton" or "torch".

    Returns:
        score (n, T, d), zero at observed frames, in 1 / standardised units, and the conditional mean (n, T, d), x
        itself at observed frames.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range, a covariance that is not positive
            definite where its spectrum is needed, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import unrolled_attention
        >>> table = torch.exp(-torch.arange(5) / 8)
        >>> missing = torch.tensor([[False, False, True, False, False]])
        >>> _, mean = unrolled_attention(torch.zeros(1, 5, 1), torch.ones(1, 5, 1), missing, table, 1.0, 0.1)
        >>> round(float(mean[0, 2]), 2)
        0.99
    """
    _check(v, x, missing, lag_table, mean, channel_covariance)
    alpha, sigma = _scale("alpha", alpha, v), _scale("sigma", sigma, v)
    check_number(OP, "iterations", iterations, least=0)
    check_number(OP, "inner_iterations", inner_iterations, least=0)
    check_choice(OP, "solver", solver, SOLVERS)
    if length is not None:
        check_number(OP, "length", length, above=0)
    _check_rates(rates, solver, v.shape[0], iterations, inner_iterations)
    outer, inner = (None, None) if rates is None else rates
    floating = {
        "v": v,
        "x": x,
        "lag_table": lag_table,
        "alpha": alpha,
        "sigma": sigma,
        "mean": mean,
        "channel_covariance": channel_covariance,
    }
    tensors = {**floating, "missing": missing, "rates.outer": outer, "rates.inner": inner}
    refusals = {
        "cpu": lambda: _refusal(floating, outer, inner),
        "cuda": lambda: _cuda_refusal(floating, outer, inner),
        "triton": lambda: _triton_refusal(floating, outer, inner),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(
            v,
            x,
            missing,
            lag_table,
            alpha,
            sigma,
            mean,
            channel_covariance,
            rates,
            iterations=iterations,
            inner_iterations=inner_iterations,
            solver=solver,
            length=length,
        )
    arguments = (
        v, x, missing, lag_table, alpha, sigma, mean, channel_covariance, outer, inner, iterations, inner_iterations,
        solver, length,
    )  # fmt: skip
    direct = chosen == "cpu" and not torch.compiler.is_compiling()
    score, filled = _impl(*arguments) if direct else _op(*arguments, chosen)
    return score, filled


def _check(
    v: Tensor, x: Tensor, missing: Tensor, lag_table: Tensor, mean: Tensor | None, channel_covariance: Tensor | None
) -> None:
    check_tensor(OP, "v", v, (None, None, None), None)
    _, frames, channels = v.shape
    check_tensor(OP, "x", x, tuple(v.shape), v.dtype)
    check_tensor(OP, "missing", missing, tuple(v.shape[:2]), torch.bool)
    check_tensor(OP, "lag_table", lag_table, (frames,), v.dtype)
    if mean is not None:
        check_tensor(OP, "mean", mean, (frames, channels), v.dtype)
    if channel_covariance is not None:
        check_tensor(OP, "channel_covariance", channel_covariance, (channels, channels), v.dtype)


def _scale(name: str, value: float | Tensor, v: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        check_tensor(OP, name, value, (v.shape[0],), v.dtype)
        return value
    check_number(OP, name, value, least=0)
    return _per_sequence(value, v)


def _check_rates(rates: Rates | None, solver: str, sequences: int, iterations: int, inner_iterations: int) -> None:
    if rates is None:
        return
    if solver == "cg":
        raise ValueError(f"{OP}: rates must be None for solver 'cg', which finds its own")
    for name, table, count in (("outer", rates.outer, iterations), ("inner", rates.inner, inner_iterations)):
        check_tensor(OP, f"rates.{name}", table, (None, count, 2), None)
        if table.shape[0] not in (1, sequences):
            raise ValueError(f"{OP}: rates.{name} must have 1 or {sequences} rows, got {table.shape[0]}")


def _refusal(floating: dict[str, Tensor | None], outer: Tensor | None, inner: Tensor | None) -> str | None:
    return _gradient_refusal(floating, outer, inner) or kernel_refusal(floating)


def _cuda_refusal(floating: dict[str, Any], outer: Tensor | None, inner: Tensor | None) -> str | None:
    v = floating["v"]
    refusal = _refusal(floating, outer, inner)
    if refusal is None:
        with on_device_of(v):
            refusal = _native.cuda().unrolled_attention_refusal(*v.shape[1:])
    return refusal


def _triton_refusal(floating: dict[str, Any], outer: Tensor | None, inner: Tensor | None) -> str | None:
    from fastimpute.kernels.unrolled_attention import size_refusal

    _, frames, channels = floating["v"].shape
    return (
        _gradient_refusal(floating, outer, inner)
        or triton_refusal(floating, (torch.float32,))
        or size_refusal(frames, channels)
    )


def _gradient_refusal(floating: dict[str, Tensor | None], outer: Tensor | None, inner: Tensor | None) -> str | None:
    if wants_grad(*floating.values(), outer, inner):
        return "gradients are required, which the kernel does not compute"
    return None


# The registered op takes float32, and float64 through the scalar oracle.


def _impl(
    v: Tensor,
    x: Tensor,
    missing: Tensor,
    lag_table: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    mean: Tensor | None,
    channel_covariance: Tensor | None,
    outer: Tensor | None,
    inner: Tensor | None,
    iterations: int,
    inner_iterations: int,
    solver: str,
    length: float | None,
) -> tuple[Tensor, Tensor]:
    rates = _rates_of(
        v, missing, lag_table, alpha, sigma, channel_covariance, outer, inner, iterations, inner_iterations, solver,
        length,
    )  # fmt: skip
    modes = None if channel_covariance is None else ChannelModes.of(channel_covariance)
    core = _native.core()
    kernel = core.unrolled_attention_ref_f64
    if v.dtype != torch.float64:
        kernel = functools.partial(core.unrolled_attention, backends.isa(), torch.get_num_threads())
    floating = (v, x, lag_table, alpha, sigma, mean)
    return _run(kernel, missing, *floating, modes, rates, (iterations, inner_iterations), length or 0.0)


def _cuda(
    v: Tensor,
    x: Tensor,
    missing: Tensor,
    lag_table: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    mean: Tensor | None,
    channel_covariance: Tensor | None,
    outer: Tensor | None,
    inner: Tensor | None,
    iterations: int,
    inner_iterations: int,
    solver: str,
    length: float | None,
) -> tuple[Tensor, Tensor]:
    rates = _rates_of(
        v, missing, lag_table, alpha, sigma, channel_covariance, outer, inner, iterations, inner_iterations, solver,
        length,
    )  # fmt: skip
    modes = None if channel_covariance is None else modes_on_gpu(channel_covariance)
    decay, weight = (None, None) if length is None else exponential_links(v.shape[1], length, v.device)
    floating = (v, x, lag_table, alpha, sigma, mean)
    with on_device_of(v):
        kernel = functools.partial(_native.cuda().unrolled_attention, stream_of(v))
        links = (address(decay), address(weight))
        return _run(kernel, missing, *floating, modes, rates, (iterations, inner_iterations), links)


def _run(
    kernel: Callable[..., None],
    missing: Tensor,
    v: Tensor,
    x: Tensor,
    lag_table: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    mean: Tensor | None,
    modes: ChannelModes | None,
    rates: tuple[Tensor | None, Tensor | None],
    iterations: tuple[int, int],
    preconditioner: float | tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """preconditioner: as the kernel takes it."""
    score, filled = (torch.empty(v.shape, dtype=v.dtype, device=v.device) for _ in range(2))
    rows = [rows_contiguous(tensor) for tensor in (v.flatten(1), x.flatten(1), missing)]
    variance, basis = (None, None) if modes is None else modes
    dense = [None if tensor is None else tensor.contiguous() for tensor in (lag_table, alpha, sigma, mean)]
    kernel(
        tuple(v.shape),
        tuple(number for tensor in rows for number in (address(tensor), row_stride(tensor))),
        (*map(address, dense), address(basis), address(variance)),
        tuple(
            number
            for table, count in zip(rates, iterations, strict=True)
            for number in (address(table), _rows(table), count)
        ),
        preconditioner,
        address(score),
        address(filled),
    )
    return score, filled


def _rates_of(
    v: Tensor,
    missing: Tensor,
    lag_table: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    channel_covariance: Tensor | None,
    outer: Tensor | None,
    inner: Tensor | None,
    iterations: int,
    inner_iterations: int,
    solver: str,
    length: float | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The rates as the kernels read them, from the spectrum where they are not given; None for cg."""
    if solver != "cg" and (outer is None or inner is None):
        spectra = spectrum(missing, lag_table, channel_covariance, length)
        outer, inner = spectral_rates(solver, spectra, alpha, sigma, iterations, inner_iterations)
    if outer is None or inner is None:
        return None, None
    return outer.to(v.dtype).contiguous(), inner.to(v.dtype).contiguous()


def _rows(rates: Tensor | None) -> int:
    return 0 if rates is None else rates.shape[0]


def _triton(
    v: Tensor,
    x: Tensor,
    missing: Tensor,
    lag_table: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    mean: Tensor | None,
    channel_covariance: Tensor | None,
    outer: Tensor | None,
    inner: Tensor | None,
    iterations: int,
    inner_iterations: int,
    solver: str,
    length: float | None,
) -> tuple[Tensor, Tensor]:
    from fastimpute.kernels import unrolled_attention as kernel

    sequences, frames, channels = v.shape
    score, filled = (torch.empty(v.shape, dtype=v.dtype, device=v.device) for _ in range(2))
    if v.numel() == 0:
        return score, filled
    rates = _rates_of(
        v, missing, lag_table, alpha, sigma, channel_covariance, outer, inner, iterations, inner_iterations, solver,
        length,
    )  # fmt: skip
    variance, basis = (None, None) if channel_covariance is None else modes_on_gpu(channel_covariance)
    tiles = kernel.configuration(frames, channels)
    programs = kernel.programs(sequences, tiles, multiprocessors(v.device))
    scratch = torch.empty(programs * kernel.scratch_size(tiles), dtype=v.dtype, device=v.device)
    with on_device_of(v):
        kernel.launch(
            (rows_contiguous(v.flatten(1)), rows_contiguous(x.flatten(1)), rows_contiguous(missing)),
            (lag_table.contiguous(), None if mean is None else mean.contiguous(), basis, variance),
            (alpha.contiguous(), sigma.contiguous()),
            rates,
            (None, None) if length is None else exponential_links(frames, length, v.device),
            (score, filled),
            scratch,
            iterations=iterations,
            inner_iterations=inner_iterations,
            programs=programs,
            tiles=tiles,
        )
    return score, filled


def _fake(v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), v.new_empty(v.shape)


_by_backend = by_backend({"cpu": _impl, "cuda": _cuda, "triton": _triton})
_op = register(
    "unrolled_attention",
    "(Tensor v, Tensor x, Tensor missing, Tensor lag_table, Tensor alpha, Tensor sigma, Tensor? mean, "
    "Tensor? channel_covariance, Tensor? outer, Tensor? inner, int iterations, int inner_iterations, str solver, "
    "float? length, str backend) -> (Tensor, Tensor)",
    _by_backend,
    _fake,
    _by_backend,
)
no_gradient("unrolled_attention", "the kernels compute no gradients; use backend='torch'")

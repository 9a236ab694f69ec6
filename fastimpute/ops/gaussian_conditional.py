"""`gaussian_conditional`: conditional mean and spread of Gaussian windows, each with its own mask (arXiv 2510.02216).

    mean_m = mu_m - P_mm^-1 P_mo (x_o - mu_o)          deviation = sqrt(diag(P_mm^-1))
           = mu_m + S_mo S_oo^-1 (x_o - mu_o)                    = sqrt(diag(S_mm - S_mo S_oo^-1 S_om))

with S the covariance, P its inverse, m the missing and o the observed cells of a window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import (
    address,
    check_number,
    check_tensor,
    kernel_refusal,
    row_stride,
    rows_contiguous,
    symmetric_rows,
    triton_refusal,
    wants_grad,
)
from fastimpute.ops.library import by_backend, multiprocessors, no_gradient, on_device_of, register, stream_of

OP = "gaussian_conditional"
CUDA_DIM_MOST = 1024  # cells of a window


def reference(
    x: Tensor,
    missing: Tensor,
    mean: Tensor,
    covariance: Tensor | None = None,
    precision: Tensor | None = None,
    *,
    noise: float = 0.0,
    spread: bool = True,
) -> tuple[Tensor, Tensor]:
    """`gaussian_conditional` in plain PyTorch, window by window, for any floating dtype; differentiable."""
    covariance, precision = _matrices(covariance, precision, noise, x.dtype)
    filled, deviation = [], []
    for window in range(x.shape[0]):
        m, o = missing[window].nonzero()[:, 0], (~missing[window]).nonzero()[:, 0]
        centred = x[window, o] - mean[o]
        if precision is not None:
            lower = _cholesky(precision[m][:, m], "precision", window, m)
            value = -torch.cholesky_solve(precision[m][:, o] @ centred[:, None], lower)[:, 0]
            inverse = torch.linalg.solve_triangular(
                lower, torch.eye(len(m), dtype=x.dtype, device=x.device), upper=False
            )
            variance = inverse.square().sum(0)
        else:
            assert covariance is not None
            lower = _cholesky(covariance[o][:, o], "covariance", window, o)
            half = torch.linalg.solve_triangular(lower, covariance[o][:, m], upper=False)
            value = half.T @ torch.linalg.solve_triangular(lower, centred[:, None], upper=False)[:, 0]
            variance = covariance.diagonal()[m] - half.square().sum(0)
        filled.append(x[window].index_put((m,), mean[m] + value))
        deviation.append(torch.zeros_like(x[window]).index_put((m,), variance.clamp_min(0).sqrt()))
    if not filled:
        return x.clone(), torch.zeros_like(x)
    return torch.stack(filled), torch.stack(deviation) if spread else torch.zeros_like(x)


def _cholesky(matrix: Tensor, name: str, window: int, cells: Tensor) -> Tensor:
    lower: Tensor
    lower, bad = torch.linalg.cholesky_ex(matrix)
    if int(bad):
        raise _singular(name, window, int(cells[int(bad) - 1]))
    return lower


def _singular(name: str, window: int, cell: int) -> ValueError:
    return ValueError(
        f"{OP}: {name} must be positive definite, but in window {window} the pivot of cell {cell} is not positive: "
        "give noise > 0, a variance added to every cell"
    )


def _matrices(
    covariance: Tensor | None, precision: Tensor | None, noise: float, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Both matrices with the noise in them, in `dtype`; the one that has no inverse stands alone."""
    if covariance is not None and precision is not None and noise == 0:
        return covariance.to(dtype), precision.to(dtype)
    if covariance is None:
        assert precision is not None
        covariance = _inverse(precision.double())
        if covariance is None:
            return None, precision.to(dtype)
        if noise == 0:
            return covariance.to(dtype), precision.to(dtype)
    covariance = covariance.double()
    covariance = covariance + noise * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
    inverse = _inverse(covariance)
    return covariance.to(dtype), None if inverse is None else inverse.to(dtype)


def _inverse(matrix: Tensor) -> Tensor | None:
    lower, bad = torch.linalg.cholesky_ex(matrix)
    if int(bad):
        return None
    inverse: Tensor = torch.cholesky_inverse(lower)
    return inverse if bool(inverse.isfinite().all()) else None


def gaussian_conditional(
    x: Tensor,
    missing: Tensor,
    mean: Tensor,
    covariance: Tensor | None = None,
    precision: Tensor | None = None,
    *,
    noise: float = 0.0,
    spread: bool = True,
    backend: str = "auto",
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Fill Gaussian windows with their conditional mean (mu_cond and diag S_cond of arXiv 2510.02216, section 2).

    The kernels compute in double whatever the dtype of x: a Cholesky factorisation of the missing block of the
    precision, or of the observed block of the covariance where that is cheaper. On the cpu windows with equal masks
    share it.

    Args:
        x: (n, D) windows in standardised units; what stands at missing cells is ignored, NaN included.
        missing: (n, D) bool, True where missing.
        mean: (D,) mean of a window.
        covariance: (D, D) symmetric positive definite; or None.
        precision: (D, D) its inverse; or None. One of the two is enough; float64 is worth having for either. Given
            both, nothing has to be inverted.
        noise: variance added to every cell, for covariances that are singular or nearly so.
        spread: whether the deviations are wanted; they cost about as much as the mean.
        backend: "auto", "cpu", "cuda", "triton" or "torch".
        threads: of the cpu kernel, None takes torch's; the bits do not depend on it.

    Returns:
        filled (n, D): conditional mean where missing, x bit for bit where observed; and deviation (n, D): conditional
        standard deviation where missing, 0 where observed (0 everywhere without `spread`).

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range; a matrix that is not positive definite
            (naming the window and the cell); or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import gaussian_conditional
        >>> covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
        >>> x, missing = torch.tensor([[2.0, 0.0]]), torch.tensor([[False, True]])
        >>> filled, deviation = gaussian_conditional(x, missing, torch.zeros(2), covariance)
        >>> [round(value, 3) for value in (filled[0, 1].item(), deviation[0, 1].item())]
        [1.6, 0.6]
    """
    check_tensor(OP, "x", x, (None, None), None)
    dim = x.shape[1]
    check_tensor(OP, "missing", missing, tuple(x.shape), torch.bool)
    check_tensor(OP, "mean", mean, (dim,), None)
    for name, matrix in (("covariance", covariance), ("precision", precision)):
        if matrix is not None:
            check_tensor(OP, name, matrix, (dim, dim), None)
    if covariance is None and precision is None:
        raise ValueError(f"{OP}: covariance must be given, or precision, got neither")
    if dim < 1:
        raise ValueError(f"{OP}: x must have at least one column, got shape {tuple(x.shape)}")
    check_number(OP, "noise", noise, least=0)
    if threads is not None:
        check_number(OP, "threads", threads, least=1)
    tensors = {"x": x, "missing": missing, "mean": mean, "covariance": covariance, "precision": precision}
    refusals = {
        "cpu": lambda: _refusal(tensors),
        "cuda": lambda: _cuda_refusal(tensors),
        "triton": lambda: _triton_refusal(tensors),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(x, missing, mean.to(x.dtype), covariance, precision, noise=noise, spread=spread)
    arguments = (x, missing, mean, covariance, precision, noise, spread, threads or 0)
    direct = chosen == "cpu" and not torch.compiler.is_compiling()
    filled, deviation = _impl(*arguments) if direct else _op(*arguments, chosen)
    return filled, deviation


def _refusal(tensors: dict[str, Tensor | None]) -> str | None:
    return _gradient_refusal(tensors) or kernel_refusal({"x": tensors["x"]})


def _cuda_refusal(tensors: dict[str, Tensor | None]) -> str | None:
    return _gpu_refusal(tensors, CUDA_DIM_MOST)


def _triton_refusal(tensors: dict[str, Tensor | None]) -> str | None:
    from fastimpute.kernels.cholesky import DIM_MOST

    return _gpu_refusal(tensors, DIM_MOST)


def _gpu_refusal(tensors: dict[str, Tensor | None], most: int) -> str | None:
    x = tensors["x"]
    refusal = _gradient_refusal(tensors) or triton_refusal({"x": x}, (torch.float32, torch.float64))
    if refusal is None and x is not None and x.shape[1] > most:
        return f"windows have {x.shape[1]} cells, the kernel takes up to {most}"
    return refusal


def _gradient_refusal(tensors: dict[str, Tensor | None]) -> str | None:
    if wants_grad(*tensors.values()):
        return "gradients are required, which the kernel does not compute"
    return None


# The registered op takes float32, and float64 (in main memory through the scalar oracle); threads 0 is torch's number.


def _impl(
    x: Tensor,
    missing: Tensor,
    mean: Tensor,
    covariance: Tensor | None,
    precision: Tensor | None,
    noise: float,
    spread: bool,
    threads: int,
) -> tuple[Tensor, Tensor]:
    core = _native.core()
    kernel = core.gaussian_conditional_ref_f64
    if x.dtype != torch.float64:
        kernel = functools.partial(core.gaussian_conditional, backends.isa(), threads or torch.get_num_threads())
    return _run(kernel, x, missing, mean, *_matrices(covariance, precision, noise, torch.float64), spread)


def _cuda(
    x: Tensor,
    missing: Tensor,
    mean: Tensor,
    covariance: Tensor | None,
    precision: Tensor | None,
    noise: float,
    spread: bool,
    threads: int,
) -> tuple[Tensor, Tensor]:
    return _run_cuda(x, missing, mean, *_matrices(covariance, precision, noise, torch.float64), spread)


def _run_cuda(
    x: Tensor, missing: Tensor, mean: Tensor, covariance: Tensor | None, precision: Tensor | None, spread: bool
) -> tuple[Tensor, Tensor]:
    module = _native.cuda()
    rows, dim = x.shape
    with on_device_of(x):
        size = module.gaussian_conditional_scratch(rows, dim, covariance is not None, precision is not None)
        scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
        status = torch.full((rows,), -1, dtype=torch.int32, device=x.device)
        kernel = module.gaussian_conditional_f64 if x.dtype == torch.float64 else module.gaussian_conditional
        kernel = functools.partial(kernel, stream_of(x), address(status), address(scratch), size)
        outputs = _run(kernel, x, missing, mean, covariance, precision, spread)
    _raise_where_singular(status, dim)
    return outputs


def _run(
    kernel: Callable[..., None],
    x: Tensor,
    missing: Tensor,
    mean: Tensor,
    covariance: Tensor | None,
    precision: Tensor | None,
    spread: bool,
) -> tuple[Tensor, Tensor]:
    covariance = None if covariance is None else symmetric_rows(covariance)
    precision = None if precision is None else symmetric_rows(precision)
    mean, x, missing = mean.double().contiguous(), rows_contiguous(x), rows_contiguous(missing)
    filled = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    deviation = torch.empty_like(filled) if spread else torch.zeros_like(filled)
    kernel(
        x.shape[0],
        x.shape[1],
        address(x),
        row_stride(x),
        address(missing),
        row_stride(missing),
        address(mean),
        address(covariance),
        address(precision),
        address(filled),
        row_stride(filled),
        address(deviation) if spread else 0,
        row_stride(deviation),
    )
    return filled, deviation


def _triton(
    x: Tensor,
    missing: Tensor,
    mean: Tensor,
    covariance: Tensor | None,
    precision: Tensor | None,
    noise: float,
    spread: bool,
    threads: int,
) -> tuple[Tensor, Tensor]:
    return _run_triton(x, missing, mean, *_matrices(covariance, precision, noise, torch.float64), spread)


def _run_triton(
    x: Tensor, missing: Tensor, mean: Tensor, covariance: Tensor | None, precision: Tensor | None, spread: bool
) -> tuple[Tensor, Tensor]:
    from fastimpute.kernels import gaussian_conditional as kernel
    from fastimpute.kernels.cholesky import configuration
    from fastimpute.kernels.masked import lanes

    matrices = torch.stack([matrix for matrix in (precision, covariance) if matrix is not None])
    rows, dim = x.shape
    way = kernel.way_of(covariance is not None, precision is not None, spread)
    programs = min(rows, multiprocessors(x.device) * configuration(dim).programs)
    filled, deviation = x.new_empty(x.shape), x.new_zeros(x.shape)
    status = torch.full((rows,), -1, dtype=torch.int32, device=x.device)
    scratch = (
        torch.empty(programs * kernel.scratch_of(dim, way, spread), dtype=torch.float64, device=x.device),
        torch.empty(programs * lanes(dim), dtype=torch.int32, device=x.device),
    )
    inputs = (rows_contiguous(x), rows_contiguous(missing), mean.double().contiguous(), matrices)
    outputs = (filled, deviation if spread else None, status)
    with on_device_of(x):
        kernel.launch(*inputs, *outputs, scratch, way=way, programs=programs)
    _raise_where_singular(status, dim)
    return filled, deviation


def _raise_where_singular(status: Tensor, dim: int) -> None:
    """status (n,): negative, or the cell whose pivot is not positive, of the covariance plus D."""
    refused = (status >= 0).nonzero()
    if len(refused):
        from_covariance, cell = divmod(int(status[refused[0]]), dim)
        raise _singular("covariance" if from_covariance else "precision", int(refused[0]), cell)


def _fake(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


_by_backend = by_backend({"cpu": _impl, "cuda": _cuda, "triton": _triton})
_op = register(
    "gaussian_conditional",
    "(Tensor x, Tensor missing, Tensor mean, Tensor? covariance, Tensor? precision, float noise, bool spread, "
    "int threads, str backend) -> (Tensor, Tensor)",
    _by_backend,
    _fake,
    _by_backend,
)
no_gradient("gaussian_conditional", "the kernels compute no gradients; use backend='torch'")

"""`gaussian_whitening`: coordinates in which what a Gaussian leaves open of a window is white (arXiv 2510.02216).

    filled_m = mu_m - P_mm^-1 P_mo (x_o - mu_o)      P_mm = L L^T      deviation = sqrt(diag(P_mm^-1))

with P the precision, m the missing and o the observed cells of a window: L^T (x_m - filled_m) has unit covariance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

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

OP = "gaussian_whitening"
CUDA_DIM_MOST = 1024  # cells of a window


class WhitenedWindows(NamedTuple):
    """What `gaussian_whitening` returns of n windows with at most k missing cells, in the dtype of x where floating."""

    filled: Tensor
    deviation: Tensor
    cells: Tensor
    real: Tensor
    factor: Tensor
    inverse: Tensor


def missing_first(missing: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """The cells (n, k) of windows with the missing ones first, in order, and which of them are missing (n, k)."""
    most = most_missing(missing) if most is None else most
    cells = missing.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :most]
    return cells, missing.gather(1, cells)


def most_missing(missing: Tensor) -> int:
    """The largest number of missing cells of a window; 0 without windows."""
    return int(missing.sum(1).max()) if missing.numel() else 0


def reference(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor) -> WhitenedWindows:
    """`gaussian_whitening` in plain PyTorch, all windows padded to the largest k, in the dtype of `precision`, rounded
    to that of x at the end; differentiable."""
    cells, real = missing_first(missing)
    rows, most = cells.shape
    identity = torch.eye(most, dtype=precision.dtype, device=precision.device)
    both = real[:, :, None] & real[:, None, :]
    block = torch.where(both, precision[cells[:, :, None], cells[:, None, :]], identity)
    factor = _cholesky(block, cells)
    inverse = torch.linalg.solve_triangular(factor, identity.expand(rows, most, most), upper=False)
    mean = mean.to(precision.dtype)
    centred = torch.where(missing, 0.0, x.to(precision.dtype) - mean)
    pull = torch.where(real, -(centred @ precision).gather(1, cells), 0.0)
    moved = torch.zeros_like(centred).scatter(1, cells, torch.cholesky_solve(pull[:, :, None], factor)[:, :, 0])
    spread = torch.where(real, inverse.square().sum(1).sqrt(), 0.0)
    return WhitenedWindows(
        torch.where(missing, (moved + mean).to(x.dtype), x),
        torch.zeros_like(centred).scatter(1, cells, spread).to(x.dtype),
        cells,
        real,
        factor.to(x.dtype),
        inverse.to(x.dtype),
    )


def _cholesky(block: Tensor, cells: Tensor) -> Tensor:
    if not block.numel():
        return block
    lower: Tensor
    lower, bad = torch.linalg.cholesky_ex(block)
    if bool(bad.any()):
        window = int(bad.nonzero()[0, 0])
        raise _singular(window, int(cells[window, int(bad[window]) - 1]))
    return lower


def _singular(window: int, cell: int) -> ValueError:
    return ValueError(
        f"{OP}: precision must be positive definite, but in window {window} the pivot of cell {cell} is not positive"
    )


def gaussian_whitening(
    x: Tensor,
    missing: Tensor,
    mean: Tensor,
    precision: Tensor,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> WhitenedWindows:
    """Condition Gaussian windows on what is observed, with the factors that make the rest white (arXiv 2510.02216,
    section 2: mu_cond and the covariance P_mm^-1).

    The kernels compute in double and round once; a window costs what its own missing cells cost, not the largest
    window's. The factors are row-major: their users multiply a few rows by them from the right, ``rows @ factor``,
    which streams through them, and the gradient by those rows reads the same memory.

    Args:
        x: (n, D) windows in standardised units; what stands at missing cells is ignored, NaN included.
        missing: (n, D) bool, True where missing.
        mean: (D,) or (1, D) mean of a window, or (n, D), one for each; float64 is worth having.
        precision: (D, D) symmetric positive definite, the inverse of the covariance; float64 is worth having.
        backend: "auto", "cpu", "cuda", "triton" or "torch".
        threads: of the cpu kernel, None takes torch's; the bits do not depend on it.

    Returns:
        filled (n, D): conditional mean where missing, x bit for bit where observed; deviation (n, D): conditional
        standard deviation where missing, 0 where observed; cells (n, k) int64: the missing cells of a window in order,
        filled up to the largest number k of them with its observed cells in order; real (n, k) bool: which are missing;
        factor (n, k, k): L, beyond the missing cells the identity; inverse (n, k, k): L^-1.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range; a precision that is not positive definite
            (naming the window and the cell); or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import gaussian_whitening
        >>> precision = torch.linalg.inv(torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
        >>> x, missing = torch.tensor([[2.0, 0.0]]), torch.tensor([[False, True]])
        >>> white = gaussian_whitening(x, missing, torch.zeros(2), precision)
        >>> [round(part[0, 1].item(), 3) for part in (white.filled, white.deviation)]
        [1.6, 0.6]
        >>> round(white.inverse.item(), 3)
        0.6
    """
    check_tensor(OP, "x", x, (None, None), None)
    rows, dim = x.shape
    check_tensor(OP, "missing", missing, (rows, dim), torch.bool)
    each = isinstance(mean, Tensor) and mean.dim() == 2
    check_tensor(OP, "mean", mean, (1 if each and len(mean) == 1 else rows, dim) if each else (dim,), None)
    check_tensor(OP, "precision", precision, (dim, dim), None)
    if dim < 1:
        raise ValueError(f"{OP}: x must have at least one column, got shape {tuple(x.shape)}")
    if threads is not None:
        check_number(OP, "threads", threads, least=1)
    tensors = {"x": x, "missing": missing, "mean": mean, "precision": precision}
    refusals = {
        "cpu": lambda: _refusal(tensors),
        "cuda": lambda: _cuda_refusal(tensors),
        "triton": lambda: _triton_refusal(tensors),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(x, missing, mean, precision)
    arguments = (x, missing, mean, precision, most_missing(missing), threads or 0)
    direct = chosen == "cpu" and not torch.compiler.is_compiling()
    *parts, factors = _impl(*arguments) if direct else _op(*arguments, chosen)
    return WhitenedWindows(*parts, *factors)


def _refusal(tensors: dict[str, Tensor]) -> str | None:
    return _gradient_refusal(tensors) or kernel_refusal({"x": tensors["x"]})


def _cuda_refusal(tensors: dict[str, Tensor]) -> str | None:
    return _gpu_refusal(tensors, CUDA_DIM_MOST)


def _triton_refusal(tensors: dict[str, Tensor]) -> str | None:
    from fastimpute.kernels.cholesky import DIM_MOST

    return _gpu_refusal(tensors, DIM_MOST)


def _gpu_refusal(tensors: dict[str, Tensor], most: int) -> str | None:
    x = tensors["x"]
    refusal = _gradient_refusal(tensors) or triton_refusal({"x": x}, (torch.float32, torch.float64))
    if refusal is None and x.shape[1] > most:
        return f"windows have {x.shape[1]} cells, the kernel takes up to {most}"
    return refusal


def _gradient_refusal(tensors: dict[str, Tensor]) -> str | None:
    if wants_grad(*tensors.values()):
        return "gradients are required, which the kernel does not compute"
    return None


# The registered op takes float32, and float64 (in main memory through the scalar oracle); threads 0 is torch's number.
# Both factors come as one tensor (2, n, k, k): malloc gives memory back above twice its largest block, which two
# tensors of one size are at once, and faults on fresh pages take longer than the arithmetic.

_Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _impl(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor, most: int, threads: int) -> _Outputs:
    core = _native.core()
    kernel = core.gaussian_whitening_ref_f64
    if x.dtype != torch.float64:
        kernel = functools.partial(core.gaussian_whitening, backends.isa(), threads or torch.get_num_threads())
    return _run(kernel, x, missing, mean, precision, most)


def _cuda(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor, most: int, threads: int) -> _Outputs:
    module = _native.cuda()
    rows, dim = x.shape
    check_number(OP, "most", most, least=0, most=dim)
    with on_device_of(x):
        size = module.gaussian_whitening_scratch(rows, dim, most)
        scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
        status = torch.full((rows,), -1, dtype=torch.int32, device=x.device)
        kernel = module.gaussian_whitening_f64 if x.dtype == torch.float64 else module.gaussian_whitening
        kernel = functools.partial(kernel, stream_of(x), address(status), address(scratch), size)
        outputs = _run(kernel, x, missing, mean, precision, most)
    _raise_where_refused(status, dim, most)
    return outputs


def _run(
    kernel: Callable[..., None], x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor, most: int
) -> _Outputs:
    precision, mean = symmetric_rows(precision), mean.double().contiguous()
    x, missing = rows_contiguous(x), rows_contiguous(missing)
    rows, dim = x.shape
    outputs = _empty(x, most)
    kernel(
        (rows, dim, most),
        (address(x), row_stride(x)),
        (address(missing), row_stride(missing)),
        (address(mean), dim if mean.dim() == 2 and len(mean) > 1 else 0),
        address(precision),
        (*(address(part) for part in outputs[:4]), *(address(factor) for factor in outputs[4])),
    )
    return outputs


def _triton(x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor, most: int, threads: int) -> _Outputs:
    from fastimpute.kernels.cholesky import configuration
    from fastimpute.kernels.gaussian_whitening import launch, scratch_of
    from fastimpute.kernels.masked import lanes

    rows, dim = x.shape
    check_number(OP, "most", most, least=0, most=dim)
    outputs = _empty(x, most)
    status = torch.full((rows,), -1, dtype=torch.int32, device=x.device)
    programs = min(rows, multiprocessors(x.device) * configuration(dim).programs)
    scratch = (
        torch.empty(programs * scratch_of(dim, most), dtype=torch.float64, device=x.device),
        torch.empty(programs * lanes(dim), dtype=torch.int32, device=x.device),
    )
    inputs = (rows_contiguous(x), rows_contiguous(missing), mean.double().view(-1, dim).contiguous())
    with on_device_of(x):
        launch(*inputs, symmetric_rows(precision), (*outputs[:4], *outputs[4]), status, scratch, programs=programs)
    _raise_where_refused(status, dim, most)
    return outputs


def _raise_where_refused(status: Tensor, dim: int, most: int) -> None:
    """status (n,): negative, or the cell whose pivot is not positive, or dim if more than `most` cells are missing."""
    refused = (status >= 0).nonzero()
    if len(refused):
        cell = int(status[refused[0]])
        raise _singular(int(refused[0]), cell) if cell < dim else _too_few(most)


def _too_few(most: int) -> ValueError:
    return ValueError(f"{OP}: most must be that of all windows, got {most}")


def _fake(
    x: Tensor, missing: Tensor, mean: Tensor, precision: Tensor, most: int, threads: int, backend: str
) -> _Outputs:
    return _empty(x, most)


def _empty(x: Tensor, most: int) -> _Outputs:
    rows = x.shape[0]
    return (
        x.new_empty(x.shape),
        x.new_empty(x.shape),
        x.new_empty((rows, most), dtype=torch.int64),
        x.new_empty((rows, most), dtype=torch.bool),
        x.new_empty((2, rows, most, most)),
    )


_by_backend = by_backend({"cpu": _impl, "cuda": _cuda, "triton": _triton})
_op = register(
    "gaussian_whitening",
    "(Tensor x, Tensor missing, Tensor mean, Tensor precision, int most, int threads, str backend) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
    _by_backend,
    _fake,
    _by_backend,
)
no_gradient("gaussian_whitening", "the kernels compute no gradients; use backend='torch'")

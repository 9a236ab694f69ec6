"""`score_mlp`: the score of the network with a direct head, forward only.

score(x) = (W3 h2 + b3) / sigma [- P (x - mean)]  (arXiv 2602.01182; the head is this project's)
"""

from __future__ import annotations

from typing import Any, cast

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
    wants_grad,
)
from fastimpute.ops.cuda_pack import cuda_pack, cuda_refusal, gaussian_part
from fastimpute.ops.library import by_backend, multiprocessors, no_gradient, on_device_of, register, stream_of
from fastimpute.ops.network import (
    NETWORK_SCHEMA,
    Network,
    check_network,
    check_precision,
    gpu_network_refusal,
    hidden_layers,
    network_refusal,
    product,
    triton_network_refusal,
)
from fastimpute.ops.pack import mlp_pack
from fastimpute.ops.triton_pack import triton_pack

OP = "score_mlp"


def reference(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    sigma: float | Tensor,
    modulation: Tensor,
    modulation_index: Tensor | None = None,
    precision_matrix: Tensor | None = None,
    mean: Tensor | None = None,
    *,
    precision: str = "fp32",
) -> Tensor:
    """`score_mlp` in plain PyTorch for any floating dtype; differentiable in every argument."""
    network = Network(w1, b1, w2, b2, w3, b3, modulation, modulation_index, precision_matrix, mean)
    _, second = hidden_layers(x, network, precision)
    out = product(second.output, w3.T, precision) + b3
    score = out / (sigma[:, None] if isinstance(sigma, Tensor) else sigma)
    if precision_matrix is not None and mean is not None:
        score = score - (x - mean) @ precision_matrix
    return score


def score_mlp(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    sigma: float | Tensor,
    modulation: Tensor,
    modulation_index: Tensor | None = None,
    precision_matrix: Tensor | None = None,
    mean: Tensor | None = None,
    *,
    backend: str = "auto",
    precision: str = "fp32",
) -> Tensor:
    """Score of the network with a direct head (arXiv 2602.01182; the head is this project's).

    All values are in standardised units.

    Args:
        x: particles, (n, D). The kernels take float32, the torch backend any floating dtype.
        w1: (hidden, D). b1: (hidden,). w2: (hidden, hidden). b2: (hidden,). w3: (D, hidden). b3: (D,).
        sigma: noise level, one positive number or (n,).
        modulation: (m, 4, hidden): gain1, shift1, gain2, shift2 of the adaptive layer norms.
        modulation_index: (n,) int64, the row of `modulation` for each particle; None when m is 1.
        precision_matrix: (D, D) symmetric, the Gaussian part's P; None: no Gaussian part.
        mean: (D,), the Gaussian part's mean; given exactly when `precision_matrix` is.
        backend: "auto", "cpu", "cuda", "triton" or "torch". Only the torch backend differentiates.
        precision: "fp32", or "bf16": bfloat16 operands in the network's matrix products, float32 sums. The Gaussian
        part
            is always float32.

    Returns:
        The score, (n, D).

    Raises:
        ValueError, TypeError: an argument of the wrong shape or dtype, or an explicit backend that cannot serve.

    Example:
        >>> import torch
        >>> from fastimpute.ops import score_mlp
        >>> x, w1, w2, w3 = torch.randn(5, 24), torch.randn(256, 24), torch.randn(256, 256), torch.randn(24, 256)
        >>> b = torch.zeros(256)
        >>> score_mlp(x, w1, b, w2, b, w3, torch.zeros(24), 0.1, torch.zeros(1, 4, 256)).shape
        torch.Size([5, 24])
    """
    network = Network(w1, b1, w2, b2, w3, b3, modulation, modulation_index, precision_matrix, mean)
    check_precision(OP, precision)
    check_tensor(OP, "x", x, (None, None), None)
    check_network(OP, network, "direct", x.shape[0])
    check_tensor(OP, "x", x, (None, network.dim), network.w1.dtype)
    if isinstance(sigma, Tensor):
        check_tensor(OP, "sigma", sigma, (x.shape[0],), x.dtype)
    else:
        check_number(OP, "sigma", sigma, above=0)
    each = {"x": x, "sigma": sigma if isinstance(sigma, Tensor) else None}
    refusals = {
        "cpu": lambda: _refusal(each, network, precision),
        "cuda": lambda: _cuda_refusal(each, network, precision),
        "triton": lambda: _triton_refusal(each, network),
    }
    chosen = backends.choose(OP, backend, {**each, **network._asdict()}, refusals)
    if chosen == "torch":
        return reference(x, *network[:6], sigma, *network[6:], precision=precision)
    levels = sigma if isinstance(sigma, Tensor) else x.new_full((x.shape[0],), sigma)
    run = _op if chosen != "cpu" or torch.compiler.is_compiling() else _impl
    return cast(Tensor, run(x, levels, *network, precision, chosen))


_NO_GRADIENT = "gradients are required, which the kernel does not compute"


def _refusal(each: dict[str, Tensor | None], network: Network, precision: str) -> str | None:
    if wants_grad(*each.values()):
        return _NO_GRADIENT
    return kernel_refusal(each) or network_refusal(network, precision, backends.isa())


def _triton_refusal(each: dict[str, Tensor | None], network: Network) -> str | None:
    from fastimpute.kernels.matrix import WIDTHS

    return _NO_GRADIENT if wants_grad(*each.values()) else triton_network_refusal(network, each, WIDTHS)


def _cuda_refusal(each: dict[str, Tensor | None], network: Network, precision: str) -> str | None:
    if wants_grad(*each.values()):
        return _NO_GRADIENT
    return gpu_network_refusal(network, each) or cuda_refusal(network, "direct", precision)


# The registered op takes float32, and float64 through the scalar oracle.


def _run_cpu(x: Tensor, sigma: Tensor, network: Network, precision: str) -> Tensor:
    x = rows_contiguous(x)
    sigma = sigma.contiguous()
    modulation = network.modulation.contiguous()
    index = None if network.modulation_index is None else network.modulation_index.contiguous()
    rows, dim = x.shape
    score = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    arguments = (
        rows,
        address(x),
        row_stride(x),
        address(sigma),
        address(modulation),
        modulation.shape[0],
        address(index),
        address(score),
        dim,
    )
    core = _native.core()
    if x.dtype == torch.float64:
        weights = network.dense_weights()
        core.score_mlp_ref_f64((network.hidden, dim, *map(address, weights)), *arguments)
    else:
        core.score_mlp(mlp_pack(network, "direct", precision), torch.get_num_threads(), *arguments)
    return score


def _run_triton(x: Tensor, sigma: Tensor, network: Network, precision: str) -> Tensor:
    from fastimpute.kernels import score_mlp as kernel
    from fastimpute.kernels.matrix import padded

    x = rows_contiguous(x)
    pack = triton_pack(network, precision, padded(network.dim))
    index = None if network.modulation_index is None else network.modulation_index.contiguous()
    tiles = kernel.configuration(pack.w1.element_size())
    programs = min(multiprocessors(x.device), -(-x.shape[0] // tiles.rows))
    size = programs * tiles.rows * network.hidden
    score = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    scratch = (
        torch.empty(size, dtype=pack.w1.dtype, device=x.device),
        torch.empty(size, dtype=x.dtype, device=x.device),
    )
    modulation = network.modulation.contiguous()
    with on_device_of(x):
        kernel.launch(x, sigma.contiguous(), pack, modulation, index, score, scratch, programs=programs, tiles=tiles)
    return score


def _run_cuda(x: Tensor, sigma: Tensor, network: Network, precision: str) -> Tensor:
    x = rows_contiguous(x)
    sigma, modulation = sigma.contiguous(), network.modulation.contiguous()
    index = None if network.modulation_index is None else network.modulation_index.contiguous()
    pack, gaussian = cuda_pack(network, "direct"), gaussian_part(network)
    rows, dim = x.shape
    score = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with on_device_of(x):
        _native.cuda().score_mlp(
            stream_of(x),
            dim,
            address(pack),
            *map(address, gaussian),
            rows,
            address(x),
            row_stride(x),
            address(sigma),
            address(modulation),
            modulation.shape[0],
            address(index),
            address(score),
            dim,
        )
    return score


_run = by_backend({"cpu": _run_cpu, "cuda": _run_cuda, "triton": _run_triton})


def _impl(x: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
    *network, precision, backend = rest
    return cast(Tensor, _run(x, sigma, Network(*network), precision, backend))


def _fake(x: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


_op = register(
    "score_mlp",
    f"(Tensor x, Tensor sigma, {NETWORK_SCHEMA}, str precision, str backend) -> Tensor",
    _impl,
    _fake,
    _impl,
)
no_gradient("score_mlp", "the kernels compute no gradients; use backend='torch'")

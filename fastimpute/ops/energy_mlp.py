"""`energy_mlp`: log p, its score and its Hessian-vector product of the energy network, in one pass.

log p(x) = w3 . h2 + b3 [- 1/2 (x - mean)^T P (x - mean)],  score = d log p / dx,  hvp = H v  (arXiv 2602.01182)
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops import backends
from fastimpute.ops.checks import (
    address,
    check_tensor,
    kernel_refusal,
    row_stride,
    rows_contiguous,
    wants_grad,
)
from fastimpute.ops.cuda_pack import cuda_pack, cuda_refusal, gaussian_part
from fastimpute.ops.library import by_backend, library, multiprocessors, on_device_of, register, stream_of
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

OP = "energy_mlp"


def reference(
    x: Tensor,
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
    vector: Tensor | None = None,
    hvp: bool = False,
    precision: str = "fp32",
) -> tuple[Tensor, ...]:
    """`energy_mlp` in plain PyTorch, in closed form, for any floating dtype; differentiable in every argument."""
    network = Network(w1, b1, w2, b2, w3, b3, modulation, modulation_index, precision_matrix, mean)
    first, second = hidden_layers(x, network, precision)
    log_p = second.output @ w3 + b3
    grad2 = second.backward(w3.expand_as(second.output))
    grad1_out = product(grad2, w2, precision)
    grad1 = first.backward(grad1_out)
    score = product(grad1, w1, precision)
    if precision_matrix is not None and mean is not None:
        pull = (x - mean) @ precision_matrix
        log_p = log_p - 0.5 * (pull * (x - mean)).sum(-1)
        score = score - pull
    if not hvp:
        return log_p, score

    direction = score if vector is None else vector
    moved1 = first.tangent(product(direction, w1.T, precision))
    moved2 = second.tangent(product(moved1.output, w2.T, precision))
    weight = w3.expand_as(second.output)
    grad2_tangent = second.backward_tangent(weight, torch.zeros_like(weight), moved2)
    grad1_tangent = first.backward_tangent(grad1_out, product(grad2_tangent, w2, precision), moved1)
    curved = product(grad1_tangent, w1, precision)
    if precision_matrix is not None:
        curved = curved - direction @ precision_matrix
    return log_p, score, curved


def energy_mlp(
    x: Tensor,
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
    vector: Tensor | None = None,
    hvp: bool = False,
    backend: str = "auto",
    precision: str = "fp32",
) -> tuple[Tensor, ...]:
    """log p, score and, if asked for, Hessian-vector product of the energy network (arXiv 2602.01182).

    All values are in standardised units; log p is known up to a constant.

    Args:
        x: particles, (n, D). The kernels take float32, the torch backend any floating dtype.
        w1: (hidden, D). b1: (hidden,). w2: (hidden, hidden). b2: (hidden,). w3: (hidden,). b3: (1,), as in
        torch.nn.Linear.
        modulation: (m, 4, hidden): gain1, shift1, gain2, shift2 of the adaptive layer norms.
        modulation_index: (n,) int64, the row of `modulation` for each particle; None when m is 1.
        precision_matrix: (D, D) symmetric, the Gaussian part's P; None: no Gaussian part.
        mean: (D,), the Gaussian part's mean; given exactly when `precision_matrix` is.
        vector: (n, D), the v of H v; None: the score itself.
        hvp: also return H v.
        backend: "auto", "cpu", "cuda", "triton" or "torch".
        precision: "fp32", or "bf16": bfloat16 operands in the network's matrix products, float32 sums. The Gaussian
        part
            is always float32.

    Returns:
        log_p (n,) and score (n, D); with `hvp` also H v (n, D).

    Raises:
        ValueError, TypeError: an argument of the wrong shape or dtype, or an explicit backend that cannot serve.
        RuntimeError: differentiating H v with respect to x on a backend other than "torch".

    Example:
        >>> import torch
        >>> from fastimpute.ops import energy_mlp
        >>> x, w1, w2 = torch.randn(5, 24), torch.randn(256, 24) / 5, torch.randn(256, 256) / 16
        >>> b, w3, b3 = torch.zeros(256), torch.randn(256) / 16, torch.zeros(1)
        >>> log_p, score = energy_mlp(x, w1, b, w2, b, w3, b3, torch.zeros(1, 4, 256))
        >>> log_p.shape, score.shape
        (torch.Size([5]), torch.Size([5, 24]))
    """
    network = Network(w1, b1, w2, b2, w3, b3, modulation, modulation_index, precision_matrix, mean)
    check_precision(OP, precision)
    check_tensor(OP, "x", x, (None, None), None)
    check_network(OP, network, "energy", x.shape[0])
    check_tensor(OP, "x", x, (None, network.dim), network.w1.dtype)
    if vector is not None:
        check_tensor(OP, "vector", vector, tuple(x.shape), x.dtype)
        if not hvp:
            raise ValueError(f"{OP}: vector must be None unless hvp is True")
    tensors = {"x": x, "vector": vector, **network._asdict()}
    refusals = {
        "cpu": lambda: _refusal(x, vector, network, precision),
        "cuda": lambda: _cuda_refusal(x, vector, network, precision),
        "triton": lambda: _triton_refusal(x, vector, network),
    }
    chosen = backends.choose(OP, backend, tensors, refusals)
    if chosen == "torch":
        return reference(x, *network, vector=vector, hvp=hvp, precision=precision)
    differentiable = wants_grad(x, vector)
    recorded = differentiable or chosen != "cpu" or torch.compiler.is_compiling()
    settings = (precision, chosen)
    if not hvp:
        return (_op if recorded else _impl)(x, *network, *settings)
    if differentiable and vector is None:
        vector = _op(x, *network, *settings)[1]
    return (_op_hvp if recorded else _impl_hvp)(x, vector, *network, *settings)


def _refusal(x: Tensor, vector: Tensor | None, network: Network, precision: str) -> str | None:
    return kernel_refusal({"x": x, "vector": vector}) or network_refusal(network, precision, backends.isa())


def _triton_refusal(x: Tensor, vector: Tensor | None, network: Network) -> str | None:
    from fastimpute.kernels.matrix import WIDTHS

    return triton_network_refusal(network, {"x": x, "vector": vector}, WIDTHS)


def _cuda_refusal(x: Tensor, vector: Tensor | None, network: Network, precision: str) -> str | None:
    tensors = {"x": x, "vector": vector}
    return gpu_network_refusal(network, tensors) or cuda_refusal(network, "energy", precision)


# The registered op takes float32, and float64 through the scalar oracle: what gradcheck needs.

Outputs = tuple[Tensor, Tensor, Tensor | None]


def _run_cpu(x: Tensor, vector: Tensor | None, network: Network, want_hvp: bool, precision: str) -> Outputs:
    x = rows_contiguous(x)
    vector = None if vector is None else rows_contiguous(vector)
    modulation = network.modulation.contiguous()
    index = None if network.modulation_index is None else network.modulation_index.contiguous()
    rows, dim = x.shape
    log_p = torch.empty(rows, dtype=x.dtype, device=x.device)
    score = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    curved = torch.empty_like(score) if want_hvp else None
    arguments = (
        rows,
        address(x),
        row_stride(x),
        address(modulation),
        modulation.shape[0],
        address(index),
        address(vector),
        0 if vector is None else row_stride(vector),
        want_hvp,
        address(log_p),
        address(score),
        dim,
        address(curved),
        dim,
    )
    core = _native.core()
    if x.dtype == torch.float64:
        weights = network.dense_weights()
        core.energy_mlp_ref_f64((network.hidden, dim, *map(address, weights)), *arguments)
    else:
        core.energy_mlp(mlp_pack(network, "energy", precision), torch.get_num_threads(), *arguments)
    return log_p, score, curved


def _run_triton(x: Tensor, vector: Tensor | None, network: Network, want_hvp: bool, precision: str) -> Outputs:
    from fastimpute.kernels import energy_mlp as kernel
    from fastimpute.kernels.matrix import padded

    x = rows_contiguous(x)
    vector = None if vector is None else rows_contiguous(vector)
    pack = triton_pack(network, precision, padded(network.dim))
    index = None if network.modulation_index is None else network.modulation_index.contiguous()
    tiles = kernel.configuration(pack.w1.element_size(), want_hvp)
    programs = min(multiprocessors(x.device), -(-x.shape[0] // tiles.rows))
    size = programs * tiles.rows * network.hidden
    log_p = torch.empty(x.shape[0], dtype=x.dtype, device=x.device)
    score = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    curved = torch.empty_like(score) if want_hvp else None
    operands = torch.empty(size, dtype=pack.w1.dtype, device=x.device)
    states = torch.empty(size * kernel.state_tiles(want_hvp), dtype=x.dtype, device=x.device)
    with on_device_of(x):
        kernel.launch(
            x,
            vector,
            pack,
            network.modulation.contiguous(),
            index,
            (log_p, score, curved),
            (operands, states),
            programs=programs,
            tiles=tiles,
        )
    return log_p, score, curved


def _run_cuda(x: Tensor, vector: Tensor | None, network: Network, want_hvp: bool, precision: str) -> Outputs:
    x = rows_contiguous(x)
    vector = None if vector is None else rows_contiguous(vector)
    pack, gaussian = cuda_pack(network, "energy"), gaussian_part(network)
    modulation = network.modulation.contiguous()
    index = None if network.modulation_index is None else network.modulation_index.contiguous()
    rows, dim = x.shape
    log_p = torch.empty(rows, dtype=x.dtype, device=x.device)
    score = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    curved = torch.empty_like(score) if want_hvp else None
    module = _native.cuda()
    with on_device_of(x):
        scratch = torch.empty(module.energy_scratch_bytes(want_hvp), dtype=torch.uint8, device=x.device)
        module.energy_mlp(
            stream_of(x),
            dim,
            address(pack),
            *map(address, gaussian),
            address(scratch),
            scratch.numel(),
            rows,
            address(x),
            row_stride(x),
            address(modulation),
            modulation.shape[0],
            address(index),
            address(vector),
            0 if vector is None else row_stride(vector),
            want_hvp,
            address(log_p),
            address(score),
            dim,
            address(curved),
            dim,
        )
    return log_p, score, curved


_run = by_backend({"cpu": _run_cpu, "cuda": _run_cuda, "triton": _run_triton})


def _impl(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *network, precision, backend = rest
    log_p, score, _ = _run(x, None, Network(*network), False, precision, backend)
    return log_p, score


def _impl_hvp(x: Tensor, vector: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    *network, precision, backend = rest
    log_p, score, curved = _run(x, vector, Network(*network), True, precision, backend)
    assert curved is not None
    return log_p, score, curved


def _fake(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0]), x.new_empty(x.shape)


def _fake_hvp(x: Tensor, vector: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape[0]), x.new_empty(x.shape), x.new_empty(x.shape)


_SETTINGS = f"{NETWORK_SCHEMA}, str precision, str backend"
_op = register("energy_mlp", f"(Tensor x, {_SETTINGS}) -> (Tensor, Tensor)", _impl, _fake, _impl)
_op_hvp = register(
    "energy_mlp_hvp",
    f"(Tensor x, Tensor? vector, {_SETTINGS}) -> (Tensor, Tensor, Tensor)",
    _impl_hvp,
    _fake_hvp,
    _impl_hvp,
)

# The chain value -> score -> H v. Each backward computes from the inputs alone: an intermediate kept from the forward
# pass
# would make the second derivative silently wrong.


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], leading: int) -> None:
    if any(ctx.needs_input_grad[leading:]):
        raise RuntimeError(
            f"{OP}: the kernels have no gradients for weights, modulation or Gaussian part; use backend='torch'"
        )
    ctx.set_materialize_grads(False)
    *tensors, precision, backend = inputs
    ctx.settings = (precision, backend)
    ctx.save_for_backward(*tensors)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _keep_inputs(ctx, inputs, leading=1)


def _backward(ctx: Any, grad_log_p: Tensor | None, grad_score: Tensor | None) -> tuple[Tensor | None, ...]:
    x, *network = ctx.saved_tensors
    grad = _first_order(x, network, ctx.settings, grad_log_p, grad_score)
    return (grad, *([None] * (len(network) + 2)))


def _first_order(
    x: Tensor, network: list[Any], settings: tuple[str, str], grad_log_p: Tensor | None, grad_score: Tensor | None
) -> Tensor | None:
    if grad_score is None:
        return None if grad_log_p is None else grad_log_p[:, None] * _op(x, *network, *settings)[1]
    _, score, curved = _op_hvp(x, grad_score, *network, *settings)
    return cast(Tensor, curved if grad_log_p is None else curved + grad_log_p[:, None] * score)


def _setup_hvp(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _keep_inputs(ctx, inputs, leading=2)


def _backward_hvp(
    ctx: Any, grad_log_p: Tensor | None, grad_score: Tensor | None, grad_curved: Tensor | None
) -> tuple[Tensor | None, ...]:
    x, vector, *network = ctx.saved_tensors
    if grad_curved is not None and (ctx.needs_input_grad[0] or vector is None):
        raise RuntimeError(
            f"{OP}: H v cannot be differentiated with respect to x by the kernels (a third derivative); "
            "use backend='torch'"
        )
    grad_x = grad_vector = None
    if ctx.needs_input_grad[0]:
        grad_x = _first_order(x, network, ctx.settings, grad_log_p, grad_score)
    if grad_curved is not None and ctx.needs_input_grad[1]:
        grad_vector = _op_hvp(x, grad_curved, *network, *ctx.settings)[2]  # H is symmetric
    return (grad_x, grad_vector, *([None] * (len(network) + 2)))


torch.library.register_autograd("fastimpute::energy_mlp", _backward, setup_context=_setup, lib=library)
torch.library.register_autograd("fastimpute::energy_mlp_hvp", _backward_hvp, setup_context=_setup_hvp, lib=library)

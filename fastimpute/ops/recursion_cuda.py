"""`proximal_recursion` on a GPU by the compiled kernels: one launch for all iterations of all patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastimpute import _native
from fastimpute.ops.checks import address, wants_grad
from fastimpute.ops.cuda_pack import cuda_pack, cuda_refusal, gaussian_part
from fastimpute.ops.library import on_device_of, stream_of
from fastimpute.ops.network import Network, gpu_network_refusal
from fastimpute.ops.recursion_arguments import Patches, Settings


def refusal(series: Tensor, network: Network, settings: Settings, log_ref: Tensor | None, precision: str) -> str | None:
    """Why the kernels cannot serve these arguments; None when they can."""
    if wants_grad(series, log_ref):
        return "gradients are required, which the kernel does not compute"
    tensors = {"series": series, "log_ref": log_ref}
    reason = gpu_network_refusal(network, tensors) or cuda_refusal(network, settings.head, precision)
    if reason is None and (settings.eta_w > 0 or log_ref is not None):
        reason = _native.cuda().group_refusal(settings.group)
    return reason


def most_on_a_cell(patches: Patches) -> int:
    """A bound on the patches that share a cell: the windows that share a time step, once for each set of sensors."""
    starts = patches.starts
    if patches.total == 0:
        return 1
    behind = torch.searchsorted(starts, starts + patches.window)
    together = behind - torch.searchsorted(starts, starts)
    return int(together.max()) * patches.columns.shape[0]


def run(arguments: tuple[Any, ...], patches: Patches, network: Network, head: str, like: Tensor) -> None:
    """Queues the kernels; `arguments` are those the cpu kernel takes behind its pack and threads, all on `like`'s
    GPU."""
    module = _native.cuda()
    pack, gaussian = cuda_pack(network, head), gaussian_part(network)
    with on_device_of(like):
        needed = module.recursion_scratch_bytes(head, *arguments)
        scratch = torch.empty(needed, dtype=torch.uint8, device=like.device)
        cover = most_on_a_cell(patches)
        module.proximal_recursion(
            stream_of(like),
            address(pack),
            *map(address, gaussian),
            address(scratch),
            needed,
            cover,
            head,
            *arguments,
        )

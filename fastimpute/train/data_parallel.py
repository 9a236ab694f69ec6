"""Training by several processes, to the bits of one.

A step of training is cut into pieces that do not depend on who does them (`fastimpute.crew`). Several processes, the
ranks of a torch.distributed group, share the pieces out; every rank then gets the gradients of all of them and adds
them in the order of the pieces, so that all ranks take the step that one process would have taken. Everything else, the
drawing of a batch and the optimiser, every rank does for itself.

torch's DistributedDataParallel is not used, for three reasons. It adds up what each rank has summed already, in an
order that depends on their number and on how a ring cuts a bucket: with three or more summands other bits. It averages
over all ranks, also those beyond the number of pieces. And it waits for `backward` into parameters, where gradients
here come from a kernel or from `torch.autograd.grad`; a communication hook comes too late to change that. Sending each
piece as it is costs two ranks the bytes of a ring's all-reduce: either way a rank receives one gradient per step. (Of a
wide score network's direct head the activations are sent as well, see `fastimpute.ops.shared_score_matching`.)

    torchrun --standalone --nproc-per-node 2 --max-restarts 1 fit.py

    # fit.py
    import fastimpute as fi
    from fastimpute.train.data_parallel import data_parallel

    with data_parallel() as replicas:  # one process, where torchrun did not start this
        imputer = fi.DiTImputer(random_state=0, checkpoint="training.safetensors").fit(X)
        if replicas.number == 0:
            imputer.save("model.safetensors")

Inside the block every rank must fit the same imputers to the same data. A killed rank ends the group; torchrun starts
it anew, a denoiser goes on from its checkpoint, the short trainings of score networks begin anew, and the bits are the
same. Outside of such a block nothing is shared, whatever group there is: a rank may fit what the others do not have.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastimpute.crew import Crew

Piece = TypeVar("Piece")
Gradients = tuple[Tensor, tuple[Tensor, ...]]  # a loss and the gradients by parameters, of a piece


@dataclass(frozen=True)
class Replicas:
    """The processes that train together.

    Attributes:
        number: of this one, from 0.
        count: how many.

    Example:
        >>> Replicas.here()
        Replicas(number=0, count=1)
    """

    number: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Replicas:
        """Those of the innermost `data_parallel` block that this process is in; one outside."""
        return _innermost[-1]

    def exchange(self, owned: Sequence[Sequence[Tensor]]) -> None:
        """Send ``owned[r]`` from rank r to all others, into their tensors of the same shapes, to the bit.

        Args:
            owned: of each rank, contiguous tensors; where a rank owns nothing, nothing is sent.

        Raises:
            RuntimeError: a rank has ended.
            ValueError: the group serves neither the tensors' device nor main memory.
        """
        sent = []
        for owner, tensors in enumerate(owned):
            if sum(tensor.numel() for tensor in tensors):
                place = _meeting_place(tensors[0].device)
                size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
                mine = owner == self.number
                buffer = _bytes(tensors).to(place) if mine else torch.empty(size, dtype=torch.uint8, device=place)
                sent.append((mine, tensors, buffer, dist.broadcast(buffer, owner, async_op=True)))
        for mine, tensors, buffer, handle in sent:
            handle.wait()
            if not mine:
                _fill(tensors, buffer)

    def differentiate(
        self,
        workers: Crew,
        task: Callable[[Piece], Gradients],
        pieces: Sequence[Piece],
        blank: Callable[[Piece], Gradients],
    ) -> list[Gradients]:
        """``task`` of every piece, in their order, in every rank; rank r does pieces r, r + count, ...

        Ranks beyond the number of pieces only receive.

        Args:
            workers: who does a rank's pieces.
            task: loss and gradients of a piece.
            pieces: the same in every rank.
            blank: contiguous tensors of the shapes that `task` returns, for those of others.
        """
        if self.count == 1:
            return workers.map(task, pieces)
        results = [blank(piece) for piece in pieces]
        own = range(self.number, len(pieces), self.count)
        for index, result in zip(own, workers.map(task, [pieces[index] for index in own]), strict=True):
            results[index] = result
        self.exchange(
            [
                [tensor for loss, gradients in results[rank :: self.count] for tensor in (loss, *gradients)]
                for rank in range(self.count)
            ]
        )
        return results

    def agree(self, what: str, tensors: Sequence[Tensor], settings: object = None) -> None:
        """Make sure that all ranks are about to train the same thing on the same data.

        Raises:
            ValueError: in every rank, if they are not.
        """
        if self.count == 1:
            return
        digest = hashlib.sha256(repr((what, settings, [tuple(tensor.shape) for tensor in tensors])).encode())
        for tensor in tensors:
            digest.update(_bytes([tensor.cpu()]).numpy().tobytes())
        found = torch.empty(self.count, digest.digest_size, dtype=torch.uint8)
        found[self.number] = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
        self.exchange([[row] for row in found])
        if not bool((found == found[0]).all()):
            raise ValueError(
                f"{what}: expected the same data, settings and checkpoint in every rank inside data_parallel, got "
                "different ones; what one rank fits for itself belongs outside"
            )


ONE = Replicas()
_innermost = [ONE]  # of the process, not of a thread: trainings run in threads of their own


@contextmanager
def data_parallel(device: str = "cpu") -> Iterator[Replicas]:
    """Inside, imputers are fitted by all processes of a group together.

    The group is torch.distributed's default one, which stays, or that of the processes that torchrun started, joined
    for the length of the block: by nccl for a GPU, by gloo for the rest. Without either the block runs as ever.

    Args:
        device: what the ranks compute on.

    Example:
        >>> with data_parallel() as replicas:
        ...     replicas.count
        1
    """
    there = dist.is_available() and dist.is_initialized()
    join = not there and dist.is_available() and "WORLD_SIZE" in os.environ
    if join:
        _join("cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo")
    _innermost.append(Replicas(dist.get_rank(), dist.get_world_size()) if there or join else ONE)
    try:
        yield _innermost[-1]
        if join:
            dist.barrier()  # what was sent last has arrived
    finally:
        _innermost.pop()
        if join:
            dist.destroy_process_group()


def _join(backend: str) -> None:
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    # torchrun keeps one store over its restarts: the addresses of those that were killed must not be taken for ours.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(backend, store=PrefixStore(attempt, store), rank=rank, world_size=count)


def _meeting_place(device: torch.device) -> torch.device:
    """Where the group exchanges tensors that lie on a device: there by nccl, else in main memory."""
    served = dict(part.split(":") for part in dist.get_backend_config().split(","))
    if served.get(device.type) == "nccl":
        return device
    if "cpu" not in served:
        raise ValueError(
            f"data_parallel: expected a process group for tensors on the {device.type} (init_process_group('gloo') or "
            f"'cpu:gloo,cuda:nccl'), got one for {', '.join(served)}"
        )
    return torch.device("cpu")


def _bytes(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).view(torch.uint8) for tensor in tensors])


def _fill(tensors: Sequence[Tensor], buffer: Tensor) -> None:
    parts = torch.split(buffer, [tensor.numel() * tensor.element_size() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.view(-1).view(torch.uint8).copy_(part)

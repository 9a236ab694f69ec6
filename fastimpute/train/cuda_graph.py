"""Steps on a GPU without their launches: captured once as a CUDA graph, then replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_log = logging.getLogger("fastimpute")
WARM_UP_STEPS = 3  # before capturing: lazy initialisation and the optimiser's state happen in them


def replayed(step: Callable[[], Tensor], count: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Runs ``step`` ``count`` times on the current device and yields what each returned.

    A step of small kernels is bound by launching them; a graph launches them all at once. Where capturing fails, the
    steps run one by one, with a log line saying why.

    Args:
        step: computes on the GPU without asking for a value, always on the same tensors.
        count: how often.
        generator: what the step draws from.
    """
    eager = min(WARM_UP_STEPS, count)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        results = [step() for _ in range(eager)]
    torch.cuda.current_stream().wait_stream(side)
    yield from results
    if count == eager:
        return
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    try:
        # Other threads may train at the same time: their calls do not concern this capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = step()
    except RuntimeError as error:
        _log.warning("training steps are launched one by one: the CUDA graph was not captured (%s)", error)
        for _ in range(count - eager):
            yield step()
        return
    for _ in range(count - eager):
        graph.replay()
        yield result.clone()

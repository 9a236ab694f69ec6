"""score_matching's Triton kernels: run, as the compilers see them, and when they serve."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from networks import random_network, to_dtype
from test_score_matching import step
from triton_builds import CAPABILITIES, PLACES, SHARED_MOST, Build, build, run_kernel_tests

from fastimpute.crew import crew
from fastimpute.kernels import score_matching as kernel
from fastimpute.kernels.matrix import padded
from fastimpute.nn import ScoreMLP
from fastimpute.ops import backends
from fastimpute.ops.score_matching import _triton_refusal
from fastimpute.train.data_parallel import ONE
from fastimpute.train.score_matching import Batch, _differentiate

FLOATS = {
    "pack": ("w1", "w2", "w3"),
    "rows": ("x", "target", "b1", "b2", "b3", "modulation", "state", "loss"),
    "products": ("state", "partial", "modulation"),
    "sums": ("partial", "loss", "w1", "b1", "w2", "b2", "w3", "b3", "total_loss"),
}
OPERANDS = {"pack": ("packed",), "rows": ("packed", "operand"), "products": ("operand",), "sums": ()}
# Arguments that no number of rows makes large.
SMALL = tuple(f"{name}_ptr" for name in ("packed", "w1", "b1", "w2", "b2", "w3", "b3", "loss", "total_loss"))
CASES = [*(("bf16", capability) for capability in CAPABILITIES), ("fp32", 90)]


def compiled(
    which: str, capability: int, element: str, *, dim: int = 168, hidden: int = 256, weighted: bool = False,
    further: bool = True, **numbers: int,
) -> Build:  # fmt: skip
    size = 2 if element == "bf16" else 4
    tiles = kernel.CONFIGURATIONS[size]
    pointers = dict.fromkeys(FLOATS[which], "fp32") | dict.fromkeys(OPERANDS[which], element)
    constants: dict[str, Any] = {
        "D": dim, "PADDED": padded(dim), "H": hidden, "SIZE": kernel.PACKED, "FURTHER": further,
        "SQUARES": kernel.sizes(512, dim, hidden, size).squares, "ROWS": tiles.rows, "COLUMNS": tiles.columns,
        "HIDDEN": tiles.hidden, "CHUNK": tiles.chunk, **numbers,
    }  # fmt: skip
    if which == "rows":
        if weighted:
            pointers["weight"] = "fp32"
        else:
            constants["weight_ptr"] = None
    function = getattr(kernel, f"score_matching_{which}_kernel")
    warps, stages = (tiles.warps, tiles.stages) if which == "rows" else (4, 2 if which == "products" else 3)
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    named = {f"{name}_ptr": kind for name, kind in pointers.items()}
    return build(function, capability, named, constants, warps=warps, stages=stages)


@pytest.mark.parametrize("place", PLACES)
def test_does_what_its_own_tests_ask(place: str) -> None:
    run_kernel_tests("score_matching", place)


@pytest.mark.parametrize(
    ("which", "element", "capability"),
    [*(("rows", *case) for case in CASES), ("products", "bf16", 90), ("products", "fp32", 90)],
)
def test_fits_the_chip_without_spills(which: str, element: str, capability: int) -> None:
    found = compiled(which, capability, element, weighted=True)
    assert found.stack == 0
    assert found.shared <= SHARED_MOST[capability]
    assert bool(found.tensor_core_instructions()) == (element == "bf16")  # no tf32
    assert found.narrow_offsets(*SMALL) == []


@pytest.mark.parametrize("which", ["pack", "sums"])
def test_what_goes_before_and_after_compiles(which: str) -> None:
    found = compiled(which, 90, "bf16")
    assert found.stack == 0
    assert found.narrow_offsets(*SMALL) == []


@pytest.mark.parametrize("which", ["pack", "rows", "products", "sums"])
def test_other_widths_and_sizes_of_one_which_triton_compiles_in(which: str) -> None:
    ones = {"rows": 1, "run": 1, "x_stride": 1, "target_stride": 1, "slots": 1, "tiles": 1}
    arguments = getattr(kernel, f"score_matching_{which}_kernel").arg_names
    numbers = {name: value for name, value in ones.items() if name in arguments}
    assert compiled(which, 90, "fp32", dim=1, hidden=64, further=False, **numbers).stack == 0


def test_what_the_kernels_do_not_take_is_refused() -> None:
    def refusal(hidden: int = 64, **change: torch.Tensor) -> str:
        tensors = {**step(6, 5, hidden)._asdict(), **change}
        return _triton_refusal(tensors, tensors["w1"]) or ""

    assert refusal() == ""
    assert refusal(96) == "hidden width is 96, the kernel takes 64 or 128 or 256"
    assert "weight is torch.float64, the kernels take torch.float32" in refusal(weight=torch.ones(6).double())
    assert refusal(w1=torch.zeros(64, 0)) == "the particles have no cells"


def test_weights_that_are_trained_are_no_reason_to_refuse() -> None:
    network = to_dtype(random_network("direct", 5, hidden=64), torch.float32)
    trained = {"w1": network.w1.requires_grad_()}
    assert _triton_refusal(trained, trained["w1"]) is None


def test_a_gpus_tensors_go_to_triton_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's "meta" device stands in for the GPU."""
    monkeypatch.setitem(backends.DEVICES, "triton", "meta")
    monkeypatch.setattr(backends, "_why_no_gpu_kernels", lambda backend: None)
    op = import_module("fastimpute.ops.score_matching")
    monkeypatch.setattr(op, "reference", lambda *_, **__: pytest.fail("PyTorch was asked"))
    net = ScoreMLP(8, 3, 64).to("meta")
    batch = Batch(*(torch.empty(32, size, device="meta") for size in (8, 8, 1)), torch.empty(2, 3, device="meta"), None)
    with crew() as workers:
        loss, finish = _differentiate(net, batch, workers, "bf16", ONE)
        finish()
    assert loss.shape == ()
    assert {parameter.grad.device.type for parameter in net.parameters() if parameter.grad is not None} == {"meta"}
    assert all(parameter.grad is not None for parameter in net.parameters())

"""The Triton kernel of spt_weights: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from closeness import assert_close, same_bits
from torch import Tensor
from triton_kernels.guarded import Guarded

from fastimpute.kernels.spt_weights import configuration, launch
from fastimpute.ops.spt_weights import _triton, reference

SETTINGS: dict[str, Any] = {"gamma": 0.3, "eta_w": 0.7, "tau": 0.1, "bound": 3.0}


def inputs(rows: int, group: int, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """log_w, whose groups sum to one, log_p and score_sq."""
    log_w = torch.cat([torch.log_softmax(torch.randn(len(part)), 0) for part in torch.arange(rows).split(group)])
    return log_w, 100 + spread * torch.randn(rows), torch.rand(rows)


def check(rows: int, group: int, dtype: torch.dtype = torch.float32, spread: float = 1.0, **change: Any) -> None:
    log_w, log_p, score_sq = (part.to(dtype) for part in inputs(rows, group, spread))
    settings = {**SETTINGS, **change}
    log_ref = settings.pop("log_ref", None)
    log_w_new, mass = Guarded(rows, dtype=dtype), Guarded(rows, dtype=dtype)
    arguments = {"group": group, "robust": False, **settings}
    launch(log_w, log_p, score_sq, log_ref, log_w_new.inside, mass.inside, **arguments)
    reference_arguments = {**arguments, "log_ref": None if log_ref is None else log_ref.double()}
    exact = reference(log_w.double(), log_p.double(), score_sq.double(), **reference_arguments)
    plain = reference(log_w, log_p, score_sq, **{**arguments, "log_ref": log_ref})
    for name, out, right, rough in zip(("log_w", "mass"), (log_w_new, mass), exact, plain, strict=True):
        assert_close(name, out.inside, right, rough, "fp32" if dtype == torch.float32 else "bf16")
        assert out.guards_untouched()


@pytest.mark.parametrize("rows", [1, 3, 31, 33, 64])
@pytest.mark.parametrize("group", [1, 4, 33])
def test_matches_float64(rows: int, group: int) -> None:
    check(rows, group)


def test_of_no_particles_nothing_is_written() -> None:
    empty = torch.zeros(0)
    launch(empty, empty, empty, None, empty, empty, group=4, robust=False, **SETTINGS)


def test_groups_beyond_one_warp() -> None:
    check(5000, 2500)


@pytest.mark.parametrize("rows", [1, 3, 33])
@pytest.mark.parametrize("group", [2, 31])
def test_robust_values_match_float64(rows: int, group: int) -> None:
    check(rows, group, robust=True)


def test_equal_values_have_the_least_spread() -> None:
    log_w = torch.full((8,), -math.log(8))
    out = Guarded(8), Guarded(8)
    signs = torch.tensor([0.0, -0.0] * 4)
    launch(log_w, signs, torch.zeros(8), None, *(part.inside for part in out), group=8, robust=True, **SETTINGS)
    torch.testing.assert_close(out[1].inside, torch.ones(8))


def test_weights_are_held_at_the_bound_and_still_sum_to_one() -> None:
    check(66, 33, spread=30.0, bound=1.0)
    check(66, 33, spread=30.0, bound=math.inf)


def test_half_precision() -> None:
    check(33, 16, dtype=torch.float16, log_ref=None)


def test_reference_weights() -> None:
    log_ref = torch.log_softmax(torch.randn(33), 0)
    check(33, 33, log_ref=log_ref, tau=0.6)


def test_the_op_hands_strided_tensors_over() -> None:
    parts = inputs(33, 11)
    apart = [torch.stack([part, torch.full((33,), math.nan)], 1)[:, 0] for part in parts]
    settings = (11, 0.3, 0.7, 0.1, 3.0, False)
    for value, expected in zip(_triton(*apart, None, *settings), _triton(*parts, None, *settings), strict=True):
        assert same_bits(value, expected)


def test_every_group_fits_its_lanes() -> None:
    for group in (1, 15, 17, 1024, 1025, 16384):
        layout = configuration(group)
        assert layout.lanes >= group
        assert layout.lanes * layout.groups <= 64 * 32 * layout.warps

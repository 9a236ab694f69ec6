"""The Triton kernel of energy_mlp: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels import energy_mlp as kernel
from fastimpute.kernels.matrix import padded
from fastimpute.ops.energy_mlp import _run_triton, reference
from fastimpute.ops.network import Network
from fastimpute.ops.triton_pack import TritonPack, triton_pack

NAMES = ("log_p", "score", "hvp")


def particles(rows: int, dim: int, hidden: int = 64, **kind: object) -> tuple[Tensor, Network]:
    """float64 values that float32 holds."""
    network = rounded(random_network("energy", dim, hidden, particles=rows, **kind))
    return torch.randn(rows, dim).double(), network


def check(x: Tensor, network: Network, vector: Tensor | None = None, *, hvp: bool) -> None:
    x, single = x.float(), to_dtype(network, torch.float32)
    outputs = _run_triton(x, None if vector is None else vector.float(), single, hvp, "fp32")
    exact = reference(x.double(), *network, vector=vector, hvp=hvp)
    plain = reference(x, *single, vector=None if vector is None else vector.float(), hvp=hvp)
    for name, value, right, rough in zip(NAMES, outputs, exact, plain, strict=False):
        assert value is not None
        assert_close(name, value, right, rough)


@pytest.mark.parametrize("rows", [0, 1, 3, 31, 33])
def test_matches_float64(rows: int) -> None:
    check(*particles(rows, 7), hvp=False)


@pytest.mark.parametrize("rows", [1, 33])
@pytest.mark.parametrize("dim", [1, 7, 33])
def test_hvp_along_the_score_matches_float64(rows: int, dim: int) -> None:
    check(*particles(rows, dim), hvp=True)


def test_hvp_along_a_vector_matches_float64() -> None:
    x, network = particles(5, 7)
    check(x, network, torch.randn(5, 7).float().double(), hvp=True)


@pytest.mark.parametrize("hvp", [False, True])
def test_gaussian_part_and_own_modulation(hvp: bool) -> None:
    check(*particles(33, 35, modulations=5, gaussian=True), hvp=hvp)


def test_width_256() -> None:
    check(*particles(3, 7, 256, modulations=2, gaussian=True), hvp=True)


def test_many_tiles_share_the_scratch_of_few_programs() -> None:
    check(*particles(200, 3), hvp=True)


def test_16_bit_operands_match_a_reference_that_rounds_them() -> None:
    x, network = particles(33, 24)
    single = to_dtype(network, torch.float32)
    pack = TritonPack.of(single, torch.float16, padded(24))
    tiles = kernel.configuration(2, hvp=True)
    size = tiles.rows * 64
    scratch = (
        torch.full((size,), torch.nan, dtype=torch.float16),
        torch.full((kernel.state_tiles(True) * size,), torch.nan),
    )
    outputs = Guarded(33), Guarded(33, 24), Guarded(33, 24)
    kernel.launch(
        x.float(), None, pack, single.modulation, None, tuple(out.inside for out in outputs), scratch,
        programs=1, tiles=tiles,
    )  # fmt: skip
    exact = reference(x.float().double(), *network, hvp=True)
    plain = reference(x.float(), *single, hvp=True, precision="bf16")  # eight times as coarse as float16
    for name, out, right, rough in zip(NAMES, outputs, exact, plain, strict=True):
        assert_close(name, out.inside, right, rough, "bf16")
        error = (out.inside.double() - right).abs().max()
        assert float(error) < 0.25 * float((rough.double() - right).abs().max())
        assert out.guards_untouched()


def test_rows_with_gaps_are_read_where_they_lie() -> None:
    x, network = particles(9, 7)
    single, x, vector = to_dtype(network, torch.float32), x.float(), torch.randn(9, 7)
    expected = _run_triton(x, vector, single, True, "fp32")
    strided = _run_triton(among_nan(x), vector.T.contiguous().T, single, True, "fp32")
    for value, right in zip(strided, expected, strict=True):
        assert value is not None
        assert right is not None
        assert same_bits(value, right)


def test_any_split_of_the_rows_gives_the_same_bits() -> None:
    x, network = particles(40, 7)
    single, x = to_dtype(network, torch.float32), x.float()
    whole = _run_triton(x, None, single, False, "fp32")
    parts = [_run_triton(x[part], None, single, False, "fp32") for part in (slice(0, 5), slice(5, 40))]
    for index in range(2):
        assert same_bits(torch.cat([part[index] for part in parts]), whole[index])


def test_weights_are_packed_once_until_they_change() -> None:
    x, network = particles(2, 7)
    single, x = to_dtype(network, torch.float32), x.float()
    first = triton_pack(single, "bf16", 32)
    assert triton_pack(single, "bf16", 32) is first
    single.w3.zero_()
    assert triton_pack(single, "bf16", 32) is not first
    log_p, score, _ = _run_triton(x, None, single, False, "fp32")
    assert torch.equal(log_p, single.b3.expand(2))
    assert bool((score == 0).all())


def test_columns_beyond_d_are_packed_as_zeros() -> None:
    _, network = particles(2, 7, gaussian=True)
    pack = TritonPack.of(to_dtype(network, torch.float32), torch.float32, 32)
    assert pack.precision_matrix is not None
    assert pack.mean is not None
    assert not bool(pack.w1[:, 7:].any() | pack.precision_matrix[:, 7:].any() | pack.precision_matrix[7:].any())
    assert not bool(pack.mean[7:].any())
    assert torch.equal(pack.precision_matrix[:7, :7], network.precision_matrix.float())

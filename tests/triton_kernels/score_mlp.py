"""The Triton kernel of score_mlp: on the GPU, or under Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor
from triton_kernels.guarded import Guarded, among_nan

from fastimpute.kernels import score_mlp as kernel
from fastimpute.kernels.matrix import padded
from fastimpute.ops.network import Network
from fastimpute.ops.score_mlp import _run_triton, reference
from fastimpute.ops.triton_pack import TritonPack


def particles(rows: int, dim: int, hidden: int = 64, **kind: object) -> tuple[Tensor, Tensor, Network]:
    """x and noise levels in float32, and a network of float64 values that float32 holds."""
    network = rounded(random_network("direct", dim, hidden, particles=rows, **kind))
    return torch.randn(rows, dim), 0.1 + torch.rand(rows), network


def scored(x: Tensor, sigma: Tensor, network: Network) -> Tensor:
    return _run_triton(x, sigma, to_dtype(network, torch.float32), "fp32")


def check(x: Tensor, sigma: Tensor, network: Network) -> None:
    single = to_dtype(network, torch.float32)
    exact = reference(x.double(), *network[:6], sigma.double(), *network[6:])
    plain = reference(x, *single[:6], sigma, *single[6:])
    assert_close("score", scored(x, sigma, network), exact, plain)


@pytest.mark.parametrize("rows", [0, 1, 3, 31, 33])
def test_matches_float64(rows: int) -> None:
    check(*particles(rows, 7))


@pytest.mark.parametrize("dim", [1, 24, 33])
def test_any_number_of_cells(dim: int) -> None:
    check(*particles(5, dim))


def test_gaussian_part_and_own_modulation() -> None:
    check(*particles(33, 35, modulations=5, gaussian=True))


def test_width_256() -> None:
    check(*particles(3, 7, 256, modulations=2, gaussian=True))


def test_many_tiles_share_the_scratch_of_few_programs() -> None:
    check(*particles(200, 3))


def test_16_bit_operands_match_a_reference_that_rounds_them() -> None:
    x, sigma, network = particles(33, 24)
    single = to_dtype(network, torch.float32)
    pack = TritonPack.of(single, torch.float16, padded(24))
    tiles = kernel.configuration(2)
    scratch = torch.full((tiles.rows * 64,), torch.nan, dtype=torch.float16), torch.full((tiles.rows * 64,), torch.nan)
    out = Guarded(33, 24)
    kernel.launch(x, sigma, pack, single.modulation, None, out.inside, scratch, programs=1, tiles=tiles)
    exact = reference(x.double(), *network[:6], sigma.double(), *network[6:])
    plain = reference(x, *single[:6], sigma, *single[6:], precision="bf16")  # eight times as coarse as float16
    assert_close("score", out.inside, exact, plain, "bf16")
    error = (out.inside.double() - exact).abs().max()
    assert float(error) < 0.25 * float((plain.double() - exact).abs().max())
    assert out.guards_untouched()


def test_rows_with_gaps_are_read_where_they_lie() -> None:
    x, sigma, network = particles(9, 7, gaussian=True)
    apart = torch.stack([sigma, torch.full_like(sigma, torch.nan)], 1)[:, 0]
    assert same_bits(scored(among_nan(x), apart, network), scored(x, sigma, network))


def test_any_split_of_the_rows_gives_the_same_bits() -> None:
    x, sigma, network = particles(40, 7)
    whole = scored(x, sigma, network)
    parts = [scored(x[part], sigma[part], network) for part in (slice(0, 5), slice(5, 40))]
    assert same_bits(torch.cat(parts), whole)


def test_the_head_is_packed_as_the_first_layer_is() -> None:
    _, _, network = particles(2, 7)
    pack = TritonPack.of(to_dtype(network, torch.float32), torch.float32, 32)
    assert pack.w3.shape == pack.w1.shape == (64, 32)
    assert torch.equal(pack.w3[:, :7].T, network.w3.float())
    assert not bool(pack.w3[:, 7:].any() | pack.b3[7:].any())

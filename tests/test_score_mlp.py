"""score_mlp: the direct head's score against float64 and against itself."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import pytest
import torch
from closeness import assert_within, limit, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor
from torch.nn import functional

from fastimpute import _native, ops
from fastimpute.ops.network import Network
from fastimpute.ops.pack import mlp_pack
from fastimpute.ops.score_mlp import reference

ROWS = (0, 1, 2, 3, 7, 31, 33, 127, 129, 1023)
DIMS = (1, 7, 24, 84, 144, 168, 480, 2048)
op = torch.ops.fastimpute.score_mlp.default


class Case(NamedTuple):
    x: Tensor
    sigma: Tensor
    network: Network
    exact: Tensor
    plain: dict[str, Tensor]


@functools.cache
def case(dim: int, rows: int = 1023, hidden: int = 256, modulations: int = 1, gaussian: bool = False) -> Case:
    """Particles, noise levels, a network, its float64 score and plain PyTorch's in the kernels' precisions."""
    torch.manual_seed(dim + hidden)
    network = rounded(random_network("direct", dim, hidden, modulations=modulations, particles=rows, gaussian=gaussian))
    x, sigma = torch.randn(rows, dim), 0.1 + torch.rand(rows)
    single = to_dtype(network, torch.float32)
    return Case(
        x,
        sigma,
        single,
        score(reference, x.double(), sigma.double(), network),
        {name: score(reference, x, sigma, single, precision=name) for name in ("fp32", "bf16")},
    )


def score(function: object, x: Tensor, sigma: float | Tensor, network: Network, **options: str) -> Tensor:
    return function(x, *network[:6], sigma, *network[6:], **options)


def check(case: Case, rows: int, precision: str = "fp32", backend: str = "cpu") -> None:
    network = case.network
    if network.modulation_index is not None:
        network = network._replace(modulation_index=network.modulation_index[:rows])
    value = score(ops.score_mlp, case.x[:rows], case.sigma[:rows], network, backend=backend, precision=precision)
    assert_within("score", value, case.exact[:rows], limit(case.exact, case.plain[precision], precision))


@pytest.mark.parametrize("dim", DIMS)
def test_matches_float64_at_every_size(precision: str, dim: int) -> None:
    for rows in ROWS:
        check(case(dim), rows, precision)


@pytest.mark.parametrize("dim", [7, 84, 480])
def test_gaussian_part_and_modulation_per_particle(backend: str, dim: int) -> None:
    check(case(dim, rows=37, modulations=5, gaussian=True), 37, backend=backend)


@pytest.mark.parametrize("hidden", [32, 96, 512, 1024])
def test_other_widths(backend: str, hidden: int) -> None:
    check(case(24, rows=35, hidden=hidden), 35, backend=backend)


def test_reference_is_the_plain_network() -> None:
    network = random_network("direct", 7, 64, gaussian=True)
    x = torch.randn(9, 7).double()
    gain1, shift1, gain2, shift2 = network.modulation[0]
    h1 = functional.silu(functional.layer_norm(x @ network.w1.T + network.b1, (64,)) * (1 + gain1) + shift1)
    h2 = functional.silu(functional.layer_norm(h1 @ network.w2.T + network.b2, (64,)) * (1 + gain2) + shift2)
    expected = (h2 @ network.w3.T + network.b3) / 0.3 - (x - network.mean) @ network.precision_matrix
    torch.testing.assert_close(score(reference, x, 0.3, network), expected, rtol=1e-11, atol=1e-11)


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    network = random_network("direct", 7, 64, modulations=3, particles=9, gaussian=True)
    x, sigma = torch.randn(9, 7).double(), torch.rand(9).double() + 0.1
    value = op(x, sigma, *network, "fp32", "cpu")
    torch.testing.assert_close(value, score(reference, x, sigma, network), rtol=1e-11, atol=1e-11)


def test_one_sigma_serves_all_particles(backend: str) -> None:
    example = case(24, rows=9)
    one = score(ops.score_mlp, example.x, 0.25, example.network, backend=backend)
    each = score(ops.score_mlp, example.x, torch.full((9,), 0.25), example.network, backend=backend)
    torch.testing.assert_close(one, each)


def test_any_split_of_the_rows_gives_the_same_bits(precision: str) -> None:
    example = case(84, rows=259)
    whole = score(ops.score_mlp, example.x, example.sigma, example.network, backend="cpu", precision=precision)
    cuts = (0, 1, 8, 41, 105, 106, 259)
    for begin, end in itertools.pairwise(cuts):
        rows = slice(begin, end)
        part = score(
            ops.score_mlp, example.x[rows], example.sigma[rows], example.network, backend="cpu", precision=precision
        )
        assert same_bits(part, whole[rows])


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(precision: str) -> None:
    example = case(84)
    twice = score(ops.score_mlp, example.x, example.sigma, example.network, backend="cpu", precision=precision)
    torch.set_num_threads(1)
    once = score(ops.score_mlp, example.x, example.sigma, example.network, backend="cpu", precision=precision)
    assert same_bits(once, twice)


def test_reads_only_the_rows_of_strided_inputs(isa: str) -> None:
    example = case(24, rows=33)
    expected = score(ops.score_mlp, example.x, example.sigma, example.network, backend="cpu")
    wide = torch.full((33, 40), float("nan"))
    wide[:, 5:29] = example.x
    sigma = torch.stack([example.sigma, torch.full((33,), float("nan"))], 1)[:, 0]
    for x in (wide[:, 5:29], example.x.T.contiguous().T):
        assert same_bits(score(ops.score_mlp, x, sigma, example.network, backend="cpu"), expected)


def test_writes_nothing_beyond_its_output(isa: str) -> None:
    rows, dim, stride = 33, 23, 29
    network = to_dtype(random_network("direct", dim), torch.float32)
    x, sigma, out = torch.randn(rows, dim), torch.ones(rows), torch.full((rows + 2, stride), 7.0)
    _native.core().score_mlp(
        mlp_pack(network, "direct", "fp32"), 1, rows, x.data_ptr(), dim, sigma.data_ptr(),
        network.modulation.data_ptr(), 1, 0, out.data_ptr(), stride,
    )  # fmt: skip
    assert bool((out[rows:] == 7).all())
    assert bool((out[:, dim:] == 7).all())


def test_gradients_take_the_torch_backend() -> None:
    example = case(24, rows=5)
    x = example.x.clone().requires_grad_()
    score(ops.score_mlp, x, example.sigma, example.network).sum().backward()
    assert x.grad is not None
    with pytest.raises(ValueError, match="gradients are required"):
        score(ops.score_mlp, x, example.sigma, example.network, backend="cpu")


def test_the_registered_op_never_drops_gradients() -> None:
    example = case(24, rows=5)
    value = op(example.x.clone().requires_grad_(), example.sigma, *example.network, "fp32", "cpu")
    with pytest.raises(RuntimeError, match="score_mlp: the kernels compute no gradients"):
        value.sum().backward()


def test_reference_passes_gradcheck() -> None:
    network = random_network("direct", 3, 32)
    x = torch.randn(4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: score(reference, x, 0.5, network), (x,))
    assert torch.autograd.gradgradcheck(lambda x: score(reference, x, 0.5, network), (x,))


def test_opcheck() -> None:
    example = case(24, rows=9, gaussian=True)
    torch.library.opcheck(op, (example.x, example.sigma, *example.network, "fp32", "cpu"))


def test_compiles_without_graph_breaks() -> None:
    example = case(24, rows=9)
    compiled = torch.compile(
        lambda x: score(ops.score_mlp, x, 0.5, example.network) * 2, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(example.x), score(ops.score_mlp, example.x, 0.5, example.network) * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma must be greater than 0, got 0.0"),
        ({"sigma": torch.ones(2)}, r"sigma must have shape \(3,\), got \(2,\)"),
        ({"w3": torch.randn(32)}, r"w3 must have shape \(5, 32\), got \(32,\)"),
        ({"x": torch.randn(3)}, r"x must have shape \('any', 'any'\), got \(3,\)"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    network = to_dtype(random_network("direct", 5, hidden=32), torch.float32)
    arguments = {"x": torch.randn(3, 5), "sigma": 0.1, **network._asdict(), **change}
    with pytest.raises(ValueError, match=f"score_mlp: {message}"):
        ops.score_mlp(**arguments)


def test_negative_sigma_in_a_tensor_raises(isa: str) -> None:
    example = case(24, rows=9)
    with pytest.raises(ValueError, match="sigma"):
        score(ops.score_mlp, example.x, -example.sigma, example.network, backend="cpu")

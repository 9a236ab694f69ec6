"""energy_mlp: log p, score and Hessian-vector product against float64, autograd, finite differences and themselves."""

from __future__ import annotations

import functools
import itertools
import logging
from typing import NamedTuple

import pytest
import torch
from closeness import assert_close, assert_within, limit, same_bits
from networks import random_network, rounded, to_dtype
from torch import Tensor
from torch.nn import functional

from fastimpute import _native, ops
from fastimpute.ops import backends
from fastimpute.ops.energy_mlp import reference
from fastimpute.ops.network import Network
from fastimpute.ops.pack import mlp_pack

ROWS = (0, 1, 2, 3, 7, 31, 33, 127, 129, 1023)
DIMS = (1, 7, 24, 84, 144, 168, 480, 2048)
NAMES = ("log_p", "score", "hvp")
op = torch.ops.fastimpute.energy_mlp.default


class Case(NamedTuple):
    x: Tensor
    network: Network
    exact: tuple[Tensor, ...]
    plain: dict[str, tuple[Tensor, ...]]


@functools.cache
def case(dim: int, rows: int = 1023, hidden: int = 256, modulations: int = 1, gaussian: bool = False) -> Case:
    """Particles, a network, its float64 outputs and those of plain PyTorch in the kernels' precisions."""
    torch.manual_seed(dim + hidden)
    network = rounded(random_network("energy", dim, hidden, modulations=modulations, particles=rows, gaussian=gaussian))
    x = torch.randn(rows, dim).double()
    single = to_dtype(network, torch.float32)
    return Case(
        x.float(),
        single,
        reference(x, *network, hvp=True),
        {precision: reference(x.float(), *single, hvp=True, precision=precision) for precision in ("fp32", "bf16")},
    )


def check(case: Case, rows: int, precision: str, *, hvp: bool, backend: str = "cpu") -> None:
    network = case.network
    if network.modulation_index is not None:
        network = network._replace(modulation_index=network.modulation_index[:rows])
    outputs = ops.energy_mlp(case.x[:rows], *network, hvp=hvp, backend=backend, precision=precision)
    assert len(outputs) == (3 if hvp else 2)
    for name, value, exact, plain in zip(NAMES, outputs, case.exact, case.plain[precision], strict=False):
        assert_within(name, value, exact[:rows], limit(exact, plain, precision))


@pytest.mark.parametrize("hvp", [False, True], ids=["score", "hvp"])
@pytest.mark.parametrize("dim", DIMS)
def test_matches_float64_at_every_size(precision: str, dim: int, hvp: bool) -> None:
    for rows in ROWS:
        check(case(dim), rows, precision, hvp=hvp)


@pytest.mark.parametrize("dim", [1, 7, 84])
def test_every_backend_and_instruction_set_matches_float64(backend: str, dim: int) -> None:
    check(case(dim, rows=33), 33, "fp32", hvp=True, backend=backend)


@pytest.mark.parametrize("dim", [7, 84, 480])
def test_gaussian_part(backend: str, dim: int) -> None:
    check(case(dim, rows=37, gaussian=True), 37, "fp32", hvp=True, backend=backend)


@pytest.mark.parametrize("dim", [24, 168])
def test_each_particle_has_its_own_modulation(backend: str, dim: int) -> None:
    check(case(dim, rows=133, modulations=5), 133, "fp32", hvp=True, backend=backend)


@pytest.mark.parametrize("hidden", [32, 96, 512, 1024])
def test_other_widths(backend: str, hidden: int) -> None:
    check(case(24, rows=35, hidden=hidden, modulations=3, gaussian=True), 35, "fp32", hvp=True, backend=backend)


def test_bf16_keeps_the_gaussian_part_exact() -> None:
    if "avx512bf16" not in _native.core().isas():
        pytest.skip("this processor has no AVX512_BF16")
    example = case(168, rows=64, gaussian=True)
    silent = example.network._replace(w3=torch.zeros(256), b3=torch.zeros(1))
    _, score = ops.energy_mlp(example.x, *silent, backend="cpu", precision="bf16")
    pull = -(example.x.double() - silent.mean.double()) @ silent.precision_matrix.double()
    assert_close("score", score, pull, -(example.x - silent.mean) @ silent.precision_matrix)


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    network = random_network("energy", 7, 64, modulations=3, particles=9, gaussian=True)
    x, vector = torch.randn(9, 7).double(), torch.randn(9, 7).double()
    outputs = torch.ops.fastimpute.energy_mlp_hvp(x, vector, *network, "fp32", "cpu")
    for name, value, exact in zip(NAMES, outputs, reference(x, *network, vector=vector, hvp=True), strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-11, atol=1e-11, msg=name)


def test_reference_is_the_autograd_of_the_plain_network() -> None:
    network = random_network("energy", 7, 64, modulations=3, particles=9, gaussian=True)
    x, vector = torch.randn(9, 7).double().requires_grad_(), torch.randn(9, 7).double()
    gain1, shift1, gain2, shift2 = network.modulation[network.modulation_index].unbind(1)
    h1 = functional.silu(functional.layer_norm(x @ network.w1.T + network.b1, (64,)) * (1 + gain1) + shift1)
    h2 = functional.silu(functional.layer_norm(h1 @ network.w2.T + network.b2, (64,)) * (1 + gain2) + shift2)
    offset = x - network.mean
    log_p = h2 @ network.w3 + network.b3 - 0.5 * (offset @ network.precision_matrix * offset).sum(-1)
    (score,) = torch.autograd.grad(log_p.sum(), x, create_graph=True)
    (curved,) = torch.autograd.grad((score * vector).sum(), x)
    outputs = reference(x, *network, vector=vector, hvp=True)
    for value, exact in zip(outputs, (log_p, score, curved), strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10)


def test_vector_left_out_means_the_score(isa: str) -> None:
    example = case(84, rows=33)
    _, score, along_score = ops.energy_mlp(example.x, *example.network, hvp=True, backend="cpu")
    *_, given = ops.energy_mlp(example.x, *example.network, vector=score, hvp=True, backend="cpu")
    torch.testing.assert_close(along_score, given, rtol=1e-4, atol=1e-4 * float(given.abs().max()))


def test_hessian_is_symmetric(isa: str) -> None:
    example = case(84, rows=33)
    left, right = torch.randn(33, 84), torch.randn(33, 84)
    *_, along_left = ops.energy_mlp(example.x, *example.network, vector=left, hvp=True, backend="cpu")
    *_, along_right = ops.energy_mlp(example.x, *example.network, vector=right, hvp=True, backend="cpu")
    scale = float((left * along_right).abs().sum(1).max())
    torch.testing.assert_close((left * along_right).sum(1), (right * along_left).sum(1), rtol=0, atol=1e-6 * scale)


def test_hvp_is_the_difference_quotient_of_the_score(isa: str) -> None:
    example = case(24, rows=33)
    vector, step = torch.randn(33, 24), 1e-2
    *_, curved = ops.energy_mlp(example.x, *example.network, vector=vector, hvp=True, backend="cpu")
    _, ahead = ops.energy_mlp(example.x + step * vector, *example.network, backend="cpu")
    _, behind = ops.energy_mlp(example.x - step * vector, *example.network, backend="cpu")
    torch.testing.assert_close(curved, (ahead - behind) / (2 * step), rtol=0, atol=2e-2 * float(curved.abs().max()))


def test_any_split_of_the_rows_gives_the_same_bits(precision: str) -> None:
    example = case(84, rows=259)
    whole = ops.energy_mlp(example.x, *example.network, hvp=True, backend="cpu", precision=precision)
    cuts = (0, 1, 8, 41, 105, 106, 259)
    parts = [
        ops.energy_mlp(example.x[begin:end], *example.network, hvp=True, backend="cpu", precision=precision)
        for begin, end in itertools.pairwise(cuts)
    ]
    for value, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert same_bits(value, torch.cat(pieces))


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(precision: str) -> None:
    example = case(84)
    twice = ops.energy_mlp(example.x, *example.network, hvp=True, backend="cpu", precision=precision)
    torch.set_num_threads(1)
    once = ops.energy_mlp(example.x, *example.network, hvp=True, backend="cpu", precision=precision)
    assert all(same_bits(left, right) for left, right in zip(once, twice, strict=True))


def test_reads_only_the_rows_of_strided_inputs(isa: str) -> None:
    example = case(24, rows=33)
    expected = ops.energy_mlp(example.x, *example.network, vector=example.x, hvp=True, backend="cpu")
    wide = torch.full((33, 40), float("nan"))
    wide[:, 5:29] = example.x
    strided = wide[:, 5:29]
    transposed = example.x.T.contiguous().T
    for x in (strided, transposed):
        outputs = ops.energy_mlp(x, *example.network, vector=x, hvp=True, backend="cpu")
        assert all(same_bits(left, right) for left, right in zip(outputs, expected, strict=True))


def test_writes_nothing_beyond_its_outputs(isa: str) -> None:
    rows, dim, stride = 33, 23, 29
    network = to_dtype(random_network("energy", dim), torch.float32)
    x = torch.randn(rows, dim)
    log_p, score, curved = (
        torch.full((rows + 16,), 7.0),
        torch.full((rows + 2, stride), 7.0),
        torch.full((rows + 2, stride), 7.0),
    )
    _native.core().energy_mlp(
        mlp_pack(network, "energy", "fp32"), 1, rows, x.data_ptr(), dim, network.modulation.data_ptr(), 1, 0, 0, 0,
        True, log_p.data_ptr(), score.data_ptr(), stride, curved.data_ptr(), stride,
    )  # fmt: skip
    assert bool((log_p[rows:] == 7).all())
    for output in (score, curved):
        assert bool((output[rows:] == 7).all())
        assert bool((output[:, dim:] == 7).all())


def test_auto_and_explicit_cpu_agree() -> None:
    example = case(24, rows=33)
    auto = ops.energy_mlp(example.x, *example.network)
    cpu = ops.energy_mlp(example.x, *example.network, backend="cpu")
    assert all(same_bits(left, right) for left, right in zip(auto, cpu, strict=True))


# Gradients


def double_case() -> tuple[Tensor, Network]:
    network = random_network("energy", 3, 32, modulations=2, particles=4, gaussian=True)
    return torch.randn(4, 3).double().requires_grad_(), network


def test_gradcheck_of_value_score_and_hvp() -> None:
    x, network = double_case()
    vector = torch.randn(4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op(x, *network, "fp32", "cpu"), (x,))
    hvp = torch.ops.fastimpute.energy_mlp_hvp
    assert torch.autograd.gradcheck(lambda v: hvp(x.detach(), v, *network, "fp32", "cpu")[2], (vector,))


def test_gradgradcheck_of_the_value() -> None:
    x, network = double_case()
    assert torch.autograd.gradgradcheck(lambda x: op(x, *network, "fp32", "cpu")[0], (x,))


def test_gradgradcheck_of_the_reference() -> None:
    x, network = double_case()
    assert torch.autograd.gradcheck(lambda x: reference(x, *network, hvp=True), (x,))
    assert torch.autograd.gradgradcheck(lambda x: reference(x, *network, hvp=True)[:2], (x,))


def test_gradients_of_the_kernel_are_those_of_the_reference(isa: str) -> None:
    example = case(24, rows=33)
    weights = torch.randn(33), torch.randn(33, 24)

    def gradient(backend: str) -> Tensor:
        x = example.x.clone().requires_grad_()
        log_p, score = ops.energy_mlp(x, *example.network, backend=backend)
        (gradient,) = torch.autograd.grad((log_p * weights[0]).sum() + (score * weights[1]).sum(), x)
        return gradient

    expected = gradient("torch")
    torch.testing.assert_close(gradient("cpu"), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_third_derivative_raises() -> None:
    x, network = double_case()
    _, score = op(x, *network, "fp32", "cpu")
    (curved,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(curved.sum(), x)


def test_weights_that_require_gradients_take_the_torch_backend() -> None:
    example = case(24, rows=5)
    network = example.network._replace(w1=example.network.w1.clone().requires_grad_())
    _, score = ops.energy_mlp(example.x, *network)
    score.sum().backward()
    assert network.w1.grad is not None
    with pytest.raises(ValueError, match="weights require gradients"):
        ops.energy_mlp(example.x, *network, backend="cpu")
    with torch.no_grad():
        ops.energy_mlp(example.x, *network, backend="cpu")


def test_the_registered_op_never_drops_weight_gradients() -> None:
    x, network = double_case()
    with pytest.raises(RuntimeError, match="no gradients for weights"):
        op(x, *network._replace(w1=network.w1.clone().requires_grad_()), "fp32", "cpu")


def test_opcheck() -> None:
    example = case(24, rows=9, gaussian=True)
    x = example.x.clone().requires_grad_()
    torch.library.opcheck(op, (x, *example.network, "fp32", "cpu"))
    vector = torch.randn(9, 24, requires_grad=True)
    torch.library.opcheck(
        torch.ops.fastimpute.energy_mlp_hvp.default, (example.x, vector, *example.network, "fp32", "cpu")
    )


def test_compiles_without_graph_breaks() -> None:
    example = case(24, rows=9)

    def loss(x: Tensor) -> Tensor:
        log_p, score = ops.energy_mlp(x, *example.network)
        return log_p.sum() + score.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    eager_x, compiled_x = example.x.clone().requires_grad_(), example.x.clone().requires_grad_()
    loss(eager_x).backward()
    compiled(compiled_x).backward()
    torch.testing.assert_close(compiled_x.grad, eager_x.grad)


# Packs


def test_a_pack_is_reused_until_a_weight_changes() -> None:
    network = to_dtype(random_network("energy", 24), torch.float32)
    first = mlp_pack(network, "energy", "fp32")
    assert mlp_pack(network, "energy", "fp32") is first
    network.w2.mul_(2)
    assert mlp_pack(network, "energy", "fp32") is not first


def test_weights_changed_in_place_are_seen() -> None:
    network = to_dtype(random_network("energy", 24), torch.float32)
    x = torch.randn(5, 24)
    ops.energy_mlp(x, *network)
    network.w3.zero_()
    network.b3.fill_(3.0)
    log_p, score = ops.energy_mlp(x, *network)
    assert bool((log_p == 3).all())
    assert bool((score == 0).all())


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}])
def test_weights_changed_by_an_optimizer_are_seen(options: dict[str, bool]) -> None:
    network = to_dtype(random_network("energy", 24), torch.float32)
    network = network._replace(w2=torch.nn.Parameter(network.w2))
    x = torch.randn(5, 24)
    with torch.no_grad():
        ops.energy_mlp(x, *network, backend="cpu")
    network.w2.grad = torch.ones_like(network.w2)
    torch.optim.Adam([network.w2], lr=0.1, **options).step()
    with torch.no_grad():
        _, score = ops.energy_mlp(x, *network, backend="cpu")
        _, expected = ops.energy_mlp(x, *network, backend="torch")
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-5)


def test_inference_tensors_are_served() -> None:
    with torch.inference_mode():
        network = to_dtype(random_network("energy", 24), torch.float32)
        log_p, _ = ops.energy_mlp(torch.randn(5, 24), *network, backend="cpu")
    assert bool(log_p.isfinite().all())


# Refusals and errors


def test_auto_falls_back_with_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    backends._log_fallback.cache_clear()
    network = to_dtype(random_network("energy", 5, hidden=40), torch.float32)
    with caplog.at_level(logging.INFO, logger="fastimpute"):
        for _ in range(2):
            ops.energy_mlp(torch.randn(3, 5), *network)
    lines = [record.message for record in caplog.records]
    assert lines == [
        "energy_mlp runs on the torch backend: hidden width is 40, the kernels take multiples of 32 up to 1024"
    ]


def test_explicit_backend_raises_with_the_reason() -> None:
    network = random_network("energy", 5)
    with pytest.raises(ValueError, match=r"energy_mlp: backend 'cpu' cannot serve: x is torch\.float64"):
        ops.energy_mlp(torch.randn(3, 5).double(), *network, backend="cpu")
    with pytest.raises(ValueError, match="backend 'triton' cannot serve"):
        ops.energy_mlp(torch.randn(3, 5).double(), *network, backend="triton")
    with pytest.raises(ValueError, match="backend must be one of"):
        ops.energy_mlp(torch.randn(3, 5).double(), *network, backend="gpu")


def test_bf16_raises_where_the_instruction_set_lacks_it() -> None:
    example = case(24, rows=5)
    with ops.use_isa("ref"), pytest.raises(ValueError, match="needs AVX512_BF16"):
        ops.energy_mlp(example.x, *example.network, backend="cpu", precision="bf16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(3, 6)}, r"x must have shape \('any', 5\), got \(3, 6\)"),
        ({"w2": torch.randn(32, 31)}, r"w2 must have shape \(32, 32\)"),
        ({"b3": torch.randn(2)}, r"b3 must have shape \(1,\)"),
        ({"modulation": torch.randn(2, 4, 32)}, "one row when modulation_index is None, got 2"),
        ({"modulation_index": torch.zeros(2, dtype=torch.int64)}, r"modulation_index must have shape \(3,\)"),
        ({"mean": torch.randn(5)}, "must be given together"),
        ({"vector": torch.randn(3, 5)}, "vector must be None unless hvp"),
        ({"precision": "fp16"}, r"precision must be one of \('fp32', 'bf16'\), got 'fp16'"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    network = to_dtype(random_network("energy", 5, hidden=32), torch.float32)
    arguments = {"x": torch.randn(3, 5), **network._asdict(), **change}
    with pytest.raises(ValueError, match=f"energy_mlp: .*{message}"):
        ops.energy_mlp(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [[1.0]]}, "x must be a tensor, got list"),
        ({"w1": torch.randn(32, 5).double()}, "b1 must be torch.float64"),
        ({"modulation_index": torch.zeros(3)}, "modulation_index must be torch.int64, got torch.float32"),
    ],
)
def test_bad_types_name_the_argument(change: dict[str, object], message: str) -> None:
    network = to_dtype(random_network("energy", 5, hidden=32), torch.float32)
    arguments = {"x": torch.randn(3, 5), **network._asdict(), **change}
    with pytest.raises(TypeError, match=f"energy_mlp: .*{message}"):
        ops.energy_mlp(**arguments)


def test_modulation_rows_out_of_range_raise(isa: str) -> None:
    network = to_dtype(random_network("energy", 5, modulations=2, particles=3), torch.float32)
    network = network._replace(modulation_index=torch.tensor([0, 2, 1]))
    with pytest.raises(ValueError, match="modulation_index"):
        ops.energy_mlp(torch.randn(3, 5), *network, backend="cpu")

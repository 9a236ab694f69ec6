"""spt_weights: the laws of the semi-proximal-transport update, and its kernels against float64."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from closeness import assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastimpute import _native, ops
from fastimpute.ops.spt_weights import reference

SIZES = (0, 1, 2, 3, 7, 31, 33, 127, 129, 1023, 40000)
GROUPS = (1, 3, 32, 128, 1000)
op = torch.ops.fastimpute.spt_weights.default
PLAIN = {"gamma": 0.1, "eta_w": 0.3, "tau": 0.2, "bound": math.inf}


def normalised(log_w: Tensor, group: int) -> Tensor:
    parts = [torch.log_softmax(part, 0) for part in log_w.split(group)]
    return torch.cat(parts) if parts else log_w


def inputs(size: int, group: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log_w, log_p, score_sq, log_ref."""
    return (
        normalised(0.5 * torch.randn(size), group),
        3 * torch.randn(size) - 50,
        9 * torch.rand(size),
        torch.randn(size),
    )


def check(size: int, group: int, backend: str = "cpu", **options: object) -> None:
    log_w, log_p, score_sq, log_ref = inputs(size, group)
    arguments = {"group": group, **PLAIN, **options}
    outputs = ops.spt_weights(log_w, log_p, score_sq, log_ref=log_ref, backend=backend, **arguments)
    doubles = (part.double() for part in (log_w, log_p, score_sq))
    exact = reference(*doubles, log_ref=log_ref.double(), **arguments)
    plain = reference(log_w, log_p, score_sq, log_ref=log_ref, **arguments)
    for name, value, want, torch_value in zip(("log_w", "mass"), outputs, exact, plain, strict=True):
        assert_close(name, value, want, torch_value)


@pytest.mark.parametrize("options", [{}, {"bound": 1.0}, {"robust": True}], ids=["free", "bounded", "robust"])
@pytest.mark.parametrize("group", GROUPS)
def test_matches_float64_at_every_size(isa: str, group: int, options: dict[str, object]) -> None:
    for size in SIZES:
        if size <= 50 * group:
            check(size, group, **options)


def test_many_particles_get_the_bits_of_few(isa: str) -> None:
    """Results of many are streamed past the caches, by other code."""
    size, group = (1 << 18) + 77, 128
    log_w, log_p, score_sq, _ = inputs(size, group)
    many = ops.spt_weights(log_w, log_p, score_sq, group=group, backend="cpu", **PLAIN)
    cut = 999 * group
    for part in (slice(0, cut), slice(cut, cut + 100 * group), slice(size // group * group, size)):
        few = ops.spt_weights(log_w[part], log_p[part], score_sq[part], group=group, backend="cpu", **PLAIN)
        for all_of_them, some in zip(many, few, strict=True):
            assert same_bits(all_of_them[part], some)


def test_torch_backend_matches_float64() -> None:
    check(129, 32, backend="torch", robust=True)


def test_scalar_oracle_in_double_equals_the_reference() -> None:
    log_w, log_p, score_sq, log_ref = (part.double() for part in inputs(77, 30))
    for bound, robust in ((math.inf, False), (0.7, True)):
        value = op(log_w, log_p, score_sq, log_ref, 30, 0.1, 0.3, 0.2, bound, robust, "cpu")
        exact = reference(
            log_w, log_p, score_sq, group=30, gamma=0.1, eta_w=0.3, tau=0.2, bound=bound, log_ref=log_ref, robust=robust
        )
        torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10)


def test_one_group_by_hand(backend: str) -> None:
    log_w = torch.tensor([0.25, 0.75]).log()
    log_p, score_sq = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 6.0])
    log_w_new, mass = ops.spt_weights(
        log_w, log_p, score_sq, group=2, gamma=0.5, eta_w=0.1, tau=0.5, bound=9.0, backend=backend
    )
    logits = 0.5 * log_w + 0.5 * math.log(0.5) + 0.1 * (log_p - 0.25 * score_sq)
    torch.testing.assert_close(log_w_new, torch.log_softmax(logits, 0))
    torch.testing.assert_close(mass, 2 * torch.softmax(logits, 0))


groups = st.integers(1, 40)
sizes = st.integers(1, 200)
seeds = st.integers(0, 2**31)
bounds = st.sampled_from([0.1, 1.0, 8.0, math.inf])


@settings(deadline=None, max_examples=40)
@given(sizes, groups, seeds, bounds, st.booleans())
def test_weights_of_each_group_sum_to_one_within_the_bound(
    size: int, group: int, seed: int, bound: float, robust: bool
) -> None:
    torch.manual_seed(seed)
    log_w, log_p, score_sq, log_ref = inputs(size, group)
    log_w_new, mass = ops.spt_weights(
        log_w, log_p, score_sq, group=group, gamma=0.1, eta_w=1.0, tau=0.1, bound=bound, log_ref=log_ref, robust=robust
    )
    for part, masses in zip(log_w_new.split(group), mass.split(group), strict=True):
        assert float(part.double().exp().sum()) == pytest.approx(1, abs=1e-4)
        assert float(masses.log().abs().max()) <= bound + 1e-5
        torch.testing.assert_close(masses, len(part) * part.exp(), rtol=1e-4, atol=0)


@settings(deadline=None, max_examples=20)
@given(sizes, groups, seeds, st.floats(-50, 50))
def test_a_constant_added_to_log_p_changes_nothing(size: int, group: int, seed: int, constant: float) -> None:
    torch.manual_seed(seed)
    log_w, log_p, score_sq, _ = inputs(size, group)
    _, mass = ops.spt_weights(log_w, log_p, score_sq, group=group, **PLAIN)
    _, shifted = ops.spt_weights(log_w, log_p + constant, score_sq, group=group, **PLAIN)
    torch.testing.assert_close(mass, shifted, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(sizes, seeds, st.booleans())
def test_permuting_a_group_permutes_its_weights(size: int, seed: int, robust: bool) -> None:
    torch.manual_seed(seed)
    log_w, log_p, score_sq, _ = inputs(size, size)
    order = torch.randperm(size)
    _, mass = ops.spt_weights(log_w, log_p, score_sq, group=size, robust=robust, **PLAIN)
    _, permuted = ops.spt_weights(log_w[order], log_p[order], score_sq[order], group=size, robust=robust, **PLAIN)
    torch.testing.assert_close(permuted, mass[order], rtol=1e-4, atol=1e-5)


def test_full_pull_without_evidence_returns_the_reference_measure(backend: str) -> None:
    log_w, log_p, score_sq, log_ref = inputs(50, 50)
    log_w_new, _ = ops.spt_weights(
        log_w, log_p, score_sq, group=50, gamma=0.0, eta_w=0.0, tau=1.0, bound=99.0, log_ref=log_ref, backend=backend
    )
    torch.testing.assert_close(log_w_new, torch.log_softmax(log_ref, 0))


def test_without_the_pull_weights_collapse_and_with_it_they_do_not(backend: str) -> None:
    log_p, score_sq = torch.randn(128), torch.zeros(128)

    def heaviest(tau: float) -> float:
        log_w = torch.full((128,), -math.log(128))
        for _ in range(100):
            log_w, mass = ops.spt_weights(
                log_w, log_p, score_sq, group=128, gamma=0.0, eta_w=0.3, tau=tau, bound=99.0, backend=backend
            )
        return float(mass.max())

    assert heaviest(0.0) > 100
    assert heaviest(0.5) < 10


def test_an_outlier_ends_with_less_weight_than_a_clean_particle(backend: str) -> None:
    log_p = torch.randn(64)
    log_p[5] = -200.0
    log_w = torch.full((64,), -math.log(64))
    for _ in range(5):
        log_w, mass = ops.spt_weights(
            log_w,
            log_p,
            torch.zeros(64),
            group=64,
            gamma=0.0,
            eta_w=0.5,
            tau=0.2,
            bound=8.0,
            robust=True,
            backend=backend,
        )
    assert float(mass[5]) < 0.1 * float(mass.median())


def test_equal_values_survive_robust_scaling(backend: str) -> None:
    log_w = torch.full((8,), -math.log(8))
    _, mass = ops.spt_weights(log_w, torch.ones(8), torch.ones(8), group=8, robust=True, backend=backend, **PLAIN)
    torch.testing.assert_close(mass, torch.ones(8))


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(isa: str) -> None:
    log_w, log_p, score_sq, _ = inputs(100_003, 64)
    twice = ops.spt_weights(log_w, log_p, score_sq, group=64, backend="cpu", **PLAIN)
    torch.set_num_threads(1)
    once = ops.spt_weights(log_w, log_p, score_sq, group=64, backend="cpu", **PLAIN)
    assert all(same_bits(left, right) for left, right in zip(once, twice, strict=True))


def test_groups_do_not_see_each_other(isa: str) -> None:
    log_w, log_p, score_sq, _ = inputs(100, 25)
    whole = ops.spt_weights(log_w, log_p, score_sq, group=25, backend="cpu", **PLAIN)
    part = ops.spt_weights(log_w[25:75], log_p[25:75], score_sq[25:75], group=25, backend="cpu", **PLAIN)
    assert all(same_bits(left[25:75], right) for left, right in zip(whole, part, strict=True))


def test_strided_inputs(isa: str) -> None:
    log_w, log_p, score_sq, _ = inputs(33, 8)
    expected = ops.spt_weights(log_w, log_p, score_sq, group=8, backend="cpu", **PLAIN)
    gaps = torch.full((33, 3), float("nan"))
    gaps[:, 0] = log_p
    strided = ops.spt_weights(log_w, gaps[:, 0], score_sq, group=8, backend="cpu", **PLAIN)
    assert all(same_bits(left, right) for left, right in zip(expected, strided, strict=True))


def test_writes_nothing_beyond_its_outputs(isa: str) -> None:
    log_w, log_p, score_sq, _ = inputs(29, 8)
    log_w_new, mass = torch.full((45,), 7.0), torch.full((45,), 7.0)
    _native.core().spt_weights(
        isa, 1, 29, 8, log_w.data_ptr(), log_p.data_ptr(), score_sq.data_ptr(), 0, log_w_new.data_ptr(),
        mass.data_ptr(), 0.1, 0.3, 0.2, 1.0, True,
    )  # fmt: skip
    assert bool((log_w_new[29:] == 7).all())
    assert bool((mass[29:] == 7).all())


def test_gradients_take_the_torch_backend() -> None:
    log_w, log_p, score_sq, _ = inputs(8, 4)
    log_p.requires_grad_()
    _, mass = ops.spt_weights(log_w, log_p, score_sq, group=4, **PLAIN)
    mass[0].backward()
    assert log_p.grad is not None
    with pytest.raises(ValueError, match="gradients are required"):
        ops.spt_weights(log_w, log_p, score_sq, group=4, backend="cpu", **PLAIN)


def test_opcheck() -> None:
    log_w, log_p, score_sq, log_ref = inputs(33, 8)
    torch.library.opcheck(op, (log_w, log_p, score_sq, log_ref, 8, 0.1, 0.3, 0.2, 2.0, True, "cpu"))


def test_compiles_without_graph_breaks() -> None:
    log_w, log_p, score_sq, _ = inputs(33, 8)
    update = torch.compile(
        lambda p: ops.spt_weights(log_w, p, score_sq, group=8, **PLAIN)[1] + 1, fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(update(log_p), ops.spt_weights(log_w, log_p, score_sq, group=8, **PLAIN)[1] + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 0}, "group must be at least 1, got 0"),
        ({"tau": 1.5}, "tau must be at most 1, got 1.5"),
        ({"tau": math.nan}, "tau must be at least 0, got nan"),
        ({"bound": 0.0}, "bound must be greater than 0, got 0.0"),
        ({"log_p": torch.zeros(3)}, r"log_p must have shape \(4,\), got \(3,\)"),
    ],
)
def test_bad_values_name_the_argument(change: dict[str, object], message: str) -> None:
    zeros = torch.zeros(4)
    arguments = {"log_w": zeros, "log_p": zeros, "score_sq": zeros, "group": 2, **PLAIN, **change}
    with pytest.raises(ValueError, match=f"spt_weights: {message}"):
        ops.spt_weights(**arguments)


# The functional behind the update: transport that need not reach an outlier


def semi_proximal_transport(
    source: np.ndarray, target: np.ndarray, nu: np.ndarray, rho: float, eps: float
) -> np.ndarray:
    """Entropic plan of inf <C, pi> + rho KL(pi^T 1 | nu) with pi 1 uniform on `source`."""
    cost = ((source[:, None] - target[None]) ** 2).sum(-1)
    kernel = np.exp(-cost / eps)
    mu = np.full(len(source), 1 / len(source))
    right = np.ones(len(target))
    for _ in range(5000):
        left = mu / (kernel @ right)
        right = (nu / np.maximum(kernel.T @ left, 1e-300)) ** (rho / (rho + eps))  # out of reach: no mass
    return left[:, None] * kernel * right[None]


def transport_value(source: np.ndarray, target: np.ndarray, nu: np.ndarray, plan: np.ndarray, rho: float) -> float:
    cost = ((source[:, None] - target[None]) ** 2).sum(-1)
    reached = plan.sum(0)
    divergence = (reached * np.log(np.maximum(reached, 1e-300) / nu) - reached + nu).sum()
    return float((cost * plan).sum() + rho * divergence)


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
def test_entropic_solver_agrees_with_pot() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(12, 2)), rng.normal(size=(15, 2)) + 0.5
    nu = np.full(15, 1 / 15)
    plan = semi_proximal_transport(source, target, nu, rho=0.8, eps=0.2)
    cost = ((source[:, None] - target[None]) ** 2).sum(-1)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        np.full(12, 1 / 12),
        nu,
        cost,
        reg=0.2,
        reg_m=(float("inf"), 0.8),
        reg_type="entropy",
        numItermax=20000,
        stopThr=1e-12,
    )
    np.testing.assert_allclose(plan, expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(plan.sum(1), 1 / 12, rtol=1e-6)


@pytest.mark.parametrize("distance", [3.0, 30.0, 300.0])
@pytest.mark.parametrize("share", [0.01, 0.1])
def test_an_outlier_costs_at_most_rho_log_one_over_one_minus_its_share(share: float, distance: float) -> None:
    rng = np.random.default_rng(1)
    rho, source, clean = 0.5, rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    target = np.vstack([clean, [[distance, distance]]])
    nu = np.append(np.full(20, (1 - share) / 20), share)
    uniform = np.full(20, 1 / 20)
    transport = ot.emd2(uniform, uniform, ot.dist(source, clean))
    # The transport plan that ignores the outlier is feasible; the best plan costs no more.
    ignoring = np.column_stack([ot.emd(uniform, uniform, ot.dist(source, clean)), np.zeros(20)])
    bound = transport + rho * math.log(1 / (1 - share))
    assert transport_value(source, target, nu, ignoring, rho) == pytest.approx(bound, rel=1e-9)
    plan = semi_proximal_transport(source, target, nu, rho, eps=0.05)
    entropic_gap = 0.05 * math.log(20 * 21)
    assert transport_value(source, target, nu, plan, rho) <= bound + entropic_gap
    balanced = ot.emd2(uniform, nu, ot.dist(source, target))
    assert balanced >= 0.5 * share * distance**2 if distance > 10 else balanced > transport

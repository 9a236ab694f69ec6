"""The networks: gradients are autograd's, fused and plain forms agree, the condition enters as stated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastimpute.nn import EnergyMLP, Modulation, ScoreMLP


def randomised(net: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def plain_forward(net: ScoreMLP, x: Tensor, cond: Tensor, rows: int) -> Tensor:
    gain1, shift1, gain2, shift2 = net.modulation(cond).repeat_interleave(rows, 0).unbind(1)
    shape = (net.hidden_dim,)
    h = functional.silu(functional.layer_norm(x @ net.w1.T + net.b1, shape) * (1 + gain1) + shift1)
    h = functional.silu(functional.layer_norm(h @ net.w2.T + net.b2, shape) * (1 + gain2) + shift2)
    return h @ net.w3.T + net.b3


@pytest.mark.parametrize("rows", [1, 4])
def test_hand_written_backward_is_autograds(rows: int) -> None:
    net = ScoreMLP(6, 2, 32)
    randomised(net)
    x, cond = torch.randn(3 * rows, 6), torch.randn(3, 2)
    wanted = torch.autograd.grad(plain_forward(net, x, cond, rows).square().sum(), list(net.parameters()))
    got = torch.autograd.grad(net(x, cond).square().sum(), list(net.parameters()))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_fused_score_is_the_networks_output_over_sigma() -> None:
    net = ScoreMLP(7, 3)
    randomised(net)
    x, cond = torch.randn(5, 7), torch.randn(5, 3)
    with torch.no_grad():
        expected = net(x, cond) / 0.2
    torch.testing.assert_close(net.score(x, 0.2, cond), expected, rtol=1e-4, atol=1e-3)


def test_energy_score_is_the_gradient_of_log_p() -> None:
    net = EnergyMLP(7, 3)
    randomised(net)
    x, cond = torch.randn(5, 7, requires_grad=True), torch.randn(5, 3)
    log_p = net(x, cond)
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    fused_log_p, fused = net.value_score(x.detach(), cond)
    closed_log_p, closed = net.closed_form_score(x.detach(), cond)
    for ours in (fused, closed):
        torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=1e-3)
    for ours in (fused_log_p, closed_log_p):
        torch.testing.assert_close(ours, log_p, rtol=1e-4, atol=1e-4)


def test_closed_form_trains_the_weights_as_double_backpropagation_does() -> None:
    net = EnergyMLP(4, 0, 32)
    randomised(net)
    x = torch.randn(6, 4, requires_grad=True)
    (score,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    weights = [net.w1, net.w2, net.w3]
    wanted = torch.autograd.grad(score.square().sum(), weights)
    got = torch.autograd.grad(net.closed_form_score(x.detach())[1].square().sum(), weights)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_untrained_direct_head_adds_nothing() -> None:
    assert not ScoreMLP(5, 2)(torch.randn(4, 5), torch.randn(4, 2)).any()


def test_untrained_modulation_is_an_ordinary_layer_norm() -> None:
    assert not Modulation(3, 32)(torch.randn(4, 3)).any()


def test_network_without_conditions_has_one_learned_row() -> None:
    assert Modulation(0, 32)(None).shape == (1, 4, 32)


@pytest.mark.parametrize(
    ("cond", "message"), [(torch.zeros(2, 5), r"shape \(rows, 3\), got \(2, 5\)"), (None, "got None")]
)
def test_condition_of_another_width_is_refused(cond: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Modulation(3, 32)(cond)


@pytest.mark.parametrize("kind", [ScoreMLP, EnergyMLP])
def test_empty_dimensions_are_refused(kind: type[ScoreMLP] | type[EnergyMLP]) -> None:
    with pytest.raises(ValueError, match="in_dim, hidden_dim: expected at least 1"):
        kind(0)

"""The diffusion transformer: untrained it is the white denoiser, draws and windows do not mix, it trains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastimpute.nn import DiT, gap_features
from fastimpute.nn.dit import frames_to_decode
from fastimpute.nn.preconditioning import Preconditioning


def randomised(net: DiT) -> DiT:
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return net.requires_grad_(False)


def small(**options: int) -> DiT:
    sizes = {"hidden": 32, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, **options}
    return randomised(DiT(3, 12, **sizes))


def frame_mask(*gone: list[int]) -> Tensor:
    """Whole frames missing, one list per window of 12 frames."""
    missing = torch.zeros(len(gone), 12, 3, dtype=torch.bool)
    for window, frames in enumerate(gone):
        missing[window, frames] = True
    return missing


MASKS = {
    "frames": frame_mask([3, 4, 5], [0, 11], []),
    "cells": torch.rand(3, 12, 3, generator=torch.Generator().manual_seed(2)) < 0.4,
    "everything": torch.ones(3, 12, 3, dtype=torch.bool),
}
every_mask = pytest.mark.parametrize("missing", MASKS.values(), ids=MASKS)


@every_mask
def test_untrained_network_is_the_denoiser_of_white_noise(missing: Tensor) -> None:
    net = DiT(3, 12, hidden=32, heads=2)
    v = torch.randn(3, 12, 3)
    denoised = net.denoise(v, 0.5, net.encode(torch.randn(3, 12, 3), missing))
    torch.testing.assert_close(denoised, v.masked_fill(~missing, 0) / 1.25)


@every_mask
def test_observed_cells_get_no_residual(missing: Tensor) -> None:
    net = small()
    denoised = net.denoise(torch.randn(3, 12, 3), 2.0, net.encode(torch.randn(3, 12, 3), missing))
    assert not denoised[~missing].any()
    assert bool((denoised[missing] != 0).all())


@every_mask
def test_what_stands_in_missing_cells_and_what_noise_in_observed_ones_does_not_matter(missing: Tensor) -> None:
    net = small()
    x, v = torch.randn(3, 12, 3), torch.randn(3, 12, 3)
    expected = net.denoise(v, 2.0, net.encode(x, missing))
    memory = net.encode(x.masked_fill(missing, float("nan")), missing)
    torch.testing.assert_close(net.denoise(v.masked_fill(~missing, 9.0), 2.0, memory), expected)


def test_windows_do_not_see_each_other() -> None:
    net = small()
    x, v = torch.randn(3, 12, 3), torch.randn(3, 12, 3)
    missing = torch.stack([MASKS["frames"][0], MASKS["frames"][1], MASKS["everything"][0]])
    together = net.denoise(v, 0.3, net.encode(x, missing))
    for i in range(3):
        row = slice(i, i + 1)
        alone = net.denoise(v[row], 0.3, net.encode(x[row], missing[row]))
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)


@every_mask
@pytest.mark.parametrize("calendar_dim", [0, 2])
def test_row_i_is_a_draw_of_window_i_modulo_their_number(missing: Tensor, calendar_dim: int) -> None:
    net = small(calendar_dim=calendar_dim)
    calendar = torch.randn(3, 2) if calendar_dim else None
    memory = net.encode(torch.randn(3, 12, 3), missing, calendar=calendar)
    v, sigma = torch.randn(6, 12, 3), torch.rand(6) + 0.1
    each = net.denoise(v, sigma, memory)
    for half in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(net.denoise(v[half], sigma[half], memory), each[half], rtol=1e-4, atol=1e-5)


def test_one_noise_level_serves_all_rows() -> None:
    net = small(calendar_dim=2)
    memory = net.encode(torch.randn(3, 12, 3), MASKS["cells"], calendar=torch.randn(3, 2))
    v = torch.randn(6, 12, 3)
    each = net.denoise(v, torch.full((6,), 0.7), memory)
    for one in (0.7, torch.tensor(0.7)):
        torch.testing.assert_close(net.denoise(v, one, memory), each)


def test_noise_level_calendar_features_and_lag_biases_all_matter() -> None:
    net = small(calendar_dim=2)
    x, v, calendar = torch.randn(3, 12, 3), torch.randn(3, 12, 3), torch.randn(3, 2)
    missing = MASKS["frames"]
    memory = net.encode(x, missing, calendar=calendar)
    raw = net.decode(memory, v, 0.5)
    others = [
        net.decode(memory, v, 0.6),
        net.decode(net.encode(x, missing, calendar=-calendar), v, 0.5),
        net.decode(net.encode(x, missing, torch.zeros(3, 12, 9), calendar), v, 0.5),
    ]
    for table in (net.encoder_lags, net.decoder_lags, net.memory_lags):
        table.data[0, 8:12] += 1
        others.append(net.decode(net.encode(x, missing, calendar=calendar), v, 0.5))
        table.data[0, 8:12] -= 1
    for other in others:
        assert bool(((raw - other).abs().amax((1, 2)) > 1e-4)[:2].all())


@every_mask
def test_the_kernel_gives_what_pytorch_gives(missing: Tensor, backend: str) -> None:
    net = small(calendar_dim=2)
    x, v, calendar, sigma = torch.randn(3, 12, 3), torch.randn(6, 12, 3), torch.randn(3, 2), torch.rand(6) + 0.1
    memory = net.encode(x, missing, calendar=calendar, backend="torch")
    expected = net.denoise(v, sigma, memory, backend="torch")
    memory = net.encode(x, missing, calendar=calendar, backend=backend)
    torch.testing.assert_close(net.denoise(v, sigma, memory, backend=backend), expected, rtol=1e-4, atol=1e-4)


@every_mask
def test_bfloat16_products_change_a_denoised_window_little(missing: Tensor, precision: str) -> None:
    net = small()
    memory = net.encode(torch.randn(3, 12, 3), missing)
    v = torch.randn(3, 12, 3)
    expected, value = net.denoise(v, 0.5, memory), net.denoise(v, 0.5, memory, precision=precision)
    assert float((value - expected).norm() / expected.norm()) < 0.02


def test_every_parameter_of_a_trained_network_gets_a_gradient() -> None:
    net = small(calendar_dim=2).requires_grad_(True)
    memory = net.encode(torch.randn(3, 12, 3), MASKS["frames"], calendar=torch.randn(3, 2))
    said, log_spread = net.decode_with_spread(memory, torch.randn(3, 12, 3), torch.rand(3) + 0.1)
    (said.square().sum() + log_spread.exp().sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_what_is_said_beside_a_spread_is_that_without_one() -> None:
    net = small()
    memory, v = net.encode(torch.randn(3, 12, 3), MASKS["frames"]), torch.randn(6, 12, 3)
    said, log_spread = net.decode_with_spread(memory, v, 0.5)
    torch.testing.assert_close(said, net.decode(memory, v, 0.5))
    assert log_spread.shape == v.shape
    assert not log_spread.masked_select(~MASKS["frames"].repeat(2, 1, 1)).any()


def test_training_learns_more_than_the_white_denoiser() -> None:
    """Windows that are one random level: the observed frames tell the missing ones."""
    torch.manual_seed(3)
    net = DiT(1, 8, hidden=32, encoder_layers=1, decoder_layers=1, heads=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        x = torch.randn(64, 1, 1).expand(64, 8, 1)
        missing = torch.rand(64, 8, 1) < 0.5
        sigma = torch.exp(torch.randn(64) * 1.2)
        v = x + sigma[:, None, None] * torch.randn(64, 8, 1)
        error = (net.denoise(v, sigma, net.encode(x, missing)) - x)[missing]
        weight = ((1 + sigma.square()) / sigma.square())[:, None, None].expand(64, 8, 1)[missing]
        loss = (weight * error.square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[:5]) / 5 > 0.8
    assert sum(losses[-20:]) / 20 < 0.3


@given(st.floats(1e-3, 1e3))
def test_preconditioning_keeps_unit_variances(sigma: float) -> None:
    """EDM, appendix B.6: input and target of the network have variance one at every noise level."""
    factors = Preconditioning.at(torch.tensor(sigma, dtype=torch.float64))
    assert float(factors.scale**2 * (1 + sigma**2)) == pytest.approx(1)
    target = ((1 - factors.skip) ** 2 + (factors.skip * sigma) ** 2) / factors.out**2
    assert float(target) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_decoded_frames_are_those_with_missing_cells(rows: list[list[bool]]) -> None:
    needed = torch.tensor(rows)
    frames, absent = frames_to_decode(needed[:, :, None])
    frames = torch.arange(6).expand(len(rows), 6) if frames is None else frames
    absent = torch.zeros(frames.shape, dtype=torch.bool) if absent is None else absent
    for row in range(len(rows)):
        assert frames[row][~absent[row]].tolist() == needed[row].nonzero().flatten().tolist()
        assert len(set(frames[row].tolist())) == frames.shape[1]


def test_gap_features_count_frames_on_a_logarithmic_scale() -> None:
    missing = torch.tensor([False, True, True, True, False, True])[None, :, None]
    back, ahead, length = (torch.expm1(gap_features(missing) * torch.tensor(7.0).log())).unbind(-1)
    torch.testing.assert_close(back[0], torch.tensor([0.0, 1, 2, 3, 0, 1]))
    torch.testing.assert_close(ahead[0], torch.tensor([0.0, 3, 2, 1, 0, 6]))
    torch.testing.assert_close(length[0], torch.tensor([0.0, 3, 3, 3, 0, 6]))


def test_gap_features_of_a_channel_without_observations_are_one() -> None:
    assert bool((gap_features(torch.ones(2, 5, 3, dtype=torch.bool)) == 1).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": torch.zeros(2, 12, 2, dtype=torch.bool)}, r"missing: expected shape \(2, 12, 3\), got"),
        ({"observed": torch.zeros(2, 13, 3)}, r"observed: expected shape \(n, 1 to 12, 3\), got \(2, 13, 3\)"),
        ({"features": torch.zeros(2, 12, 1)}, r"features: expected shape \(2, 12, 9\), got \(2, 12, 1\)"),
        ({"calendar": torch.zeros(2, 2)}, r"calendar: expected None, got \(2, 2\)"),
    ],
)
def test_windows_that_do_not_fit_are_refused(options: dict[str, Tensor], message: str) -> None:
    arguments = {"observed": torch.zeros(2, 12, 3), "missing": torch.zeros(2, 12, 3, dtype=torch.bool), **options}
    with pytest.raises(ValueError, match=message):
        small().encode(**arguments)


def test_draws_and_noise_levels_that_do_not_fit_are_refused() -> None:
    net = small()
    memory = net.encode(torch.zeros(2, 12, 3), MASKS["cells"][:2])
    with pytest.raises(ValueError, match=r"expected shape \(a multiple of 2, 12, 3\), got \(3, 12, 3\)"):
        net.denoise(torch.zeros(3, 12, 3), 1.0, memory)
    with pytest.raises(ValueError, match=r"sigma: expected one number or shape \(4,\), got 2 values"):
        net.denoise(torch.zeros(4, 12, 3), torch.ones(2), memory)
    with pytest.raises(ValueError, match="sigma: expected a positive number, got 0"):
        net.denoise(torch.zeros(2, 12, 3), 0, memory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "expected at least 1"),
        ({"heads": 5}, "expected a multiple of heads = 5, got 64"),
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiT(**{"channels": 2, "window": 8, **options})


def parameters_of(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_sizes() -> None:
    assert 2.5e5 < parameters_of(DiT.tiny(8, 96)) < 4e5
    assert 1.2e7 < parameters_of(DiT.paper(8, 96)) < 2e7

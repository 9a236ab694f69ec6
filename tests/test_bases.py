"""Bases: closed-form windows for any mask, learned from a series with gaps, judged on held-out cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastimpute.bases import Base, GaussianBase, LinearBase, choose_base, fill, refit, unpack_base
from fastimpute.bases.choose import KINDS
from fastimpute.bases.em import Moments
from fastimpute.bases.overlap import own_cells
from fastimpute.bases.spread_table import Gaps
from fastimpute.gaps import hold_out, linear
from fastimpute.profile import Period
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table
from fastimpute.train.windows import PatchSampler, PatchTable

Table = NDArray[np.float64]
NOTHING = Period()


def daily(rows: int = 720, sensors: int = 3, seed: int = 0) -> Table:
    """A day of 24 rows under correlated noise that decays over a few rows."""
    rng = np.random.default_rng(seed)
    noise = np.zeros((rows, sensors))
    for row in range(1, rows):
        noise[row] = 0.9 * noise[row - 1] + 0.3 * (rng.normal(size=sensors) + rng.normal())
    return 2 * np.sin(2 * np.pi * np.arange(rows) / 24)[:, None] + noise


def wander(rows: int = 720, sensors: int = 3, seed: int = 0) -> Table:
    """Random walks that share most of their steps."""
    rng = np.random.default_rng(seed)
    return np.cumsum(0.5 * rng.normal(size=(rows, sensors)) + rng.normal(size=(rows, 1)), 0)


def with_gaps(truth: Table, rate: float = 0.3, seed: int = 1) -> Series:
    gone = np.random.default_rng(seed).random(truth.shape) < rate
    return Series.read(np.where(gone, np.nan, truth))


def windows_of(series: Series, rows: int = 12, stride: int = 2) -> PatchTable:
    columns = np.arange(series.shape[1])[None]
    return patch_table(Patches(rows, stride, columns), series, Cycles())


def standardised(truth: Table, series: Series) -> NDArray[np.float32]:
    return ((truth - series.scaler.mean) / series.scaler.std).astype(np.float32)


every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def fitted() -> tuple[Series, PatchTable, dict[str, Base]]:
    series = with_gaps(daily())
    table = windows_of(series)
    return (
        series,
        table,
        {kind: base.fit(series, series.missing, table, period=Period(24)) for kind, base in KINDS.items()},
    )


Fitted = tuple[Series, PatchTable, dict[str, Base]]


def ask(fitted: Fitted, kind: str, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """values, mean and deviation of the first windows under masks (n, D)."""
    series, table, bases = fitted
    patches = torch.arange(len(missing))
    values = PatchSampler(table, torch.Generator()).gather(torch.from_numpy(series.values), patches)
    return values, *bases[kind].condition(values, missing, patches)


@every_kind
def test_observed_cells_come_back_bit_for_bit_without_spread(fitted: Fitted, kind: str) -> None:
    missing = torch.rand(20, 36) < 0.4
    values, mean, deviation = ask(fitted, kind, missing)
    assert same_bits(mean[~missing], values[~missing])
    assert not deviation[~missing].any()
    assert bool((deviation[missing] > 0).all())
    assert bool(mean.isfinite().all())


@every_kind
def test_values_at_missing_cells_are_never_read(fitted: Fitted, kind: str) -> None:
    series, table, bases = fitted
    missing, patches = torch.rand(9, 36) < 0.5, torch.arange(9)
    values = PatchSampler(table, torch.Generator()).gather(torch.from_numpy(series.values), patches)
    clean = bases[kind].condition(values, missing, patches)
    poisoned = bases[kind].condition(values.masked_fill(missing, float("nan")), missing, patches)
    assert all(same_bits(left, right) for left, right in zip(clean, poisoned, strict=True))


@every_kind
def test_a_window_with_nothing_in_it_has_an_answer(fitted: Fitted, kind: str) -> None:
    _, mean, deviation = ask(fitted, kind, torch.ones(2, 36, dtype=torch.bool))
    assert bool(mean.isfinite().all())
    assert bool((deviation > 0.1).all())


@every_kind
def test_packed_and_unpacked_it_says_the_same(fitted: Fitted, kind: str) -> None:
    series, table, bases = fitted
    again = unpack_base(kind, *bases[kind].pack())
    missing, patches = torch.rand(5, 36) < 0.5, torch.arange(5)
    values = torch.randn(5, 36)
    with pytest.raises(RuntimeError, match="not bound to a series"):
        again.condition(values, missing, patches)
    ours = again.bind(series, table).condition(values, missing, patches)
    assert all(same_bits(a, b) for a, b in zip(ours, bases[kind].condition(values, missing, patches), strict=True))


@every_kind
def test_spread_grows_with_the_distance_to_observations(fitted: Fitted, kind: str) -> None:
    missing = torch.zeros(1, 12, 3, dtype=torch.bool)
    missing[:, 2:11] = True
    _, _, deviation = ask(fitted, kind, missing.view(1, 36))
    frames = deviation.view(12, 3).mean(1)
    assert float(frames[6]) > float(frames[2])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_lines_of_windows_are_those_of_a_series(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    values, missing = rng.normal(size=(14, 3)).astype(np.float32), rng.random((14, 3)) < rate
    gaps = Gaps.of(torch.from_numpy(missing)[None])
    lines = gaps.lines(torch.from_numpy(values)[None])[0].numpy()
    np.testing.assert_allclose(lines[missing], linear(values, missing)[missing], atol=1e-5)


def test_em_finds_the_covariance_behind_the_gaps() -> None:
    rng = np.random.default_rng(0)
    lags = np.abs(np.arange(6)[:, None] - np.arange(6))
    truth = rng.normal(size=(20000, 6)) @ np.linalg.cholesky(0.8**lags).T
    series = with_gaps(truth.reshape(-1, 1), rate=0.4)
    columns = np.array([[0]])
    table = patch_table(Patches(6, 6, columns), series, Cycles())
    moments = GaussianBase.fit(series, series.missing, table).moments
    np.testing.assert_allclose(moments.covariance.numpy(), 0.8**lags, atol=0.08)


@pytest.mark.parametrize(
    ("make", "period", "kinds"), [(daily, Period(24), ("gaussian", "increments")), (wander, NOTHING, ("increments",))]
)
def test_the_choice_suits_the_series(make: object, period: Period, kinds: tuple[str, ...]) -> None:
    truth = make()  # type: ignore[operator]
    series = with_gaps(truth)
    table = windows_of(series)
    choice = choose_base(series, hold_out(series.missing), table, period=period)
    assert choice.base.kind in kinds
    assert set(choice.scores) >= {"linear", "gaussian", "increments"}
    filling = fill(refit(choice.base, series, series.missing, table, period=period), series, series.missing, table)
    z = standardised(truth, series)
    lines = linear(series.values, series.missing)
    cells = series.missing
    assert np.abs(filling.mean - z)[cells].mean() < np.abs(lines - z)[cells].mean()


def test_raw_intervals_of_a_gaussian_cover_a_gaussian_series() -> None:
    truth = daily(rows=3000)
    series = with_gaps(truth)
    table = windows_of(series)
    filling = fill(GaussianBase.fit(series, series.missing, table, period=Period(24)), series, series.missing, table)
    cells = series.missing
    inside = np.abs(filling.mean - standardised(truth, series))[cells] <= 1.96 * filling.deviation[cells]
    assert inside.mean() == pytest.approx(0.95, abs=0.03)


@every_kind
def test_the_overlap_average_keeps_observed_cells(fitted: Fitted, kind: str) -> None:
    series, table, bases = fitted
    mean, deviation = fill(bases[kind], series, series.missing, table)
    assert mean[~series.missing].tobytes() == series.values[~series.missing].tobytes()
    assert not deviation[~series.missing].any()
    assert (deviation[series.missing] > 0).all()


def test_straight_lines_of_short_gaps_survive_the_overlap_average() -> None:
    truth = wander(300, 2)
    gone = np.zeros(truth.shape, bool)
    gone[10::7] = True
    series = Series.read(np.where(gone, np.nan, truth))
    table = windows_of(series)
    mean, _ = fill(LinearBase.fit(series, series.missing, table), series, series.missing, table)
    inner = slice(2, -2)
    np.testing.assert_allclose(mean[inner], linear(series.values, series.missing)[inner], atol=0.05)


def test_a_window_of_neighbours_answers_for_its_first_sensor() -> None:
    series = with_gaps(daily())
    assert own_cells(windows_of(series)).all()
    columns = np.array([[0, 1], [1, 0], [2, 1]])
    table = patch_table(Patches(4, 2, columns), series, Cycles())
    assert own_cells(table).tolist() == [True, False] * 4


def test_nothing_to_judge_by_means_straight_lines() -> None:
    series = with_gaps(daily(rows=30))
    choice = choose_base(series, np.zeros(series.shape, bool), windows_of(series))
    assert choice.base.kind == "linear"
    assert choice.scores == {}


def test_an_unknown_kind_is_refused() -> None:
    series = with_gaps(daily(rows=60))
    with pytest.raises(ValueError, match="kinds: expected some of linear, profile, gaussian, increments"):
        choose_base(series, hold_out(series.missing), windows_of(series), kinds=("spline",))


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one() -> None:
    series = with_gaps(daily())
    table = windows_of(series)
    twice = GaussianBase.fit(series, series.missing, table, period=Period(24)).moments
    torch.set_num_threads(1)
    once: Moments = GaussianBase.fit(series, series.missing, table, period=Period(24)).moments
    assert all(same_bits(left, right) for left, right in zip(once, twice, strict=True))

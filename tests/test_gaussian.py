"""GaussianImputer: what it adds to the behaviour all imputers share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from imputers import gappy, gappy_frame
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute import GaussianImputer
from fastimpute.cli import commands
from fastimpute.evaluation import standardised_scores
from fastimpute.simulate import traffic

Table = NDArray[np.float64]


@pytest.fixture(scope="module")
def simulated() -> tuple[Table, NDArray[np.bool_], Table, GaussianImputer]:
    truth = traffic(days=5, sensors=4, seed=0).truth.to_numpy()
    hidden = fi.masks.block(truth.shape, 0.3, seed=1)
    given = np.where(hidden, np.nan, truth)
    return truth, hidden, given, GaussianImputer(window=24, random_state=0).fit(given)


Simulated = tuple[Table, NDArray[np.bool_], Table, GaussianImputer]


def test_it_beats_straight_lines(simulated: Simulated) -> None:
    truth, hidden, given, imputer = simulated
    ours = standardised_scores(truth, imputer.transform(given), hidden)
    lines = standardised_scores(truth, fi.LinearImputer().fit_transform(given), hidden)
    assert ours.mae < 0.95 * lines.mae
    assert ours.mse < lines.mse


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_intervals_cover_as_often_as_asked(simulated: Simulated, level: float) -> None:
    truth, hidden, given, imputer = simulated
    lower, upper = imputer.predict_interval(given, level=level)
    inside = ((truth >= lower) & (truth <= upper))[hidden]
    gaps = hidden.sum() / 30  # rows of a gap: its cells are inside or outside together
    assert inside.mean() == pytest.approx(level, abs=2 * np.sqrt(level * (1 - level) / gaps))


def test_intervals_hold_the_point_estimate_and_widen_with_the_level(simulated: Simulated) -> None:
    _, hidden, given, imputer = simulated
    filled = imputer.transform(given)
    narrow, wide = imputer.predict_interval(given, 0.5), imputer.predict_interval(given, 0.95)
    assert ((narrow[0] <= filled) & (filled <= narrow[1]))[hidden].all()
    assert ((wide[1] - wide[0]) >= (narrow[1] - narrow[0]))[hidden].all()


def test_observed_cells_are_their_own_interval(simulated: Simulated) -> None:
    _, hidden, given, imputer = simulated
    for end in imputer.predict_interval(given):
        assert end[~hidden].tobytes() == given[~hidden].tobytes()
        assert np.isfinite(end).all()


def test_intervals_come_in_the_type_of_the_data() -> None:
    frame = gappy_frame(rows=300)
    lower, upper = GaussianImputer(random_state=0).fit(frame).predict_interval(frame)
    assert isinstance(lower, pd.DataFrame)
    pd.testing.assert_index_equal(upper.index, frame.index)
    assert list(upper.columns) == list(frame.columns)


def test_a_frame_without_gaps_is_its_own_interval() -> None:
    imputer, complete = GaussianImputer(random_state=0).fit(gappy_frame(rows=200)), gappy_frame(rate=0.0)
    for end in imputer.predict_interval(complete):
        pd.testing.assert_frame_equal(end, complete, check_exact=True)


def test_intervals_survive_saving(tmp_path: Path, simulated: Simulated) -> None:
    _, _, given, imputer = simulated
    imputer.save(tmp_path / "model.safetensors")
    again = fi.load(tmp_path / "model.safetensors")
    for ours, theirs in zip(imputer.predict_interval(given), again.predict_interval(given), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_level_that_too_few_cells_were_held_out_for_is_refused() -> None:
    X = gappy(rows=12, sensors=2)
    with pytest.raises(ValueError, match=r"a level of 0.99 needs at least 99 scores"):
        GaussianImputer(random_state=0).fit(X).predict_interval(X, level=0.99)


def test_level_must_lie_between_zero_and_one(simulated: Simulated) -> None:
    _, _, given, imputer = simulated
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 95"):
        imputer.predict_interval(given, level=95)


def test_new_data_is_laid_over_the_day_by_its_time_stamps() -> None:
    week = traffic(days=8, sensors=4, seed=3).truth
    rng = np.random.default_rng(0)
    gappy_week = week.mask(rng.random(week.shape) < 0.3)
    imputer = GaussianImputer(random_state=0, base="profile").fit(gappy_week.iloc[:-100])
    later = gappy_week.iloc[-100:]
    error = np.abs(imputer.transform(later) - week.iloc[-100:]).to_numpy()[later.isna().to_numpy()].mean()
    shifted = later.set_axis(later.index + pd.Timedelta(hours=12))
    wrong = np.abs(imputer.transform(shifted).to_numpy() - week.iloc[-100:].to_numpy())[later.isna().to_numpy()].mean()
    assert error < wrong


def test_a_series_shorter_than_a_window_is_filled(simulated: Simulated) -> None:
    _, _, given, imputer = simulated
    filled = imputer.transform(given[:3])
    assert filled.shape == (3, 4)
    assert np.isfinite(filled).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "spline"}, "base: expected one of auto, linear, profile, gaussian, increments, got 'spline'"),
        ({"window": 0}, "window: expected None or an integer of at least 1, got 0"),
        ({"neighbors": -1}, "neighbors: expected None or an integer of at least 0, got -1"),
        ({"stride": True}, "stride: expected None or an integer of at least 1, got True"),
        ({"random_state": "one"}, "random_state: expected None or an integer of at least 0, got 'one'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianImputer(**settings).fit(gappy())  # type: ignore[arg-type]


def test_points_of_etth1(data_dir: Path | None) -> None:
    """30 % of the first 1500 rows; simulated traffic stands in where the file is absent."""
    path = None if data_dir is None else data_dir / "etth1.csv"
    found = path is not None and path.is_file()
    truth = (
        pd.read_csv(path).drop(columns="date").to_numpy(np.float64)[:1500]
        if found
        else traffic(days=4, sensors=4, seed=5).truth.to_numpy()
    )
    hidden = fi.masks.point(truth.shape, 0.3, seed=0)
    given = np.where(hidden, np.nan, truth)
    scores = standardised_scores(truth, GaussianImputer(window=24, random_state=0).fit_transform(given), hidden)
    lines = standardised_scores(truth, fi.LinearImputer().fit_transform(given), hidden)
    assert scores.mae < (0.85 if found else 1.01) * lines.mae


def test_the_command_line_knows_the_method(tmp_path: Path) -> None:
    frame = gappy_frame(rows=80, sensors=3)
    frame.to_csv(tmp_path / "in.csv")
    arguments = ["impute", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--method", "gaussian", "--quiet"]
    assert CliRunner().invoke(commands, arguments).exit_code == 0
    filled = pd.read_csv(tmp_path / "out.csv", index_col=0)
    assert filled.shape == frame.shape
    assert not filled.isna().any().any()


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one(simulated: Simulated) -> None:
    _, _, given, _ = simulated
    part = given[:500]

    def results() -> list[bytes]:
        imputer = GaussianImputer(window=12, random_state=0).fit(part)
        return [table.tobytes() for table in (imputer.transform(part), *imputer.predict_interval(part))]

    twice = results()
    torch.set_num_threads(1)
    assert results() == twice

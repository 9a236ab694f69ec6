"""Intervals from held-out residuals, and those of SPIRITImputer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from imputers import gappy
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute import SPIRITImputer
from fastimpute.gaps import gap_distance
from fastimpute.residuals import HeldOut, ResidualIntervals
from fastimpute.simulate import traffic

Mask = NDArray[np.bool_]


def trial(rows: int, seed: int) -> tuple[NDArray[np.float32], HeldOut]:
    """Truth, and a filling whose errors grow with the distance to observations and differ by sensor."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(rows, 3)).astype(np.float32)
    hidden = fi.masks.block(truth.shape, 0.4, seed, 1, 8)
    spread = np.array([0.5, 1.0, 2.0]) * np.sqrt(1 + gap_distance(hidden))
    filled = np.where(hidden, truth + spread * rng.normal(size=truth.shape), truth).astype(np.float32)
    return truth, HeldOut(filled, hidden, hidden)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_fresh_residuals_are_covered_as_often_as_asked(level: float) -> None:
    truth, known = trial(4000, 0)
    intervals = ResidualIntervals.fit(truth, [known])
    fresh_truth, fresh = trial(4000, 1)
    inside = np.abs(fresh.filled - fresh_truth) <= intervals.half_width(fresh.hidden, level)
    for sensor in range(3):
        assert inside[:, sensor][fresh.hidden[:, sensor]].mean() == pytest.approx(level, abs=0.03)


def test_noisy_sensors_and_far_cells_get_wider_intervals() -> None:
    truth, known = trial(4000, 0)
    intervals = ResidualIntervals.fit(truth, [known])
    missing = np.zeros((40, 3), bool)
    missing[10:26] = True
    width = intervals.half_width(missing, 0.9)
    assert width[12, 0] < width[12, 1] < width[12, 2]
    assert (width[17] > width[10]).all()


def test_pack_and_unpack() -> None:
    truth, known = trial(600, 0)
    intervals = ResidualIntervals.fit(truth, [known, known])
    again = ResidualIntervals.unpack(intervals.pack())
    np.testing.assert_array_equal(again.half_width(known.hidden, 0.9), intervals.half_width(known.hidden, 0.9))


def test_nothing_held_out_is_an_error_only_when_asked() -> None:
    truth, known = trial(50, 0)
    intervals = ResidualIntervals.fit(truth, [known._replace(held=np.zeros_like(known.held))])
    with pytest.raises(ValueError, match="needs at least 19 scores, got 0"):
        intervals.half_width(known.hidden, 0.95)


@pytest.fixture(scope="module")
def spirit() -> tuple[NDArray[np.float64], Mask, SPIRITImputer]:
    truth = traffic(days=6, sensors=5, seed=0).truth.to_numpy()
    hidden = fi.masks.point(truth.shape, 0.3, seed=1)
    imputer = SPIRITImputer(
        start="linear", random_state=0, loops=1, train_steps=5, iterations=2, hidden_dim=32, verbose=False
    )
    return truth, hidden, imputer.fit(np.where(hidden, np.nan, truth))


Spirit = tuple[NDArray[np.float64], Mask, SPIRITImputer]


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_spirit_intervals_cover_as_often_as_asked(spirit: Spirit, level: float) -> None:
    truth, hidden, imputer = spirit
    lower, upper = imputer.predict_interval(np.where(hidden, np.nan, truth), level)
    inside = ((truth >= lower) & (truth <= upper))[hidden]
    error = 4 * np.sqrt(level * (1 - level) / len(imputer.state_.intervals.calibration.scores))
    assert inside.mean() == pytest.approx(level, abs=error)


def test_spirit_intervals_are_centred_on_its_point_estimate(spirit: Spirit) -> None:
    truth, hidden, imputer = spirit
    given = np.where(hidden, np.nan, truth)
    lower, upper = imputer.predict_interval(given)
    np.testing.assert_allclose((lower + upper) / 2, imputer.transform(given), rtol=1e-5)
    assert lower[~hidden].tobytes() == given[~hidden].tobytes()


def test_spirit_intervals_survive_saving(tmp_path: Path, spirit: Spirit) -> None:
    truth, hidden, imputer = spirit
    given = np.where(hidden, np.nan, truth)
    imputer.save(tmp_path / "model.safetensors")
    again = fi.load(tmp_path / "model.safetensors")
    for ours, theirs in zip(imputer.predict_interval(given), again.predict_interval(given), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_too_little_data_is_refused_with_what_is_needed() -> None:
    X = gappy(rows=14, sensors=2)
    imputer = SPIRITImputer(start="linear", loops=1, train_steps=2, iterations=1, hidden_dim=32, verbose=False).fit(X)
    with pytest.raises(ValueError, match=r"a level of 0.99 needs at least 99 scores"):
        imputer.predict_interval(X, 0.99)

"""evaluate: hide, impute, score; linear interpolation beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from imputers import FACTORIES, Factory, gappy, gappy_frame
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute import evaluation, masks
from fastimpute.layouts import read_layout
from fastimpute.series import Series


@pytest.fixture(params=list(FACTORIES))
def imputer(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


@pytest.mark.parametrize("pattern", ["point", "block"])
def test_report_scores_hidden_cells_only(imputer: Factory, pattern: str) -> None:
    report = fi.evaluate(imputer(), gappy_frame(rows=200), pattern=pattern, rate=0.2, seed=3)
    assert report.missing_before == np.isnan(gappy(rows=200)).sum()
    assert 0 < report.hidden < 0.3 * 800
    assert report.result.standardised.mae > 0
    assert report.result.raw.mae > report.result.standardised.mae  # the waves deviate by about seven


def test_linear_stands_beside_and_equals_itself() -> None:
    report = fi.evaluate(fi.LinearImputer(), gappy_frame(), rate=0.2)
    assert report.result.raw == report.linear.raw
    assert report.result.standardised == report.linear.standardised


def test_scores_are_those_of_the_definition() -> None:
    X, rate, seed = gappy(rows=150, rate=0.0), 0.3, 1
    hidden = masks.point(X.shape, rate, seed)
    left = np.where(hidden, np.nan, X)
    filled = pd.DataFrame(left).interpolate(limit_direction="both").to_numpy()
    error = ((filled - X) / np.nanstd(left, axis=0))[hidden]
    scores = fi.evaluate(fi.LinearImputer(), X, rate=rate, seed=seed).result.standardised
    assert scores.mae == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert scores.mse == pytest.approx((error**2).mean(), rel=1e-5)


def test_the_imputer_itself_is_not_fitted(imputer: Factory) -> None:
    mine = imputer()
    fi.evaluate(mine, gappy_frame(), rate=0.1)
    assert not hasattr(mine, "n_features_in_")


def test_what_was_fitted_on_the_hidden_cells_does_not_help(imputer: Factory) -> None:
    X = gappy_frame()
    fresh = fi.evaluate(imputer(), X, rate=0.2)
    assert fi.evaluate(imputer().fit(X), X, rate=0.2).result.raw == fresh.result.raw


def test_the_method_never_sees_a_hidden_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    X = gappy_frame(rate=0.0)
    hidden = evaluation.hide(read_layout(X), "point", 0.3, 0)
    seen: list[NDArray[np.bool_]] = []
    original = fi.LinearImputer._impute_series

    def record(self: Any, series: Series, state: None) -> Any:
        seen.append(series.missing)
        return original(self, series, state)

    monkeypatch.setattr(fi.LinearImputer, "_impute_series", record)
    fi.evaluate(fi.LinearImputer(), X, rate=0.3, seed=0)
    assert all((missing == hidden).all() for missing in seen)


def test_samples_and_integers_can_be_evaluated(imputer: Factory) -> None:
    samples = np.arange(240).reshape(6, 20, 2) % 7
    assert fi.evaluate(imputer(), samples, rate=0.2).hidden > 0


def test_a_sensor_keeps_its_last_observation() -> None:
    X = np.ones((30, 2))
    X[1:, 0] = np.nan
    hidden = evaluation.hide(read_layout(X), "point", 0.9, 0)
    assert not hidden[:, 0].any()


def test_nothing_to_hide_is_refused() -> None:
    with pytest.raises(ValueError, match="hides nothing"):
        fi.evaluate(fi.LinearImputer(), gappy_frame(), rate=0.0)


def test_report_prints_and_becomes_json() -> None:
    report = fi.evaluate(fi.LinearImputer(), gappy_frame(), rate=0.2)
    assert "linear" in str(report)
    assert "60 rows x 4 sensors" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["linear"]["raw"]["mae"] == report.linear.raw.mae


def test_block_mask_on_real_data_gives_the_known_linear_error(data_dir: Path | None) -> None:
    """METR-LA, 30 % blocks, seed 0: .486 / .716; simulated traffic where the data are absent."""
    if data_dir is None:
        report = fi.evaluate(fi.LinearImputer(), fi.simulate.traffic(days=3).truth, "block", 0.3, 0)
        assert 0.2 < report.linear.standardised.mae < 0.6
        return
    report = fi.evaluate(fi.LinearImputer(), pd.read_csv(data_dir / "metr_la_week.csv"), "block", 0.3, 0)
    assert report.linear.standardised.mae == pytest.approx(0.486, abs=0.001)
    assert report.linear.standardised.mse == pytest.approx(0.716, abs=0.001)

"""SPIRITImputer as a user meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from imputers import gappy, gappy_frame
from scipy.signal import lfilter

import fastimpute as fi
from fastimpute import SPIRITImputer
from fastimpute.fold import HELD_OUT_LEAST, folds_wanted
from fastimpute.gaps import hold_out
from fastimpute.referee import halves


def small(**settings: Any) -> SPIRITImputer:
    quick = {"loops": 2, "train_steps": 20, "iterations": 3, "hidden_dim": 64, "random_state": 0}
    return SPIRITImputer(**{**quick, **settings})


def test_better_than_linear_on_simulated_traffic() -> None:
    table = fi.simulate.traffic(days=3, sensors=5, step_minutes=15, seed=1).truth.to_numpy(dtype=np.float64)
    hidden = fi.masks.block(table.shape, 0.3, 0)
    given = np.where(hidden, np.nan, table)
    ours = np.abs(small(loops=4, train_steps=100).fit_transform(given) - table)[hidden].mean()
    linear = np.abs(fi.LinearImputer().fit_transform(given) - table)[hidden].mean()
    assert ours < 0.8 * linear


def test_same_seed_same_bits_on_any_number_of_threads() -> None:
    X, threads = gappy(rows=200), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = small().fit_transform(X)
        torch.set_num_threads(2)
        two = small().fit_transform(X)
    finally:
        torch.set_num_threads(threads)
    assert (one == two).all()


def test_transform_of_the_data_of_fit_is_what_fit_transform_gave() -> None:
    X = gappy(rows=200)
    imputer = small()
    assert np.allclose(imputer.fit_transform(X), imputer.transform(X), atol=1e-4)


def noise_and_road(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data to fit on, data of quite another kind to fill, and where that is hidden."""
    rng = np.random.default_rng(0)
    noise = np.where(rng.random((rows, 4)) < 0.3, np.nan, rng.normal(size=(rows, 4)))
    road = lfilter([0.25], [1, -0.98], rng.normal(size=(rows, 1)), axis=0) + 0.02 * rng.normal(size=(rows, 4))
    return noise, road, rng.random(road.shape) < 0.3


def test_what_was_learned_counts_for_little_where_new_data_is_of_another_kind() -> None:
    noise, road, hidden = noise_and_road(300)
    filled = small().fit(noise).transform(np.where(hidden, np.nan, road))
    assert np.abs(filled - road)[hidden].mean() < 0.1  # with the weights of fit: .4 and more


def test_intervals_of_new_data_are_sized_by_its_own_residuals() -> None:
    noise, road, hidden = noise_and_road(5000)
    lower, upper = small().fit(noise).predict_interval(np.where(hidden, np.nan, road))
    assert 0.9 < ((lower <= road) & (road <= upper))[hidden].mean() < 0.99
    assert (upper - lower)[hidden].mean() < 0.5  # those of fit: about 4


def test_transform_fills_other_data_of_the_same_sensors_after_a_round_trip_to_disk(tmp_path: Path) -> None:
    imputer = small().fit(gappy_frame(rows=200))
    imputer.save(tmp_path / "model.safetensors")
    new = gappy_frame(rows=80, seed=5)
    again = fi.load(tmp_path / "model.safetensors").transform(new)
    pd.testing.assert_frame_equal(again, imputer.transform(new))
    assert not again.isna().any().any()


@pytest.mark.parametrize(
    "settings",
    [
        {"head": "energy", "gamma": 0.01},
        {"head": "energy", "rho": 1.0},
        {"gaussian": False},
        {"adam": True, "eta": 0.01},
        {"rho": 0.5, "robust_weights": True},
        {"dissipation": True},
        {"start": "linear", "sigma": (0.2, 0.1)},
        {"window": 7, "neighbors": 1, "stride": 3},
        {"blend": False},
        {"backend": "torch"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_variant_fills_everything(settings: dict[str, Any]) -> None:
    X = gappy(rows=200)
    filled = small(**settings).fit_transform(X)
    assert np.isfinite(filled).all()
    assert (filled[~np.isnan(X)] == X[~np.isnan(X)]).all()


def test_faithful_is_the_published_variant() -> None:
    imputer = SPIRITImputer.faithful(loops=1, train_steps=10, iterations=2, hidden_dim=64)
    assert (imputer.head, imputer.gaussian, imputer.sigma, imputer.eta) == ("energy", False, (0.1, 0.1), 0.01)
    assert np.isfinite(imputer.fit_transform(gappy(rows=200))).all()


def test_samples_of_three_dimensional_input_do_not_see_one_another() -> None:
    X = np.stack([gappy(rows=60, seed=seed) for seed in range(3)])
    assert np.isfinite(small().fit_transform(X)).all()


@pytest.mark.parametrize("rows", [1, 2, 5, 30])
def test_few_rows(rows: int) -> None:
    X = gappy(rows=60)[:rows]
    X[0] = [1.0, 2.0, 3.0, 4.0]
    X[-1, :1] = np.nan if rows > 1 else 1.0
    filled = small().fit_transform(X)
    assert np.isfinite(filled).all()


def test_one_sensor() -> None:
    assert np.isfinite(small().fit_transform(gappy(rows=150, sensors=1))).all()


def test_almost_everything_missing() -> None:
    assert np.isfinite(small().fit_transform(gappy(rows=200, rate=0.95))).all()


def test_rows_where_all_sensors_are_missing() -> None:
    X = gappy(rows=150)
    X[40:70] = np.nan
    assert np.isfinite(small().fit_transform(X)).all()


def test_constant_sensor_comes_back_constant() -> None:
    X = gappy(rows=150)
    X[:, 1] = np.where(np.isnan(X[:, 1]), np.nan, 7.0)
    assert np.allclose(small().fit_transform(X)[:, 1], 7.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "both"}, "head: expected one of direct, energy, got 'both'"),
        ({"start": "warm"}, "start: expected one of auto, linear"),
        ({"precision": "fp16"}, "precision: expected one of auto, fp32, bf16"),
        ({"backend": "gpu"}, "backend: expected one of"),
        ({"window": 0}, "window: expected None or an integer of at least 1, got 0"),
        ({"loops": 0}, "loops: expected an integer of at least 1, got 0"),
        ({"sigma": (0.1, 0.3)}, "sigma: expected None or"),
        ({"eta": -1.0}, "eta: expected None or a positive number"),
        ({"rho": 0.0}, "rho: expected a positive number or inf"),
        ({"gamma": 0.1}, "gamma: expected 0, or more with head='energy'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(gappy())


def test_interrupted_fit_leaves_the_imputer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    imputer = small().fit(gappy(rows=300))
    before = imputer.state_

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastimpute.spirit.fit_fold", interrupt)
    with pytest.raises(KeyboardInterrupt):
        imputer.fit(gappy(rows=300, seed=1))
    assert imputer.state_ is before


@pytest.mark.parametrize("rows", [20, 60, 100, 110, 115])
def test_every_round_of_small_data_can_judge(rows: int) -> None:
    missing = np.zeros((rows, 3), dtype=bool)
    missing[5:13, 0] = missing[10:18, 1] = True
    for seed in range(5):
        wanted = folds_wanted(missing, seed)
        judged = [halves(hold_out(missing, seed=seed + number))[1].sum() for number in range(wanted)]
        assert wanted == 1 or min(judged) >= HELD_OUT_LEAST

"""DiTImputer: what it adds to the behaviour all imputers share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from imputers import dit, gappy, gappy_frame
from numpy.typing import NDArray

import fastimpute as fi
from fastimpute import DiTImputer
from fastimpute.conformal import quantile
from fastimpute.dit_calibration import some_rows
from fastimpute.regions import distances
from fastimpute.saved import read_model, write_model
from fastimpute.train.checkpoint import Checkpoint
from fastimpute.train.diffusion import Training
from fastimpute.train.masking import Asked

Table = NDArray[np.float64]
Simulated = tuple[Table, NDArray[np.bool_], Table, DiTImputer]


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    """Two sensors that decay together over a few rows, a quarter hidden."""
    rng = np.random.default_rng(0)
    truth = np.zeros((700, 2))
    for row in range(1, len(truth)):
        truth[row] = 0.9 * truth[row - 1] + 0.3 * (rng.normal(size=2) + rng.normal())
    hidden = fi.masks.point(truth.shape, 0.25, seed=1)
    given = np.where(hidden, np.nan, 10 + 5 * truth)
    imputer = DiTImputer(window=12, hidden=32, layers=1, train_steps=20, evaluations=8, random_state=0, verbose=False)
    return 10 + 5 * truth, hidden, given, imputer.fit(given)


def test_it_fills_about_as_well_as_its_base(simulated: Simulated) -> None:
    truth, hidden, given, imputer = simulated
    base = fi.GaussianImputer(window=12, random_state=0).fit_transform(given)
    assert np.abs(imputer.transform(given) - truth)[hidden].mean() < 1.05 * np.abs(base - truth)[hidden].mean()


def test_intervals_cover_as_often_as_asked(simulated: Simulated) -> None:
    truth, hidden, given, imputer = simulated
    lower, upper = imputer.predict_interval(given, level=0.9)
    assert ((truth >= lower) & (truth <= upper))[hidden].mean() == pytest.approx(0.9, abs=0.06)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_some_windows_are_drawn_for_the_widths(count: int) -> None:
    rows = np.array([[0, 10], [10, 20], [20, 30]])
    chosen = some_rows(rows, 30, count, seed=0)
    assert chosen.sum() == 10 * min(count, 3)
    assert all(chosen[first:stop].all() or not chosen[first:stop].any() for first, stop in rows)


def test_draws_surround_the_point_estimate_and_leave_observed_cells_alone(simulated: Simulated) -> None:
    truth, hidden, given, imputer = simulated
    draws = imputer.sample(given, n_samples=60)
    assert draws.shape == (60, *given.shape)
    assert all(one[~hidden].tobytes() == given[~hidden].tobytes() for one in draws)
    spread = draws.std(0)[hidden]
    departure = (draws.mean(0) - imputer.transform(given))[hidden] / spread
    assert np.sqrt((departure**2).mean()) < 0.4
    inside = np.abs(truth - draws.mean(0))[hidden] < 1.96 * spread
    assert inside.mean() == pytest.approx(0.95, abs=0.06)


def test_a_draw_does_not_depend_on_how_many_there_are(simulated: Simulated) -> None:
    _, _, given, imputer = simulated
    np.testing.assert_allclose(imputer.sample(given, 3), imputer.sample(given, 7)[:3], rtol=1e-5)


def test_regions_hold_the_truth_as_often_as_asked(simulated: Simulated) -> None:
    truth, hidden, given, imputer = simulated
    region = imputer.confidence_region(given, level=0.9)
    asked = region.radius > 0
    assert (region.rows[:, 1] - region.rows[:, 0]).sum() == len(truth)
    assert region.holds(truth)[asked].mean() == pytest.approx(0.9, abs=0.12)
    np.testing.assert_array_equal(region.centre[~hidden], given[~hidden])


def test_regions_are_those_of_the_draws(simulated: Simulated) -> None:
    _, hidden, given, imputer = simulated
    region, draws = imputer.confidence_region(given, level=0.9), imputer.sample(given)
    np.testing.assert_allclose(region.centre, draws.mean(0), atol=1e-5)
    typical = distances(draws.std(0, ddof=1) / region.scale, hidden, region.rows)
    np.testing.assert_allclose(region.radius, quantile(imputer.state_.calibrated.regions, 0.9) * typical, rtol=1e-5)


def test_regions_grow_with_the_level(simulated: Simulated) -> None:
    _, _, given, imputer = simulated
    narrow, wide = (imputer.confidence_region(given, level, n_samples=9).radius for level in (0.5, 0.9))
    assert (narrow <= wide).all()


def test_draws_intervals_and_regions_survive_saving(tmp_path: Path, simulated: Simulated) -> None:
    _, _, given, imputer = simulated
    imputer.save(tmp_path / "model.safetensors")
    again = fi.load(tmp_path / "model.safetensors")
    assert isinstance(again, DiTImputer)
    np.testing.assert_array_equal(again.transform(given), imputer.transform(given))
    np.testing.assert_array_equal(again.sample(given, 3), imputer.sample(given, 3))
    for ours, theirs in zip(imputer.predict_interval(given), again.predict_interval(given), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(
        again.confidence_region(given, 0.8, 4).radius, imputer.confidence_region(given, 0.8, 4).radius
    )


def test_draws_of_a_frame_are_an_array() -> None:
    frame = gappy_frame()
    draws = dit().fit(frame).sample(frame, 2)
    assert isinstance(draws, np.ndarray)
    assert draws.shape == (2, *frame.shape)
    assert np.isfinite(draws).all()


def test_complete_data_is_drawn_as_it_is(simulated: Simulated) -> None:
    truth, _, _, imputer = simulated
    assert (imputer.sample(truth, 2) == truth).all()


def test_a_series_shorter_than_a_window_is_filled_and_drawn(simulated: Simulated) -> None:
    _, _, given, imputer = simulated
    assert np.isfinite(imputer.transform(given[:5])).all()
    assert np.isfinite(imputer.sample(given[:5], 2)).all()


def test_a_window_longer_than_the_series_shrinks_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="window: 500 rows are more than X has, 60 are taken"):
        dit(window=500).fit(gappy())


@pytest.mark.filterwarnings("error")
def test_a_window_nobody_asked_for_shrinks_without_a_word() -> None:
    assert np.isfinite(dit(window=None).fit_transform(gappy(rows=4))).all()


@pytest.mark.parametrize("masking", ["mixed", "random", "adaptive", {"look-alike": 3, "mixed": 1}, [(1, 4), (2, 1)]])
def test_other_maskings_train(masking: Asked) -> None:
    X = gappy()
    assert np.isfinite(dit(masking=masking).fit_transform(X)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "spline"}, "base: expected one of auto, linear, profile, gaussian, increments, got 'spline'"),
        ({"masking": "wide"}, "masking: expected one of look-alike, mixed, random, adaptive, shares of the first"),
        ({"precision": "fp16"}, "precision: expected one of fp32, bf16, got 'fp16'"),
        ({"masking": [(1, 2, 3)]}, "masking: expected pairs .blocks, rows of each. of positive integers"),
        ({"masking": [(4, 5)], "window": 12}, "masking: 4 blocks of 5 rows do not fit into windows of 12"),
        ({"masking": {"mixed": 0}}, "masking: expected positive shares"),
        ({"window": 0}, "window: expected None or an integer of at least 1, got 0"),
        (
            {"checkpoint": "no/such/folder/x"},
            "checkpoint: expected a file in a folder that exists, got 'no/such/folder/x'",
        ),
        ({"hidden": 40}, "hidden: expected a multiple of 32, got 40"),
        ({"evaluations": 1}, "evaluations: expected an integer of at least 2, got 1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiTImputer(**settings).fit(gappy())  # type: ignore[arg-type]


def test_bad_questions_are_named(simulated: Simulated) -> None:
    truth, _, given, imputer = simulated
    with pytest.raises(ValueError, match="n_samples: expected an integer of at least 1, got 0"):
        imputer.sample(given, 0)
    with pytest.raises(ValueError, match="n_samples: expected an integer of at least 19, got 18"):
        imputer.confidence_region(given, level=0.95, n_samples=18)
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 95"):
        imputer.confidence_region(given, level=95)
    with pytest.raises(ValueError, match=r"a level of 0.999 needs at least 999 scores"):
        imputer.confidence_region(given, level=0.999, n_samples=1000)
    with pytest.raises(ValueError, match=r"truth: expected shape \(700, 2\)"):
        imputer.confidence_region(given, 0.5, 2).holds(truth[:3])


def test_half_the_bits_change_little(simulated: Simulated) -> None:
    _, hidden, given, imputer = simulated
    settings = {**imputer.get_params(), "precision": "bf16"}
    half = DiTImputer(**settings).fit(given)
    difference = (half.transform(given) - imputer.transform(given))[hidden]
    assert np.abs(difference).mean() < 0.05 * given[~hidden].std()


def test_training_that_broke_off_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = gappy(rows=120)
    whole = dit(train_steps=6).fit_transform(X)
    step, checkpoint = Training.step, tmp_path / "training.safetensors"
    monkeypatch.setattr(Checkpoint, "due", lambda _: True)

    def breaking_off(self: Training) -> float:
        if self.done == 4:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Training, "step", breaking_off)
    with pytest.raises(KeyboardInterrupt):
        dit(train_steps=6, checkpoint=checkpoint).fit(X)
    monkeypatch.setattr(Training, "step", step)
    assert checkpoint.exists()
    assert dit(train_steps=6, checkpoint=checkpoint).fit_transform(X).tobytes() == whole.tobytes()


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    dit(checkpoint=checkpoint).fit(gappy()).save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="belongs to other data or settings"):
        dit(checkpoint=checkpoint).fit(gappy(seed=1))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"no checkpoint"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    checkpoint = tmp_path / "training.safetensors"
    dit(checkpoint=checkpoint).fit(gappy())
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(ValueError, match=r"checkpoint: .*training.safetensors cannot be read"):
        dit(checkpoint=checkpoint).fit(gappy())


def test_a_saved_model_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dit().fit(gappy()).save(path)
    with pytest.raises(ValueError, match="is no checkpoint of a training"):
        dit(checkpoint=path).fit(gappy())


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dit().fit(gappy()).save(path)
    arrays, header = read_model(path)
    arrays["state.net.read.weight"] = arrays["state.net.read.weight"][:, 1:]
    write_model(path, arrays, header)
    with pytest.raises(ValueError, match="the weights do not fit the network"):
        fi.load(path)


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_bits_of_one() -> None:
    frame: pd.DataFrame = gappy_frame(rows=200)

    def results() -> list[bytes]:
        imputer = dit(train_steps=4, window=12).fit(frame)
        return [imputer.transform(frame).to_numpy().tobytes(), imputer.sample(frame, 2).tobytes()]

    twice = results()
    torch.set_num_threads(1)
    assert results() == twice

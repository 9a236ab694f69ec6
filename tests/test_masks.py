"""Masks for experiments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastimpute import masks

RATES = st.floats(0.0, 0.9)


def runs(column: np.ndarray) -> np.ndarray:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], column.astype(int), [0]])))
    return edges[1::2] - edges[::2]


@given(rate=RATES, seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_point_mask_hits_its_rate(rate: float, seed: int) -> None:
    mask = masks.point((400, 50), rate, seed)
    assert abs(mask.mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / mask.size) + 1 / mask.size


@given(rate=RATES, seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_block_mask_reaches_its_rate_and_stops(rate: float, seed: int) -> None:
    mask = masks.block((400, 50), rate, seed)
    assert rate <= mask.mean() < rate + 48 / mask.size


def test_block_mask_consists_of_outages() -> None:
    mask = masks.block((5000, 4), 0.02, seed=0, min_len=12, max_len=48)
    lengths = np.concatenate([runs(column[: 5000 - 48]) for column in mask.T])
    assert lengths.min() >= 12
    assert np.median(lengths) <= 48


def test_no_outage_crosses_samples() -> None:
    mask = masks.block((500, 10, 2), 0.3, seed=0, min_len=10, max_len=10)
    assert mask.shape == (500, 10, 2)
    assert all(column[int(column.argmax()) :].all() for sample in mask for column in sample.T if column.any())


@pytest.mark.parametrize("pattern", list(masks.PATTERNS))
def test_same_seed_same_mask(pattern: str) -> None:
    draw = masks.by_name(pattern)
    assert np.array_equal(draw((50, 5), 0.3, 1), draw((50, 5), 0.3, 1))
    assert not np.array_equal(draw((50, 5), 0.3, 1), draw((50, 5), 0.3, 2))


@pytest.mark.parametrize("pattern", list(masks.PATTERNS))
@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rate_outside_zero_to_one_is_refused(pattern: str, rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\), got"):
        masks.by_name(pattern)((10, 2), rate, 0)


@pytest.mark.parametrize("shape", [(10,), (0, 3), (1, 2, 3, 4)])
def test_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape must be"):
        masks.point(shape, 0.3, 0)


@pytest.mark.parametrize(("shortest", "longest"), [(0, 5), (6, 5)])
def test_impossible_lengths_are_refused(shortest: int, longest: int) -> None:
    with pytest.raises(ValueError, match="1 <= min_len <= max_len"):
        masks.block((10, 2), 0.3, 0, shortest, longest)


def test_unknown_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern must be one of point, block, got 'stripes'"):
        masks.by_name("stripes")

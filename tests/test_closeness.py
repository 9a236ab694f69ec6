"""The yardstick of the kernel tests is itself tested."""

import pytest
import torch
from closeness import EPS, FLOOR, assert_close, same_bits

EXACT = torch.tensor([1.0, -4.0], dtype=torch.float64)


def test_accepts_twice_the_error_of_torch() -> None:
    assert_close("x", EXACT + 0.2, EXACT, EXACT + 0.1)


def test_rejects_more_than_twice_the_error_of_torch() -> None:
    with pytest.raises(AssertionError, match="above the limit"):
        assert_close("x", EXACT + 0.21, EXACT, EXACT + 0.1)


def test_floor_scales_with_the_norm() -> None:
    floor = FLOOR["fp32"] * EPS["fp32"] * 4
    assert_close("x", EXACT + 0.9 * floor, EXACT, EXACT)
    with pytest.raises(AssertionError, match="above the limit"):
        assert_close("x", EXACT + 1.1 * floor, EXACT, EXACT)


def test_rejects_what_is_not_finite() -> None:
    with pytest.raises(AssertionError, match="not finite"):
        assert_close("x", torch.tensor([1.0, float("nan")]), EXACT, EXACT)


def test_rejects_another_shape() -> None:
    with pytest.raises(AssertionError, match="shape"):
        assert_close("x", EXACT[:1], EXACT, EXACT)


def test_same_bits_tells_zero_from_minus_zero() -> None:
    assert same_bits(torch.tensor([0.0]), torch.tensor([0.0]))
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))

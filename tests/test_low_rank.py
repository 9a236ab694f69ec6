import numpy as np
import pytest

from fastimpute.low_rank import THRESHOLDS, low_rank, soft_impute


def table(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    full = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 12)) + noise * rng.normal(size=(300, 12))
    return full.astype(np.float32), rng.random(full.shape) < 0.3


def test_a_table_of_rank_two_is_recovered() -> None:
    full, missing = table()
    *_, filled = soft_impute(np.where(missing, np.float32(np.nan), full), missing)
    assert np.abs(filled - full)[missing].mean() < 0.15


def test_observed_cells_are_bit_identical() -> None:
    full, missing = table(0.1)
    for filled in soft_impute(full, missing):
        np.testing.assert_array_equal(filled[~missing], full[~missing])


def test_a_threshold_gives_the_filling_on_the_path() -> None:
    full, missing = table(0.1)
    path = list(soft_impute(full, missing))
    assert len(path) == len(THRESHOLDS)
    np.testing.assert_array_equal(low_rank(full, missing, 5), path[5])


def test_an_unknown_threshold_is_refused() -> None:
    full, missing = table()
    with pytest.raises(ValueError, match="threshold"):
        low_rank(full, missing, 99)

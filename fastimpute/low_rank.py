"""Low-rank fillings of a T x N table: soft-impute along a falling threshold (Mazumder, Hastie, Tibshirani 2010)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastimpute.gaps import Floats, Mask

THRESHOLDS = tuple(float(share) for share in np.geomspace(0.5, 0.02, 12))  # of the largest singular value
ROUNDS = 8  # per threshold, each from where the last one ended


def soft_impute(values: Floats, missing: Mask) -> Iterator[Floats]:
    """Fillings (T, N) of a table with zero mean per sensor, one per threshold, from stiff to loose.

    Each round replaces the missing cells by those of the table whose singular values are shrunk by the threshold.

    Example:
        >>> table = np.outer(np.arange(-5, 6), [1, 2, 3, 4]).astype(np.float32)
        >>> missing = np.eye(11, 4, dtype=bool)
        >>> *_, filled = soft_impute(table, missing)
        >>> bool(np.abs(filled - table).max() < 0.5)
        True
    """
    hidden = torch.from_numpy(missing)
    known = torch.from_numpy(np.where(missing, 0, values).astype(np.float32))
    table = known
    largest = torch.linalg.eigvalsh(table.T @ table)[-1].clamp_min(1e-12).sqrt()
    for share in THRESHOLDS:
        for _ in range(ROUNDS):
            powers, basis = torch.linalg.eigh(table.T @ table)
            singular = powers.clamp_min(1e-12).sqrt()
            kept = (singular - share * largest).clamp_min(0) / singular
            table = torch.where(hidden, table @ ((basis * kept) @ basis.T), known)
        yield np.where(missing, table.numpy(), values).astype(np.float32)


def low_rank(values: Floats, missing: Mask, threshold: int) -> Floats:
    """The filling at one of the thresholds (an index), (T, N)."""
    for index, filled in enumerate(soft_impute(values, missing)):
        if index == threshold:
            return filled
    raise ValueError(f"threshold: expected an index below {len(THRESHOLDS)}, got {threshold}")

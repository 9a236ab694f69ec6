"""Random generators found by what they are for: any part of a simulation can be drawn alone, in any order."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

LARGEST_SEED = 2**63


class Purpose(IntEnum):
    """What random numbers are for; one stream each."""

    NETWORK = 0
    DEMAND = 1
    INCIDENTS = 2
    NOISE = 3
    SINGLE_READINGS = 4
    OUTAGES = 5
    DEATHS = 6
    NEVER_ALIVE = 7
    WHITE_NOISE = 8


def keyed_random(seed: int, purpose: Purpose, number: int = 0) -> np.random.Generator:
    """The generator of one purpose and number, a day's for example: counter-based Philox4x64 (Salmon et al., SC 2011).

    Args:
        seed: in [0, 2**63).
        number: in [-2**31, 2**31).

    Example:
        >>> first, again = (keyed_random(1, Purpose.NOISE, day) for day in (-3, -3))
        >>> bool(first.random() == again.random())
        True
    """
    key = np.array([seed, int(purpose) << 32 | number + 2**31], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))

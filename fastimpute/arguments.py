"""Checks of imputers' settings: errors name the setting, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Raises ValueError unless the value is one of those known.

    Example:
        >>> check_choice("head", "energy", ("direct", "energy"))
    """
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")


def check_count(name: str, value: object, *, least: int = 1, optional: bool = False) -> None:
    """Raises ValueError unless the value is an integer of at least `least`, or None where that is allowed.

    Example:
        >>> check_count("window", None, optional=True)
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least
    if not whole and not (optional and value is None):
        raise ValueError(
            f"{name}: expected {'None or ' if optional else ''}an integer of at least {least}, got {value!r}"
        )


def seed_of(random_state: int | None) -> int:
    """The seed that `random_state` stands for: 0 for None.

    Raises:
        ValueError: it is neither None nor an integer of at least 0.

    Example:
        >>> seed_of(None), seed_of(7)
        (0, 7)
    """
    check_count("random_state", random_state, least=0, optional=True)
    return 0 if random_state is None else int(random_state)

"""The plainest start: straight lines, within each segment of the series."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastimpute.blend import Blend, Trial, scores
from fastimpute.gaps import Floats, Mask, hold_out, linear
from fastimpute.profile import Period
from fastimpute.start import Start


def linear_start(values: Floats, missing: Mask, segments: npt.NDArray[np.int64], seed: int = 0) -> Start:
    """Straight lines within each segment (row ranges (start, stop)) and nothing else; the cells held out as usual."""
    values = np.where(missing, 0, values).astype(np.float32)
    holdout = hold_out(missing, seed=seed)
    trial, filled = values.copy(), values.copy()
    for first, stop in segments:
        rows = slice(first, stop)
        trial[rows] = linear(values[rows], (missing | holdout)[rows])
        filled[rows] = linear(values[rows], missing[rows])
    judged = scores(trial, values, holdout)
    blend = Blend.fit([Trial({"linear": trial}, holdout, missing | holdout)], values)
    return Start(
        filled=filled,
        trial=trial,
        holdout=holdout,
        candidates={"linear": trial},
        finals={"linear": filled},
        scores={"linear": judged, "blend": judged},
        name="linear",
        period=Period(),
        blend=blend,
    )

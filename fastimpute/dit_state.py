"""What a fitted DiTImputer knows, in memory and as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastimpute.bases import Base, unpack_base
from fastimpute.conformal import Calibration
from fastimpute.dit_calibration import Calibrated
from fastimpute.nn.dit import DiT
from fastimpute.nn.white_denoiser import FEATURES
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table
from fastimpute.train.windows import PatchTable

HEADS = 4
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class DiTState:
    """A fitted DiTImputer.

    Attributes:
        base: bound to the series of fit.
        net: the denoiser, scaled by how much of it held-out cells asked for.
        patches: the windows.
        calibrated: scores of held-out cells and windows.
        scores: held-out (MAE, MSE, CRPS) of the base and of the network, standardised.
    """

    base: Base
    net: DiT
    patches: Patches
    calibrated: Calibrated
    scores: dict[str, tuple[float, float, float]]

    def table(self, series: Series) -> PatchTable:
        """The windows of a series that is at least as long as one."""
        return patch_table(self.patches, series, Cycles())

    def drawing_table(self, series: Series) -> PatchTable:
        """The windows that draws are made in."""
        return patch_table(drawing_patches(self.patches), series, Cycles())


def drawing_patches(patches: Patches) -> Patches:
    """Half a window apart: every cell is at least a quarter of a window inside one."""
    return Patches(patches.window, max(1, patches.window // 2), patches.columns)


def new_net(channels: int, window: int, hidden: int, layers: int, seed: int) -> DiT:
    """An untrained denoiser of windows in white coordinates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiT(
            channels,
            window,
            hidden=hidden,
            encoder_layers=layers,
            decoder_layers=layers,
            heads=HEADS,
            feature_dim=FEATURES * channels,
        )


def pack_dit(state: DiTState) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and JSON-able facts."""
    arrays, base = state.base.pack()
    intervals, scale, regions = state.calibrated
    packed = {f"base.{name}": array for name, array in arrays.items()}
    packed |= {f"net.{name}": tensor.numpy() for name, tensor in state.net.state_dict().items()}
    packed |= {f"calibration.{name}": array for name, array in intervals.pack().items()}
    packed |= {"columns": state.patches.columns, "draw_scale": scale, "regions": regions}
    facts = {
        "kind": state.base.kind,
        "base": base,
        "window": state.patches.window,
        "stride": state.patches.stride,
        "hidden": state.net.hidden,
        "layers": len(state.net.encoder),
        "scores": state.scores,
    }
    return packed, facts


def unpack_dit(arrays: Arrays, facts: dict[str, Any]) -> DiTState:
    """Inverse of `pack_dit`.

    Raises:
        ValueError: the weights are those of a network of another shape.
    """

    def within(prefix: str) -> Arrays:
        return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}

    columns = np.asarray(arrays["columns"])
    net = new_net(columns.shape[1], int(facts["window"]), int(facts["hidden"]), int(facts["layers"]), 0)
    try:
        net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in within("net.").items()})
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the network they are said to be of: {error}") from None
    return DiTState(
        base=unpack_base(facts["kind"], within("base."), facts["base"]),
        net=net,
        patches=Patches(int(facts["window"]), int(facts["stride"]), columns),
        calibrated=Calibrated(
            Calibration.unpack(within("calibration.")),
            np.asarray(arrays["draw_scale"], np.float32),
            np.asarray(arrays["regions"], np.float32),
        ),
        scores={name: (float(a), float(b), float(c)) for name, (a, b, c) in facts["scores"].items()},
    )

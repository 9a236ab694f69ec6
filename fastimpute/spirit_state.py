"""What SPIRIT learned, and its form on disk: arrays and plain facts, no pickle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from fastimpute.blend import Blend
from fastimpute.fold import Fold
from fastimpute.ladder import Ladder
from fastimpute.profile import Period
from fastimpute.recursion import Dynamics, Engine, Plan, Stage, new_net
from fastimpute.residuals import ResidualIntervals
from fastimpute.settings import Cycles, Patches
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.score_matching import ScoreMatching

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class SpiritState:
    """A fitted SPIRIT.

    Attributes:
        folds: what each round of holding out learned; small data takes two.
        blend: how the start and the ladder's fillings are combined, in every fold.
        period: steps per day and week found in the data.
        cycles: what the scores are conditioned on.
        errors: held-out (MAE, MSE) of every candidate, standardised, and of their "blend".
        intervals: what the held-out cells say of the uncertainty.
        digest: of the series that all this was learned from.
    """

    folds: tuple[Fold, ...]
    blend: Blend
    period: Period
    cycles: Cycles
    errors: dict[str, tuple[float, float]]
    intervals: ResidualIntervals
    digest: str


def pack(state: SpiritState) -> tuple[Arrays, dict[str, Any]]:
    """Split a state into arrays and JSON-able facts."""
    arrays: Arrays = {f"intervals.{name}": array for name, array in state.intervals.pack().items()}
    folds = []
    for number, fold in enumerate(state.folds):
        ladder = None if fold.ladder is None else _ladder_facts(fold.ladder)
        folds.append({"start_blend": fold.start_blend.to_facts(), "ladder": ladder})
        if fold.ladder is not None:
            arrays |= {f"{number}.{name}": array for name, array in _ladder_arrays(fold.ladder).items()}
    facts: dict[str, Any] = {
        "folds": folds,
        "blend": state.blend.to_facts(),
        "period": asdict(state.period),
        "cycles": asdict(state.cycles),
        "errors": state.errors,
        "digest": state.digest,
    }
    return arrays, facts


def unpack(arrays: Arrays, facts: dict[str, Any]) -> SpiritState:
    """Inverse of `pack`."""
    cycles = Cycles(tuple(facts["cycles"]["calendar"]), tuple(facts["cycles"]["rows"]))
    return SpiritState(
        folds=tuple(
            _fold(_within(arrays, f"{number}."), fold, cycles.features) for number, fold in enumerate(facts["folds"])
        ),
        blend=Blend.from_facts(facts["blend"]),
        period=Period(**facts["period"]),
        cycles=cycles,
        errors={name: (float(mae), float(mse)) for name, (mae, mse) in facts["errors"].items()},
        intervals=ResidualIntervals.unpack(_within(arrays, "intervals.")),
        digest=facts["digest"],
    )


def _within(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _fold(arrays: Arrays, facts: dict[str, Any], cond_dim: int) -> Fold:
    ladder = None if facts["ladder"] is None else _ladder(arrays, facts["ladder"], cond_dim)
    return Fold(Blend.from_facts(facts["start_blend"]), ladder)


def _ladder_facts(ladder: Ladder) -> dict[str, Any]:
    return {
        "window": ladder.patches.window,
        "stride": ladder.patches.stride,
        "plan": asdict(ladder.plan),
        "sigmas": [stage.sigma for stage in ladder.gaussian_stages + ladder.stages],
        "from_gaussian": ladder.from_gaussian,
        "losses": ladder.losses,
    }


def _ladder_arrays(ladder: Ladder) -> Arrays:
    arrays: Arrays = {"columns": ladder.patches.columns}
    for rung, stage in enumerate(ladder.gaussian_stages + ladder.stages):
        arrays |= {f"{rung}.{name}": array for name, array in _stage_arrays(stage).items()}
    return arrays


def _stage_arrays(stage: Stage) -> Arrays:
    weights = {} if stage.net is None else stage.net.state_dict()
    arrays = {f"net.{name}": tensor.numpy() for name, tensor in weights.items()}
    if stage.gaussian is not None:
        gaussian = stage.gaussian
        arrays |= {
            "gaussian.mean": gaussian.mean.numpy(),
            "gaussian.eigenvalues": gaussian.eigenvalues.numpy(),
            "gaussian.basis": gaussian.basis.numpy(),
        }
    return arrays


def _ladder(arrays: Arrays, facts: dict[str, Any], cond_dim: int) -> Ladder:
    plan = _plan(facts["plan"])
    patches = Patches(facts["window"], facts["stride"], arrays["columns"])
    dim = patches.window * patches.columns.shape[1]
    stages = []
    for rung, sigma in enumerate(facts["sigmas"]):
        own = {name: torch.from_numpy(array) for name, array in _within(arrays, f"{rung}.").items()}
        weights = {name[len("net.") :]: tensor for name, tensor in own.items() if name.startswith("net.")}
        net = new_net(plan.head, dim, 1 + cond_dim, plan.hidden_dim, plan.seed) if weights else None
        if net is not None:
            net.load_state_dict(weights)
        gaussian = None
        if plan.gaussian:
            gaussian = GaussianPart(own["gaussian.mean"], own["gaussian.eigenvalues"], own["gaussian.basis"])
        stages.append(Stage(sigma, net, gaussian))
    return Ladder(
        patches,
        plan,
        gaussian_stages=tuple(stage for stage in stages if stage.net is None),
        stages=tuple(stage for stage in stages if stage.net is not None),
        from_gaussian=facts["from_gaussian"],
        losses=tuple(float(loss) for loss in facts["losses"]),
    )


def _plan(facts: dict[str, Any]) -> Plan:
    nested = {
        "sigma": None if facts["sigma"] is None else tuple(facts["sigma"]),
        "training": ScoreMatching(**facts["training"]),
        "dynamics": Dynamics(**facts["dynamics"]),
        "engine": Engine(**facts["engine"]),
    }
    return Plan(**{**facts, **nested})

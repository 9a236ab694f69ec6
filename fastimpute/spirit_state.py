"""What SPIRIT learned, and its form on disk: arrays and plain facts, no pickle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from fastimpute.blend import Blend
from fastimpute.member import Member
from fastimpute.profile import Period
from fastimpute.recursion import Dynamics, Engine, Plan, Stage, new_net
from fastimpute.settings import Cycles, Patches
from fastimpute.train.gaussian_part import GaussianPart
from fastimpute.train.score_matching import ScoreMatching

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class SpiritState:
    """A fitted SPIRIT.

    Attributes:
        start_blend: how the start's candidates are combined.
        member: the trained ladder; None where the data was too small to train on.
        blend: how the start and the ladder's fillings are combined.
        period: steps per day and week found in the data.
        cycles: what the scores are conditioned on.
        errors: held-out (MAE, MSE) of every candidate, standardised, and of their "blend".
    """

    start_blend: Blend
    member: Member | None
    blend: Blend
    period: Period
    cycles: Cycles
    errors: dict[str, tuple[float, float]]


def pack(state: SpiritState) -> tuple[Arrays, dict[str, Any]]:
    """Split a state into arrays and JSON-able facts."""
    arrays: Arrays = {}
    member = state.member
    facts: dict[str, Any] = {
        "start_blend": state.start_blend.to_facts(),
        "blend": state.blend.to_facts(),
        "period": asdict(state.period),
        "cycles": asdict(state.cycles),
        "errors": state.errors,
        "member": None,
    }
    if member is not None:
        arrays["columns"] = member.patches.columns
        for rung, stage in enumerate(member.gaussian_stages + member.stages):
            arrays |= {f"{rung}.{name}": array for name, array in _stage_arrays(stage).items()}
        facts["member"] = {
            "window": member.patches.window,
            "stride": member.patches.stride,
            "plan": asdict(member.plan),
            "sigmas": [stage.sigma for stage in member.gaussian_stages + member.stages],
            "from_gaussian": member.from_gaussian,
            "losses": member.losses,
        }
    return arrays, facts


def unpack(arrays: Arrays, facts: dict[str, Any]) -> SpiritState:
    """Inverse of `pack`."""
    cycles = Cycles(tuple(facts["cycles"]["calendar"]), tuple(facts["cycles"]["rows"]))
    return SpiritState(
        start_blend=Blend.from_facts(facts["start_blend"]),
        member=None if facts["member"] is None else _member(arrays, facts["member"], cycles.features),
        blend=Blend.from_facts(facts["blend"]),
        period=Period(**facts["period"]),
        cycles=cycles,
        errors={name: (float(mae), float(mse)) for name, (mae, mse) in facts["errors"].items()},
    )


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


def _member(arrays: Arrays, facts: dict[str, Any], cond_dim: int) -> Member:
    plan = _plan(facts["plan"])
    patches = Patches(facts["window"], facts["stride"], arrays["columns"])
    dim = patches.window * patches.columns.shape[1]
    stages = []
    for rung, sigma in enumerate(facts["sigmas"]):
        prefix = f"{rung}."
        own = {
            name[len(prefix) :]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith(prefix)
        }
        weights = {name[len("net.") :]: tensor for name, tensor in own.items() if name.startswith("net.")}
        net = new_net(plan.head, dim, 1 + cond_dim, plan.hidden_dim, plan.seed) if weights else None
        if net is not None:
            net.load_state_dict(weights)
        gaussian = None
        if plan.gaussian:
            gaussian = GaussianPart(own["gaussian.mean"], own["gaussian.eigenvalues"], own["gaussian.basis"])
        stages.append(Stage(sigma, net, gaussian))
    return Member(
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

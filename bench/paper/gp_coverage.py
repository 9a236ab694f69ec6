"""Trained denoisers on Gaussian-process sequences (arXiv 2510.02216, synthetic experiments): coverage, and the paper's.

    python bench/paper/gp_coverage.py [--mixture S4] [--minutes 5] [--json OUT] [--plot OUT.png]
    python bench/paper/gp_coverage.py --base none            # coordinates are the values themselves, as in the paper
    python bench/paper/gp_coverage.py --frames 16 32 64 96 128 --minutes 2
    python bench/paper/gp_coverage.py --latent
    python bench/paper/gp_coverage.py --mixture S1 S2 S3 S4 --sequences 100000 --hidden 256 --layers 6 --heads 16 \\
        --windows 64 --minutes 60 --device cuda --checkpoint DIR       # the paper's network; goes on where it stopped

The base is a Gaussian with covariance Gamma (x) Lambda estimated from the training sequences; the denoiser learns what
it leaves open, in its white coordinates. A line of the table is one trained network and one pattern: coverage of 95 %
balls in % of the base alone, of sampled balls (raw) and of balls calibrated on other sequences, over 200 draws of the
true conditional in every region; radius over the oracle's; r, error of the one-step mean in conditional deviations; c,
deviation of samples over the true one, mean and range over eigendirections. Results join those in the JSON file.

By length (`--frames`): mixture S1 and pattern P4, repeated with a period of 96 frames and cut to the length, so that
gaps and what lies between them stay as they are; training hides as many single frames (3, 6, 12, 16, 22).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gp_figure import draw
from gp_regions import DRAWS, LEVEL, Base, Model, Sizes, judge, judge_base, judge_latent
from gp_training import LEVELS, Budget, Network, NoBase, WholeFrames, train
from torch import Tensor

from fastimpute import gp
from fastimpute.atomic import written_aside
from fastimpute.diffusion import plan

CHANNELS = 8
TRAINING = 1  # seed of the training sequences; those of test and calibration lie from 101
PUBLISHED = {
    "S1": {"P1": 34.58, "P2": 58.46, "P3": 72.42, "P4": 80.25},
    "S2": {"P1": 66.22, "P2": 83.71, "P3": 74.04, "P4": 81.50},
    "S3": {"P1": 56.04, "P2": 81.05, "P3": 74.59, "P4": 83.09},
    "S4": {"P1": 57.27, "P2": 79.00, "P3": 74.38, "P4": 82.74},
}
PUBLISHED_BY_FRAMES = {16: 92.67, 32: 88.63, 64: 82.14, 96: 80.25, 128: 77.81}
PUBLISHED_LATENT_ERROR = {"P1": 0.67, "P2": 0.62, "P3": 0.58, "P4": 0.53}
HEADER = (
    f"{'published':>15}{'Gaussian base':>14}{'raw':>14}{'calibrated':>14}{'radius/oracle':>15}"
    f"{'r':>8}  c (least, largest)\n"
    f"{'raw':>65}{'calib.':>7}"
)


@dataclass(frozen=True)
class Case:
    """One network to train, and the patterns (H,) it is judged on, with the published figure of each."""

    name: str
    mixture: str | tuple[tuple[int, int], ...]
    frames: int
    patterns: dict[str, Tensor]
    published: dict[str, float]
    latent: bool = False


def repeated_p4(frames: int) -> Tensor:
    """Pattern P4 with a period of its 96 frames, cut to a length."""
    return gp.pattern("P4").repeat(-(-frames // gp.sequences.FRAMES))[:frames]


def cases(options: argparse.Namespace) -> Iterator[Case]:
    suffix = "" if options.base == "gaussian" else ", no base"
    every = {name: gp.pattern(name) for name in gp.PATTERNS}
    for frames in options.frames or ():
        pattern = repeated_p4(frames)
        published = {"P4": PUBLISHED_BY_FRAMES[frames]} if frames in PUBLISHED_BY_FRAMES else {}
        yield Case(f"S1, H = {frames}{suffix}", ((int(pattern.sum()), 1),), frames, {"P4": pattern}, published)
    for mixture in () if options.frames else options.mixture:
        published = PUBLISHED_LATENT_ERROR if options.latent else PUBLISHED[mixture]
        name = f"latent, {mixture}{suffix}" if options.latent else f"{mixture}{suffix}"
        yield Case(name, mixture, gp.sequences.FRAMES, every, published, options.latent)


def run(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and judges; prints as it goes."""
    kernel = gp.kernel(case.frames)
    generator = torch.Generator().manual_seed(TRAINING)
    x = gp.simulate(options.sequences, CHANNELS, kernel, generator=generator, dtype=torch.float32)
    if case.latent:
        x = gp.observe(x, generator=generator)
    estimated = gp.KroneckerGaussian.fit(x)
    device = torch.device(options.device)
    base: Base = estimated.to(device) if options.base == "gaussian" else NoBase()
    checkpoint = options.checkpoint and options.checkpoint / f"{case.name}.safetensors"
    budget = Budget(options.minutes, options.windows, options.learning_rate, device, options.seed, checkpoint)
    network = Network(options.hidden, options.layers, options.heads)
    masking = WholeFrames(case.mixture, case.frames, CHANNELS)
    net, how, facts = train(x, base, masking, network, budget, LEVELS[options.base])
    print(f"{case.name}: {facts['steps']} steps in {facts['training_seconds']:.0f} s", flush=True)
    steps = plan(options.evaluations, smallest=how.smallest, largest=how.largest)
    model, sizes = Model(net, base, steps, device), Sizes(options.regions, options.samples, options.calibration)
    patterns: dict[str, Any] = {}
    for name, missing in case.patterns.items():
        if case.latent:
            found: dict[str, Any] = judge_latent(model, estimated, missing, options.regions)
        else:
            alone = judge_base(estimated, kernel, missing, options.regions)
            oracle = gp.Conditional(kernel, missing).radius(LEVEL, CHANNELS)
            found = {"oracle_radius": oracle, "gaussian_base": alone, **judge(model, kernel, missing, sizes, CHANNELS)}
        patterns[name] = {"published": case.published.get(name), **found}
        print(line(name, patterns[name], case.latent), flush=True)
    setting = {
        "mixture": case.mixture, "frames": case.frames, "channels": CHANNELS, "base": options.base,
        "sequences": options.sequences, "minutes": options.minutes, "windows_per_step": options.windows,
        "learning_rate": options.learning_rate, "noise_levels": [how.smallest, how.largest],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread",
        "solver": "dpm-solver++", "evaluations": options.evaluations, "draws_per_region": DRAWS, "level": LEVEL,
        "seed": options.seed, **asdict(network), **asdict(sizes), **facts,
    }  # fmt: skip
    return {"setting": setting, "patterns": patterns}


def line(name: str, found: dict[str, Any], latent: bool) -> str:
    """A row of the table."""
    published = f"{found['published']:9.2f}" if found["published"] else f"{'-':>9}"
    if latent:
        shown = (f"{key} {found[key]:.4f}" for key in ("oracle", "network", "base", "straight_lines"))
        ratios = (f"{key} / oracle {found[f'{key}_over_oracle']:.4f}" for key in ("network", "base"))
        return f"  {name}  {published} published  {'  '.join((*shown, *ratios))}"
    covered = "".join(
        f"  {found[kind]['coverage']:6.2f} ±{found[kind]['standard_error']:.2f}"
        for kind in ("gaussian_base", "raw", "calibrated")
    )
    radii = "".join(f"  {found[kind]['radius_over_oracle']:.3f}" for kind in ("raw", "calibrated"))
    spread = f"{found['c']:.3f} ({found['c_least']:.3f}, {found['c_largest']:.3f})"
    return f"  {name}  {published}{covered} {radii}   {found['r']:.3f}  {spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixture", nargs="+", choices=[*gp.MIXTURES], default=["S4"])
    parser.add_argument("--base", choices=[*LEVELS], default="gaussian")
    parser.add_argument(
        "--frames", nargs="+", type=int, help="lengths: mixture S1, pattern P4, whatever --mixture says"
    )
    parser.add_argument("--latent", action="store_true", help="errors on Y = phi(X) + eps")
    parser.add_argument("--sequences", type=int, default=10_000, help="of base and training")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each network")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2, help="of the encoder, and of the decoder")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--windows", type=int, default=32, help="in a training step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", type=Path, help="folder that training goes on from")
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--samples", type=int, default=100, help="Z of a region")
    parser.add_argument("--regions", type=int, default=200, help="test sequences; of the latent process as well")
    parser.add_argument("--calibration", type=int, default=4000, help="calibration sequences")
    parser.add_argument("--seed", type=int, default=0, help="of weights and training")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
    print(HEADER)
    for case in cases(options):
        results[case.name] = run(case, options)
        if options.json:
            with written_aside(options.json) as aside:
                aside.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()

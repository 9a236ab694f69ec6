"""Benchmarks of the ops, shared by `fastimpute bench` and `bench/`.

Every candidate's answer is checked against float64 before it is timed, candidates take turns in one process, and each
row
states rate, share of the peak measured at the same time, error, threads, dtype and instruction set.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from fastimpute.benchmark.block_cases import block_case, block_gradient_case
from fastimpute.benchmark.diffusion_cases import ball_case, diffusion_case
from fastimpute.benchmark.gaussian_cases import gaussian_case, whitening_case
from fastimpute.benchmark.loop_cases import recursion_case, step_case, weights_case
from fastimpute.benchmark.measure import Case, Row, measure
from fastimpute.benchmark.network_cases import energy_case, score_case
from fastimpute.benchmark.report import print_table, write_json
from fastimpute.benchmark.training_cases import training_case
from fastimpute.benchmark.unrolled_cases import learned_case
from fastimpute.benchmark.unrolled_cases import score_case as unrolled_score_case
from fastimpute.ops.registry import OPS

DIMS = (24, 84, 168, 480)
ROWS = 8192
TRAINING_ROWS = 512
SMALL_ROWS = (1, 8, 64, 512)


def _energy_cases(quick: bool) -> Iterator[Case]:
    for dim in (84,) if quick else DIMS:
        for hvp in (False, True):
            yield energy_case(2048 if quick else ROWS, dim, hvp=hvp, compile_baseline=not quick)
    if not quick:
        for rows in SMALL_ROWS:
            yield energy_case(rows, 168, hvp=False, compile_baseline=False)


def _score_cases(quick: bool) -> Iterator[Case]:
    for dim in (84,) if quick else DIMS:
        yield score_case(2048 if quick else ROWS, dim, compile_baseline=not quick)


def _training_cases(quick: bool) -> Iterator[Case]:
    for dim in (84,) if quick else DIMS:
        yield training_case(TRAINING_ROWS, dim, compile_baseline=not quick)


def _weights_cases(quick: bool) -> Iterator[Case]:
    for group in (512,) if quick else (128, 512, 4096):
        yield weights_case(1 << (20 if quick else 22), group, compile_baseline=not quick)


def _step_cases(quick: bool) -> Iterator[Case]:
    for adam in (False, True):
        yield step_case(20_000 if quick else 50_000, 168, adam=adam, compile_baseline=not quick)


def _recursion_cases(quick: bool) -> Iterator[Case]:
    for head in ("energy", "direct"):
        for dim in (84,) if quick else DIMS:
            yield recursion_case(head, 1024 if quick else 4096, dim, iterations=20)
        if not quick:
            yield recursion_case(head, 4096, 84, iterations=20, weights=True)


def _gaussian_cases(quick: bool) -> Iterator[Case]:
    for dim in (84,) if quick else (84, 168, 336):
        yield gaussian_case(256, dim, 0.3)
    if not quick:
        yield gaussian_case(256, 336, 0.6)
        yield gaussian_case(256, 336, 0.3, one_mask=True)


def _whitening_cases(quick: bool) -> Iterator[Case]:
    yield whitening_case(32, 168, 0.3)
    if not quick:
        yield whitening_case(16, 336, 0.3)
        yield whitening_case(16, 504, 0.45, blocks=True)


def _diffusion_cases(quick: bool) -> Iterator[Case]:
    for noise in (False, True):
        yield diffusion_case(8 if noise else 32, 400 if quick else 1500, 168, noise=noise, compile_baseline=not quick)


def _ball_cases(quick: bool) -> Iterator[Case]:
    for dim in (168,) if quick else (168, 768):
        yield ball_case(100, (1 << (22 if quick else 24)) // (100 * dim), dim, compile_baseline=not quick)


def _unrolled_cases(quick: bool) -> Iterator[Case]:
    for one_mask in (True,) if quick else (True, False):
        yield unrolled_score_case(64 if quick else 256, 8, one_mask=one_mask)
        yield learned_case(64 if quick else 256, 8, one_mask=one_mask)


def _block_cases(quick: bool) -> Iterator[Case]:
    for hidden in (64,) if quick else (64, 96, 128, 256):
        for tokens in (48,) if quick else (48, 96):
            yield block_case(tokens, hidden, compile_baseline=not quick and hidden in (64, 256))
    if not quick:
        for hidden in (64, 256):
            yield block_case(16, hidden, memory=96, compile_baseline=False)


def _block_gradient_cases(quick: bool) -> Iterator[Case]:
    for hidden in (64,) if quick else (64, 128, 256):
        yield block_gradient_case(72, hidden, compile_baseline=not quick)
    if not quick:
        yield block_gradient_case(72, 64, memory=72, compile_baseline=False)


CASES: dict[str, Callable[[bool], Iterator[Case]]] = {
    "energy_mlp": _energy_cases,
    "score_mlp": _score_cases,
    "score_matching": _training_cases,
    "spt_weights": _weights_cases,
    "particle_step": _step_cases,
    "diffusion_step": _diffusion_cases,
    "ball_quantile": _ball_cases,
    "proximal_recursion": _recursion_cases,
    "dit_block": _block_cases,
    "dit_block_gradient": _block_gradient_cases,
    "gaussian_conditional": _gaussian_cases,
    "gaussian_whitening": _whitening_cases,
    "unrolled_attention": _unrolled_cases,
}


def run(names: list[str] | None = None, *, quick: bool = False, threads: int = 1, rounds: int = 9) -> list[Row]:
    """Rows of the named ops, all of them by default.

    Args:
        names: ops to measure.
        quick: one small shape per op and no torch.compile, some seconds in all.
        threads: for the kernels and for torch.
        rounds: turns of each candidate, of which the medians are reported.

    Raises:
        ValueError: an unknown op.
        RuntimeError: a candidate whose answer is wrong.

    Example:
        >>> from fastimpute import benchmark
        >>> rows = benchmark.run(["spt_weights"], quick=True)
        >>> rows[0].op
        'spt_weights'
    """
    unknown = sorted(set(names or ()) - set(OPS))
    if unknown:
        raise ValueError(f"names: expected ops among {tuple(OPS)}, got {unknown}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [row for name in names or CASES for case in CASES[name](quick) for row in measure(case, rounds)]
    finally:
        torch.set_num_threads(before)


def main(arguments: list[str]) -> None:
    """`fastimpute bench`: measures, prints the table and, if asked for, writes JSON."""
    parser = argparse.ArgumentParser(prog="fastimpute bench", description="Measure the ops on this machine.")
    parser.add_argument("ops", nargs="*", help=f"which of {', '.join(OPS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="one small shape per op, without torch.compile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(arguments)
    rows = run(options.ops or None, quick=options.quick, threads=options.threads, rounds=options.rounds)
    print_table(rows)
    if options.json is not None:
        write_json(rows, options.json)

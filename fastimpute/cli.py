"""The command line: a thin shell over the package.

Exit status: 0 done, 2 bad usage, bad input or too little memory (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

import fastimpute

if TYPE_CHECKING:
    from fastimpute.imputer import BaseImputer
    from fastimpute.io import Table

BAD_INPUT, INTERRUPTED, TERMINATED = 2, 130, 143
METHODS = {
    "spirit": "SPIRITImputer",
    "gaussian": "GaussianImputer",
    "dit": "DiTImputer",
    "linear": "LinearImputer",
}
LARGE_FILE = 64_000_000  # bytes, from which on a table is imputed in tiles
Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> None:
    """Run the command line of the process and leave it with its exit status."""
    signal.signal(signal.SIGTERM, _on_terminate)
    warnings.showwarning = _show_warning
    try:
        commands.main(prog_name="fastimpute", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except (ValueError, TypeError, MemoryError) as error:
        _fail(str(error) or "the memory of this machine does not suffice")
    except (KeyboardInterrupt, click.Abort) as stop:
        told = str(stop.__cause__ or stop)  # click makes an abort of an interrupt
        print(f"fastimpute: {told or 'interrupted, no result was written'}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _fail(message: str) -> NoReturn:
    print(f"fastimpute: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _on_terminate(number: int, frame: object) -> NoReturn:
    sys.exit(TERMINATED)  # unwinds, so that half-written files are removed


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"fastimpute: warning: {message}", file=sys.stderr)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True}, no_args_is_help=False)
@click.version_option(fastimpute.__version__)
def commands() -> None:
    """Fill the gaps in large traffic data sets."""


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


READING = _options(
    click.option("--zeros-as-missing", is_flag=True, help="Zeros mean missing, as in speed files."),
    click.option("--key", help="Array or frame of an archive to read; by default the customary or only one."),
    click.option("--channel", default=0, help="Channel of a PEMS array (T, N, C)."),
)
LARGE = _options(
    click.option(
        "--memory",
        help="What the work may take beyond the libraries themselves, such as 2GiB. Given, or for files above "
        f"{LARGE_FILE // 10**6} MB, the table is imputed in tiles; broken off, the same command goes on.",
        show_default="a quarter of the machine's",
    ),
    click.option("--repair", is_flag=True, help="Sort and merge time stamps and put them onto a regular grid."),
    click.option(
        "--layout",
        type=click.Choice(["auto", "wide", "long", "sensors-in-rows"]),
        default="auto",
        help="How IN is laid out: a column per sensor, or (sensor, time stamp, value).",
    ),
    click.option(
        "--log-json", type=click.Path(path_type=Path), help="Append what happens to this file, a JSON object a line."
    ),
    click.option(
        "--scheduler", help="Work on a Dask cluster, such as tcp://head:8786; its workers see IN and OUT too."
    ),
)
METHOD = _options(
    click.option("--method", type=click.Choice(list(METHODS)), default="spirit"),
    click.option("--seed", default=0, help="Same seed, same result."),
    click.option(
        "--all-missing",
        type=click.Choice(["raise", "mean_of_neighbors", "keep"]),
        default="raise",
        help="What to do with a sensor without any observation.",
    ),
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        help="Lay the training of --method dit aside in this file; the same command goes on from it.",
    ),
    click.option("--device", help="Compute on this device: cpu, cuda, cuda:1 (--method spirit).", show_default="cpu"),
    click.option("--quiet", is_flag=True, help="No progress, no summary."),
)


@commands.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Use a fitted model instead of fitting one to IN.")
@click.option(
    "--interval",
    "level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also write the ends of intervals of this level, to OUT's name with .lower and .upper before its ending.",
)
@METHOD
@READING
@LARGE
def impute(source: Path, target: Path, model: Path | None, level: float | None, quiet: bool, **choices: Any) -> None:
    """Fill the gaps of IN and write the result to OUT (.csv .parquet .npz .npy .h5 .zarr)."""
    from fastimpute import io
    from fastimpute.files import places_of
    from fastimpute.intervals import IntervalImputer

    if model is not None:
        _refuse_with_model("method", "seed", "all_missing", "checkpoint")
    _, *ends = places_of(target, level)
    if _wants_tiles(source, **choices):
        _impute_tiles(source, target, model, level, quiet=quiet, **choices)
        return
    imputer = _imputer(quiet=quiet, **choices) if model is None else _loaded(model, **choices)
    if level is not None and not isinstance(imputer, IntervalImputer):  # said before anything is read
        raise ValueError(f"--interval: {type(imputer).__name__} has no intervals; use --method spirit, gaussian or dit")
    table = _read(source, quiet=quiet, **choices)
    begin = time.perf_counter()
    filled = imputer.fit_transform(table.data) if model is None else imputer.transform(table.data)
    intervals: tuple[Any, ...] = ()
    if level is not None and isinstance(imputer, IntervalImputer):
        intervals = imputer.predict_interval(table.data, level)
    seconds = time.perf_counter() - begin
    for place, end in zip(ends, intervals, strict=True):
        io.write(place, table.holding(end))
    io.write(target, table.holding(filled))
    if not quiet:
        _summarise(table, seconds, target)


def _refuse_with_model(*names: str) -> None:
    """Refuse options that a fitted model settled when it was fitted, and that would do nothing."""
    given = click.get_current_context().get_parameter_source
    for name in names:
        if given(name) is not ParameterSource.DEFAULT:
            raise ValueError(f"--{name.replace('_', '-')}: a fitted model has its own, give it to fastimpute fit")


def _wants_tiles(
    source: Path,
    memory: str | None,
    log_json: Path | None,
    scheduler: str | None,
    repair: bool,
    layout: str,
    **_: Any,
) -> bool:
    from fastimpute.distributed.torchrun import launched
    from fastimpute.io.source import stamp

    asked = any(option is not None for option in (memory, log_json, scheduler)) or repair or layout != "auto"
    return asked or launched() or stamp(source)["size"] > LARGE_FILE


def _impute_tiles(
    source: Path,
    target: Path,
    model: Path | None,
    level: float | None,
    *,
    memory: str | None,
    log_json: Path | None,
    scheduler: str | None,
    quiet: bool,
    **choices: Any,
) -> None:
    from fastimpute.files import Reading

    if choices["checkpoint"] is not None:
        raise ValueError("--checkpoint: a table imputed in tiles keeps its training beside OUT by itself")
    imputer = _imputer(quiet=quiet, **choices) if model is None else _loaded(model, **choices)
    with _engine(scheduler) as (impute, leads):
        silent = quiet or not leads
        summary = impute(
            source,
            target,
            imputer,
            level=level,
            memory=memory,
            reading=Reading(**{name: choices[name] for name in Reading.__dataclass_fields__}),
            log_json=log_json,
            report=(lambda line: None) if silent else _say,
            verbose=not silent,
        )
        if not silent:
            click.echo(f"{summary or 'complete since an earlier run'}\n-> {target}")


@contextmanager
def _engine(scheduler: str | None) -> Iterator[tuple[Callable[..., Any], bool]]:
    """What imputes a file: this process, one of several that torchrun started, or the workers of a Dask cluster.

    Yields it, and whether this process speaks for all.
    """
    from fastimpute.distributed.torchrun import joined, launched, run_ranked
    from fastimpute.files import impute_file
    from fastimpute.stream.memory import keep_heap_small

    keep_heap_small()
    if scheduler is not None:
        from fastimpute.distributed import dask

        with dask.connected(scheduler) as client:
            yield partial(dask.impute_files, client), True
    elif launched():
        with joined() as ranks:
            yield partial(impute_file, runner=partial(run_ranked, ranks=ranks)), ranks.rank == 0
    else:
        yield impute_file, True


def _say(line: str) -> None:
    click.echo(line, err=True)


@commands.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="MODEL", type=click.Path(path_type=Path))
@METHOD
@READING
def fit(source: Path, target: Path, quiet: bool, **choices: Any) -> None:
    """Fit a method to IN and save it to MODEL (safetensors), for `impute --model`."""
    from fastimpute.atomic import check_place

    check_place(target)
    imputer = _imputer(quiet=quiet, **choices).fit(_read(source, quiet=quiet, **choices).data)
    imputer.save(target)
    if not quiet:
        click.echo(f"fitted {imputer!r} on {imputer.n_features_in_} sensors -> {target}")


@commands.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option("--pattern", type=click.Choice(["point", "block"]), default="point")
@click.option("--rate", default=0.3, help="Share of the cells to hide.")
@click.option("--json", "json_target", type=click.Path(path_type=Path), help="Write the scores here.")
@click.option("--plot", "plot_target", type=click.Path(path_type=Path), help="Draw the longest gaps (.png .svg .pdf).")
@METHOD
@READING
def evaluate(
    source: Path,
    pattern: str,
    rate: float,
    json_target: Path | None,
    plot_target: Path | None,
    seed: int,
    quiet: bool,
    **choices: Any,
) -> None:
    """Hide observed cells of IN, impute them, and score; linear interpolation beside it."""
    from fastimpute import evaluation
    from fastimpute.atomic import check_place
    from fastimpute.layouts import read_layout
    from fastimpute.report.figure import check_figure_target, draw_gaps

    for place in (json_target, plot_target):
        if place is not None:
            check_place(place)
    if plot_target is not None:
        check_figure_target(plot_target)
    imputer = _imputer(seed=seed, quiet=quiet, **choices)
    layout = read_layout(_read(source, quiet=quiet, **choices).data)
    hidden = evaluation.hide(layout, pattern, rate, seed)
    comparison = evaluation.compare(imputer, layout, hidden)
    report = evaluation.report(layout, hidden, comparison, pattern, rate, seed)
    click.echo(str(report))
    if json_target is not None:
        _write_json(json_target, report.as_dict())
    if plot_target is not None:
        draw_gaps(plot_target, layout, hidden, comparison, f"{source.name}: {pattern} mask, {rate:.0%} hidden")


@commands.command()
@click.option(
    "--out", "folder", type=click.Path(path_type=Path), default=Path("demo_output"), help="Folder to write to."
)
@click.option("--days", default=7, help="Length of the simulated traffic.")
@click.option("--sensors", default=32, help="Number of simulated sensors.")
@METHOD
def demo(folder: Path, days: int, sensors: int, seed: int, quiet: bool, **choices: Any) -> None:
    """Simulate traffic with sensor faults, fill it, and score it against the known truth; with a picture."""
    import numpy as np

    from fastimpute import evaluation, io, simulate
    from fastimpute.layouts import read_layout
    from fastimpute.report.figure import draw_gaps

    imputer = _imputer(seed=seed, quiet=quiet, **choices)
    traffic = simulate.traffic(days=days, sensors=sensors, seed=seed)
    layout = read_layout(traffic.truth)
    hidden = traffic.observed.isna().to_numpy()
    comparison = evaluation.compare(imputer, layout, hidden)
    report = evaluation.report(layout, hidden, comparison, "sensor fault", float(hidden.mean()), seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}") from None
    filled = traffic.truth.copy()
    filled[:] = np.where(hidden, comparison.filled, layout.raw)
    for name, frame in (("truth", traffic.truth), ("observed", traffic.observed), ("filled", filled)):
        io.write(folder / f"{name}.csv", io.Table(frame, ".csv"))
    _write_json(folder / "scores.json", report.as_dict())
    draw_gaps(folder / "picture.png", layout, hidden, comparison, f"{days} days of simulated traffic, speeds in mph")
    click.echo(f"{report}\nmph; truth, observed and filled tables, scores and picture.png are in {folder}/")


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Version, CPU features, and which kernels can run here or why not."""
    facts = _facts()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name in ("fastimpute", "python", "torch", "instruction_sets"):
        click.echo(f"{name.replace('_', ' '):18}{facts[name]}")
    features = [name for name, has in facts["cpu_features"].items() if has is True]
    click.echo(f"{'cpu features':18}{' '.join(features)}")
    for op, backends in facts["backends"].items():
        for backend, state in backends.items():
            click.echo(f"{op:20}{backend:8}{'yes' if state['available'] else 'no':5}{state['reason']}")


@commands.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Kernels against their baselines: a table, and JSON on request."""
    from fastimpute import benchmark

    benchmark.main(list(arguments))


def _facts() -> dict[str, Any]:
    import platform

    import torch

    from fastimpute import _native

    reason = _native.why_missing()
    table = {
        op: {backend: {"available": state.available, "reason": state.reason} for backend, state in row.items()}
        for op, row in fastimpute.backends().items()
    }
    return {
        "fastimpute": fastimpute.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_features": {} if reason else dict(_native.core().cpu_features()),
        "instruction_sets": reason or " ".join(_native.core().isas()),
        "backends": table,
    }


def _imputer(
    method: str, seed: int, all_missing: str, checkpoint: Path | None, device: str | None, quiet: bool, **_: Any
) -> BaseImputer[Any]:
    kind = getattr(fastimpute, METHODS[method])
    settings = {"random_state": seed, "all_missing": all_missing, "verbose": not quiet, "checkpoint": checkpoint}
    known = kind().get_params()
    if checkpoint is not None and "checkpoint" not in known:
        raise ValueError(f"--checkpoint: {method} has no training to lay aside; it goes with --method dit")
    if device is not None:
        settings |= _device(method, known, device)
    imputer: BaseImputer[Any] = kind(**{name: value for name, value in settings.items() if name in known})
    return imputer


def _loaded(model: Path, device: str | None, **_: Any) -> BaseImputer[Any]:
    """A saved imputer, on the device asked for rather than the one it was fitted on."""
    imputer = fastimpute.load(model)
    if device is not None:
        imputer.set_params(**_device(type(imputer).__name__, imputer.get_params(), device))
    return imputer


def _device(method: str, known: dict[str, Any], device: str) -> dict[str, str]:
    from fastimpute.device import device_of

    if "device" not in known:
        raise ValueError(f"--device: {method} computes on the processor only; it goes with --method spirit")
    try:
        device_of(device)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    return {"device": device}


def _read(source: Path, zeros_as_missing: bool, key: str | None, channel: int, quiet: bool, **_: Any) -> Table:
    import pandas as pd

    from fastimpute import io
    from fastimpute.io.repair import check_regular

    table = io.read(source, key=key, channel=channel)
    index = getattr(table.data, "index", None)
    if isinstance(index, pd.DatetimeIndex):
        try:
            check_regular(index)
        except ValueError as error:
            raise ValueError(f"cannot read {source}: {error}") from None
    zeros = io.describe_zeros(table.data)
    if (
        zeros is not None
        and not quiet
        and (zeros_as_missing or io.zero_share(table.data) >= io.zeros.ZEROS_WORTH_A_WORD)
    ):
        treated = "treated as missing" if zeros_as_missing else "kept; --zeros-as-missing fills them"
        click.echo(f"{source.name}: {zeros}: {treated}", err=True)
    return table.holding(io.zeros_to_missing(table.data)) if zeros_as_missing else table


def _summarise(table: Table, seconds: float, target: Path) -> None:
    import numpy as np

    from fastimpute.layouts import read_layout
    from fastimpute.progress import cells_per_second

    raw = read_layout(table.data).raw
    gaps = int(np.isnan(raw).sum())
    rate = cells_per_second(raw.size, seconds)
    click.echo(f"filled {gaps:,} of {raw.size:,} cells ({gaps / raw.size:.1%}) in {seconds:.1f} s, {rate} -> {target}")


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    from fastimpute.atomic import written_aside

    with written_aside(path) as aside:
        aside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

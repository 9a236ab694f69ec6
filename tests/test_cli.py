"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from imputers import gappy, gappy_frame

from fastimpute import cli
from fastimpute.cli import commands


def run(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "fastimpute.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **settings})


def refused(*arguments: object) -> str:
    """Run what has to fail as bad input; its one line."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("fastimpute: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    gappy_frame().to_csv(tmp_path / "in.csv")
    return tmp_path / "in.csv"


@pytest.mark.parametrize("ending", [".csv", ".h5"])
def test_impute_writes_the_filled_file(ending: str, source: Path, tmp_path: Path) -> None:
    done = run("impute", source, tmp_path / f"out{ending}", "--method", "linear")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"filled {np.isnan(gappy()).sum()} of 240 cells" in done.stdout
    assert (tmp_path / f"out{ending}").exists()


def test_impute_keeps_what_was_observed(source: Path, tmp_path: Path) -> None:
    run("impute", source, tmp_path / "out.csv", "--method", "linear", "--quiet")
    before, after = pd.read_csv(source), pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_frame_equal(after.where(before.notna()), before, check_exact=True)
    assert after.notna().all(axis=None)


@pytest.mark.slow
def test_the_default_method_is_spirit(source: Path, tmp_path: Path) -> None:
    done = run("impute", source, tmp_path / "out.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert pd.read_csv(tmp_path / "out.csv").notna().all(axis=None)


def test_impute_writes_the_ends_of_intervals_beside(source: Path, tmp_path: Path) -> None:
    done = run("impute", source, tmp_path / "out.csv", "--method", "gaussian", "--interval", 0.8)
    assert (done.returncode, done.stderr) == (0, "")
    before = pd.read_csv(source, index_col=0)
    filled, lower, upper = (
        pd.read_csv(tmp_path / name, index_col=0) for name in ("out.csv", "out.lower.csv", "out.upper.csv")
    )
    assert (lower <= filled).all(axis=None)
    assert (filled <= upper).all(axis=None)
    assert (lower < upper).where(before.isna()).fillna(True).all(axis=None)
    pd.testing.assert_frame_equal(lower.where(before.notna()), before, check_exact=True)


def test_intervals_of_a_method_without_any_are_refused(source: Path, tmp_path: Path) -> None:
    message = refused("impute", source, tmp_path / "out.csv", "--method", "linear", "--interval", 0.9)
    assert "--interval: LinearImputer has no intervals" in message
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("level", ["0", "1", "95"])
def test_an_impossible_level_is_refused(level: str, source: Path, tmp_path: Path) -> None:
    assert "--interval" in refused("impute", source, tmp_path / "out.csv", "--interval", level)


def test_fit_then_impute_with_the_model(source: Path, tmp_path: Path) -> None:
    assert run("fit", source, tmp_path / "m.safetensors", "--method", "linear").returncode == 0
    assert run("impute", source, tmp_path / "out.csv", "--model", tmp_path / "m.safetensors").returncode == 0
    assert pd.read_csv(tmp_path / "out.csv").notna().all(axis=None)


def test_evaluate_prints_and_writes_scores_and_picture(source: Path, tmp_path: Path) -> None:
    options = ["--method", "linear", "--pattern", "block", "--rate", 0.2, "--seed", 1]
    done = run("evaluate", source, *options, "--json", tmp_path / "s.json", "--plot", tmp_path / "p.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "MAE" in done.stdout
    assert json.loads((tmp_path / "s.json").read_text())["result"]["standardised"]["mae"] > 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_demo_scores_and_draws(tmp_path: Path) -> None:
    done = run("demo", "--method", "linear", "--days", 1, "--sensors", 6, "--out", tmp_path / "demo")
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(path.name for path in (tmp_path / "demo").iterdir())
    assert names == ["filled.csv", "observed.csv", "picture.png", "scores.json", "truth.csv"]
    assert pd.read_csv(tmp_path / "demo" / "filled.csv").notna().all(axis=None)


def test_info_tells_versions_and_reasons() -> None:
    done = run("info", "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 0
    assert facts["backends"]["proximal_recursion"]["torch"]["available"] is True
    assert all(state["reason"] for row in facts["backends"].values() for state in row.values())
    assert "energy_mlp" in CliRunner().invoke(commands, ["info"]).stdout


def test_version_and_help() -> None:
    assert "0.1.0" in run("--version").stdout
    for command in ("impute", "fit", "evaluate", "demo", "info", "bench"):
        assert command in run("--help").stdout


def test_zeros_are_reported_and_filled_on_request(tmp_path: Path) -> None:
    frame = gappy_frame(rate=0.0)
    frame.iloc[20:40, 1] = 0.0
    frame.to_csv(tmp_path / "in.csv")
    kept = run("impute", tmp_path / "in.csv", tmp_path / "kept.csv", "--method", "linear")
    assert "8.33 % of the cells are zero, 100 % of those in runs" in kept.stderr
    assert "--zeros-as-missing" in kept.stderr
    assert "filled 0 of" in kept.stdout
    filled = run("impute", tmp_path / "in.csv", tmp_path / "filled.csv", "--method", "linear", "--zeros-as-missing")
    assert "treated as missing" in filled.stderr
    assert (pd.read_csv(tmp_path / "filled.csv")["s1"] > 0).all()


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("paint",), ("impute",), ("impute", "a.csv", "b.csv", "--colour", "red")])
def test_bad_usage(arguments: tuple[str, ...]) -> None:
    refused(*arguments)


def test_a_checkpoint_goes_with_a_training(source: Path, tmp_path: Path) -> None:
    line = refused("impute", source, tmp_path / "out.csv", "--checkpoint", tmp_path / "training.safetensors")
    assert "it goes with --method dit" in line


@pytest.mark.parametrize(
    ("method", "device", "reason"),
    [
        ("spirit", "tpu", "--device: expected 'cpu', 'cuda' or a numbered one as 'cuda:1', got 'tpu'"),
        ("spirit", "cuda:99", "CUDA devices that torch finds, got 'cuda:99'"),
        ("linear", "cuda", "--device: linear computes on the processor only; it goes with --method spirit"),
    ],
)
def test_a_device_that_cannot_serve(method: str, device: str, reason: str, source: Path, tmp_path: Path) -> None:
    assert reason in refused("impute", source, tmp_path / "out.csv", "--method", method, "--device", device)


def test_a_model_goes_to_the_device_asked_for(source: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    assert run("fit", source, model, "--device", "cpu", "--quiet").returncode == 0
    assert "got 'cuda:99'" in refused("impute", source, tmp_path / "out.csv", "--model", model, "--device", "cuda:99")
    assert run("impute", source, tmp_path / "out.csv", "--model", model, "--device", "cpu").returncode == 0


def test_unknown_method(source: Path, tmp_path: Path) -> None:
    assert "'magic'" in refused("impute", source, tmp_path / "out.csv", "--method", "magic")


def test_too_little_memory_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(**settings: object) -> None:
        raise MemoryError("device: the memory of 'cuda' does not suffice")

    monkeypatch.setattr(cli.commands, "main", out_of_memory)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == cli.BAD_INPUT
    assert capsys.readouterr().err == "fastimpute: device: the memory of 'cuda' does not suffice\n"


@pytest.mark.parametrize("option", [["--method", "linear"], ["--seed", "0"], ["--all-missing", "keep"]])
def test_what_a_model_has_settled_is_refused(option: list[str], tmp_path: Path) -> None:
    said = refused("impute", "in.csv", tmp_path / "out.csv", "--model", "model.safetensors", *option)
    assert f"{option[0]}: a fitted model has its own" in said


@pytest.mark.parametrize("command", ["impute", "fit", "evaluate"])
def test_irregular_stamps_are_refused_by_file_and_remedy(command: str, tmp_path: Path) -> None:
    gappy_frame().iloc[[0, 1, 2, 5, 6, 7]].to_csv(tmp_path / "in.csv")
    said = refused(command, tmp_path / "in.csv", *([] if command == "evaluate" else [tmp_path / "out.csv"]))
    assert "in.csv: irregular time stamps: row 3 is 2026-01-05 00:25:00" in said
    assert "--repair of fastimpute impute" in said


def test_absent_input(tmp_path: Path) -> None:
    line = refused("impute", tmp_path / "no.csv", tmp_path / "out.csv", "--method", "linear")
    assert "no.csv: there is no such file" in line


@pytest.mark.parametrize("content", ["", "s1,s2\n1,oops\n", "s1,s2\n", "s1,s2\n1,\n2,\n", "s1,s2\n1,inf\n"])
def test_bad_input_leaves_no_output(content: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(content)
    refused("impute", tmp_path / "in.csv", tmp_path / "out.csv", "--method", "linear")
    assert list(tmp_path.iterdir()) == [tmp_path / "in.csv"]


def test_truncated_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", data=gappy(rows=500))
    (tmp_path / "in.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    assert "truncated" in refused("impute", tmp_path / "in.npz", tmp_path / "out.npz", "--method", "linear")


def test_unwritable_output_is_refused_before_reading(tmp_path: Path) -> None:
    assert "no folder" in refused("impute", "no.csv", tmp_path / "nowhere" / "out.csv")
    assert "no folder" in refused("fit", "no.csv", tmp_path / "nowhere" / "m.safetensors")
    assert "no folder" in refused("evaluate", "no.csv", "--plot", tmp_path / "nowhere" / "p.png")


def test_unknown_endings(source: Path, tmp_path: Path) -> None:
    assert "'.xlsx'" in refused("impute", source, tmp_path / "out.xlsx")
    assert "figures are" in refused("evaluate", source, "--plot", tmp_path / "p.bmp")


def test_what_is_no_model(source: Path, tmp_path: Path) -> None:
    assert "not a saved imputer" in refused("impute", source, tmp_path / "out.csv", "--model", source)


def test_demo_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    arguments = ("demo", "--method", "linear", "--days", 1, "--sensors", 3, "--out", tmp_path / "taken")
    assert "cannot write to" in refused(*arguments)


# ---- interrupts ----------------------------------------------------------------------------------------------------

# A job in the background ignores Ctrl-C, and so would the processes it starts.
HEED_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"

# A linear imputer that says when it works, and then takes its time.
SLOW = """
import sys, time
from fastimpute import LinearImputer, io
where = {where!r}
def slowly(*_):
    print("working", flush=True)
    time.sleep(60)
if where == "fit":
    LinearImputer._fit_series = slowly
else:
    original = io.FORMATS[".csv"].write
    def write(path, table):
        original(path, table)
        slowly()
    io.FORMATS[".csv"].write = write
from fastimpute.cli import main
sys.argv = ["fastimpute", "impute", {source!r}, {target!r}, "--method", "linear"]
main()
"""


@pytest.mark.parametrize("where", ["fit", "write"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_no_output(where: str, number: int, status: int, source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    code = HEED_INTERRUPTS + SLOW.format(where=where, source=str(source), target=str(tmp_path / "out.csv"))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in complaint
    assert list(tmp_path.iterdir()) == [source]
    assert source.read_bytes() == before


# A short training that says when it stands at its third step, laid aside after every step, and then takes its time.
TRAINING = """
import sys, time
from fastimpute import dit
from fastimpute.train.checkpoint import Checkpoint
from fastimpute.train.diffusion import Training
dit.FEWEST_STEPS = dit.MOST_STEPS = 5
dit.ROUNDS = 1
if {broken!r}:
    Checkpoint.due = lambda _: True
    step = Training.step
    def slowly(training):
        if training.done == 3:
            print("working", flush=True)
            time.sleep(60)
        return step(training)
    Training.step = slowly
from fastimpute.cli import main
sys.argv = ["fastimpute", "impute", *{arguments!r}, "--method", "dit", "--quiet"]
main()
"""


def training(*arguments: object, broken: bool = False) -> subprocess.Popen[str]:
    code = HEED_INTERRUPTS + TRAINING.format(broken=broken, arguments=[*map(str, arguments)])
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_an_interrupted_training_goes_on_from_its_checkpoint(source: Path, tmp_path: Path) -> None:
    aside, target, whole = (tmp_path / name for name in ("training.safetensors", "out.csv", "whole.csv"))
    process = training(source, target, "--checkpoint", aside, broken=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint.split("\n") == ["", "fastimpute: interrupted, no result was written", ""]  # after ^C
    assert sorted(tmp_path.iterdir()) == sorted([source, aside])
    for arguments in ((source, target, "--checkpoint", aside), (source, whole)):
        again = training(*arguments)
        assert again.communicate(timeout=120) == ("", "")
        assert again.returncode == 0
    assert target.read_bytes() == whole.read_bytes()

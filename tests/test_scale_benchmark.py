"""The scale benchmark: what it measures is what happened, and a wrong result is found out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture(scope="module", autouse=True)
def _bench_on_the_path() -> Iterator[None]:
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of five sensors, a quarter of the readings lost, one sensor silent for ever."""
    import scale

    path = tmp_path_factory.mktemp("simulated traffic") / "IN.zarr"
    shape = ["--years", "0.008", "--sensors", "5", "--missing", "0.25", "--never-alive", "1"]
    scale.main(["simulate", str(path), *shape])
    return path


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


# ---- the archive ---------------------------------------------------------------------------------------------------


def test_the_archive_holds_the_simulated_rows_and_how_to_simulate_them(archive: Path) -> None:
    from scaling.archive import open_speeds, read_setting

    traffic, rows = read_setting(archive)
    assert (rows, traffic.sensors, traffic.missing, traffic.never_alive) == (3 * 288, 5, 0.25, 1)
    np.testing.assert_array_equal(open_speeds(archive)[:], traffic.observed(0, rows))


def test_the_archive_opens_in_xarray_with_its_dates(archive: Path) -> None:
    import xarray as xr

    with xr.open_zarr(archive, consolidated=False) as opened:
        assert opened["speed"].dims == ("time", "sensor")
        assert str(opened.indexes["time"][-1]) == "2017-01-03 23:55:00"


# ---- scores --------------------------------------------------------------------------------------------------------


def written(archive: Path, place: Path, cells: np.ndarray) -> Path:
    import zarr

    zarr.save_array(place, cells)
    return place


def filled(archive: Path) -> np.ndarray:
    from scaling.archive import read_setting

    from fastimpute.linear import LinearImputer

    traffic, rows = read_setting(archive)
    given = traffic.observed(0, rows)
    lines = np.array(LinearImputer(all_missing="mean_of_neighbors").fit_transform(given))
    return np.where(np.isnan(given), lines, given)


def test_straight_lines_score_as_straight_lines(archive: Path, tmp_path: Path) -> None:
    from scaling.score import score

    found = score(archive, written(archive, tmp_path / "OUT.zarr", filled(archive)))
    assert found.cells > 100
    assert found.mae == pytest.approx(found.mae_linear, rel=1e-5)
    assert 0.3 < found.mae < 5
    assert found.from_linear < 1e-3
    assert (found.unfilled, found.changed) == (0, 0)


def test_a_cell_without_a_value_a_changed_one_and_a_wrong_one_are_found_out(archive: Path, tmp_path: Path) -> None:
    from scaling.archive import read_setting
    from scaling.score import score

    traffic, rows = read_setting(archive)
    lost, cells = traffic.lost(0, rows), filled(archive)
    alive = int(np.flatnonzero(~lost.all(axis=0))[0])
    gaps, seen = np.flatnonzero(lost[:, alive]), np.flatnonzero(~lost[:, alive])
    between = gaps[(gaps > seen[0]) & (gaps < seen[-1])]
    cells[between[0], alive] += 9
    cells[seen[3], alive] = np.nextafter(cells[seen[3], alive], np.float32(np.inf))
    cells[seen[5], alive] = np.nan
    found = score(archive, written(archive, tmp_path / "OUT.zarr", cells))
    assert found.from_linear == pytest.approx(9, abs=1e-3)
    assert (found.unfilled, found.changed) == (1, 2)


def test_a_result_of_another_shape_is_refused(archive: Path, tmp_path: Path) -> None:
    from scaling.score import score

    target = written(archive, tmp_path / "OUT.zarr", filled(archive)[:-1])
    with pytest.raises(ValueError, match=r"has shape \(863, 5\)"):
        score(archive, target)


# ---- costs ---------------------------------------------------------------------------------------------------------


def test_memory_and_bytes_are_those_of_the_command_and_its_children(tmp_path: Path) -> None:
    from scaling.watch import watch

    place = tmp_path / "written"
    child = f"x = bytearray(30_000_000); open({str(place)!r}, 'wb').write(x); import time; time.sleep(0.2)"
    parent = f"import subprocess, sys; x = bytearray(60_000_000); subprocess.run([sys.executable, '-c', {child!r}])"
    cost = watch(python(f"{parent}; open({str(place)!r}, 'rb').read(20_000_000)"))
    assert (cost.status, cost.processes) == (0, 2)
    assert 60e6 < cost.peak_bytes < 120e6
    assert cost.peak_together_bytes > cost.peak_bytes
    assert 30e6 <= cost.written_bytes < 31e6
    assert 20e6 <= cost.read_bytes < 25e6


def test_memory_is_not_that_of_the_process_that_measures() -> None:
    from scaling.watch import watch

    large = bytearray(200_000_000)
    assert watch(python("import time; time.sleep(0.1)")).peak_bytes < 100e6
    assert len(large) == 200_000_000


def test_a_command_that_fails_says_so() -> None:
    from scaling.watch import watch

    cost = watch(python("raise SystemExit('no such archive')"))
    assert cost.status == 1
    assert "no such archive" in cost.error


# ---- killing -------------------------------------------------------------------------------------------------------


def test_the_digest_sees_names_and_contents(tmp_path: Path) -> None:
    from scaling.kill import digest

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "chunk").write_text("cells")
    assert digest(first) == digest(second)
    (second / "chunk").write_text("cellz")
    assert digest(first) != digest(second)
    (second / "chunk").write_text("cells")
    (second / "chunk").rename(second / "other")
    assert digest(first) != digest(second)


@pytest.mark.parametrize(("output", "identical"), [("the same", 2), ("str(time.time_ns())", 0)])
def test_kills_are_counted_and_results_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, identical: int
) -> None:
    from scaling.impute import Job
    from scaling.kill import kill_and_resume

    job = Job(tmp_path / "IN.zarr", tmp_path / "scratch")
    text = output if output.startswith("str") else repr(output)
    slow = f"import time; time.sleep(0.3); open({str(job.target)!r}, 'w').write({text})"
    monkeypatch.setattr(Job, "command", lambda self: python(slow))
    found = kill_and_resume(job, times=2)
    assert (found["times"], found["identical"]) == (2, identical)
    assert len(found["trials"]) == 2
    assert all(trial["moment"] <= found["undisturbed_seconds"] for trial in found["trials"])


# ---- what follows from the numbers ---------------------------------------------------------------------------------


def measured(cells: float, seconds: float, workers: int = 1, fitting: float = 0, unshared: float = 0) -> dict[str, Any]:
    from scaling.impute import PHASES

    log = {f"seconds_{phase}": 0.0 for phase in PHASES}
    log |= {"seconds": seconds, "seconds_fitting": fitting, "seconds_computing": seconds - fitting - unshared}
    times = {"seconds": seconds, "cpu_seconds": seconds, "log": log}
    return {"cells": cells, "sensors": 86, "workers": workers, **times}


def test_flat_is_flat_and_growth_has_its_exponent() -> None:
    from scaling.projection import flatness

    flat = flatness([measured(cells, cells * 2e-7) for cells in (1e6, 1e7, 1e8)], "seconds")
    assert flat["largest_over_smallest"] == pytest.approx(1)
    assert flat["exponent"] == pytest.approx(0, abs=1e-9)
    assert flatness([measured(cells, cells**1.5) for cells in (1e6, 1e8)], "seconds")["exponent"] == pytest.approx(0.5)


def test_the_projection_scales_the_largest_run_to_five_years() -> None:
    from scaling.projection import LARGEST_CA_CELLS, project

    tenth = LARGEST_CA_CELLS / 10
    found = project([measured(1e6, 50.0), measured(tenth, 720.0, unshared=180), measured(tenth, 400.0, workers=2)])
    assert found["hours_on_one_machine"] == pytest.approx(2)
    assert found["speedup_of_two_workers"]["once_started"] == pytest.approx(1.8)
    assert found["seconds_on_64_machines_perfect"] == pytest.approx(7200 / 64)
    assert found["seconds_on_64_machines_as_it_is"] == pytest.approx(7200 / 4 + 7200 * 0.75 / 64)


def test_fitting_grows_with_the_sensors_alone() -> None:
    from scaling.projection import LARGEST_CA_CELLS, project

    found = project([measured(LARGEST_CA_CELLS / 1000, 10.0, fitting=7)])
    assert found["hours_on_one_machine"] * 3600 == pytest.approx(7 * 100 + 3 * 1000)


def test_nothing_is_projected_from_two_workers_alone() -> None:
    from scaling.projection import project

    with pytest.raises(ValueError, match="no run of one worker"):
        project([measured(1e6, 50.0, workers=2)])


# ---- from end to end -----------------------------------------------------------------------------------------------


def test_a_run_is_measured_scored_and_projected(archive: Path, tmp_path: Path) -> None:
    import scale

    report = tmp_path / "scale.json"
    scale.main(
        ["run", str(archive), "--memory", "256MB", "--scratch", str(tmp_path / "scratch"), "--json", str(report)]
    )
    scale.main(["project", "--json", str(report)])
    found = json.loads(report.read_text())
    (run,) = found["runs"].values()
    assert run["cells"] == 3 * 288 * 5
    assert run["peak_bytes"] > run["peak_above_importing_bytes"]
    assert run["log"]["cells"] == run["cells"]
    assert (run["score"]["unfilled"], run["score"]["changed"]) == (0, 0)
    assert run["score"]["from_linear"] < 1e-3
    assert found["projection"]["linear, 25.0% missing, 256MB"]["measured_cells"] == run["cells"]
    assert not list((tmp_path / "scratch").iterdir())

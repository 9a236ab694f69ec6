"""Progress bars."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from fastimpute.progress import cells_per_second, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, total: float = 2, **settings: Any) -> str:
    """What a terminal sees of two units of work."""
    stream = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "120")
        with progress("training", total=total, cells=1e6, **settings) as advance:
            advance()
            advance(note="held-out MAE 0.1")
    return stream.getvalue()


def test_a_terminal_sees_share_rate_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = on_terminal(monkeypatch)
    for part in ("training", "100%", "cells/s", "held-out MAE 0.1"):
        assert part in seen


def test_work_taken_up_again_goes_on_where_it_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = on_terminal(monkeypatch, total=8, done=6)
    assert " 75%" in seen
    assert "100%" in seen
    assert "  0%" not in seen


def test_verbose_false_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, verbose=False) == ""


def test_no_terminal_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("training", total=2) as advance:
        advance(note="unseen")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("cells", "text"), [(5, "5 cells/s"), (5e3, "5.0 k cells/s"), (5e6, "5.0 M cells/s"), (5e9, "5.0 G cells/s")]
)
def test_rates_are_readable(cells: float, text: str) -> None:
    assert cells_per_second(cells, 1.0) == text

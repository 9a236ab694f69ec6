"""Work side by side: in order, one thread a piece, and torch's threads come back."""

from __future__ import annotations

import pytest
import torch

from fastimpute.crew import crew


def test_results_come_in_the_order_of_the_items() -> None:
    with crew() as workers:
        assert workers.map(lambda number: number**2, range(20)) == [number**2 for number in range(20)]


def test_every_piece_is_done_by_one_thread() -> None:
    with crew() as workers:
        assert set(workers.map(lambda _: torch.get_num_threads(), range(8))) == {1}


def test_threads_of_torch_come_back_after_a_failure() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), crew() as workers:
        workers.map(lambda number: 1 / number, [0])
    assert torch.get_num_threads() == before

"""Runs of a table are those of its parts joined, however it is cut."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fastimpute.stream.runs import LONG, Runs, Zeros

TABLES = hnp.arrays(
    bool, st.tuples(st.integers(1, 70), st.integers(1, 4)), elements=st.sampled_from([True, True, True, False])
)


def lengths(column: NDArray[np.bool_]) -> list[int]:
    """Of the runs of True, one by one."""
    return [len(list(run)) for value, run in groupby(column.tolist()) if value]


@given(TABLES)
def test_runs_are_counted_column_by_column(table: NDArray[np.bool_]) -> None:
    runs, expected = Runs.of(table), [lengths(column) for column in table.T]
    assert runs.count.tolist() == table.sum(0).tolist()
    assert runs.longest.tolist() == [max(column, default=0) for column in expected]
    assert runs.in_long.tolist() == [sum(length for length in column if length >= LONG) for column in expected]


@given(TABLES, st.lists(st.integers(1, 69), max_size=4))
def test_parts_above_one_another_make_the_whole(table: NDArray[np.bool_], cuts: list[int]) -> None:
    parts = [Runs.of(part) for part in np.split(table, sorted({cut for cut in cuts if cut < len(table)}))]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.above(part)
    assert {name: np.asarray(value).tolist() for name, value in vars(joined).items()} == {
        name: np.asarray(value).tolist() for name, value in vars(Runs.of(table)).items()
    }


@given(TABLES)
def test_columns_beside_one_another_make_the_whole(table: NDArray[np.bool_]) -> None:
    joined = Runs.beside([Runs.of(table[:, [column]]) for column in range(table.shape[1])])
    assert joined.longest.tolist() == Runs.of(table).longest.tolist()
    assert joined.tail.tolist() == Runs.of(table).tail.tolist()


def test_zeros_are_those_of_all_sensors() -> None:
    table = np.zeros((LONG, 3), bool)
    table[:, 0], table[2, 1] = True, True
    assert Zeros.of(Runs.of(table)) == Zeros(cells=LONG + 1, in_long_runs=LONG, sensors=2)

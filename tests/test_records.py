"""The shapes that every module shares."""

import numpy as np
import pytest

from telltale import records

pytestmark = pytest.mark.unit


def test_ragged_take_keeps_each_rows_items() -> None:
    ragged = records.Ragged(np.array([1, 2, 3, 4, 5, 6]), np.array([0, 2, 2, 5, 6]))
    taken = ragged.take(np.array([3, 0, 1, 2]))
    assert [list(taken.row(i)) for i in range(4)] == [[6], [1, 2], [], [3, 4, 5]]


def test_concatenated_ragged_rows_stay_in_order() -> None:
    left = records.Ragged(np.array([1, 2, 3]), np.array([0, 1, 3]))
    right = records.Ragged(np.array([9]), np.array([0, 0, 1]))
    both = records.concat_ragged([left, right])
    assert [list(both.row(i)) for i in range(len(both))] == [[1], [2, 3], [], [9]]


def test_null_rows_are_null_in_every_column() -> None:
    row = records.nulls(records.REPORT_SCALARS, 2)
    assert np.isnan(row["speed_kmh"]).all()
    assert (row["alarm_level"] == np.iinfo(np.int16).min).all()

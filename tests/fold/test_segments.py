from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telltale.fold.frames import DAY_US, Frames, day_of, frames_of, hours_of_day
from telltale.fold.packed import pack, unpack
from telltale.fold.segments import Segment, day_segment, fold, merge
from telltale.records import (
    CELL,
    CELL_INVALID,
    REPORT_COLUMNS,
    Flag,
    Ragged,
    Rows,
    nulls,
)

pytestmark = pytest.mark.unit

SECOND = 1_000_000


def rows_of(
    at_s: list[int], current_a: list[float], cells_mv: list[list[int]], soc_pct: float = 50.0
) -> Rows:
    columns = nulls(REPORT_COLUMNS, len(at_s))
    for name in ("vehicle_id", "part", "flags", "time_source"):
        columns[name] = 0
    columns["observed_at"] = np.array(at_s, np.int64) * SECOND
    columns["pack_current_a"] = current_a
    columns["soc_pct"] = soc_pct
    values = np.array([mv for row in cells_mv for mv in row], CELL)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in cells_mv])]).astype(np.int64)
    return Rows(columns, {"cells_mv": Ragged(values, offsets)})


def resting(at_s: list[int], cells: list[int]) -> Rows:
    return rows_of(at_s, [0.0] * len(at_s), [cells] * len(at_s))


@st.composite
def drives(draw: st.DrawFn) -> Rows:
    count = draw(st.integers(2, 40))
    steps = draw(
        st.lists(st.sampled_from([1, 5, 29, 30, 31, 200, 301, 4000]), min_size=count, max_size=count)
    )
    current = draw(st.lists(st.sampled_from([0.0, 1.9, 2.1, -40.0, 30.0]), min_size=count, max_size=count))
    width = draw(st.integers(2, 5))
    cell = st.one_of(st.integers(3300, 3400), st.just(0), st.just(CELL_INVALID))
    cells = draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=count, max_size=count))
    return rows_of(np.cumsum(steps).tolist(), current, cells, draw(st.sampled_from([10.0, 49.9, 100.0])))


def split(frames: Frames, cuts: list[int]) -> list[Segment]:
    bounds = [0, *sorted(c for c in set(cuts) if 0 < c < len(frames)), len(frames)]
    parts = [
        fold(Frames(frames.at_us[a:b], frames.signals[a:b], frames.state[a:b], frames.cells[a:b]))
        for a, b in pairwise(bounds)
    ]
    return [part for part in parts if part is not None]


@settings(max_examples=150, deadline=None)
@given(drives(), st.lists(st.integers(1, 39), max_size=8))
def test_any_split_of_the_rows_into_buckets_gives_the_same_summary(rows: Rows, cuts: list[int]) -> None:
    frames = frames_of(rows)
    assert pack(reduce(merge, split(frames, cuts))) == pack(fold(frames))


@settings(max_examples=60, deadline=None)
@given(drives(), st.lists(st.integers(1, 39), min_size=2, max_size=8))
def test_neighbouring_buckets_may_be_merged_in_any_grouping(rows: Rows, cuts: list[int]) -> None:
    parts = split(frames_of(rows), cuts)
    while len(parts) > 1:
        middle = len(parts) // 2
        parts[middle - 1 : middle + 1] = [merge(parts[middle - 1], parts[middle])]
    assert pack(parts[0]) == pack(fold(frames_of(rows)))


@settings(max_examples=60, deadline=None)
@given(drives(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(rows: Rows, random: object) -> None:
    order = np.arange(len(rows))
    random.shuffle(order)
    twice = np.concatenate([order, order[: len(order) // 2]])
    assert pack(fold(frames_of(rows.take(twice)))) == pack(fold(frames_of(rows)))


@settings(max_examples=60, deadline=None)
@given(drives())
def test_a_segment_survives_being_packed(rows: Rows) -> None:
    segment = fold(frames_of(rows))
    assert pack(unpack(pack(segment))) == pack(segment)


def test_a_rest_that_crosses_the_border_of_two_buckets_counts_as_one() -> None:
    cells = [3300, 3310, 3320]
    late = fold(frames_of(resting([3600, 3610], cells)))
    assert late.rest == {}  # ten seconds are no rest yet
    early = fold(frames_of(resting([3575, 3590], cells)))
    joined = merge(early, late)
    assert joined.rest[3, 5].frames == 1  # 3610 lies 35 s after 3575, 3600 only 25 s
    assert joined.rest[3, 5].deviation.tolist() == [-20, 0, 20]


def test_a_gap_nobody_saw_ends_a_rest() -> None:
    cells = [3300, 3310, 3320]
    assert fold(frames_of(resting([0, 301], cells))).rest == {}
    assert fold(frames_of(resting([0, 300], cells))).rest[3, 5].frames == 1


def test_the_rest_of_the_night_before_settles_the_first_frame_of_a_day() -> None:
    day = day_of(0) + 1
    midnight_s = hours_of_day(day)[0] * 3600
    before = fold(frames_of(resting([midnight_s - 60, midnight_s - 30], [3300, 3300, 3310])))
    first = fold(frames_of(resting([midnight_s + 5], [3300, 3300, 3310])))
    alone, joined = day_segment(None, [first]), day_segment(before, [first])
    assert alone.rest == {}
    assert joined.rest[3, 5].frames == 1
    assert joined.frames == 1
    assert joined.first_us == (midnight_s + 5) * SECOND


def test_cells_nobody_can_have_measured_are_masked_and_the_others_count() -> None:
    segment = fold(frames_of(resting([0, 30], [3300, 3310, CELL_INVALID, 0, 3300])))
    total = segment.rest[5, 5]
    assert total.count.tolist() == [1, 1, 0, 0, 1]
    assert total.deviation.tolist() == [0, 20, 0, 0, 0]


def test_one_mad_frame_moves_a_cell_by_no_more_than_the_limit() -> None:
    segment = fold(frames_of(resting([0, 30], [3300, 3300, 600])))
    assert segment.rest[3, 5].deviation.tolist() == [0, 0, -800]


def test_frames_without_a_trusted_vehicle_time_are_left_out() -> None:
    rows = resting([0, 30, 60], [3300, 3300])
    rows.columns["flags"][1] = Flag.TIME_FUTURE
    rows.columns["time_source"][2] = 1
    assert frames_of(rows).at_us.tolist() == [0]


def test_the_parts_of_a_split_report_are_one_frame() -> None:
    rows = rows_of([0, 0], [0.0, np.nan], [[3300, 3301], [3302]])
    rows.columns["part"] = [0, (1 << 16) | 3]
    frames = frames_of(rows)
    assert [cells.tolist() for cells in frames.cells] == [[3300, 3301, 3302]]


def test_a_charge_across_the_border_is_one_charge() -> None:
    def charging(at_s: list[int]) -> Segment:
        rows = rows_of(at_s, [50.0] * len(at_s), [[3300, 3300]] * len(at_s))
        rows.columns["charging_state"] = 1
        return fold(frames_of(rows))

    joined = merge(charging([0, 30]), charging([60, 90]))
    assert (charging([0, 30]).charges, joined.charges) == (1, 1)
    assert joined.charge.tolist() == [500 * 90 * SECOND, 0]


def test_a_vehicle_day_begins_at_midnight_in_china() -> None:
    assert day_of(16 * 3600 * SECOND) == day_of(16 * 3600 * SECOND - 1) + 1
    assert hours_of_day(1)[0] == 16
    assert DAY_US == 24 * 3600 * SECOND

"""Envelope, event time, identity and accounting of one batch."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telltale import intake, records
from telltale.records import Flag, TimeSource

pytestmark = pytest.mark.unit

MINUTE_US = 60_000_000
NOON_US = 1_773_460_800_000_000


@dataclass
class Record:
    value: bytes | None = b"##"
    headers: tuple[tuple[str, bytes], ...] = ()
    offset: int = 0
    timestamp: int = NOON_US // 1000


def reports(*rows: tuple[int, int, int, int]) -> records.Reports:
    """Reports of (vehicle, observed_at, part, digest)."""
    empty = records.no_reports()
    columns = records.nulls(records.REPORT_COLUMNS, len(rows))
    columns["flags"] = columns["time_source"] = 0
    columns["received_at"] = NOON_US
    for name, values in zip(
        ("vehicle_id", "observed_at", "part", "digest"), zip(*rows, strict=True), strict=True
    ):
        columns[name] = values
    lists = {item.name: records.empty_ragged(item.item, len(rows)) for item in records.REPORT_LISTS}
    number = np.arange(len(rows), dtype=np.int32)
    return replace(
        empty,
        rows=records.Rows(columns, lists),
        vin=np.full(len(rows), b"V", "S17"),
        record=number,
        frame=number * 0,
    )


def envelope_of(*records: Record) -> tuple[str, int, str, bool]:
    """The last record's protocol, receive time, gateway, and whether something was filled in."""
    envelopes, last = intake.envelopes_of(records), len(records) - 1
    times = int(envelopes.received_at[last]), bool(envelopes.filled[last])
    return envelopes.protocol(last), times[0], envelopes.gateway(last), times[1]


def test_envelope_is_read_from_headers() -> None:
    headers = (("protocol", b"json"), ("received_at", b"1773460800000001"), ("gateway", b"g7"))
    assert envelope_of(Record(headers=headers)) == ("json", 1773460800000001, "g7", False)


def test_received_at_may_be_rfc3339() -> None:
    headers = (("protocol", b"json"), ("received_at", b"2026-03-14T12:00:00+08:00"))
    assert envelope_of(Record(headers=headers))[1] == NOON_US


def test_each_record_has_the_envelope_of_its_own_headers() -> None:
    whole = Record(headers=(("protocol", b"json"), ("received_at", b"1773460800000001"), ("gateway", b"g7")))
    other = Record(b"##", (("received_at", b"999999999999999"), ("gateway", b"g8")))
    assert envelope_of(other, whole) == ("json", 1773460800000001, "g7", False)
    assert envelope_of(whole, whole, other) == ("gbt32960", 999999999999999, "g8", True)
    assert len(intake.envelopes_of([]).received_at) == 0


@pytest.mark.parametrize("received", [b"yesterday", b"2026-03-14T12:00:00", b"", b"9" * 30])
def test_an_unreadable_receive_time_is_the_records_and_flagged(received: bytes) -> None:
    headers = (("protocol", b"json"), ("received_at", received))
    assert envelope_of(Record(headers=headers)) == ("json", NOON_US, "", True)


@pytest.mark.parametrize(
    ("value", "protocol"),
    [
        (b"##\x02", "gbt32960"),
        (b"$$\x02", "gbt32960"),
        (b' {"vin"', "json"),
        (b"[", "json"),
        (b"\x00", ""),
        (None, ""),
    ],
)
def test_a_value_without_protocol_header_is_known_by_its_first_bytes(
    value: bytes | None, protocol: str
) -> None:
    assert envelope_of(Record(value))[::3] == (protocol, True)


@pytest.mark.parametrize(
    ("observed", "flag"),
    [
        (intake.NO_TIME, Flag.TIME_INVALID),
        (NOON_US + 6 * MINUTE_US, Flag.TIME_FUTURE),
        (NOON_US - 8 * 86_400_000_000, Flag.TIME_TOO_OLD),
    ],
)
def test_the_receive_time_stands_in_for_an_unusable_vehicle_time(observed: int, flag: Flag) -> None:
    columns = reports((1, observed, 0, 77)).rows.columns
    intake.settle_times(columns, intake.TimeRule(5 * MINUTE_US, 7 * 86_400_000_000))
    assert columns["observed_at"] == NOON_US
    assert columns["time_source"] == TimeSource.RECEIVED
    assert columns["flags"] == flag


def test_two_untimed_reports_of_one_instant_keep_two_identities() -> None:
    columns = reports((1, intake.NO_TIME, 0, 77), (1, intake.NO_TIME, 0, 78)).rows.columns
    intake.settle_times(columns, intake.TimeRule(0, 0))
    assert len(intake.order_by_identity(columns).first) == 2


def test_an_untimed_report_sent_again_later_has_the_same_identity() -> None:
    columns = reports((1, intake.NO_TIME, 0, 77), (1, intake.NO_TIME, 0, 77)).rows.columns
    columns["received_at"][1] += MINUTE_US
    intake.settle_times(columns, intake.TimeRule(0, 0))
    assert len(intake.order_by_identity(columns).copies) == 1


def test_a_copy_is_a_duplicate_and_other_content_is_a_conflict() -> None:
    batch = reports((1, 10, 0, 5), (1, 10, 0, 5), (1, 10, 0, 6), (1, 10, 1, 6), (2, 10, 0, 5))
    outcome, rows = intake.classify(batch, intake.order_by_identity(batch.rows.columns), {})
    assert outcome.tolist() == [0, intake.Outcome.DUPLICATE, intake.Outcome.CONFLICTING, 0, 0]
    assert sorted(rows.tolist()) == [0, 3, 4]


def test_what_the_database_has_decides_what_is_a_copy() -> None:
    batch = reports((1, 10, 0, 5), (1, 10, 0, 6), (1, 11, 0, 7))
    outcome, rows = intake.classify(batch, intake.order_by_identity(batch.rows.columns), {0: 6})
    assert outcome.tolist() == [intake.Outcome.CONFLICTING, intake.Outcome.DUPLICATE, intake.Outcome.STORED]
    assert rows.tolist() == [2]


ROW = st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 1), st.integers(0, 2))


@given(st.lists(ROW, min_size=1, max_size=40), st.integers(0, 40))
def test_a_batch_cut_anywhere_stores_the_same_rows(rows: list[tuple[int, int, int, int]], cut: int) -> None:
    whole = reports(*rows)
    _, stored = intake.classify(whole, intake.order_by_identity(whole.rows.columns), {})
    kept: dict[tuple[int, int, int], int] = {}
    for piece in (rows[:cut], rows[cut:]):
        if not piece:
            continue
        batch = reports(*piece)
        ordered = intake.order_by_identity(batch.rows.columns)
        known = {int(i): kept[piece[i][:3]] for i in ordered.first if piece[i][:3] in kept}
        outcome, fresh = intake.classify(batch, ordered, known)
        assert (outcome == intake.Outcome.STORED).sum() == len(fresh)
        kept |= {piece[i][:3]: piece[i][3] for i in fresh}
    assert kept == {rows[i][:3]: rows[i][3] for i in stored}


def test_a_window_of_mostly_bad_frames_must_halt_and_a_few_must_not() -> None:
    window = intake.BadWindow(200, 0.5)
    assert not window.after(150, 150).must_halt()
    assert window.after(200, 101).must_halt()
    assert not window.after(5000, 50).must_halt()
    assert window.after(190, 0).after(300, 290).must_halt()


def test_dirty_hours_are_distinct_pairs() -> None:
    hour = 3_600_000_000
    columns = reports((1, 0, 0, 0), (1, hour - 1, 0, 0), (1, hour, 0, 0), (2, hour, 0, 0)).rows.columns
    assert intake.dirty_hours(columns) == ([1, 1, 2], [0, 1, 1])


def test_a_stream_that_turns_bad_halts_though_its_frames_come_one_at_a_time() -> None:
    window = intake.BadWindow(200, 0.5).after(200, 0)
    halted_after = 0
    while not window.must_halt():
        window, halted_after = window.after(1, 1), halted_after + 1
        assert halted_after < 200
    assert halted_after > 100


@pytest.mark.parametrize("stamp_ms", [-1, 1_773_460_800_000_000, 1 << 62])
def test_a_timestamp_in_a_wrong_unit_is_brought_to_one_that_can_be_stored(stamp_ms: int) -> None:
    received_at = envelope_of(Record(timestamp=stamp_ms))[1]
    assert intake.EARLIEST_US <= received_at < intake.LATEST_US


@pytest.mark.parametrize(
    "text", [b"1773460800", b"1773460800000", b"9999999999999999", b"99999999999999999", b"0001-01-01T00:00Z"]
)
def test_a_receive_time_that_cannot_be_gives_way_to_the_records_own(text: bytes) -> None:
    headers = (("protocol", b"json"), ("received_at", text))
    assert envelope_of(Record(headers=headers)) == ("json", NOON_US, "", True)


def test_names_from_headers_carry_nothing_that_a_database_refuses() -> None:
    headers = (("protocol", b"js\x00on\xff"), ("gateway", b"g\x00"))
    protocol, _, gateway, _ = envelope_of(Record(headers=headers))
    assert "\x00" not in protocol + gateway


def test_copies_of_several_protocols_keep_the_order_in_which_they_came() -> None:
    first = records.Decoded(
        reports((1, NOON_US, 0, 7)), (records.Source("a"),), control=np.zeros(1, np.int32)
    )
    second = replace(first, reports=reports((1, NOON_US, 0, 8), (1, NOON_US, 0, 9)))
    merged, _ = intake.merge(
        [(first, np.array([1])), (replace(second, control=np.zeros(2, np.int32)), np.array([0, 2]))]
    )
    assert merged.reports.rows.columns["digest"].tolist() == [8, 7, 9]
    assert merged.reports.record.tolist() == [0, 1, 2]

"""What every decoder must keep, whatever its protocol. A new decoder only adds its good values here."""

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decode.gbt32960_random import reports

from telltale import records
from telltale.decode import DECODERS, Decoder
from telltale.decode.gbt32960.encode import encode_login, encode_logout
from telltale.records import Decoded, Flag, Values

pytestmark = pytest.mark.unit
VIN = "L0TTE5T15RA000101"
OBSERVED = 1_773_451_613_000_000
# 2026-03-14 09:26:53 +08:00, vehicle section of 2016
REPORT = bytes.fromhex(
    "232302fe4c3054544535543135524130303031303101001b1a030e091a3501010301020b0001e2400def278b4c012e145017004e"
)


def gbt32960_values() -> list[bytes]:
    login = encode_login(VIN, OBSERVED, 1, "89860099000000000101", ["PACK1"])
    frames = reports(7, 12)
    return [
        REPORT,
        REPORT + REPORT,
        login,
        encode_logout(VIN, OBSERVED, 1),
        b"".join(frames[:4]),
        *frames[4:],
    ]


def json_values() -> list[bytes]:
    reading: dict[str, Any] = {"vin": VIN, "observed_at": "2026-03-14T09:26:53+08:00", "speed_kmh": 52.3}
    lists = reading | {"cells_v": [3.6, None], "motors": [{"seq": 1}], "observed_at": 1_773_451_614}
    return [json.dumps(value).encode() for value in (reading, lists, [reading, lists])]


GOOD: dict[str, Callable[[], list[bytes]]] = {"gbt32960": gbt32960_values, "json": json_values}
decoder_of = pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.protocol)


def decoded(decoder: Decoder, values: list[bytes]) -> Decoded:
    return decoder.decode(Values(values, np.arange(len(values), dtype=np.int64)))


def assert_whole(result: Decoded, values: list[bytes]) -> None:
    """Hold the shape of a result: one place per thing found, all columns as long as the rows."""
    reports = result.reports
    rejected = [e for e in result.evidence if e.outcome == "rejected"]
    places = list(zip(reports.record.tolist(), reports.frame.tolist(), strict=True))
    places += [(s.record, s.frame) for s in result.sessions] + [(e.record, e.frame) for e in rejected]
    assert len(set(places)) == len(places)
    assert len(result.control) == len(values)
    for record in range(len(values)):
        found = [frame for r, frame in places if r == record]
        sent = len(found) + int(result.control[record])
        assert sent >= 1, "a value left no trace"
        assert max(found, default=0) <= sent - 1 or not found
    assert reports.rows.columns.dtype == records.REPORT
    assert len(reports.rows) == len(reports.vin) == len(reports.record) == len(reports.frame)
    for column in records.REPORT_LISTS:
        ragged = reports.rows.lists[column.name]
        assert len(ragged) == len(reports)
        assert ragged.values.dtype == column.item
        assert ragged.offsets[-1] == len(ragged.values)
        assert (ragged.lengths >= 0).all()
    partial = {(e.record, e.frame) for e in result.evidence if e.outcome == "partial"}
    flagged = (reports.rows.columns["flags"] & Flag.PARTIAL) != 0
    assert partial == {place for place, flag in zip(places, flagged, strict=False) if flag}
    assert (reports.rows.columns["source_id"] < max(len(result.source_of), 1)).all()


def assert_same(first: Decoded, second: Decoded) -> None:
    assert first.reports.rows.columns.tobytes() == second.reports.rows.columns.tobytes()
    assert first.reports.vin.tolist() == second.reports.vin.tolist()
    for name, ragged in first.reports.rows.lists.items():
        assert ragged.values.tobytes() == second.reports.rows.lists[name].values.tobytes()
    assert (first.sessions, first.evidence, first.markers) == (
        second.sessions,
        second.evidence,
        second.markers,
    )


@decoder_of
def test_good_values_hold_no_evidence_of_rejection(decoder: Decoder) -> None:
    values = [value for value in GOOD[decoder.protocol]() if value != b""]
    assert_whole(decoded(decoder, values), values)


@decoder_of
def test_no_values_give_an_empty_batch(decoder: Decoder) -> None:
    result = decoded(decoder, [])
    assert (len(result.reports), result.sessions, result.evidence) == (0, (), ())


@decoder_of
def test_empty_value_is_rejected(decoder: Decoder) -> None:
    result = decoded(decoder, [b""])
    assert [e.outcome for e in result.evidence] == ["rejected"]


@decoder_of
def test_truncation_at_every_byte_is_accounted_for(decoder: Decoder) -> None:
    for value in GOOD[decoder.protocol]()[:4]:
        values = [value[:size] for size in range(len(value))]
        assert_whole(decoded(decoder, values), values)


@decoder_of
def test_flipped_bits_are_accounted_for(decoder: Decoder) -> None:
    dice = random.Random(5)
    for value in GOOD[decoder.protocol]():
        values = []
        for _ in range(40):
            flipped = bytearray(value)
            flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
            values.append(bytes(flipped))
        assert_whole(decoded(decoder, values), values)


@decoder_of
@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.binary(max_size=120), max_size=5))
def test_any_bytes_are_accounted_for(decoder: Decoder, values: list[bytes]) -> None:
    assert_whole(decoded(decoder, values), values)


@decoder_of
def test_decoding_is_deterministic(decoder: Decoder) -> None:
    values = GOOD[decoder.protocol]()
    assert_same(decoded(decoder, values), decoded(decoder, values))


@decoder_of
def test_a_bad_value_changes_nothing_of_its_neighbours(decoder: Decoder) -> None:
    good = GOOD[decoder.protocol]()
    alone = decoded(decoder, good).reports
    mixed = decoded(decoder, [x for value in good for x in (value, value[: len(value) // 2], b"\0")]).reports
    kept = np.flatnonzero(mixed.record % 3 == 0)
    for name in ("observed_at", "part", "digest", "flags"):
        assert mixed.rows.columns[name][kept].tolist() == alone.rows.columns[name].tolist()
    assert (
        mixed.rows.take(kept).lists["cells_mv"].values.tobytes()
        == alone.rows.lists["cells_mv"].values.tobytes()
    )


@decoder_of
def test_order_of_values_does_not_change_a_reading(decoder: Decoder) -> None:
    values = GOOD[decoder.protocol]()
    forward, backward = decoded(decoder, values).reports, decoded(decoder, values[::-1]).reports
    assert sorted(forward.rows.columns["digest"].tolist()) == sorted(backward.rows.columns["digest"].tolist())


@decoder_of
def test_times_are_utc_whatever_zone_was_sent(decoder: Decoder) -> None:
    row = decoded(decoder, GOOD[decoder.protocol]()[:1]).reports.rows.columns[0]
    assert row["observed_at"] == OBSERVED
    assert row["speed_kmh"] == np.float32(52.3)


@decoder_of
def test_what_was_not_sent_is_null(decoder: Decoder) -> None:
    row = decoded(decoder, GOOD[decoder.protocol]()[:1]).reports.rows.columns[0]
    assert np.isnan(row["cell_voltage_max_v"])
    assert row["alarm_level"] == records.null_of(np.dtype("i2"))


@decoder_of
def test_the_bytes_of_each_row_can_be_found_again(decoder: Decoder) -> None:
    values = GOOD[decoder.protocol]()
    rows = decoded(decoder, values).reports
    for at, (record, frame) in enumerate(zip(rows.record.tolist(), rows.frame.tolist(), strict=True)):
        again = decoded(decoder, [decoder.raw_frame(values[record], frame)]).reports
        assert again.rows.columns["digest"].tolist() == [rows.rows.columns["digest"][at]]

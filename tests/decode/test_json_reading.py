"""JSON readings to columns."""

import json
from typing import Any

import numpy as np
import pytest

from telltale import records
from telltale.decode import json_reading
from telltale.records import Decoded, Flag, Values

pytestmark = pytest.mark.unit
VIN = "L0TTE5T15RA000101"
GOOD: dict[str, Any] = {"vin": VIN, "observed_at": "2026-03-14T09:26:53+08:00"}
OBSERVED = 1_773_451_613_000_000


def decoded(*values: Any, **settings: int) -> Decoded:
    raw = [v if isinstance(v, bytes) else json.dumps(v).encode() for v in values]
    return json_reading.decode(Values(raw, np.arange(len(raw), dtype=np.int64)), **settings)


def test_reading_becomes_columns_and_lists() -> None:
    reading = GOOD | {
        "speed_kmh": 52.3,
        "pack_current_a": -20,
        "cells_v": [3.6, None],
        "probe_temps_degc": [25.5],
        "motors": [{"seq": 1, "torque_nm": 12.5}],
        "fault_codes": [{"group": "other", "code": 7}],
    }
    reports = decoded(reading).reports
    row, lists = reports.rows.columns[0], reports.rows.lists
    assert (row["speed_kmh"], row["pack_current_a"]) == (np.float32(52.3), -20)
    assert np.isnan(row["soc_pct"])
    assert lists["cells_mv"].row(0).tolist() == [3600, records.CELL_INVALID]
    assert lists["probes_ddegc"].row(0).tolist() == [255]
    assert lists["motors"].row(0)["torque_dnm"].tolist() == [125]
    assert lists["fault_codes"].row(0).tolist() == [(3, 7)]
    assert lists["subsystems"].row(0)[["no", "cells", "probes"]].tolist() == [(1, 2, 1)]


@pytest.mark.parametrize(
    "spelling",
    ["2026-03-14T01:26:53Z", "2026-03-14t09:26:53.000+08:00", 1_773_451_613, 1_773_451_613_000, OBSERVED],
)
def test_every_spelling_of_a_time_is_the_same_reading(spelling: str | int) -> None:
    first, second = decoded(GOOD, GOOD | {"observed_at": spelling}).reports.rows.columns
    assert second["observed_at"] == OBSERVED
    assert first["digest"] == second["digest"]


def test_key_order_and_number_spelling_do_not_change_the_digest() -> None:
    raw = b'{"speed_kmh":52.0,"observed_at":1773451613,"vin":"L0TTE5T15RA000101"}'
    rows = decoded(GOOD | {"speed_kmh": 52}, raw, GOOD | {"speed_kmh": 53}).reports.rows.columns
    assert rows["digest"][0] == rows["digest"][1]
    assert rows["digest"][0] != rows["digest"][2]


def test_one_bad_reading_of_a_list_is_rejected_by_its_index() -> None:
    result = decoded([GOOD, {"vin": VIN}, GOOD])
    assert result.reports.frame.tolist() == [0, 2]
    (evidence,) = result.evidence
    assert (evidence.frame, evidence.reason) == (1, "BAD_READING")
    assert evidence.raw == json.dumps({"vin": VIN}).encode()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"vin":NaN}',
        b"\xff\xfe{}",
        b'{"vin":"\\ud800"}',
        b"[1,2",
    ],
)
def test_what_is_no_json_rejects_the_value(value: bytes) -> None:
    assert [e.reason for e in decoded(value).evidence] == ["BAD_JSON"]


def test_byte_order_mark_is_no_obstacle() -> None:
    assert len(decoded(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()).reports) == 1


def test_last_of_duplicate_keys_wins() -> None:
    raw = b'{"vin":"A","observed_at":1,"speed_kmh":1,"speed_kmh":2}'
    rows = decoded(raw).reports.rows.columns
    assert rows["speed_kmh"][0] == 2
    assert rows["flags"][0] == Flag.VIN_INVALID


def test_impossible_date_keeps_the_reading() -> None:
    row = decoded(GOOD | {"observed_at": "2026-02-31T00:00:00Z"}).reports.rows.columns[0]
    assert row["flags"] == Flag.TIME_INVALID


def test_subsystems_must_add_up() -> None:
    result = decoded(GOOD | {"cells_v": [3.6], "subsystems": [{"no": 1, "cells": 2}]})
    assert [e.reason for e in result.evidence] == ["BAD_READING"]


def test_values_and_lists_beyond_the_limits_are_rejected() -> None:
    many = b"[" + b",".join([b"{}"] * (json_reading.MAX_READINGS + 1)) + b"]"
    large = b" " * (json_reading.MAX_BYTES + 1)
    assert [e.reason for e in decoded(many, large).evidence] == ["TOO_LARGE", "TOO_LARGE"]


def test_positions_are_rounded() -> None:
    row = decoded(GOOD | {"longitude_deg": 113.264385}, position_decimals=1).reports.rows.columns[0]
    assert row["longitude_deg"] == 113.3


def test_an_error_text_holds_nothing_a_database_refuses() -> None:
    (evidence,) = decoded(b'{"vin":"A","observed_at":1,"\\u0000":1}').evidence
    assert "\0" not in evidence.detail

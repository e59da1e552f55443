"""The vectorised decoder against the sequential one, and against its own inverse."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decode.gbt32960_random import clean_reports, reports
from tests.decode.gbt32960_reference import expected

from telltale import records
from telltale.decode.gbt32960 import decode
from telltale.decode.gbt32960.encode import encode_reports
from telltale.records import Decoded, Flag, Reports, Values

pytestmark = pytest.mark.unit
FRAMES = 150
SEEDS = st.integers(0, 2**32 - 1)


def decoded(values: list[bytes]) -> Decoded:
    return decode(Values(values, np.zeros(len(values), np.int64)), position_decimals=6)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_columns_agree_with_the_frame_by_frame_description(seed: int) -> None:
    frames = reports(seed, FRAMES)
    result = decoded(frames)
    rows = [(frame, want) for frame in frames if (want := expected(frame)) is not None]
    assert len(result.reports) == len(rows)
    rejected = sum(e.outcome == "rejected" for e in result.evidence)
    assert len(rows) + rejected == len(frames)
    for at, (_frame, want) in enumerate(rows):
        assert_row(result.reports, at, want)


def assert_row(reports: Reports, at: int, want: dict[str, Any]) -> None:
    row = reports.rows.columns[at]
    for column in records.REPORT_SCALARS:
        got, value = row[column.name], want[column.name]
        if value is None:
            assert np.isnan(got) if np.dtype(column.dtype).kind == "f" else got == column.null, column.name
        else:
            assert got == np.dtype(column.dtype).type(value), column.name
    if want["part"] is not None:
        assert row["part"] == want["part"]
    assert bool(row["flags"] & Flag.OUT_OF_RANGE) == want["out_of_range"]
    assert_lists({name: ragged.row(at) for name, ragged in reports.rows.lists.items()}, want["lists"])


def assert_lists(got: dict[str, Any], want: dict[str, Any]) -> None:
    cells = [None if raw >= records.CELL_ABNORMAL else raw / 1000 for raw in got["cells_mv"].tolist()]
    assert cells == want["cells"]
    probes = [None if raw >= records.PROBE_ABNORMAL else raw / 10 for raw in got["probes_ddegc"].tolist()]
    assert probes == want["probes"]
    null = records.null_of(np.dtype("i4"))
    blocks = [
        tuple(int(v) for v in s) for s in got["subsystems"][["voltage_dv", "current_da", "cells", "probes"]]
    ]
    assert [tuple(None if v == null else v for v in block) for block in blocks] == want["subsystems"]
    assert got["user_data"].tobytes() == want["user_data"]
    assert [(int(f["group"]), int(f["code"])) for f in got["fault_codes"]] == want["faults"]
    assert [(int(f["bit"]), int(f["level"])) for f in got["alarm_levels"]] == want["levels"]
    assert len(got["motors"]) == len(want["motors"])
    for motor, described in zip(got["motors"], want["motors"], strict=True):
        assert_motor(motor, described)


def assert_motor(motor: Any, described: dict[str, Any]) -> None:
    scales = {"speed_rpm": 1, "torque_nm": 10, "motor_temp_c": 1, "controller_voltage_v": 10}
    members = dict(
        zip(scales, ("speed_rpm", "torque_dnm", "motor_temp_degc", "controller_voltage_dv"), strict=True)
    )
    for name, per_unit in scales.items():
        if name in described:
            got, value = int(motor[members[name]]), described[name]
            null = records.null_of(motor.dtype[members[name]])
            largest = np.iinfo(motor.dtype[members[name]]).max
            assert got == (null if value is None else min(round(value * per_unit), largest)), name


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.sampled_from([2016, 2025]))
def test_encoding_decoded_rows_gives_the_frames_back(seed: int, edition: int) -> None:
    frames = clean_reports(seed, FRAMES, edition)
    reports = decoded(frames).reports
    assert encode_reports(reports.rows, reports.vin, edition=edition) == frames

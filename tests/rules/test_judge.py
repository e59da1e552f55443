"""What the safety rules say, one sentence a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.rules.reports import CELLS, make_rows, ragged

from telltale.records import SUBSYSTEM, Rows
from telltale.rules import SafetyAlert, judge

pytestmark = pytest.mark.unit


def said(alerts: tuple[SafetyAlert, ...]) -> list[tuple[str, str, str, str]]:
    return [(a.kind, a.detector, a.component, a.severity) for a in alerts]


def healthy_then(*values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{}, *values]


@pytest.mark.parametrize(
    ("sentence", "reports", "expected"),
    [
        ("a healthy car raises nothing", [{}] * 10, []),
        (
            "insulation that fell from a plausible level is urgent below 100 ohm per volt",
            healthy_then(*[{"insulation_kohm": 20.0}] * 5),
            [("raised", "insulation", "pack", "urgent")],
        ),
        (
            "insulation between 100 and 500 ohm per volt is important",
            healthy_then(*[{"insulation_kohm": 100.0}] * 5),
            [("raised", "insulation", "pack", "important")],
        ),
        (
            "insulation that falls further escalates",
            healthy_then(*[{"insulation_kohm": 100.0}] * 5, *[{"insulation_kohm": 20.0}] * 5),
            [("raised", "insulation", "pack", "important"), ("escalated", "insulation", "pack", "urgent")],
        ),
        (
            "a low insulation shorter than its dwell raises nothing",
            healthy_then(*[{"insulation_kohm": 20.0}] * 4, {}),
            [],
        ),
        (
            "insulation that never was plausible is a sensor to watch, once",
            [{"insulation_kohm": 5.0}] * 200,
            [("raised", "insulation_sensor", "pack", "watch")],
        ),
        (
            "an alarm that the car derives from the same implausible reading proves nothing more",
            [{"insulation_kohm": 5.0, "alarm_flags": 1 << 11, "alarm_level": 3}] * 200,
            [("raised", "insulation_sensor", "pack", "watch")],
        ),
        (
            "an insulation of 0 in a parked car is a sleeping monitor",
            healthy_then(*[{"insulation_kohm": 0.0, "vehicle_status": 2, "speed_kmh": 0.0}] * 20),
            [],
        ),
        (
            "insulation is not judged when the pack's voltage is off",
            healthy_then(*[{"insulation_kohm": 1.0, "pack_voltage_v": 3.0, "speed_kmh": 0.0}] * 20),
            [],
        ),
        ("alarm level 3 alone is no thermal event", [{"alarm_level": 3}] * 2, []),
        (
            "alarm level 3 that stays without physical evidence is watched",
            [{"alarm_level": 3}] * 3,
            [("raised", "bms_alarm", "vehicle", "watch")],
        ),
        (
            "alarm level 3 that another rule explains is not reported beside it",
            healthy_then(*[{"insulation_kohm": 20.0, "alarm_level": 3}] * 9),
            [("raised", "insulation", "pack", "urgent")],
        ),
        (
            "a sensor that is never right hides no alarm about something else",
            [{"insulation_kohm": 5.0, "alarm_level": 3}] * 5,
            [("raised", "bms_alarm", "vehicle", "watch")],
        ),
        (
            "alarm level 3 with a probe over its limit is urgent at once",
            [{"alarm_level": 3, "probes": [250, 650]}],
            [("raised", "thermal_event", "pack", "urgent")],
        ),
        (
            "the battery-temperature flag with a step in temperature is urgent at once",
            [{}, {"alarm_flags": 2, "cell_temp_max_degc": 36.0, "probes": [360]}],
            [("raised", "thermal_event", "pack", "urgent")],
        ),
        (
            "alarm level 3 with a cell that collapsed is urgent at once",
            [{}, {"alarm_level": 3, "cells": [*CELLS[1:], 2900]}],
            [("raised", "thermal_event", "pack", "urgent")],
        ),
        (
            "alarm level 3 with all cells sagging under load is no thermal event",
            [{}, {"alarm_level": 3, "cells": [3100] * 100, "pack_voltage_v": 310.0}],
            [],
        ),
        (
            "alarm level 3 when the contactors open is no thermal event",
            [{"speed_kmh": 0.0}, {"alarm_level": 3, "pack_voltage_v": 2.0, "speed_kmh": 0.0}],
            [],
        ),
        (
            "alarm level 3 with pack and cells collapsing is urgent at once",
            [{}, {"alarm_level": 3, "pack_voltage_v": 270.0, "cells": [2700] * 100}],
            [("raised", "thermal_event", "pack", "urgent")],
        ),
        (
            "alarm level 3 with extremes that contradict the list is urgent at once",
            [{"alarm_level": 3, "cell_voltage_min_v": 1.2}],
            [("raised", "thermal_event", "pack", "urgent")],
        ),
        (
            "a step in temperature with a collapsing cell needs no alarm of the car",
            [{}, {"cell_temp_max_degc": 40.0, "cells": [*CELLS[1:], 2900]}],
            [("raised", "thermal_event", "pack", "urgent")],
        ),
        ("heat alone is no thermal event", [{}, {"cell_temp_max_degc": 62.0, "probes": [620]}], []),
        (
            "a cell above its limit for ten seconds is important",
            [{"cells": [*CELLS[1:], 4600]}] * 2,
            [("raised", "cell_overvoltage", "cell:100", "important")],
        ),
        (
            "one row above the limit is no over-voltage",
            [{}, {"cells": [*CELLS[1:], 4600]}, {}],
            [],
        ),
        (
            "a cell below its limit is named",
            [{"cells": [1900, *CELLS[1:]]}] * 2,
            [("raised", "cell_undervoltage", "cell:1", "general")],
        ),
        (
            "a ruined cell that is being charged is urgent",
            [{"cells": [900, *CELLS[1:]], "pack_current_a": 30.0}] * 2,
            [("raised", "cell_undervoltage", "cell:1", "urgent")],
        ),
        (
            "a cell at exactly 0 is never urgent, for it may be the measurement",
            [{"cells": [0, *CELLS[1:]], "pack_voltage_v": 366.2, "pack_current_a": 30.0}] * 2,
            [("raised", "cell_undervoltage", "cell:1", "important")],
        ),
        (
            "many cells below their limit are the pack",
            [{"cells": [1800] * 10 + CELLS[10:]}] * 2,
            [("raised", "cell_undervoltage", "pack", "general")],
        ),
        (
            "a cell at exactly 0 in a pack of full voltage is a lost measurement",
            [{"cells": [0, *CELLS[1:]]}] * 3,
            [("raised", "cell_measurement", "cell:1", "important")],
        ),
        (
            "a cell at exactly 0 that the pack's voltage misses too is an under-voltage",
            [{"cells": [0, *CELLS[1:]], "pack_voltage_v": 366.2}] * 2,
            [("raised", "cell_undervoltage", "cell:1", "important")],
        ),
        (
            "a dying pack's cells at 0.5 V are judged as they read",
            [{"cells": [500, *CELLS[1:]]}] * 2,
            [("raised", "cell_undervoltage", "cell:1", "important")],
        ),
        (
            "the extreme names the cell when no list is sent",
            [{"cells": [], "cell_voltage_min_v": 1.9, "cell_voltage_min_cell": 7}] * 2,
            [("raised", "cell_undervoltage", "cell:7", "general")],
        ),
        (
            "a DC-DC converter off while moving is important",
            healthy_then(*[{"dcdc_state": 2}] * 3),
            [("raised", "dcdc_off", "vehicle", "important")],
        ),
        (
            "a DC-DC converter that never was seen working is watched",
            [{"dcdc_state": 2}] * 3,
            [("raised", "dcdc_off", "vehicle", "watch")],
        ),
        ("a DC-DC converter off in a parked car is normal", [{"dcdc_state": 2, "speed_kmh": 0.0}] * 9, []),
        (
            "an open interlock in a moving car is important",
            healthy_then(*[{"alarm_flags": 1 << 16}] * 2),
            [("raised", "hv_interlock", "vehicle", "important")],
        ),
        (
            "an open interlock in a parked car is normal",
            healthy_then(*[{"alarm_flags": 1 << 16, "vehicle_status": 2, "speed_kmh": 0.0}] * 9),
            [],
        ),
        (
            "rolling without high voltage is a lost drive",
            healthy_then(*[{"pack_voltage_v": 8.0}] * 2),
            [("raised", "drive_lost", "vehicle", "urgent")],
        ),
        (
            "a hybrid that rolls on its engine has not lost its drive",
            healthy_then(*[{"pack_voltage_v": 8.0, "run_mode": 3}] * 3),
            [],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rule(sentence: str, reports: list[dict[str, Any]], expected: list[Any]) -> None:
    assert said(judge(make_rows(*reports), {}).alerts) == expected, sentence


THERMAL_FLAG_2025 = {"alarm_flags": 1 << 23}


def test_the_2025_thermal_event_flag_is_important_and_urgent_once_the_physics_agree() -> None:
    reports = make_rows(THERMAL_FLAG_2025, {"alarm_flags": 1 << 23, "probes": [700]})
    alerts = judge(reports, {}, edition=np.array([2025, 2025])).alerts
    assert said(alerts) == [
        ("raised", "thermal_event", "pack", "important"),
        ("escalated", "thermal_event", "pack", "urgent"),
    ]


@pytest.mark.parametrize("edition", [2016, 0])
def test_bit_23_is_reserved_outside_the_2025_edition(edition: int) -> None:
    rows = make_rows(THERMAL_FLAG_2025, THERMAL_FLAG_2025)
    assert judge(rows, {}, edition=np.array([edition] * 2)).alerts == ()


@pytest.mark.parametrize(("chemistry", "raised"), [(1, True), (4, False), (0, False), (99, False)])
def test_cell_limits_follow_the_chemistry(chemistry: int, raised: bool) -> None:
    rows = make_rows(*[{"cells": [4100, *CELLS[1:]]}] * 2)
    alerts = judge(rows, {}, chemistry=np.array([chemistry] * 2)).alerts
    assert bool(alerts) is raised  # 4.1 V ruins LFP and is an ordinary ternary cell


def test_cells_of_several_subsystems_are_named_with_their_subsystem() -> None:
    rows = make_rows(*[{"cells": [3700] * 50 + [1900] + [3700] * 49}] * 2)
    blocks = [(1, 1850, 0, 50, 1, 50, 1), (2, 1850, 0, 50, 1, 50, 0)]
    lists = rows.lists | {"subsystems": ragged([blocks, blocks], SUBSYSTEM)}
    alerts = judge(Rows(rows.columns, lists), {}).alerts
    assert [alert.component for alert in alerts] == ["subsystem:2/cell:1"]


def test_cells_of_a_split_report_are_numbered_from_its_first_cell() -> None:
    rows = make_rows(*[{"cells": [1900, *[3700] * 49], "part": 1 << 16 | 201}] * 2)
    blocks = [(1, 3700, 0, 250, 201, 50, 1)]
    lists = rows.lists | {"subsystems": ragged([blocks, blocks], SUBSYSTEM)}
    alerts = judge(Rows(rows.columns, lists), {}).alerts
    assert [alert.component for alert in alerts] == ["cell:201"]


def test_wire_markers_are_no_voltage_and_no_temperature() -> None:
    marked = {"cells": [0xFFFF, 0xFFFE, *CELLS], "probes": [0x7FFF, 0x7FFE, 250], "alarm_level": 3}
    assert judge(make_rows(*[marked] * 2), {}).alerts == ()


def test_lists_of_different_length_are_each_judged_whole() -> None:
    rows = make_rows({"cells": []}, {"cells": [3700] * 7}, *[{"cells": [3700, 4600]}] * 2, {"cells": []})
    assert said(judge(rows, {}).alerts) == [("raised", "cell_overvoltage", "cell:2", "important")]


def test_an_alert_carries_values_limits_dwell_and_the_window_behind_it() -> None:
    (alert,) = judge(make_rows({}, *[{"insulation_kohm": 20.0}] * 5), {}).alerts
    evidence = alert.evidence
    assert (alert.row, alert.happened_at) == (5, 150_000_000)
    assert evidence["insulation_ohm_per_v"] == pytest.approx(54.054)
    assert (evidence["limit_urgent_ohm_per_v"], evidence["dwell_s"], evidence["observed_s"]) == (
        100,
        120,
        120,
    )
    assert evidence["since_us"] == 30_000_000
    assert evidence["window_at_us"] == [30_000_000, 60_000_000, 90_000_000, 120_000_000, 150_000_000]
    assert evidence["window_insulation_ohm_per_v"] == pytest.approx([54.054] * 5, abs=0.001)


def test_a_slow_rise_at_one_report_a_second_is_seen_as_the_step_it_is() -> None:
    heating = [
        {"at_s": float(s), "cell_temp_max_degc": 30.0 + s / 2, "alarm_flags": 2, "probes": []}
        for s in range(25)
    ]
    alerts = judge(make_rows(*heating), {}).alerts
    assert said(alerts) == [("raised", "thermal_event", "pack", "urgent")]
    assert alerts[0].happened_at == 20_000_000


def test_the_same_rise_over_an_hour_is_no_step() -> None:
    heating = [
        {"at_s": s * 120.0, "cell_temp_max_degc": 25.0 + s, "alarm_flags": 2, "probes": []} for s in range(25)
    ]
    assert judge(make_rows(*heating), {}).alerts == ()

"""What the safety rules say, one sentence a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from telltale.records import CELL, PROBE, REPORT_COLUMNS, REPORT_LISTS, Ragged, Rows, empty_ragged, nulls
from telltale.rules import SafetyAlert, judge

pytestmark = pytest.mark.unit

HEALTHY: dict[str, Any] = {
    "vehicle_status": 1,
    "charging_state": 3,
    "run_mode": 1,
    "speed_kmh": 40.0,
    "pack_voltage_v": 370.0,
    "pack_current_a": -20.0,
    "dcdc_state": 1,
    "insulation_kohm": 5000.0,
    "cell_temp_max_degc": 25.0,
    "alarm_level": 0,
    "alarm_flags": 0,
}
CELLS = [3700] * 100


def make_rows(*given: dict[str, Any], every_s: float = 30.0) -> Rows:
    """Return healthy reports of vehicle 1 with these values changed, one every half minute."""
    columns = nulls(REPORT_COLUMNS, len(given))
    columns["part"] = columns["flags"] = 0
    cells: list[list[int]] = []
    probes: list[list[int]] = []
    for i, values in enumerate(given):
        row = {"vehicle_id": 1, "at_s": i * every_s, "cells": CELLS, "probes": [250]} | HEALTHY | values
        cells.append(row.pop("cells"))
        probes.append(row.pop("probes"))
        columns["observed_at"][i] = round(row.pop("at_s") * 1e6)
        for name, value in row.items():
            columns[name][i] = value
    lists = {column.name: empty_ragged(column.item, len(given)) for column in REPORT_LISTS}
    lists["cells_mv"] = ragged(cells, CELL)
    lists["probes_ddegc"] = ragged(probes, PROBE)
    return Rows(columns, lists)


def ragged(lists: list[list[int]], item: Any) -> Ragged:
    offsets = np.cumsum([0] + [len(one) for one in lists]).astype(np.int64)
    return Ragged(np.array([v for one in lists for v in one], item), offsets)


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
            "insulation that never was plausible counts when the car's own monitor says the same",
            [{"insulation_kohm": 5.0, "alarm_flags": 1 << 11}] * 5,
            [("raised", "insulation", "pack", "urgent")],
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

"""Real cars: as recorded they raise no work, and a fault put into them is found."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from telltale.recordings import load_recording
from telltale.records import Rows
from telltale.rules import PreviousRows, SafetyAlert, VehicleState, judge

pytestmark = pytest.mark.skipif(
    not os.environ.get("TELLTALE_TEST_DATA"), reason="TELLTALE_TEST_DATA names no folder of recordings"
)
FROM = 7_000  # of car4's 14,890 reports


def car(name: str) -> Rows:
    _, rows = load_recording(Path(os.environ["TELLTALE_TEST_DATA"]) / "ev_cell_faults" / f"{name}.parquet")
    rows.columns["vehicle_id"] = 1
    return rows


def alerts_of(rows: Rows, batch: int = 500) -> list[SafetyAlert]:
    previous, states = PreviousRows(), dict[int, VehicleState]()
    alerts: list[SafetyAlert] = []
    for start in range(0, len(rows), batch):
        piece = rows.take(np.arange(start, min(start + batch, len(rows))))
        verdict = judge(piece, states, previous=previous)
        previous.remember(verdict.newest)
        states = {v: s for v, s in (states | dict(verdict.states)).items() if v not in verdict.gone}
        alerts += verdict.alerts
    return alerts


def said(rows: Rows) -> list[tuple[str, str, str]]:
    return [(alert.detector, alert.component, alert.severity) for alert in alerts_of(rows)]


@pytest.mark.parametrize("name", ["car1", "car4"])
def test_cars_without_a_fault_raise_nothing(name: str) -> None:
    assert said(car(name)) == []


def test_an_insulation_that_reads_the_same_impossible_value_for_months_is_watched_once() -> None:
    assert said(car("car2")) == [("insulation_sensor", "pack", "watch")]


def test_insulation_lost_in_a_real_car_is_urgent() -> None:
    rows = car("car4")
    rows.columns["insulation_kohm"][FROM:] /= 40
    assert said(rows) == [("insulation", "pack", "urgent")]


def test_a_sense_wire_lost_in_a_real_car_is_named_by_its_cell_and_is_no_under_voltage() -> None:
    rows = car("car4")
    rows.lists["cells_mv"].values.reshape(len(rows), -1)[FROM:, 41] = 0
    assert said(rows) == [("cell_measurement", "cell:42", "important")]


def test_a_cell_that_dies_in_a_real_car_is_named() -> None:
    rows = car("car4")
    rows.lists["cells_mv"].values.reshape(len(rows), -1)[FROM:, 41] = 700
    rows.columns["pack_voltage_v"][FROM:] -= 3.2
    found = said(rows)
    assert {detector for detector, _, _ in found} == {"cell_undervoltage"}
    assert {component for _, component, _ in found} == {"cell:42"}


def test_a_hot_probe_in_a_real_car_with_its_alarm_is_urgent_at_once() -> None:
    rows = car("car4")
    rows.lists["probes_ddegc"].values.reshape(len(rows), -1)[FROM:, 20] = 700
    rows.columns["alarm_level"][FROM:] = 3
    alerts = alerts_of(rows)
    assert [(a.detector, a.severity) for a in alerts] == [("thermal_event", "urgent")]
    assert alerts[0].happened_at == rows.columns["observed_at"][FROM]

"""How a stream is cut into batches, or vehicles are mixed in it, changes no alert."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rules.reports import CELLS, make_rows

from telltale.records import Rows
from telltale.rules import PreviousRows, SafetyAlert, VehicleState, judge

pytestmark = pytest.mark.unit

TROUBLE: list[dict[str, Any]] = [
    {},
    {"insulation_kohm": 20.0},
    {"insulation_kohm": 100.0},
    {"insulation_kohm": np.nan},
    {"cells": [1900, *CELLS[1:]]},
    {"cells": [0, *CELLS[1:]]},
    {"cells": [1800] * 10 + CELLS[10:]},
    {"cells": [4600, *CELLS[1:]]},
    {"alarm_level": 3, "cell_temp_max_degc": 40.0},
    {"alarm_flags": 2, "cell_temp_max_degc": 52.0},
    {"dcdc_state": 2},
    {"alarm_flags": 1 << 16},
    {"pack_voltage_v": 8.0},
    {"part": 1 << 16 | 201, "cells": [1900] * 2, "speed_kmh": np.nan, "pack_voltage_v": np.nan},
]
RUNS = st.lists(  # trouble comes in runs: (what, how many reports, seconds apart)
    st.tuples(st.sampled_from(TROUBLE), st.integers(1, 8), st.sampled_from([1.0, 30.0, 61.0])),
    min_size=1,
    max_size=6,
)


def timeline(vehicle_id: int, runs: list[tuple[dict[str, Any], int, float]]) -> list[dict[str, Any]]:
    reports, at_s = [], 1_000.0
    for trouble, count, every_s in runs:
        for _ in range(count):
            at_s += every_s
            reports.append(trouble | {"vehicle_id": vehicle_id, "at_s": at_s})
    return reports


def judged(batches: list[Rows]) -> list[tuple[object, ...]]:
    """Return the alerts of these batches, the state going through the database's JSON in between."""
    previous, stored = PreviousRows(), dict[int, str]()
    alerts: list[SafetyAlert] = []
    for batch in batches:
        states = {vehicle: VehicleState.from_json(text) for vehicle, text in stored.items()}
        verdict = judge(batch, states, previous=previous)
        previous.remember(verdict.newest)
        stored |= {vehicle: state.to_json() for vehicle, state in verdict.states.items()}
        stored = {vehicle: text for vehicle, text in stored.items() if vehicle not in verdict.gone}
        alerts += verdict.alerts
    said = [
        (a.vehicle_id, a.detector, a.component, a.happened_at, a.kind, a.severity, json.dumps(a.evidence))
        for a in alerts
    ]
    return sorted(said)


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(RUNS, min_size=1, max_size=3), data=st.data())
def test_any_cut_of_the_stream_into_batches_gives_the_same_alerts(runs: Any, data: st.DataObject) -> None:
    reports = [r for vehicle, own in enumerate(runs, 1) for r in timeline(vehicle, own)]
    rows = make_rows(*sorted(reports, key=lambda report: report["at_s"]))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(rows) - 1)), max_size=5)))
    pieces = np.split(np.arange(len(rows)), cuts)
    assert judged([rows.take(piece) for piece in pieces]) == judged([rows])


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(RUNS, min_size=1, max_size=3), data=st.data())
def test_any_order_of_rows_in_a_batch_gives_the_same_alerts(runs: Any, data: st.DataObject) -> None:
    rows = make_rows(*[r for vehicle, own in enumerate(runs, 1) for r in timeline(vehicle, own)])
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    assert judged([rows.take(order)]) == judged([rows])


@settings(max_examples=30, deadline=None)
@given(first=RUNS, second=RUNS)
def test_another_vehicle_in_the_batch_changes_nothing(first: Any, second: Any) -> None:
    alone = judged([make_rows(*timeline(1, first))]) + judged([make_rows(*timeline(2, second))])
    assert judged([make_rows(*timeline(1, first), *timeline(2, second))]) == sorted(alone)

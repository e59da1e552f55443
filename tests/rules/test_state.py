"""Dwell, hysteresis and what is remembered between batches."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.rules.reports import make_rows

from telltale.records import Rows
from telltale.rules import PreviousRows, VehicleState, judge

pytestmark = pytest.mark.unit

LOW = {"insulation_kohm": 20.0}


def one_by_one(rows: Rows, previous: PreviousRows) -> tuple[list[str], dict[int, VehicleState]]:
    """Judge each row in a batch of its own; return what was said and the state that is left."""
    states: dict[int, VehicleState] = {}
    said: list[str] = []
    for i in range(len(rows)):
        verdict = judge(rows.take(np.array([i])), states, previous=previous)
        previous.remember(verdict.newest)
        states = {v: s for v, s in (states | dict(verdict.states)).items() if v not in verdict.gone}
        said += [f"{alert.kind} {alert.detector}" for alert in verdict.alerts]
    return said, states


def test_a_healthy_vehicle_leaves_no_state() -> None:
    verdict = judge(make_rows(*[{}] * 20), {})
    assert (dict(verdict.states), verdict.gone) == ({}, ())


def test_silence_of_more_than_a_minute_is_no_dwell() -> None:
    verdict = judge(make_rows({}, *[LOW] * 20, every_s=61.0), {})
    assert verdict.alerts == ()
    assert verdict.states[1].entries["insulation/pack"].raised == 0


def test_an_alert_ends_after_its_clearing_time_and_not_inside_the_hysteresis_band() -> None:
    band = {"insulation_kohm": 550.0 * 0.37}  # 550 Ω/V: above the limit of 500, below the hold of 600
    said, states = one_by_one(make_rows({}, *[LOW] * 5, *[band] * 40, *[{}] * 21), PreviousRows())
    assert said == ["raised insulation", "cleared insulation"]
    assert states == {}


def test_a_short_recovery_does_not_raise_twice() -> None:
    said, _ = one_by_one(make_rows({}, *[LOW] * 5, *[{}] * 10, *[LOW] * 5), PreviousRows())
    assert said == ["raised insulation"]


def test_a_report_that_cannot_say_neither_clears_nor_counts() -> None:
    silent: dict[str, Any] = {"insulation_kohm": np.nan}
    said, states = one_by_one(make_rows({}, *[LOW] * 5, *[silent] * 60), PreviousRows())
    assert said == ["raised insulation"]
    assert states[1].entries["insulation/pack"].raised


def test_gone_names_vehicles_whose_state_is_empty_now() -> None:
    pending = judge(make_rows({}, LOW), {})
    verdict = judge(make_rows({"at_s": 60.0}), pending.states)
    assert (dict(verdict.states), verdict.gone) == ({}, (1,))


def test_rows_older_than_what_was_judged_are_counted_late_and_not_judged() -> None:
    pending = judge(make_rows({}, LOW), {})
    verdict = judge(make_rows({"at_s": 0.0}, {"at_s": 29.0}), pending.states)
    assert (verdict.late, dict(verdict.states), verdict.gone) == (2, {}, ())


def test_rows_of_a_healthy_vehicle_are_late_too_while_it_is_remembered() -> None:
    previous = PreviousRows()
    previous.remember(judge(make_rows({"at_s": 100.0}), {}, previous=previous).newest)
    assert judge(make_rows({"at_s": 99.0}), {}, previous=previous).late == 1


def test_another_part_of_the_same_report_is_not_late() -> None:
    previous = PreviousRows()
    previous.remember(judge(make_rows({}), {}, previous=previous).newest)
    assert judge(make_rows({"part": 1 << 16 | 201}), {}, previous=previous).late == 0


def test_a_batch_judged_again_gives_the_same_verdict() -> None:
    rows, previous = make_rows({}, *[LOW] * 5), PreviousRows()
    assert judge(rows, {}, previous=previous).alerts == judge(rows, {}, previous=previous).alerts
    assert len(previous.memory) == 0


def test_after_a_restart_low_insulation_is_unproven_until_the_database_is_asked() -> None:
    restarted = PreviousRows()
    first = judge(make_rows(LOW), {}, previous=restarted)
    assert first.unproven == (1,)
    restarted.remember(first.newest)
    restarted.believe(first.unproven)
    more = make_rows(*[LOW | {"at_s": 30.0 * i} for i in range(1, 6)])
    verdict = judge(more, first.states, previous=restarted)
    assert [(a.detector, a.severity) for a in verdict.alerts] == [("insulation", "urgent")]
    assert verdict.unproven == ()


def test_a_sensor_already_watched_is_not_asked_about_again() -> None:
    assert judge(make_rows(*[LOW] * 60), {}).unproven == ()


def test_a_sensor_that_comes_to_its_senses_is_cleared_and_then_believed() -> None:
    said, _ = one_by_one(make_rows(*[LOW] * 22, *[{}] * 22, *[LOW] * 5), PreviousRows())
    assert said == ["raised insulation_sensor", "cleared insulation_sensor", "raised insulation"]


def test_state_survives_json() -> None:
    state = judge(make_rows({}, *[LOW] * 5, {"dcdc_state": 2}), {}).states[1]
    assert VehicleState.from_json(state.to_json()) == state
    assert json.loads(state.to_json())["judged_until"] == state.judged_until


def test_an_empty_batch_says_nothing() -> None:
    verdict = judge(make_rows({}).take(np.zeros(0, np.int64)), {})
    assert (verdict.alerts, verdict.late) == ((), 0)


def test_a_step_within_half_a_minute_is_seen_across_batches() -> None:
    heating = [
        {"at_s": float(s), "cell_temp_max_degc": 30.0 + s, "alarm_flags": 2, "probes": []} for s in range(12)
    ]
    said, _ = one_by_one(make_rows(*heating), PreviousRows())
    assert said == ["raised thermal_event"]

"""The rules, one line each. Adding a rule is a condition, a look at one row, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from telltale.records import Array
from telltale.rules import conditions, findings
from telltale.rules.conditions import Context
from telltale.rules.findings import Findings
from telltale.rules.state import GENERAL, IMPORTANT, URGENT, WATCH


@dataclass(frozen=True, slots=True)
class Rule:
    """What to look for, how long it has to hold, and how to name it.

    `dwell_s`: level → seconds of observed time it has to hold before it raises; its keys are the severities
    the rule knows. `quantity` names the value kept in the window of evidence.
    """

    detector: str
    condition: Callable[[Context], Array]
    finding: Callable[[Context, int, int], Findings]
    quantity: str
    dwell_s: Mapping[int, float]
    clear_s: float


RULES: Final = (
    # The vehicle's word and the physics agree in one row: nothing is gained by waiting.
    Rule(
        "thermal_event",
        conditions.thermal_event,
        findings.of_thermal,
        "temp_max_degc",
        {IMPORTANT: 0, URGENT: 0},
        600,
    ),
    # Monitors need tens of seconds to settle after the contactors close or a charger is plugged in.
    Rule(
        "insulation",
        conditions.insulation,
        findings.of_insulation,
        "insulation_ohm_per_v",
        {IMPORTANT: 120, URGENT: 120},
        600,
    ),
    Rule(
        "insulation_sensor",
        conditions.insulation_sensor,
        findings.of_insulation,
        "insulation_ohm_per_v",
        {WATCH: 600},
        600,
    ),
    # A cell dips for seconds under full load; a fault stays.
    Rule(
        "cell_overvoltage",
        conditions.cell_overvoltage,
        findings.of_overvoltage,
        "cell_voltage_v",
        {IMPORTANT: 10, URGENT: 10},
        300,
    ),
    Rule(
        "cell_undervoltage",
        conditions.cell_undervoltage,
        findings.of_undervoltage,
        "cell_voltage_v",
        {GENERAL: 30, IMPORTANT: 30, URGENT: 10},
        300,
    ),
    Rule(
        "cell_measurement",
        conditions.cell_measurement,
        findings.of_measurement,
        "cell_voltage_v",
        {IMPORTANT: 60},
        300,
    ),
    Rule(
        "drive_lost",
        conditions.drive_lost,
        findings.of_drive,
        "speed_kmh",
        {WATCH: 3, IMPORTANT: 3, URGENT: 3},
        60,
    ),
    Rule("dcdc_off", conditions.dcdc_off, findings.of_dcdc, "speed_kmh", {WATCH: 60, IMPORTANT: 60}, 300),
    Rule(
        "hv_interlock",
        conditions.hv_interlock,
        findings.of_interlock,
        "speed_kmh",
        {WATCH: 10, IMPORTANT: 10},
        300,
    ),
    Rule("bms_alarm", conditions.bms_alarm, findings.of_bms_alarm, "alarm_level", {WATCH: 60}, 600),
)

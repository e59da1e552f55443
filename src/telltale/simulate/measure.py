"""What a battery-management system reports of the true state: noise, the wire's grid, alarms, markers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from telltale.records import (
    ALARM_LEVEL,
    CELL,
    CELL_ABNORMAL,
    CELL_INVALID,
    MOTOR,
    PROBE,
    REPORT_COLUMNS,
    REPORT_LISTS,
    SUBSYSTEM,
    Array,
    Ragged,
    Rows,
    empty_ragged,
    nulls,
)
from telltale.simulate.cells import Moment, cell_volts, probe_degc
from telltale.simulate.chemistry import Chemistry
from telltale.simulate.fleet import Fleet
from telltale.simulate.packs import CHARGING, DRIVING
from telltale.simulate.spec import US, FaultKind, Trouble

CELL_NOISE_V, PACK_NOISE_V, CURRENT_NOISE_A = 0.0008, 0.15, 0.1
HEALTHY_INSULATION_KOHM, INSULATION_SCATTER = 3_000.0, 0.03
SPURIOUS_ALARM_SHARE = 0.0003
NETWORK_DELAY_US = 1 * US
D_GEAR_DRIVING, D_GEAR_BRAKING, P_GEAR = 0x2E, 0x1E, 0x0F
KM_H_TO_RPM = 75.0

# Bits of the general alarm word (GB/T 32960.3, annex on alarms).
TEMP_DIFFERENCE, BATTERY_HOT, SOC_LOW, CELL_HIGH, CELL_LOW, SOC_JUMP, INCONSISTENT, INSULATION = (
    0,
    1,
    4,
    5,
    6,
    8,
    10,
    11,
)
THERMAL_EVENT_2025 = 23


@dataclass(frozen=True, slots=True)
class Chunk:
    """Reports of vehicles of one variant, in time order (so in time order per vehicle)."""

    rows: Rows
    vin: Array  # S17 per row
    vehicle: NDArray[np.int64]  # index in the fleet per row
    edition: int

    def __len__(self) -> int:
        return len(self.vin)

    def take(self, rows: NDArray[np.int64]) -> Chunk:
        """Return these reports, in this order."""
        return Chunk(self.rows.take(rows), self.vin[rows], self.vehicle[rows], self.edition)


def measure(fleet: Fleet, moment: Moment, rng: np.random.Generator) -> Chunk:
    """Return these moments as reports, quantised as the wire does: 1 mV, 1 °C, 0.1 V, 0.1 A, 1 % SOC."""
    faults, vehicle = fleet.spec.faults, moment.cells.members[moment.member]
    volts = cell_volts(moment, faults, rng)
    columns = _frame_columns(moment)
    _vehicle_columns(columns, moment, rng)
    columns["pack_voltage_v"] = np.round(volts.sum(axis=1) + rng.normal(0, PACK_NOISE_V, len(volts)), 1)
    columns["insulation_kohm"] = _insulation_kohm(moment, fleet, rng)
    volts += moment.cells.cell_offset_v[moment.member]
    volts += np.float32(CELL_NOISE_V) * rng.standard_normal(volts.shape, np.float32)
    volts *= 1000
    millivolts = np.clip(np.rint(volts, out=volts), 0, 60_000).astype(np.uint16)
    degc = np.clip(np.rint(probe_degc(moment, faults, rng)), -40, 210).astype(np.int16)
    _extreme_columns(columns, millivolts, degc)
    levels = _alarm_columns(columns, moment, fleet, rng)
    _stick_insulation(columns, moment, fleet)
    _mark(millivolts, fleet.spec.trouble, rng)
    lists = _lists(columns, moment, millivolts, degc, levels)
    return Chunk(Rows(columns, lists), fleet.vin[vehicle], vehicle, moment.cells.variant.edition)


def _frame_columns(moment: Moment) -> Array:
    columns = nulls(REPORT_COLUMNS, len(moment.at_us))
    for name in ("vehicle_id", "part", "source_id", "time_source", "flags", "digest"):
        columns[name] = 0
    columns["observed_at"] = moment.at_us
    columns["received_at"] = moment.at_us + NETWORK_DELAY_US
    return columns


def _vehicle_columns(columns: Array, moment: Moment, rng: np.random.Generator) -> None:
    state = moment.state
    driving, charging = state["mode"] == DRIVING, state["mode"] == CHARGING
    pushing, braking = driving & (state["drive_w"] >= 0), driving & (state["drive_w"] < 0)
    columns["vehicle_status"] = np.where(driving, 1, 2)
    columns["charging_state"] = np.select([charging, state["full"]], [1, 4], 3)
    columns["run_mode"] = 1
    columns["speed_kmh"] = np.round(state["speed_kmh"], 1)
    columns["odometer_km"] = np.floor(state["odometer_km"] * 10) / 10
    current = state["current_a"] + rng.normal(0, CURRENT_NOISE_A, len(state))
    columns["pack_current_a"] = np.round(current, 1) + 0.0
    columns["soc_pct"] = np.rint(np.clip(state["soc"], 0, 1) * 100)
    columns["dcdc_state"] = np.where(driving | charging, 1, 2)
    columns["gear"] = np.select([pushing, braking], [D_GEAR_DRIVING, D_GEAR_BRAKING], P_GEAR)
    columns["accelerator_pedal_pct"] = np.where(pushing, np.clip(state["drive_w"] / 1_100, 0, 100), 0)
    columns["brake_pedal_pct"] = np.where(braking, np.clip(-state["drive_w"] / 600, 0, 100), 0)


def _insulation_kohm(moment: Moment, fleet: Fleet, rng: np.random.Generator) -> Array:
    built_in = 0.6 + 0.8 * ((moment.cells.members[moment.member] * 7919) % 997) / 997
    scatter = rng.normal(1, INSULATION_SCATTER, len(moment.at_us))
    kohm = HEALTHY_INSULATION_KOHM * built_in * scatter
    for fault, rows, seconds in moment.of(fleet.spec.faults):
        if fault.kind is FaultKind.INSULATION:
            fallen = kohm[rows] * np.exp(-fault.rate_per_day * seconds / 86_400)
            kohm[rows] = np.maximum(fallen, fault.size * scatter[rows])
    return np.rint(np.clip(kohm, 0, 60_000))


def _stick_insulation(columns: Array, moment: Moment, fleet: Fleet) -> None:
    """Let a stuck sensor show its value; alarms are set before: recorded cars of this kind raise none."""
    for fault, rows, _ in moment.of(fleet.spec.faults):
        if fault.kind is FaultKind.INSULATION_STUCK:
            columns["insulation_kohm"][rows] = fault.size


def _extreme_columns(columns: Array, millivolts: Array, degc: Array) -> None:
    row = np.arange(len(columns))
    for name, place, item, table, scale in (
        ("cell_voltage_max", millivolts.argmax(axis=1), "cell", millivolts, 1000),
        ("cell_voltage_min", millivolts.argmin(axis=1), "cell", millivolts, 1000),
        ("cell_temp_max", degc.argmax(axis=1), "probe", degc, 1),
        ("cell_temp_min", degc.argmin(axis=1), "probe", degc, 1),
    ):
        columns[f"{name}_{'v' if item == 'cell' else 'degc'}"] = table[row, place] / scale
        columns[f"{name}_subsystem"] = 1
        columns[f"{name}_{item}"] = place + 1


def _alarm_columns(columns: Array, moment: Moment, fleet: Fleet, rng: np.random.Generator) -> Ragged:
    """Set alarm level and flags as a BMS would, and return the 2025 edition's list of levels."""
    raised = _alarms(columns, moment.cells.chemistry)
    raised.append((SOC_JUMP, 1, rng.random(len(columns)) < SPURIOUS_ALARM_SHARE))
    burning = np.zeros(len(columns), np.bool_)
    for fault, rows, _ in moment.of(fleet.spec.faults):
        if fault.kind is FaultKind.THERMAL:
            burning[rows] = True
    of_2025 = moment.cells.variant.edition == 2025
    raised.append((THERMAL_EVENT_2025, 4, burning) if of_2025 else (BATTERY_HOT, 3, burning))
    levels, flags = np.zeros(len(columns), np.int16), np.zeros(len(columns), np.int64)
    for bit, level, at in raised:
        np.maximum(levels, np.where(at, level, 0), out=levels)
        flags |= np.where(at, 1 << bit, 0)
    columns["alarm_level"], columns["alarm_flags"] = levels, flags
    return _alarm_list(raised, len(columns)) if of_2025 else empty_ragged(ALARM_LEVEL, len(columns))


def _alarms(columns: Array, chemistry: Chemistry) -> list[tuple[int, int, NDArray[np.bool_]]]:
    hottest, coldest = columns["cell_temp_max_degc"], columns["cell_temp_min_degc"]
    highest, lowest = columns["cell_voltage_max_v"], columns["cell_voltage_min_v"]
    ohm_per_v = columns["insulation_kohm"] * 1000 / np.maximum(columns["pack_voltage_v"], 1)
    return [
        (TEMP_DIFFERENCE, 1, hottest - coldest > 15),
        (BATTERY_HOT, 2, hottest > 58),
        (BATTERY_HOT, 3, hottest > 68),
        (SOC_LOW, 1, columns["soc_pct"] < 10),
        (CELL_HIGH, 2, highest > chemistry.full_v + 0.05),
        (CELL_LOW, 2, lowest < chemistry.empty_v),
        (INCONSISTENT, 1, highest - lowest > 0.35),
        (INSULATION, 2, ohm_per_v < 500),
        (INSULATION, 3, ohm_per_v < 100),
    ]


def _alarm_list(raised: list[tuple[int, int, NDArray[np.bool_]]], count: int) -> Ragged:
    level_of_bit: dict[int, NDArray[np.int64]] = {}
    for bit, level, rows in raised:
        here = np.where(rows, level, 0)
        level_of_bit[bit] = np.maximum(level_of_bit.get(bit, here), here)
    bits = np.array(list(level_of_bit))
    table = np.stack(list(level_of_bit.values()), axis=1)
    row, column = np.nonzero(table)
    items = np.zeros(len(row), ALARM_LEVEL)
    items["bit"], items["level"] = bits[column], table[row, column]
    return Ragged(items, np.searchsorted(row, np.arange(count + 1)).astype(np.int64))


def _mark(millivolts: Array, trouble: Trouble, rng: np.random.Generator) -> None:
    if trouble.markers:
        rows = np.nonzero(rng.random(len(millivolts)) < trouble.markers)[0]
        cell = rng.integers(0, millivolts.shape[1], len(rows))
        millivolts[rows, cell] = rng.choice([CELL_INVALID, CELL_ABNORMAL], len(rows))


def _lists(
    columns: Array, moment: Moment, millivolts: Array, degc: Array, levels: Ragged
) -> dict[str, Ragged]:
    lists = {column.name: empty_ragged(column.item, len(columns)) for column in REPORT_LISTS}
    subsystem = np.zeros((len(columns), 1), SUBSYSTEM)
    subsystem["no"] = subsystem["start_cell"] = 1
    subsystem["cell_total"] = subsystem["cells"] = millivolts.shape[1]
    subsystem["probes"] = degc.shape[1]
    subsystem["voltage_dv"][:, 0] = np.rint(columns["pack_voltage_v"].astype(np.float64) * 10)
    subsystem["current_da"][:, 0] = np.rint(columns["pack_current_a"].astype(np.float64) * 10)
    lists["cells_mv"] = _ragged(millivolts.astype(CELL))
    lists["probes_ddegc"] = _ragged((degc * 10).astype(PROBE))
    lists["subsystems"] = _ragged(subsystem)
    lists["motors"] = _ragged(_motor(columns, moment))
    lists["alarm_levels"] = levels
    return lists


def _motor(columns: Array, moment: Moment) -> Array:
    state, motor = moment.state, np.zeros((len(columns), 1), MOTOR)
    driving, drive_w = state["mode"] == DRIVING, state["drive_w"].astype(np.float64)
    rpm = np.rint(columns["speed_kmh"] * KM_H_TO_RPM)
    warmth = state["ambient_degc"] + np.abs(drive_w) / 1_500 + 10 * driving
    volts = columns["pack_voltage_v"].astype(np.float64)
    motor["seq"] = 1
    motor["status"][:, 0] = np.where(driving, np.where(drive_w < 0, 2, 1), 3)
    motor["speed_rpm"][:, 0] = rpm
    motor["torque_dnm"][:, 0] = np.clip(drive_w / np.maximum(rpm, 100) * 9.549, -350, 350) * 10
    motor["controller_temp_degc"][:, 0] = np.clip(warmth, -40, 150)
    motor["motor_temp_degc"][:, 0] = np.clip(warmth + 8 * driving, -40, 150)
    motor["controller_voltage_dv"][:, 0] = np.rint(volts * 10)
    motor["dc_bus_current_da"][:, 0] = np.clip(np.rint(drive_w / np.maximum(volts, 1) * 10), -9_000, 9_000)
    return motor


def _ragged(table: Array) -> Ragged:
    rows, width = table.shape
    return Ragged(table.reshape(-1), np.arange(rows + 1, dtype=np.int64) * width)

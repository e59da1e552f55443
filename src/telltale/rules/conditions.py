"""What each rule looks for, as one level per row, computed over the whole batch at once.

A condition returns int8 levels (`state.UNKNOWN` … `state.URGENT`): UNKNOWN where the report cannot say,
CLEAR, HELD inside the hysteresis band, or the severity it would have. Rules that look at single cells return
candidates here and are settled row by row in `telltale.rules.findings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from telltale.records import Array
from telltale.rules.batch import (
    DCDC,
    HIGH_VOLTAGE,
    INSULATION,
    INTERLOCK,
    Batch,
    Steps,
    is_null,
    seen_before,
    steps,
)
from telltale.rules.limits import CellLimits
from telltale.rules.state import CLEAR, GENERAL, HELD, IMPORTANT, UNKNOWN, URGENT, WATCH

TEMP_SPREAD_BIT, HIGH_TEMP_BIT, INSULATION_BIT, INTERLOCK_BIT, THERMAL_EVENT_BIT = (
    1,
    1 << 1,
    1 << 11,
    1 << 16,
    1 << 23,
)
STARTED, OFF = 1, 2
ELECTRIC = 1
DCDC_WORKING, DCDC_OFF = 1, 2
MOTOR_OFF = 3
CHARGING_PARKED = 1


@dataclass(frozen=True, slots=True)
class Context:
    """A batch with everything the conditions share, computed once."""

    batch: Batch
    steps: Steps
    memory_after: Array
    flags: Array  # alarm flags, 0 where none were sent
    event_2025: Array  # thermal event in a 2025-edition report
    trigger: Array  # the vehicle's own word for a hot battery
    moving: Array
    insulation_ohm_per_v: Array
    insulation_seen: Array  # plausible in this row or earlier
    dcdc_seen: Array
    interlock_seen: Array
    high_voltage_seen: Array


def context(batch: Batch) -> Context:
    """Return the batch with its steps, and with what each vehicle has been seen to do before."""
    found, after = steps(batch)
    flags = np.where(is_null(batch["alarm_flags"]), 0, batch["alarm_flags"])
    ohm_per_v = _ohm_per_v(batch)
    plausible = ohm_per_v >= batch.limits.insulation_important_ohm_per_v
    seen = seen_before(batch, plausible, INSULATION, after)
    interlock_good = ~is_null(batch["alarm_flags"]) & (flags & INTERLOCK_BIT == 0)
    event_2025 = _thermal_event_2025(batch, flags)
    return Context(
        batch=batch,
        steps=found,
        memory_after=after,
        flags=flags,
        event_2025=event_2025,
        trigger=event_2025 | (batch["alarm_level"] >= 3) | (flags & (TEMP_SPREAD_BIT | HIGH_TEMP_BIT) != 0),
        moving=batch["speed_kmh"] > batch.limits.moving_kmh,
        insulation_ohm_per_v=ohm_per_v,
        insulation_seen=seen,
        dcdc_seen=seen_before(batch, batch["dcdc_state"] == DCDC_WORKING, DCDC, after),
        interlock_seen=seen_before(batch, interlock_good, INTERLOCK, after),
        high_voltage_seen=seen_before(
            batch, batch["pack_voltage_v"] >= batch.limits.high_voltage_v, HIGH_VOLTAGE, after
        ),
    )


def _thermal_event_2025(batch: Batch, flags: Array) -> Array:
    """Return where a 2025-edition report carries the thermal-event flag or level 4 (2016 knows neither)."""
    event = (flags & THERMAL_EVENT_BIT != 0) | (batch["alarm_level"] >= 4)
    of_2025: Array = event & (batch.edition == 2025)
    return of_2025


def _ohm_per_v(batch: Batch) -> Array:
    """Return insulation per volt of the pack, NaN where nothing is measured (no voltage, or asleep)."""
    voltage, kohm = batch["pack_voltage_v"], batch["insulation_kohm"]
    asleep = (kohm == 0) & (batch["vehicle_status"] == OFF) & (batch["charging_state"] != CHARGING_PARKED)
    measured = (voltage >= batch.limits.high_voltage_v) & ~asleep
    ohm_per_v: Array = np.full(len(kohm), np.nan, np.float32)
    np.divide(1000 * kohm, voltage, out=ohm_per_v, where=measured)
    return ohm_per_v


def _levels(known: Array, *steps_up: tuple[int, Array]) -> Array:
    """Return UNKNOWN, or the last level whose mask holds, or CLEAR."""
    level = np.where(known, np.int8(CLEAR), np.int8(UNKNOWN))
    for value, mask in steps_up:
        level[mask & known] = value
    return level


def _insulation_levels(ctx: Context) -> Array:
    limits, value = ctx.batch.limits, ctx.insulation_ohm_per_v
    return _levels(
        ~np.isnan(value),
        (HELD, value < limits.insulation_hold_ohm_per_v),
        (IMPORTANT, value < limits.insulation_important_ohm_per_v),
        (URGENT, value < limits.insulation_urgent_ohm_per_v),
    )


def insulation(ctx: Context) -> Array:
    """Low insulation of a vehicle that has been seen with a plausible one."""
    levels = _insulation_levels(ctx)
    return np.where(ctx.insulation_seen | (levels < HELD), levels, np.int8(CLEAR))


def insulation_sensor(ctx: Context) -> Array:
    """Low insulation that never was otherwise: a wrong scale or a dead monitor, for all one knows."""
    levels = np.minimum(_insulation_levels(ctx), np.int8(WATCH))
    return np.where(ctx.insulation_seen & (levels >= HELD), np.int8(CLEAR), levels)


def hv_interlock(ctx: Context) -> Array:
    """The interlock loop is reported open while the vehicle is started or moves."""
    live = (ctx.batch["vehicle_status"] == STARTED) | ctx.moving
    is_open = ctx.flags & INTERLOCK_BIT != 0
    known = ~is_null(ctx.batch["alarm_flags"])
    return _levels(
        known,
        (HELD, is_open),
        (WATCH, is_open & live),
        (IMPORTANT, is_open & live & ctx.interlock_seen),
    )


def dcdc_off(ctx: Context) -> Array:
    """The DC-DC converter is disconnected while the vehicle moves: the 12 V battery is running down."""
    state = ctx.batch["dcdc_state"]
    off = state == DCDC_OFF
    known = off | (state == DCDC_WORKING)
    return _levels(
        known, (HELD, off), (WATCH, off & ctx.moving), (IMPORTANT, off & ctx.moving & ctx.dcdc_seen)
    )


def drive_lost(ctx: Context) -> Array:
    """An electric vehicle rolls without high voltage, or with every motor off and the pedal pressed."""
    batch = ctx.batch
    mode = batch["run_mode"]
    rolling = batch["speed_kmh"] > batch.limits.drive_moving_kmh
    electric = (mode == ELECTRIC) | is_null(mode)
    no_voltage = batch["pack_voltage_v"] < batch.limits.high_voltage_v
    motors, all_off = _motors(batch)
    lost = rolling & electric & (no_voltage | (all_off & (batch["accelerator_pedal_pct"] > 0)))
    known = ~np.isnan(batch["speed_kmh"]) & (motors | ~np.isnan(batch["pack_voltage_v"]))
    return _levels(
        known,
        (WATCH, lost),
        (IMPORTANT, lost & ctx.high_voltage_seen),
        (URGENT, lost & ctx.high_voltage_seen & no_voltage),
    )


def _motors(batch: Batch) -> tuple[Array, Array]:
    """Return which rows carry motors, and which of them only motors that are off."""
    ragged = batch.rows.lists.get("motors")
    if ragged is None or len(ragged.values) == 0:
        nothing = np.zeros(len(batch.row), bool)
        return nothing, nothing
    running = np.concatenate([[0], np.cumsum(ragged.values["status"] != MOTOR_OFF)])
    carried = ragged.lengths > 0
    off = carried & (np.diff(running[ragged.offsets]) == 0)
    return carried[batch.row], off[batch.row]


def cell_limit(batch: Batch, name: str) -> Array | np.float32:
    """Return one threshold of `CellLimits` per row, by chemistry; a single number when none is known."""
    table = batch.limits.cells
    if not batch.chemistry.any():
        return np.float32(getattr(table[0], name))
    codes = np.array([getattr(table.get(code, table[0]), name) for code in range(256)], np.float32)
    per_row: Array = codes[np.clip(batch.chemistry, 0, 255)]
    return per_row


def limits_of(batch: Batch, index: int) -> CellLimits:
    """Return the cell limits of one row's chemistry, those for an unknown one when it is not in the table."""
    return batch.limits.cells.get(int(batch.chemistry[index]), batch.limits.cells[0])


def cell_overvoltage(ctx: Context) -> Array:
    """Some cell stands above what its chemistry bears; candidates, settled cell by cell."""
    highest, important = ctx.batch["highest_cell_v"], cell_limit(ctx.batch, "over_important_v")
    return _levels(
        ~np.isnan(highest),
        (HELD, highest > important - ctx.batch.limits.cell_over_hold_v),
        (IMPORTANT, highest > important),
    )


def cell_undervoltage(ctx: Context) -> Array:
    """Some cell stands below what its chemistry bears; candidates, settled cell by cell."""
    lowest, general = ctx.batch["lowest_cell_v"], cell_limit(ctx.batch, "under_general_v")
    return _levels(
        ~np.isnan(lowest),
        (HELD, lowest < general + ctx.batch.limits.cell_under_hold_v),
        (GENERAL, lowest < general),
    )


def cell_measurement(ctx: Context) -> Array:
    """Some listed cell reads what no cell can; candidates, settled by comparing with the pack's voltage."""
    lowest, highest = ctx.batch["listed_cell_min_v"], ctx.batch["listed_cell_max_v"]
    return _levels(
        ~np.isnan(lowest), (IMPORTANT, (lowest == 0) | (highest > ctx.batch.limits.cell_impossible_v))
    )


def thermal_event(ctx: Context) -> Array:
    """The vehicle's word and physical evidence together, or two kinds of evidence, one of them heat."""
    batch, limits = ctx.batch, ctx.batch.limits
    temp = batch["temp_max_degc"]
    heat = (temp >= limits.probe_hot_degc) | (ctx.steps.temp_rise_degc >= limits.step_degc)
    collapse = (ctx.steps.cell_fall_v >= limits.cell_collapse_v) | (
        ctx.steps.pack_fall_v >= limits.pack_collapse_share * ctx.steps.pack_before_v
    )
    contradiction = (
        batch["highest_cell_v"] - batch["lowest_cell_v"] >= limits.cell_spread_v
    ) | _extremes_differ(batch)
    evidence = heat | collapse | contradiction
    known = ~np.isnan(temp) | ~np.isnan(batch["lowest_cell_v"]) | ~is_null(batch["alarm_level"])
    return _levels(
        known,
        (HELD, ctx.trigger | (temp >= limits.probe_hold_degc)),
        (IMPORTANT, ctx.event_2025),
        (URGENT, (ctx.trigger & evidence) | (heat & (collapse | contradiction))),
    )


def _extremes_differ(batch: Batch) -> Array:
    """Return where the report's extremes contradict its own lists."""
    limits = batch.limits
    low = np.abs(batch["listed_cell_min_v"] - batch["cell_voltage_min_v"]) >= limits.contradiction_v
    high = np.abs(batch["listed_cell_max_v"] - batch["cell_voltage_max_v"]) >= limits.contradiction_v
    hot = np.abs(batch["listed_temp_max_degc"] - batch["cell_temp_max_degc"]) >= limits.contradiction_degc
    differ: Array = low | high | hot
    return differ


_EXPLAINING: Final = (
    thermal_event,
    insulation,
    cell_overvoltage,
    cell_undervoltage,
    cell_measurement,
    drive_lost,
    dcdc_off,
    hv_interlock,
)


def bms_alarm(ctx: Context) -> Array:
    """The vehicle reports its highest alarm level and no rule sees why: a thing to watch."""
    level = ctx.batch["alarm_level"]
    highest = level >= 3
    if highest.any():
        # A sensor that is never right explains an alarm only where the alarm is about insulation.
        by_sensor = (insulation_sensor(ctx) >= WATCH) & (ctx.flags & INSULATION_BIT != 0)
        explained = by_sensor | np.logical_or.reduce([find(ctx) >= GENERAL for find in _EXPLAINING])
    else:
        explained = highest
    return _levels(~is_null(level), (HELD, highest), (WATCH, highest & ~explained))

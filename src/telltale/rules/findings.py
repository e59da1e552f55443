"""One row of a touched vehicle, looked at closely: which component, how bad, and the values that say so.

Only rows that a condition has marked, or of a vehicle with an active condition, come here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import numpy as np

from telltale.records import CELL_ABNORMAL, Array, null_of
from telltale.rules import conditions
from telltale.rules.batch import Batch, known_numbers
from telltale.rules.conditions import Context
from telltale.rules.state import CLEAR, GENERAL, HELD, IMPORTANT, URGENT, Finding

Findings = Mapping[str, Finding]  # component → what the row says about it


def of_insulation(ctx: Context, index: int, level: int) -> Findings:
    """Return the pack's insulation per volt."""
    value = _value(ctx.insulation_ohm_per_v, index)
    return {"pack": Finding(level, value, partial(_insulation_evidence, ctx, index))}


def _insulation_evidence(ctx: Context, index: int) -> dict[str, Any]:
    limits = ctx.batch.limits
    evidence = {
        "insulation_ohm_per_v": ctx.insulation_ohm_per_v[index],
        "insulation_kohm": ctx.batch["insulation_kohm"][index],
        "pack_voltage_v": ctx.batch["pack_voltage_v"][index],
        "limit_important_ohm_per_v": limits.insulation_important_ohm_per_v,
        "limit_urgent_ohm_per_v": limits.insulation_urgent_ohm_per_v,
        "vehicle_insulation_alarm": bool(ctx.flags[index] & conditions.INSULATION_BIT),
        "plausible_before": bool(ctx.insulation_seen[index]),
    }
    return known_numbers(evidence)


def of_interlock(ctx: Context, index: int, level: int) -> Findings:
    """Return the reported state of the interlock loop."""
    more = {"seen_closed_before": bool(ctx.interlock_seen[index])}
    return _while_driving(ctx, index, level, more)


def of_dcdc(ctx: Context, index: int, level: int) -> Findings:
    """Return the state of the DC-DC converter and the speed."""
    state, seen = ctx.batch["dcdc_state"][index], bool(ctx.dcdc_seen[index])
    return _while_driving(ctx, index, level, {"dcdc_state": _count(state), "seen_working_before": seen})


def of_drive(ctx: Context, index: int, level: int) -> Findings:
    """Return what is left of the drive: pack voltage, motors, pedal."""
    motors = ctx.batch.items("motors", index)
    more = {
        "accelerator_pedal_pct": _count(ctx.batch["accelerator_pedal_pct"][index]),
        "motor_status": motors["status"].tolist() if len(motors) else None,
        "limit_pack_voltage_v": ctx.batch.limits.high_voltage_v,
    }
    return _while_driving(ctx, index, level, more)


def _while_driving(ctx: Context, index: int, level: int, more: Mapping[str, Any]) -> Findings:
    batch = ctx.batch
    evidence = {
        "speed_kmh": batch["speed_kmh"][index],
        "vehicle_status": _count(batch["vehicle_status"][index]),
        "pack_voltage_v": batch["pack_voltage_v"][index],
        **more,
    }
    return {"vehicle": Finding(level, _value(batch["speed_kmh"], index), partial(known_numbers, evidence))}


def of_bms_alarm(ctx: Context, index: int, level: int) -> Findings:
    """Return the vehicle's own alarm level and flags."""
    alarm = _count(ctx.batch["alarm_level"][index])
    evidence = {"alarm_level": alarm, "alarm_flags": int(ctx.flags[index]), "physical_evidence": False}
    return {"vehicle": Finding(level, alarm, partial(known_numbers, evidence))}


def _count(value: Any) -> int | None:
    return None if value == null_of(value.dtype) else int(value)


def _value(column: Array, index: int) -> float | None:
    value = float(column[index])
    return round(value, 3) if isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Cells:
    """The valid listed cells of one report in volts; invalid ones are left out."""

    volts: Array
    at: Array  # position of each in the report's list
    lost: Array  # bool: reads what no cell can, while the pack's voltage says the cell is there
    blocks: tuple[Block, ...]

    def name(self, number: int) -> str:
        """Return the component name of the n-th valid cell."""
        at = int(self.at[number])
        return next(block.name(at) for block in self.blocks if at < block.end)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of listed cells of one subsystem."""

    start: int
    end: int
    subsystem: int  # 0 where there is only one
    first_cell: int
    voltage_v: float  # of the whole subsystem; NaN where unknown or where only some of its cells are listed

    def name(self, at: int) -> str:
        """Return the component name of the cell at this position of the list."""
        cell = f"cell:{self.first_cell + at - self.start}"
        return f"subsystem:{self.subsystem}/{cell}" if self.subsystem else cell


def cells_of(batch: Batch, index: int) -> Cells:
    """Return the valid cells of a row, and which of them are lost measurements."""
    raw = batch.items("cells_mv", index).astype(np.int64)
    blocks = _blocks(batch, index, len(raw))
    lost = np.zeros(len(raw), bool)
    for block in blocks:
        run = slice(block.start, block.end)
        lost[run] = _lost(raw[run], block.voltage_v, batch.limits.cell_impossible_v)
    at = np.flatnonzero(raw < CELL_ABNORMAL)
    return Cells(raw[at] / 1000, at, lost[at], blocks)


def _blocks(batch: Batch, index: int, count: int) -> tuple[Block, ...]:
    pack = float(batch["pack_voltage_v"][index])
    items = batch.items("subsystems", index)
    if not len(items) or int(items["cells"].sum()) != count:
        return (Block(0, count, 0, 1, pack),)
    blocks: list[Block] = []
    start = 0
    for item in items:
        end = start + int(item["cells"])
        own = item["voltage_dv"] / 10 if item["voltage_dv"] > 0 else (pack if len(items) == 1 else np.nan)
        whole = float(own) if item["cells"] == item["cell_total"] else np.nan
        named = int(item["no"]) if len(items) > 1 or item["no"] > 1 else 0
        blocks.append(Block(start, end, named, int(item["start_cell"]), whole))
        start = end
    return tuple(blocks)


def _lost(raw: Array, voltage_v: float, impossible_v: float) -> Array:
    """Return which cells read exactly 0, or more than any cell has, through a lost measurement.

    Two readings are weighed: the suspects are as they read, or they stand where the others stand. The one
    that comes nearer to the pack's own voltage is believed. Where the pack's voltage is not known, a value no
    cell can have is a lost measurement: a cell shorted to exactly 0.000 V is the rarer thing.
    """
    volts = raw / 1000
    valid = raw < CELL_ABNORMAL
    suspect: Array = valid & ((raw == 0) | (volts > impossible_v))
    others = valid & ~suspect
    if not suspect.any():
        return suspect
    if np.isnan(voltage_v):
        return suspect
    nothing = np.zeros(len(raw), bool)
    if not others.any():
        return suspect if voltage_v > volts[suspect].sum() else nothing
    typical = _median(volts[others])
    base = float(volts[others].sum()) + typical * int((~valid).sum())
    as_read = abs(voltage_v - base - float(volts[suspect].sum()))
    as_typical = abs(voltage_v - base - typical * int(suspect.sum()))
    return suspect if as_typical < as_read else nothing


def _median(values: Array) -> float:
    """Return the upper median; np.median would import for 80 ms when the first alert is due."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])


def _by_cell(ctx: Context, index: int, cells: Cells, levels: Array, limits: Mapping[str, Any]) -> Findings:
    """Name the cells, or the pack when there are too many of them for single cells to be at fault."""
    bad = np.flatnonzero(levels >= HELD)
    if not len(bad):
        return {}
    count = int(np.count_nonzero(levels > HELD))
    many = count > ctx.batch.limits.cells_are_pack
    found: dict[str, Finding] = {}
    for number in bad.tolist():
        level = HELD if many else int(levels[number])
        found[cells.name(number)] = _cell_finding(ctx, index, cells, number, level, limits)
    worst = int(np.argmax(levels))
    level = int(levels[worst]) if many else HELD
    found["pack"] = _cell_finding(ctx, index, cells, worst, level, {**limits, "cells": count})
    return found


def _cell_finding(
    ctx: Context, index: int, cells: Cells, number: int, level: int, limits: Mapping[str, Any]
) -> Finding:
    value = _value(cells.volts, number)
    return Finding(level, value, partial(_cell_evidence, ctx.batch, index, cells, value, limits))


def _cell_evidence(
    batch: Batch, index: int, cells: Cells, value: float | None, limits: Mapping[str, Any]
) -> dict[str, Any]:
    evidence = {
        "cell_voltage_v": value,
        "median_cell_voltage_v": _median(cells.volts),
        "pack_voltage_v": batch["pack_voltage_v"][index],
        "pack_current_a": batch["pack_current_a"][index],
        "chemistry_code": int(batch.chemistry[index]),
        "sum_of_measured_cells_v": float(cells.volts[~cells.lost].sum()),
    }
    return known_numbers(evidence | dict(limits))


def of_overvoltage(ctx: Context, index: int, level: int) -> Findings:
    """Return the cells above their limit; a lost measurement is none."""
    limits, batch = conditions.limits_of(ctx.batch, index), ctx.batch
    named = {
        "limit_important_v": limits.over_important_v,
        "limit_urgent_v": limits.over_urgent_v,
    }
    cells = _judged_cells(batch, index, "cell_voltage_max")
    steps = (
        (HELD, limits.over_important_v - batch.limits.cell_over_hold_v),
        (IMPORTANT, limits.over_important_v),
        (URGENT, limits.over_urgent_v),
    )
    levels = np.full(len(cells.volts), CLEAR)
    for step, limit in steps:
        levels[(cells.volts > limit) & ~cells.lost] = step
    return _by_cell(ctx, index, cells, levels, named)


def of_undervoltage(ctx: Context, index: int, level: int) -> Findings:
    """Return the cells below their limit; a lost measurement is none. Urgent only while charging."""
    limits, batch = conditions.limits_of(ctx.batch, index), ctx.batch
    named = {
        "limit_general_v": limits.under_general_v,
        "limit_important_v": limits.under_important_v,
    }
    cells = _judged_cells(batch, index, "cell_voltage_min")
    levels = np.full(len(cells.volts), CLEAR)
    levels[cells.volts < limits.under_general_v + batch.limits.cell_under_hold_v] = HELD
    levels[cells.volts < limits.under_general_v] = GENERAL
    levels[cells.volts < limits.under_important_v] = IMPORTANT
    charging = float(batch["pack_current_a"][index]) > batch.limits.cell_charge_current_a
    ruined = cells.volts < min(limits.under_important_v, batch.limits.cell_charge_urgent_v)
    levels[ruined & charging & (cells.volts > 0)] = URGENT  # exactly 0 may still be the measurement
    levels[cells.lost] = CLEAR
    return _by_cell(ctx, index, cells, levels, named)


def _judged_cells(batch: Batch, index: int, extreme: str) -> Cells:
    """Return the listed cells, or the one extreme the report names when it carries no list."""
    cells = cells_of(batch, index)
    value = float(batch[f"{extreme}_v"][index])
    if len(cells.volts) or np.isnan(value):
        return cells
    columns = batch.rows.columns[int(batch.row[index])]
    number, subsystem = int(columns[f"{extreme}_cell"]), int(columns[f"{extreme}_subsystem"])
    block = Block(0, 1, max(subsystem, 0) if subsystem > 1 else 0, max(number, 0), np.nan)
    return Cells(np.array([value]), np.zeros(1, int), np.zeros(1, bool), (block,))


def of_measurement(ctx: Context, index: int, level: int) -> Findings:
    """Return the cells whose measurement is lost while the pack's voltage says they are there."""
    cells = cells_of(ctx.batch, index)
    return _by_cell(ctx, index, cells, np.where(cells.lost, IMPORTANT, CLEAR), {})


def of_thermal(ctx: Context, index: int, level: int) -> Findings:
    """Return the physical evidence of a thermal event, each kind checked against its harmless look-alike."""
    temp = _value(ctx.batch["temp_max_degc"], index)
    if level <= HELD:
        return {"pack": Finding(level, temp)}
    kinds = _thermal_evidence(ctx, index)
    heat, other = kinds.keys() & _HEAT, kinds.keys() - _HEAT
    if (ctx.trigger[index] and kinds) or (heat and other):
        level = URGENT
    else:
        level = IMPORTANT if ctx.event_2025[index] else HELD
    evidence: dict[str, Any] = {
        "kinds": sorted(kinds),
        "temp_max_degc": temp,
        "alarm_level": _count(ctx.batch["alarm_level"][index]),
        "alarm_flags": int(ctx.flags[index]),
    }
    for values in kinds.values():
        evidence |= values
    return {"pack": Finding(level, temp, partial(known_numbers, evidence))}


def _thermal_evidence(ctx: Context, index: int) -> dict[str, dict[str, Any]]:
    cells = cells_of(ctx.batch, index)
    found = {name: check(ctx, index, cells) for name, check in _EVIDENCE.items()}
    return {name: values for name, values in found.items() if values}


def _probe_over_limit(ctx: Context, index: int, cells: Cells) -> dict[str, Any]:
    limit = ctx.batch.limits.probe_hot_degc
    return {"limit_probe_degc": limit} if ctx.batch["temp_max_degc"][index] >= limit else {}


def _temperature_step(ctx: Context, index: int, cells: Cells) -> dict[str, Any]:
    rise, limit = float(ctx.steps.temp_rise_degc[index]), ctx.batch.limits.step_degc
    return {"temp_rise_degc": rise, "limit_step_degc": limit} if rise >= limit else {}


def _cell_collapse(ctx: Context, index: int, cells: Cells) -> dict[str, Any]:
    """One cell has fallen and its neighbours have not: load pulls all of them down."""
    fall, limit = float(ctx.steps.cell_fall_v[index]), ctx.batch.limits.cell_collapse_v
    if not fall >= limit or cells.lost.any():
        return {}
    below = _median(cells.volts) - float(cells.volts.min()) if len(cells.volts) else fall
    return (
        {"cell_fall_v": fall, "below_neighbours_v": below, "limit_cell_fall_v": limit}
        if below >= limit
        else {}
    )


def _pack_collapse(ctx: Context, index: int, cells: Cells) -> dict[str, Any]:
    """The pack's voltage has gone and so has that of its cells: else a contactor has opened."""
    fall, before = float(ctx.steps.pack_fall_v[index]), float(ctx.steps.pack_before_v[index])
    share = ctx.batch.limits.pack_collapse_share
    if not fall >= share * before:
        return {}
    opened = len(cells.volts) > 0 and float(cells.volts[~cells.lost].sum()) > before - fall / 2
    return {} if opened else {"pack_fall_v": fall, "pack_voltage_before_v": before, "limit_fall_share": share}


def _cells_contradict(ctx: Context, index: int, cells: Cells) -> dict[str, Any]:
    limit = ctx.batch.limits.cell_spread_v
    volts = cells.volts[~cells.lost]
    spread = float(volts.max() - volts.min()) if len(volts) else 0.0
    return {"cell_spread_v": spread, "limit_spread_v": limit} if spread >= limit else {}


def _extremes_contradict(ctx: Context, index: int, cells: Cells) -> dict[str, Any]:
    """The report's extremes are not those of its own list, by more than groups refreshed in turn explain."""
    batch, limits = ctx.batch, ctx.batch.limits
    values: dict[str, Any] = {}
    if len(cells.volts) and not cells.lost.any():
        low = abs(float(cells.volts.min()) - float(batch["cell_voltage_min_v"][index]))
        high = abs(float(cells.volts.max()) - float(batch["cell_voltage_max_v"][index]))
        if max(low, high) >= limits.contradiction_v:
            values |= {"extremes_off_v": max(low, high), "limit_extremes_off_v": limits.contradiction_v}
    hot = abs(float(batch["listed_temp_max_degc"][index]) - float(batch["cell_temp_max_degc"][index]))
    if hot >= limits.contradiction_degc:
        values |= {"extremes_off_degc": hot, "limit_extremes_off_degc": limits.contradiction_degc}
    return values


_HEAT = frozenset({"probe_over_limit", "temperature_step"})
_EVIDENCE: Mapping[str, Callable[[Context, int, Cells], dict[str, Any]]] = {
    "probe_over_limit": _probe_over_limit,
    "temperature_step": _temperature_step,
    "cell_collapse": _cell_collapse,
    "pack_collapse": _pack_collapse,
    "cells_contradict": _cells_contradict,
    "extremes_contradict": _extremes_contradict,
}

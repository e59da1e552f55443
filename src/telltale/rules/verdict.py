"""Judge a batch: conditions over columns, then the vehicles they touch, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from telltale.records import Array, Rows
from telltale.rules.batch import Batch, Newest, PreviousRows, arrange, nothing_new
from telltale.rules.conditions import Context, context
from telltale.rules.limits import DEFAULT, Limits
from telltale.rules.state import (
    CLEAR,
    SEVERITY,
    UNKNOWN,
    WATCH,
    Entry,
    Finding,
    Timing,
    VehicleState,
    advance,
)
from telltale.rules.table import RULES, Rule

RULES_VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class SafetyAlert:
    """A condition that begins, worsens or ends."""

    vehicle_id: int
    row: int  # index in the batch as given
    detector: str
    component: str  # pack | cell:57 | subsystem:2/cell:57 | vehicle
    severity: str  # watch | general | important | urgent
    happened_at: int  # µs
    evidence: Mapping[str, Any]
    kind: str  # raised | escalated | cleared


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a batch shows. Apply `newest` to the PreviousRows it came from once the batch is committed.

    `states`: of vehicles in the batch with conditions that hold or may come to hold; `gone`: vehicles whose
    state is now empty; `late`: rows older than what was judged before, which were not judged. `unproven`:
    vehicles whose insulation is low and was never seen otherwise: ask the database, and tell
    `PreviousRows.believe` when it knows better.
    """

    alerts: tuple[SafetyAlert, ...] = ()
    states: Mapping[int, VehicleState] = field(default_factory=dict)
    gone: tuple[int, ...] = ()
    late: int = 0
    unproven: tuple[int, ...] = ()
    newest: Newest = field(default_factory=nothing_new)


def judge(
    rows: Rows,
    states: Mapping[int, VehicleState],
    limits: Limits = DEFAULT,
    *,
    previous: PreviousRows | None = None,
    edition: Array | None = None,
    chemistry: Array | None = None,
) -> Verdict:
    """Return the alerts of a batch of de-duplicated reports, and what to remember.

    `states` holds what was stored for these vehicles, others may be in it. `edition` (2016, 2025, 0 unknown)
    and `chemistry` (GB/T 32960 battery type code, 0 unknown) are per row. Nothing given is changed: a batch
    that has to be done again is judged again with the same result. See `telltale.rules.batch` for `previous`.
    """
    if not len(rows):
        return Verdict()
    batch = arrange(rows, states, previous or PreviousRows(), limits, edition, chemistry)
    if not len(batch.row):
        return Verdict(late=batch.late)
    ctx = context(batch)
    levels = np.stack([rule.condition(ctx) for rule in RULES])
    vehicles = batch.vehicle_id[batch.starts]
    alerts: list[SafetyAlert] = []
    kept: dict[int, VehicleState] = {}
    gone: list[int] = []
    for position in _touched(batch, levels, vehicles, states):
        vehicle = int(vehicles[position])
        found, state = _judge_vehicle(ctx, levels, position, states.get(vehicle))
        alerts += found
        if state.entries:
            kept[vehicle] = state
        elif vehicle in states:
            gone.append(vehicle)
    return Verdict(
        tuple(alerts), kept, tuple(gone), batch.late, _unproven(kept), Newest(vehicles, ctx.memory_after)
    )


def _touched(batch: Batch, levels: Array, vehicles: Array, states: Mapping[int, VehicleState]) -> list[int]:
    """Return the positions of vehicles that have a condition in this batch, or had one before it."""
    raising = (levels >= WATCH).any(axis=0)
    touched = np.logical_or.reduceat(raising, batch.starts)
    if states:
        touched |= np.isin(vehicles, np.fromiter(states, np.int64, len(states)))
    positions: list[int] = np.flatnonzero(touched).tolist()
    return positions


def _unproven(states: Mapping[int, VehicleState]) -> tuple[int, ...]:
    key = "insulation_sensor/pack"
    return tuple(v for v, state in states.items() if key in state.entries and not state.entries[key].raised)


def _judge_vehicle(
    ctx: Context, levels: Array, position: int, state: VehicleState | None
) -> tuple[list[SafetyAlert], VehicleState]:
    batch = ctx.batch
    start = int(batch.starts[position])
    end = int(batch.starts[position + 1]) if position + 1 < len(batch.starts) else len(batch.row)
    before = state.entries if state else {}
    alerts: list[SafetyAlert] = []
    entries: dict[str, Entry] = {}
    for rule, row_levels in zip(RULES, levels[:, start:end], strict=True):
        mine = {k.split("/", 1)[1]: e for k, e in before.items() if k.split("/", 1)[0] == rule.detector}
        if mine or row_levels.max() >= WATCH:
            mine, found = _run(ctx, rule, start, row_levels.tolist(), mine)
            alerts += found
            entries |= {f"{rule.detector}/{component}": entry for component, entry in mine.items()}
    return alerts, VehicleState(int(batch.observed_at[end - 1]), entries)


def _run(
    ctx: Context, rule: Rule, start: int, levels: list[int], entries: dict[str, Entry]
) -> tuple[dict[str, Entry], list[SafetyAlert]]:
    """Take one rule of one vehicle through its rows."""
    limits = ctx.batch.limits
    timing = Timing(rule.dwell_s, rule.clear_s, limits.gap_s, limits.window_points)
    alerts: list[SafetyAlert] = []
    for index, level in enumerate(levels, start):
        if level == UNKNOWN or (level < WATCH and not entries):
            continue
        findings = rule.finding(ctx, index, level) if level > CLEAR else {}
        at = int(ctx.batch.observed_at[index])
        for component in sorted(entries.keys() | findings.keys()):
            old, finding = entries.get(component), findings.get(component)
            new, event = advance(old, finding, at, timing)
            if event:
                alerts.append(_alert(ctx, rule, index, component, new or old, finding, event, timing))
            entries.pop(component, None)
            if new:
                entries[component] = new
    return entries, alerts


def _alert(
    ctx: Context,
    rule: Rule,
    index: int,
    component: str,
    entry: Entry | None,
    finding: Finding | None,
    kind: str,
    timing: Timing,
) -> SafetyAlert:
    assert entry is not None  # noqa: S101  an event comes from an entry before it or after it
    evidence = dict(finding.evidence()) if finding else {}
    evidence |= {
        "since_us": entry.since,
        "dwell_s": timing.dwell_s[entry.raised],
        "observed_s": round(entry.held_s.get(entry.raised, 0.0), 3),
        "gap_s": timing.gap_s,
        "window_at_us": [at for at, _ in entry.window],
        f"window_{rule.quantity}": [value for _, value in entry.window],
    }
    return SafetyAlert(
        vehicle_id=int(ctx.batch.vehicle_id[index]),
        row=int(ctx.batch.row[index]),
        detector=rule.detector,
        component=component,
        severity=SEVERITY[entry.raised],
        happened_at=int(ctx.batch.observed_at[index]),
        evidence=evidence,
        kind=kind,
    )

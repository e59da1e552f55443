"""Findings of the safety lane: alerts, their events, and the conditions that hold right now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from telltale.store.pool import Connection
from telltale.store.readings import EPOCH

_RAISE: Final = f"""
INSERT INTO alert (id, vehicle_id, dealer, detector, detector_version, component, severity, happened_at,
    seen_at, evidence)
SELECT $1, v.id, v.dealer, $3, $4, $5, $6, {EPOCH} + $7::bigint * interval '1 microsecond',
       {EPOCH} + $8::bigint * interval '1 microsecond', $9::jsonb
FROM vehicle v WHERE v.id = $2
ON CONFLICT DO NOTHING RETURNING id
"""  # noqa: S608 - a constant of this module
_EVENT: Final = f"""
INSERT INTO alert_event (alert_id, vehicle_id, dealer, kind, seen_at, actor, payload)
SELECT a.id, a.vehicle_id, a.dealer, $5, {EPOCH} + $6::bigint * interval '1 microsecond', $7, $8::jsonb
FROM alert a WHERE a.vehicle_id = $2 AND a.detector = $3 AND a.component = $4
  AND (a.id = $1 OR (a.state <> 'closed' AND $5 <> 'raised'))
"""  # noqa: S608 - a constant of this module


@dataclass(frozen=True, slots=True)
class AlertRow:
    """A finding of the safety lane, ready to store."""

    id: str
    vehicle_id: int
    kind: str  # raised | escalated | cleared
    detector: str
    version: str
    component: str
    severity: str
    happened_at: int
    seen_at: int
    evidence: dict[str, Any]


async def store_alerts(db: Connection, alerts: Sequence[AlertRow]) -> list[AlertRow]:
    """Insert findings and their events; return those that opened an alert. One stays open per component."""
    opened = []
    for alert in alerts:
        key = (alert.id, alert.vehicle_id, alert.detector)
        if alert.kind == "raised":
            times = (alert.happened_at, alert.seen_at)
            new = await db.fetchval(
                _RAISE, *key, alert.version, alert.component, alert.severity, *times, alert.evidence
            )
            if new is None:
                continue
            opened.append(alert)
        payload = {"severity": alert.severity, "happened_at_us": alert.happened_at, **alert.evidence}
        await db.execute(
            _EVENT, *key, alert.component, alert.kind, alert.seen_at, f"safety/{alert.version}", payload
        )
    if alerts:
        await db.execute("SELECT pg_notify('telltale_alert', '')")
    return opened


# Asked within a batch, so bounded: a sensor that was never right must not have years of it read.
_ONCE_PLAUSIBLE: Final = """
SELECT v FROM unnest($1::int[]) AS v WHERE EXISTS (
    SELECT FROM (SELECT pack_voltage_v, insulation_kohm FROM report r WHERE r.vehicle_id = v
                 ORDER BY r.observed_at DESC LIMIT $2) r
    WHERE r.pack_voltage_v >= 60 AND r.insulation_kohm * 1000 >= 500 * r.pack_voltage_v)
"""
NEWEST_ASKED: Final = 20_000  # two days of reports each ten seconds


async def insulation_once_plausible(db: Connection, vehicles: Sequence[int]) -> list[int]:
    """Return those vehicles whose newest reports show at least 500 Ω per volt of insulation once."""
    return [row["v"] for row in await db.fetch(_ONCE_PLAUSIBLE, list(vehicles), NEWEST_ASKED)]


async def load_rule_states(db: Connection) -> dict[int, Any]:
    """Return the stored safety state of every vehicle that has any."""
    rows = await db.fetch("SELECT vehicle_id, state FROM rule_state")
    return {row["vehicle_id"]: row["state"] for row in rows}


_SAVE_STATE: Final = f"""
INSERT INTO rule_state (vehicle_id, judged_until, state)
VALUES ($1, {EPOCH} + $2::bigint * interval '1 microsecond', $3::jsonb)
ON CONFLICT (vehicle_id) DO UPDATE SET judged_until = excluded.judged_until, state = excluded.state
WHERE rule_state.judged_until <= excluded.judged_until  -- a worker on the backlog may know less
"""  # noqa: S608 - a constant of this module


async def save_rule_states(
    db: Connection, changed: Sequence[tuple[int, int, Any]], gone: Sequence[int]
) -> None:
    """Write changed states (vehicle, judged until in µs, state) and forget vehicles whose state is empty."""
    if changed:
        await db.executemany(_SAVE_STATE, changed)
    if gone:
        await db.execute("DELETE FROM rule_state WHERE vehicle_id = ANY($1)", list(gone))

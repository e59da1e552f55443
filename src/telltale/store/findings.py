"""Scores by vehicle and day, and the alerts of failure models with what happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Final

from telltale.failures.cell_fault import DayVerdict, Finding
from telltale.failures.reconcile import KnownAlert
from telltale.store.pool import Connection
from telltale.store.times import date_of, day_number


@dataclass(frozen=True, slots=True)
class VehicleFacts:
    """What is known of a vehicle's pack."""

    public_id: str
    pack_design: str | None
    chemistry: str | None


async def load_facts(db: Connection, vehicles: Sequence[int]) -> dict[int, VehicleFacts]:
    """Return pack design and chemistry of these vehicles."""
    found = await db.fetch(
        "SELECT id, public_id, pack_design, chemistry FROM vehicle WHERE id = ANY($1)", list(vehicles)
    )
    return {r["id"]: VehicleFacts(str(r["public_id"]), r["pack_design"], r["chemistry"]) for r in found}


async def store_verdicts(
    db: Connection,
    detector: str,
    verdicts: dict[int, list[DayVerdict]],
    *,
    model_version: str,
    rules_version: int,
) -> None:
    """Write what each vehicle day says, over what it said before."""
    rows = [
        (vehicle, detector, *_verdict_row(verdict), model_version, rules_version)
        for vehicle, judged in verdicts.items()
        for verdict in judged
    ]
    await db.executemany(_PUT_VERDICT, rows)


_PUT_VERDICT: Final = """
INSERT INTO failure_score (vehicle_id, detector, day, not_scored, component, score, findings, model_version,
    rules_version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (vehicle_id, detector, day) DO UPDATE SET not_scored = excluded.not_scored,
    component = excluded.component, score = excluded.score, findings = excluded.findings,
    model_version = excluded.model_version, rules_version = excluded.rules_version, scored_at = now()
"""


def _verdict_row(verdict: DayVerdict) -> tuple[Any, ...]:
    scored = verdict.not_scored is None
    return (
        date_of(verdict.day),
        verdict.not_scored,
        f"cell:{verdict.top_cell}" if scored else None,
        verdict.top_score if scored else None,
        [asdict(finding) for finding in verdict.findings],
    )


async def load_verdicts(
    db: Connection, detector: str, vehicles: Sequence[int], first_days: Sequence[int]
) -> dict[int, list[DayVerdict]]:
    """Return the stored verdicts of each vehicle from its first day on, in day order."""
    found = await db.fetch(
        "SELECT f.vehicle_id, f.day, f.not_scored, f.component, f.score, f.findings "
        "FROM unnest($2::integer[], $3::date[]) AS s(vehicle_id, first) "
        "JOIN failure_score f ON f.vehicle_id = s.vehicle_id AND f.detector = $1 AND f.day >= s.first "
        "ORDER BY f.vehicle_id, f.day",
        detector,
        list(vehicles),
        [date_of(day) for day in first_days],
    )
    verdicts: dict[int, list[DayVerdict]] = {vehicle: [] for vehicle in vehicles}
    for row in found:
        verdicts[row["vehicle_id"]].append(_verdict(row))
    return verdicts


def _verdict(row: Any) -> DayVerdict:
    findings = tuple(Finding(**_with_nan(finding)) for finding in row["findings"])
    cell = int(row["component"].removeprefix("cell:")) if row["component"] else 0
    return DayVerdict(day_number(row["day"]), row["not_scored"], findings, cell, row["score"] or 0.0)


def _with_nan(finding: dict[str, Any]) -> dict[str, Any]:
    values = {name: float("nan") if v is None else v for name, v in finding["values"].items()}
    return finding | {"values": values}


async def load_alerts(db: Connection, detector: str, vehicles: Sequence[int]) -> dict[int, list[KnownAlert]]:
    """Return the alerts of this detector about these vehicles, oldest first."""
    found = await db.fetch(
        "SELECT id, vehicle_id, component, severity, state, evidence, "
        "(cleared_at AT TIME ZONE 'Asia/Shanghai')::date AS cleared FROM alert "
        "WHERE detector = $1 AND vehicle_id = ANY($2) ORDER BY happened_at, id",
        detector,
        list(vehicles),
    )
    known: dict[int, list[KnownAlert]] = {}
    for row in found:
        known.setdefault(row["vehicle_id"], []).append(_known(row))
    return known


def _known(row: Any) -> KnownAlert:
    opening = row["evidence"]["opening"]
    return KnownAlert(
        id=str(row["id"]),
        component=row["component"],
        severity=row["severity"],
        closed_by_people=row["state"] == "closed",
        opened=day_number(date.fromisoformat(opening["day"])),
        cleared=None if row["cleared"] is None else day_number(row["cleared"]),
        deviation_mv=opening["deviation_mv"],
        trend_mv_day=opening["trend_mv_day"],
    )


@dataclass(frozen=True, slots=True)
class AlertWrite:
    """One step in an alert's life, with everything that is to be stored."""

    id: str
    vehicle_id: int
    is_new: bool
    kind: str  # raised | escalated | cleared | corrected
    detector: str
    version: str
    component: str
    severity: str
    happened_at: datetime
    seen_at: datetime
    cleared_at: datetime | None
    evidence: dict[str, Any] | None  # None: leave as it is
    payload: dict[str, Any]


_RAISE: Final = """
INSERT INTO alert (id, vehicle_id, dealer, detector, detector_version, component, severity, happened_at,
    seen_at, cleared_at, evidence)
SELECT $1, v.id, v.dealer, $3, $4, $5, $6, $7, $8, $9, $10 FROM vehicle v WHERE v.id = $2
ON CONFLICT DO NOTHING RETURNING id
"""
_CHANGE: Final = """
UPDATE alert SET severity = $2, cleared_at = $3, evidence = coalesce($4, evidence), version = version + 1
WHERE id = $1 RETURNING id
"""
_EVENT: Final = """
INSERT INTO alert_event (alert_id, vehicle_id, dealer, kind, seen_at, actor, payload)
SELECT a.id, a.vehicle_id, a.dealer, $2, $3, $4, $5 FROM alert a WHERE a.id = $1
"""


async def write_alerts(db: Connection, writes: Sequence[AlertWrite]) -> list[AlertWrite]:
    """Insert or change alerts, each step with its event; return those that opened an alert."""
    opened = []
    for write in writes:
        if write.is_new:
            row = (write.detector, write.version, write.component, write.severity, write.happened_at)
            late = (write.seen_at, write.cleared_at, write.evidence)
            done = await db.fetchval(_RAISE, write.id, write.vehicle_id, *row, *late)
        else:
            done = await db.fetchval(_CHANGE, write.id, write.severity, write.cleared_at, write.evidence)
        if done is None:
            continue
        if write.is_new:
            opened.append(write)
        actor = f"{write.detector}/{write.version}"
        await db.execute(_EVENT, write.id, write.kind, write.seen_at, actor, write.payload)
    if writes:
        await db.execute("SELECT pg_notify('telltale_alert', '')")
    return opened

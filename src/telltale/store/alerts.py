"""Alerts as people read and edit them: list, one with its history, acknowledge, close.

A person's edit is one transaction: the alert's new state, its event, and the remembered answer for a
retried request. Every function takes a scope; what lies outside it does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from telltale.store.keys import Caller
from telltale.store.scope import Scope, scoped

State = Literal["open", "acknowledged", "closed"]
Severity = Literal["watch", "general", "important", "urgent"]
Outcome = Literal["confirmed", "other_fault", "no_trouble_found", "not_inspected"]
Alert = dict[str, Any]
Key = tuple[datetime, UUID]  # (raised_at, id): the order of the list, newest first

_COLUMNS: Final = """
    a.id, a.dealer, a.detector, a.detector_version, a.component, a.severity, a.state, a.happened_at,
    a.seen_at, a.raised_at, a.cleared_at, a.evidence, a.acknowledged_by, a.acknowledged_at, a.closed_by,
    a.closed_at, a.outcome, a.note, a.version, v.public_id AS vehicle_public_id, v.vin AS vehicle_vin,
    v.variant AS vehicle_variant, v.dealer AS vehicle_dealer"""
_FROM: Final = """
    FROM telltale.current_alert a LEFT JOIN telltale.vehicle v ON v.id = a.vehicle_id
    WHERE ($1::text IS NULL OR a.dealer = $1)"""  # LEFT: the vehicle may have moved to another dealer since


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts to list; an empty field filters nothing."""

    states: tuple[State, ...] = ()
    severities: tuple[Severity, ...] = ()
    detector: str | None = None
    dealer: str | None = None
    since: datetime | None = None
    vehicle: UUID | None = None


# Where to go on behind the alert $9, and in which order, newest first or most severe first.
_NEWEST: Final = "(a.raised_at, a.id) < ($8, $9::uuid)", "a.raised_at DESC, a.id DESC"
_URGENT: Final = (
    "(a.rank, a.raised_at, a.id) < (SELECT c.rank, c.raised_at, c.id FROM telltale.current_alert c "
    "WHERE c.id = $9::uuid)",
    "a.rank DESC, a.raised_at DESC, a.id DESC",
)


async def list_alerts(
    pool: Any,
    scope: Scope,
    wanted: AlertFilter,
    *,
    after: Key | None = None,
    limit: int = 50,
    urgent_first: bool = False,
) -> list[Alert]:
    """Return at most `limit` alerts of the scope, newest or most severe first, starting behind `after`."""
    behind, order = _URGENT if urgent_first else _NEWEST
    query = f"""SELECT {_COLUMNS} {_FROM}
        AND (cardinality($2::text[]) = 0 OR a.state = ANY($2))
        AND (cardinality($3::text[]) = 0 OR a.severity = ANY($3))
        AND ($4::text IS NULL OR a.detector = $4) AND ($5::text IS NULL OR a.dealer = $5)
        AND ($6::timestamptz IS NULL OR a.raised_at >= $6) AND ($7::uuid IS NULL OR v.public_id = $7)
        AND ($8::timestamptz IS NULL OR {behind})
        ORDER BY {order} LIMIT $10"""
    at, alert_id = after or (None, None)
    async with scoped(pool, scope) as connection:
        rows = await connection.fetch(
            query,
            scope.dealer,
            list(wanted.states),
            list(wanted.severities),
            wanted.detector,
            wanted.dealer,
            wanted.since,
            wanted.vehicle,
            at,
            alert_id,
            limit,
        )
    return [_alert(row) for row in rows]


async def get_alert(pool: Any, scope: Scope, alert_id: UUID) -> Alert | None:
    """Return one alert with its history (oldest first), or None when there is none in this scope."""
    async with scoped(pool, scope) as connection:
        return await _read(connection, scope, alert_id)


async def count_open(pool: Any, scope: Scope) -> dict[str, int]:
    """Return how many alerts of the scope are not closed, by severity."""
    async with scoped(pool, scope) as connection:
        rows = await connection.fetch(
            "SELECT severity, count(*) AS n FROM telltale.current_alert a "
            "WHERE ($1::text IS NULL OR a.dealer = $1) AND state <> 'closed' GROUP BY severity",
            scope.dealer,
        )
    return {row["severity"]: row["n"] for row in rows}


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person does to an alert: `outcome` set closes it, otherwise it is acknowledged."""

    alert_id: UUID
    version: int
    outcome: Outcome | None = None
    note: str | None = None
    idempotency_key: str | None = None

    @property
    def kind(self) -> Literal["acknowledged", "closed"]:
        """Return the state the alert takes."""
        return "closed" if self.outcome else "acknowledged"

    @property
    def digest(self) -> bytes:
        """Return what tells this request from another one under the same idempotency key."""
        asked = (self.kind, str(self.alert_id), self.version, self.outcome, self.note)
        return hashlib.sha256(orjson.dumps(asked)).digest()


Refusal = Literal["not_found", "version", "state", "key_reused"]


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of an edit: the alert as it now stands, or why it was refused (and how it stands)."""

    alert: Alert | None
    refusal: Refusal | None = None


class _KeyTakenError(Exception):
    """A concurrent request under the same idempotency key came first: roll this one back."""


async def edit_alert(pool: Any, caller: Caller, edit: Edit) -> Edited:
    """Acknowledge or close an alert as this caller; a repeated idempotency key gets the first answer."""
    try:
        async with scoped(pool, caller.scope) as connection:
            return await _edit(connection, caller, edit)
    except _KeyTakenError:
        return Edited(None, "key_reused")


async def _edit(connection: Any, caller: Caller, edit: Edit) -> Edited:
    locked = await connection.fetchrow(
        "SELECT version, state FROM telltale.alert a "
        "WHERE ($1::text IS NULL OR a.dealer = $1) AND id = $2 FOR UPDATE",
        caller.scope.dealer,
        edit.alert_id,
    )
    if locked is None:
        return Edited(None, "not_found")
    if (earlier := await _answered(connection, caller, edit)) is not None:
        return earlier
    refusal = _refusal(locked, edit)
    if refusal is None:
        await _change(connection, caller, edit)
    alert = await _read(connection, caller.scope, edit.alert_id)
    if refusal is None and edit.idempotency_key:
        await _remember(connection, caller, edit, alert)
    return Edited(alert, refusal)


def _refusal(row: Mapping[str, Any], edit: Edit) -> Refusal | None:
    if row["version"] != edit.version:
        return "version"
    if row["state"] == "closed" or row["state"] == edit.kind:
        return "state"
    return None


async def _change(connection: Any, caller: Caller, edit: Edit) -> None:
    who, when = ("closed_by", "closed_at") if edit.outcome else ("acknowledged_by", "acknowledged_at")
    row = await connection.fetchrow(
        f"UPDATE telltale.alert SET state = $2, {who} = $3, {when} = now(), outcome = coalesce($4, outcome), "  # noqa: S608
        "note = coalesce($5, note), version = version + 1 WHERE id = $1 RETURNING vehicle_id, dealer",
        edit.alert_id,
        edit.kind,
        caller.name,
        edit.outcome,
        edit.note,
    )
    payload = {"key": caller.key_id, "outcome": edit.outcome, "note": edit.note}
    await connection.execute(
        "INSERT INTO telltale.alert_event (alert_id, vehicle_id, dealer, kind, actor, payload) "
        "VALUES ($1, $2, $3, $4, $5, $6)",
        edit.alert_id,
        row["vehicle_id"],
        row["dealer"],
        edit.kind,
        caller.name,
        {name: value for name, value in payload.items() if value is not None},
    )


async def _answered(connection: Any, caller: Caller, edit: Edit) -> Edited | None:
    row = await connection.fetchrow(
        "SELECT digest, response FROM telltale.idempotency_key WHERE api_key_id = $1 AND key = $2",
        caller.key_id,
        edit.idempotency_key,
    )
    if row is None:
        return None
    same = row["digest"] == edit.digest
    return Edited(row["response"]) if same else Edited(None, "key_reused")


async def _remember(connection: Any, caller: Caller, edit: Edit, alert: Alert | None) -> None:
    await connection.execute(
        "DELETE FROM telltale.idempotency_key WHERE created_at < now() - interval '1 day'"
    )
    stored = await connection.fetchval(
        "INSERT INTO telltale.idempotency_key (api_key_id, key, digest, response) "
        "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING key",
        caller.key_id,
        edit.idempotency_key,
        edit.digest,
        orjson.loads(orjson.dumps(alert, default=str)),  # asyncpg's UUID is its own type
    )
    if stored is None:
        raise _KeyTakenError


async def _read(connection: Any, scope: Scope, alert_id: UUID) -> Alert | None:
    query = f"SELECT {_COLUMNS} {_FROM} AND a.id = $2"
    row = await connection.fetchrow(query, scope.dealer, alert_id)
    if row is None:
        return None
    history = await connection.fetch(
        "SELECT kind, at, seen_at, actor, payload FROM telltale.alert_event WHERE alert_id = $1 ORDER BY id",
        alert_id,
    )
    return _alert(row) | {"history": [dict(event) for event in history]}


def _alert(row: Mapping[str, Any]) -> Alert:
    """Fold the vehicle's columns into one entry: None when the vehicle left the scope."""
    own = {name: value for name, value in row.items() if not name.startswith("vehicle_")}
    vehicle = {
        name.removeprefix("vehicle_"): value for name, value in row.items() if name.startswith("vehicle_")
    }
    return own | {"vehicle": vehicle if vehicle["public_id"] else None}

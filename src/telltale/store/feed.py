"""Alert events in the order of commit, for readers that resume where they stopped.

An id taken from a sequence before commit can hide an event: a later id may commit first. So an event is
shown once no transaction at or below its own can still commit (`txid < pg_snapshot_xmin`), ordered by
(txid, id). The cost: one long writing transaction anywhere in the cluster holds the feed back while it lasts.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from telltale.store.pool import Connection, Pool, connect
from telltale.store.scope import FLEET, Scope, scoped

CHANNEL: Final = "telltale_alert"
REPLAY_LIMIT: Final = 1000  # further behind than this a client is told to read the list again
_POSITION: Final = re.compile(r"(?P<txid>[0-9]{1,18})-(?P<id>[0-9]{1,18})")

_EVENTS: Final = """
    SELECT e.txid::text::bigint AS txid, e.id, e.alert_id, e.dealer, e.kind, e.at, e.seen_at, e.actor,
           a.severity, a.detector, a.component, a.state, a.version, a.happened_at, v.public_id AS vehicle
    FROM telltale.alert_event e JOIN telltale.alert a ON a.id = e.alert_id
         LEFT JOIN telltale.vehicle v ON v.id = e.vehicle_id
    WHERE (e.txid, e.id) > ($1::text::xid8, $2) AND e.txid < pg_snapshot_xmin(pg_current_snapshot())
          AND ($3::text IS NULL OR e.dealer = $3)
    ORDER BY e.txid, e.id LIMIT $4"""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the feed: everything at or before it has been seen. `id` 0 stands before a transaction."""

    txid: int
    id: int = 0

    def __str__(self) -> str:
        return f"{self.txid}-{self.id}"


def parse_position(text: str) -> Position | None:
    """Return the position an event id names, or None when it names none."""
    match = _POSITION.fullmatch(text.strip())
    return Position(int(match["txid"]), int(match["id"])) if match else None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an alert. `data` is its JSON; it carries no VIN."""

    position: Position
    dealer: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order; `head` is where to go on from, `pending` that more wait for an older transaction."""

    events: tuple[Event, ...]
    head: Position
    pending: bool


def _event(row: Any) -> Event:
    position = Position(row["txid"], row["id"])
    shown = {
        key: row[key]
        for key in ("kind", "severity", "detector", "component", "state", "version", "vehicle", "actor")
    }
    times: dict[str, datetime | None] = {key: row[key] for key in ("at", "seen_at", "happened_at")}
    data = orjson.dumps({"alert": row["alert_id"], **shown, **times}, default=str)  # str: asyncpg's UUID
    return Event(position, row["dealer"], data)


class AlertFeed:
    """One connection that listens and reads for a whole process; fan-out to clients is the caller's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._woken = asyncio.Event()

    @classmethod
    async def open(cls, url: str, *, timeout_s: float) -> AlertFeed:
        """Connect, listen, and see the whole fleet: the fan-out filters by each client's scope."""
        connection = await connect(url, role_name="api-feed", timeout_s=timeout_s)
        feed = cls(connection)
        await connection.execute("SELECT set_config('telltale.scope', $1, false)", FLEET.setting)
        await connection.add_listener(CHANNEL, feed._on_notify)
        return feed

    def _on_notify(self, *_: object) -> None:
        self._woken.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when somebody wrote an event, or after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):  # not wait_for: before 3.12 it can swallow a cancellation
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    async def horizon(self) -> Position:
        """Return the position up to which everything that could commit has committed."""
        row = await self._connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return Position(row)

    async def read(self, after: Position, *, limit: int = 500) -> Page:
        """Return the events behind a position that no commit can overtake any more."""
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            row = await self._connection.fetchrow(
                "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon, "
                "EXISTS (SELECT FROM telltale.alert_event"
                " WHERE txid >= pg_snapshot_xmin(pg_current_snapshot())) AS pending, "
                "EXISTS (SELECT FROM telltale.alert_event WHERE (txid, id) > ($1::text::xid8, $2)) AS some",
                str(after.txid),
                after.id,
            )
            rows = []
            if row["some"]:
                rows = await self._connection.fetch(_EVENTS, str(after.txid), after.id, None, limit)
        events = tuple(_event(found) for found in rows)
        full = len(events) == limit
        head = events[-1].position if full else max(after, Position(row["horizon"]))
        return Page(events, head, bool(row["pending"]) or full)

    async def close(self) -> None:
        """Give the connection back."""
        await self._connection.close(timeout=2)


async def replay(pool: Pool, scope: Scope, after: Position) -> tuple[Event, ...] | None:
    """Return what a client of this scope missed since `after`; None when that place is unknown or too old."""
    async with scoped(pool, scope) as connection:
        if not await _known(connection, after):
            return None
        rows = await connection.fetch(_EVENTS, str(after.txid), after.id, scope.dealer, REPLAY_LIMIT + 1)
    return None if len(rows) > REPLAY_LIMIT else tuple(_event(row) for row in rows)


async def _known(connection: Any, position: Position) -> bool:
    """Tell whether this database has given out this position; a restored or another one has not."""
    query = "SELECT $1::text::bigint < pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    if position.id == 0:
        return bool(await connection.fetchval(query.replace("<", "<="), str(position.txid)))
    query = "SELECT EXISTS (SELECT FROM telltale.alert_event WHERE txid = $1::text::xid8 AND id = $2)"
    return bool(await connection.fetchval(query, str(position.txid), position.id))

"""What the ingest worker says to the database: take over, fence, find what is known, write, hand back.

Everything of a batch happens in one transaction on one dedicated connection. `fence()` comes first: it moves
the offsets on and fails when another worker has raised the epoch, so nothing of a fenced batch is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from telltale.errors import FencedError, WaitableError
from telltale.records import Array, Rows, SessionEvent, Source
from telltale.store.copy import FUEL_CELL_LAYOUT, REPORT_LAYOUT, CopyLayout, copy_packed, pack
from telltale.store.pool import Connection, PostgresError, connect, sqlstate_of

EPOCH: Final = "'1970-01-01T00:00:00Z'::timestamptz"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One partition of one topic of one cluster."""

    cluster: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Held:
    """A partition this worker has taken over, as the database knew it at that moment."""

    place: Place
    epoch: int
    next_offset: int
    attempts: int
    suspect_offset: int | None
    suspect_tries: int
    halt_reason: str | None
    allow_until_offset: int


@dataclass(frozen=True, slots=True)
class Step:
    """How far a batch moves one partition, and under which epoch."""

    place: Place
    epoch: int
    expected_offset: int
    next_offset: int
    last_timestamp_ms: int


_TERMINATE: Final = """
SELECT pg_terminate_backend(o.backend_pid, 2000)
FROM ingest_offset o JOIN pg_stat_activity a ON a.pid = o.backend_pid AND a.backend_start = o.backend_start
WHERE o.cluster = $1 AND o.topic = $2 AND o.partition = ANY($3) AND o.backend_pid <> pg_backend_pid()
  AND a.usename = current_user
"""
_REGISTER: Final = """
INSERT INTO ingest_offset (cluster, topic, partition) SELECT $1, $2, unnest($3::int[]) ON CONFLICT DO NOTHING
"""
# An unclean predecessor left its name; when the offset has not moved since it took over, that is one attempt.
_TAKE_OVER: Final = """
UPDATE ingest_offset SET epoch = epoch + 1,
    attempts = CASE WHEN worker = '' THEN 0 WHEN assigned_offset = next_offset THEN attempts + 1 ELSE 0 END,
    assigned_offset = next_offset, worker = $4, backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
    updated_at = now()
WHERE cluster = $1 AND topic = $2 AND partition = ANY($3)
RETURNING partition, epoch, next_offset, attempts, suspect_offset, suspect_tries, halt_reason,
    allow_until_offset
"""
_RELEASE: Final = """
UPDATE ingest_offset SET worker = '', attempts = 0, suspect_offset = NULL, suspect_tries = 0,
    updated_at = now()
WHERE cluster = $1 AND topic = $2 AND partition = $3 AND epoch = $4
"""
_ADOPT: Final = """
UPDATE ingest_offset SET backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
WHERE cluster = $1 AND topic = $2 AND partition = $3 AND epoch = $4
"""
_FENCE: Final = """
UPDATE ingest_offset o SET next_offset = n.next_offset, attempts = 0, suspect_offset = NULL,
    suspect_tries = 0, last_timestamp_ms = n.timestamp_ms, updated_at = now()
FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS n(cluster, topic, partition, epoch, expected_offset, next_offset, timestamp_ms)
WHERE o.cluster = n.cluster AND o.topic = n.topic AND o.partition = n.partition
  AND o.epoch = n.epoch AND o.next_offset = n.expected_offset
"""
_SUSPECT: Final = """
UPDATE ingest_offset SET suspect_offset = $5,
    suspect_tries = CASE WHEN suspect_offset = $5 THEN suspect_tries + 1 ELSE 1 END
WHERE cluster = $1 AND topic = $2 AND partition = $3 AND epoch = $4 RETURNING suspect_tries
"""
_HALT: Final = """
UPDATE ingest_offset SET halted_at = now(), halt_reason = $5, updated_at = now()
WHERE cluster = $1 AND topic = $2 AND partition = $3 AND epoch = $4
"""
_RESUME: Final = """
UPDATE ingest_offset SET halted_at = NULL, halt_reason = NULL, allow_until_offset = next_offset + $4,
    updated_at = now()
WHERE topic = $1 AND partition = $2 AND ($3::text IS NULL OR cluster = $3) AND halted_at IS NOT NULL
RETURNING cluster, next_offset, allow_until_offset
"""
_ALLOWED: Final = """
SELECT allow_until_offset FROM ingest_offset
WHERE cluster = $1 AND topic = $2 AND partition = $3 AND halted_at IS NULL
"""


async def take_over(
    db: Connection, cluster: str, topic: str, partitions: Sequence[int], worker: str
) -> list[Held]:
    """Make this worker the only writer of these partitions and return where each goes on.

    A predecessor's leftover backend is terminated first: stopped inside COPY it would hold the row for ever.
    """
    parts = sorted(partitions)
    await db.execute(_REGISTER, cluster, topic, parts)
    await db.execute(_TERMINATE, cluster, topic, parts)
    rows = await db.fetch(_TAKE_OVER, cluster, topic, parts, worker)
    return [
        Held(
            Place(cluster, topic, row["partition"]),
            row["epoch"],
            row["next_offset"],
            row["attempts"],
            row["suspect_offset"],
            row["suspect_tries"],
            row["halt_reason"],
            row["allow_until_offset"],
        )
        for row in rows
    ]


async def release(db: Connection, held: Iterable[tuple[Place, int]]) -> None:
    """Say that this worker leaves these (partition, epoch) cleanly: its successor counts no attempt."""
    await db.executemany(_RELEASE, [(p.cluster, p.topic, p.partition, epoch) for p, epoch in held])


async def adopt(db: Connection, held: Iterable[tuple[Place, int]]) -> None:
    """Record this connection as the backend of partitions already held, after a reconnect."""
    await db.executemany(_ADOPT, [(p.cluster, p.topic, p.partition, epoch) for p, epoch in held])


async def fence(db: Connection, steps: Sequence[Step]) -> None:
    """Move the offsets on, or raise FencedError when any partition is no longer ours at that offset."""
    columns = zip(
        *(
            (
                s.place.cluster,
                s.place.topic,
                s.place.partition,
                s.epoch,
                s.expected_offset,
                s.next_offset,
                s.last_timestamp_ms,
            )
            for s in steps
        ),
        strict=True,
    )
    status: str = await db.execute(_FENCE, *(list(column) for column in columns))
    moved = int(status.rsplit(" ", 1)[1])
    if moved != len(steps):
        raise FencedError(
            f"ingest: {len(steps) - moved} of {len(steps)} partitions were taken over by another worker"
        )


async def offsets(db: Connection, places: Sequence[Place]) -> dict[Place, tuple[int, int]]:
    """Return (epoch, next_offset) of these partitions as committed."""
    rows = await db.fetch(
        "SELECT cluster, topic, partition, epoch, next_offset FROM ingest_offset "
        "WHERE (cluster, topic, partition) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::int[]))",
        [p.cluster for p in places],
        [p.topic for p in places],
        [p.partition for p in places],
    )
    return {Place(r["cluster"], r["topic"], r["partition"]): (r["epoch"], r["next_offset"]) for r in rows}


async def mark_suspect(db: Connection, place: Place, epoch: int, offset: int) -> int:
    """Note that this record is about to be tried alone; return how many times, this one included."""
    tries = await db.fetchval(_SUSPECT, place.cluster, place.topic, place.partition, epoch, offset)
    if tries is None:
        raise FencedError(f"ingest: {place.topic}[{place.partition}] was taken over by another worker")
    return int(tries)


async def halt(db: Connection, place: Place, epoch: int, reason: str) -> None:
    """Stop a partition where it is, with the reason, until an operator says go on."""
    await db.execute(_HALT, place.cluster, place.topic, place.partition, epoch, reason)


async def resume(
    db: Connection, topic: str, partition: int, records: int, cluster: str | None = None
) -> list[Any]:
    """Let a halted partition go on for this many records without halting again; return what was resumed."""
    return list(await db.fetch(_RESUME, topic, partition, cluster, records))


async def resume_partition(url: str, topic: str, partition: int, records: int) -> list[str]:
    """Let a halted partition go on, and say so; what an operator calls."""
    db = await connect(url, role_name="operator", timeout_s=10)
    try:
        rows = await resume(db, topic, partition, records)
    finally:
        await db.close()
    if not rows:
        return [f"{topic}[{partition}] is not halted: nothing to do"]
    return [
        f"{topic}[{partition}] of cluster {row['cluster']} goes on at offset {row['next_offset']}, "
        f"without halting below {row['allow_until_offset']}"
        for row in rows
    ]


async def allowed_until(db: Connection, place: Place) -> int | None:
    """Return how far a partition may go on without halting, or None while it is halted."""
    value = await db.fetchval(_ALLOWED, place.cluster, place.topic, place.partition)
    return None if value is None else int(value)


async def register_vehicles(db: Connection, vins: Sequence[tuple[str, bool]]) -> dict[str, int]:
    """Register unknown vehicles (VIN, well-formed) and return the id of each VIN. Never drops one."""
    names = [vin for vin, _ in vins]
    await db.execute(
        "INSERT INTO vehicle (vin, vin_valid) SELECT * FROM unnest($1::text[], $2::bool[]) ORDER BY 1 "
        "ON CONFLICT (vin) DO NOTHING",
        names,
        [valid for _, valid in vins],
    )
    rows = await db.fetch("SELECT vin, id FROM vehicle WHERE vin = ANY($1)", names)
    return {row["vin"]: row["id"] for row in rows}


async def register_sources(
    db: Connection, sources: Sequence[tuple[Source, str]]
) -> dict[tuple[Source, str], int]:
    """Register (source, gateway) pairs and return their ids."""
    columns = [
        [s.protocol for s, _ in sources],
        [s.edition for s, _ in sources],
        [s.command for s, _ in sources],
        [gateway for _, gateway in sources],
    ]
    await db.execute(
        "INSERT INTO source (protocol, edition, command, gateway) "
        "SELECT * FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::text[]) ON CONFLICT DO NOTHING",
        *columns,
    )
    rows = await db.fetch(
        "SELECT id, protocol, edition, command, gateway FROM source "
        "WHERE (protocol, edition, command, gateway) IN "
        "(SELECT * FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::text[]))",
        *columns,
    )
    return {
        (Source(row["protocol"], row["edition"], row["command"]), row["gateway"]): row["id"] for row in rows
    }


# Point look-ups by primary key whatever the planner thinks of the estimate; constant bounds prune partitions.
_KNOWN: Final = f"""
SELECT k.row, r.digest
FROM unnest($1::int[], $2::bigint[], $3::int[], $4::int[]) AS k(vehicle_id, us, part, row)
CROSS JOIN LATERAL (
    SELECT digest FROM report r
    WHERE r.vehicle_id = k.vehicle_id AND r.part = k.part
      AND r.observed_at = {EPOCH} + k.us * interval '1 microsecond'
      AND r.observed_at >= {EPOCH} + $5 * interval '1 microsecond'
      AND r.observed_at <= {EPOCH} + $6 * interval '1 microsecond'
    OFFSET 0) r
"""  # noqa: S608 - a constant of this module
_KNOWN_UNTIMED: Final = """
SELECT k.row, k.digest FROM unnest($1::int[], $2::bigint[], $3::int[]) AS k(vehicle_id, digest, row)
JOIN untimed_reading u ON u.vehicle_id = k.vehicle_id AND u.kind = 'report' AND u.digest = k.digest
"""
_REMEMBER_UNTIMED: Final = f"""
INSERT INTO untimed_reading (vehicle_id, kind, digest, observed_at)
SELECT v, $1, d, {EPOCH} + us * interval '1 microsecond'
FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS k(v, d, us) ON CONFLICT DO NOTHING
RETURNING vehicle_id, digest
"""  # noqa: S608 - a constant of this module


async def known_digests(db: Connection, columns: Array, rows: NDArray[np.int64]) -> dict[int, int]:
    """Return {row: stored digest} for those of `rows` whose identity the database already has."""
    if not len(rows):
        return {}
    chosen = columns[rows]
    times = chosen["observed_at"]
    found = await db.fetch(
        _KNOWN,
        chosen["vehicle_id"].tolist(),
        times.tolist(),
        chosen["part"].tolist(),
        rows.tolist(),
        int(times.min()),
        int(times.max()),
    )
    return dict(found)


async def known_untimed(db: Connection, columns: Array, rows: NDArray[np.int64]) -> dict[int, int]:
    """Return {row: digest} for those untimed rows whose content this vehicle has sent before."""
    if not len(rows):
        return {}
    chosen = columns[rows]
    found = await db.fetch(
        _KNOWN_UNTIMED, chosen["vehicle_id"].tolist(), chosen["digest"].tolist(), rows.tolist()
    )
    return dict(found)


async def remember_untimed(
    db: Connection, kind: str, vehicles: list[int], digests: list[int], observed_us: list[int]
) -> set[tuple[int, int]]:
    """Remember the content of untimed readings; return the (vehicle, digest) pairs that were new."""
    rows = await db.fetch(_REMEMBER_UNTIMED, kind, vehicles, digests, observed_us)
    return {(row["vehicle_id"], row["digest"]) for row in rows}


_UNIQUE_VIOLATION: Final = "23505"


async def copy_reports(db: Connection, reports: Rows, fuel_cells: Rows, *, final: bool) -> bool:
    """Store report rows with their fuel-cell rows; False, and nothing stored, when one is already there.

    With `final` set a row that is there is another worker's of this very moment: WaitableError.
    """
    try:
        async with db.transaction():  # a savepoint: the batch goes on without these rows
            await _copy(db, REPORT_LAYOUT, reports)
            await _copy(db, FUEL_CELL_LAYOUT, fuel_cells)
    except PostgresError as error:
        if sqlstate_of(error) != _UNIQUE_VIOLATION:
            raise
        if final:
            raise WaitableError("another worker is storing the same readings", 0.1) from error
        return False
    return True


async def _copy(db: Connection, layout: CopyLayout, rows: Rows) -> None:
    if len(rows):
        await copy_packed(db, layout.table, layout.columns, pack(layout, rows))


_PARTITION_WEEK_US: Final = 7 * 86_400_000_000
_MONDAY_US: Final = 4 * 86_400_000_000  # 1970-01-05


def weeks_of(observed_us: NDArray[np.int64]) -> set[int]:
    """Return the numbers of the seven-day partitions that hold these times."""
    return set(np.unique((observed_us - _MONDAY_US) // _PARTITION_WEEK_US).tolist())


async def ensure_partitions(db: Connection, weeks: Iterable[int]) -> None:
    """Make the partitions of these weeks where the server needs partitions made."""
    starts = [week * _PARTITION_WEEK_US + _MONDAY_US for week in weeks]
    moments = f"SELECT {EPOCH} + us * interval '1 microsecond' FROM unnest($1::bigint[]) us"  # noqa: S608
    await db.execute(f"SELECT ensure_partitions(ARRAY({moments}))", starts)


_SESSION: Final = f"""
INSERT INTO session_event
    (vehicle_id, kind, observed_at, part, received_at, source_id, time_source, flags, digest, iccid)
VALUES ($1, $2, {EPOCH} + $3::bigint * interval '1 microsecond', $4,
        {EPOCH} + $5::bigint * interval '1 microsecond', $6, $7, $8, $9, $10)
ON CONFLICT (vehicle_id, kind, observed_at, part) DO NOTHING RETURNING digest
"""  # noqa: S608 - a constant of this module
_SESSION_DIGEST: Final = f"""
SELECT digest FROM session_event WHERE vehicle_id = $1 AND kind = $2
  AND observed_at = {EPOCH} + $3::bigint * interval '1 microsecond' AND part = $4
"""  # noqa: S608 - a constant of this module
_PACK: Final = f"""
INSERT INTO pack_observation (vehicle_id, observed_at, part, subsystem, code)
VALUES ($1, {EPOCH} + $2::bigint * interval '1 microsecond', $3, $4, $5) ON CONFLICT DO NOTHING
"""  # noqa: S608 - a constant of this module


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A login or logout ready to store."""

    event: SessionEvent
    vehicle_id: int
    observed_at: int
    received_at: int
    time_source: int
    flags: int
    source_id: int


async def store_session(db: Connection, row: SessionRow) -> str:
    """Store a login or logout with its pack codes; return stored, duplicate or conflicting."""
    event = row.event
    key = (row.vehicle_id, event.kind, row.observed_at, event.sequence)
    provenance = (
        row.received_at,
        row.source_id,
        row.time_source,
        row.flags,
        event.digest,
        event.iccid or None,
    )
    if await db.fetchrow(_SESSION, *key, *provenance) is None:
        return "duplicate" if await db.fetchval(_SESSION_DIGEST, *key) == event.digest else "conflicting"
    packs = [(row.vehicle_id, row.observed_at, event.sequence, no, code) for no, code in event.pack_codes]
    await db.executemany(_PACK, packs)
    return "stored"


_DEAD: Final = f"""
INSERT INTO dead_letter (cluster, topic, partition, "offset", frame, outcome, protocol, reason, detail,
    byte_offset, vehicle_id, observed_at, raw, received_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, {EPOCH} + $12::bigint * interval '1 microsecond', $13,
    {EPOCH} + $14::bigint * interval '1 microsecond')
ON CONFLICT (cluster, topic, partition, "offset", frame) DO NOTHING
"""  # noqa: S608 - a constant of this module


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Original bytes with place and reason."""

    place: Place
    offset: int
    frame: int
    outcome: str
    protocol: str
    reason: str
    detail: str
    byte_offset: int | None
    vehicle_id: int | None
    observed_at: int | None
    raw: bytes
    received_at: int


async def bury(db: Connection, letters: Sequence[DeadLetter]) -> None:
    """Keep what was refused, decoded in part, or contradicts what is stored."""
    rows = [
        (
            letter.place.cluster,
            letter.place.topic,
            letter.place.partition,
            letter.offset,
            letter.frame,
            letter.outcome,
            letter.protocol,
            letter.reason,
            letter.detail.replace("\x00", "\\x00"),
            letter.byte_offset,
            letter.vehicle_id,
            letter.observed_at,
            letter.raw,
            letter.received_at,
        )
        for letter in letters
    ]
    await db.executemany(_DEAD, rows)


_LEDGER: Final = """
INSERT INTO ingest_batch (cluster, topic, partition, protocol, first_offset, next_offset,
    sent, stored, partial, duplicate, conflicting, control, rejected)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""


async def enter_ledger(db: Connection, entries: Sequence[tuple[Any, ...]]) -> None:
    """Write the accounting of this transaction, one row per partition and protocol."""
    await db.executemany(_LEDGER, entries)


async def mark_dirty(db: Connection, vehicles: list[int], hours: list[int]) -> None:
    """Mark (vehicle, hour) buckets as changed by this transaction."""
    await db.execute("INSERT INTO dirty_mark (vehicle_ids, hours) VALUES ($1, $2)", vehicles, hours)


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


_ONCE_PLAUSIBLE: Final = """
SELECT v FROM unnest($1::int[]) AS v WHERE EXISTS (
    SELECT FROM report r WHERE r.vehicle_id = v
      AND r.pack_voltage_v >= 60 AND r.insulation_kohm * 1000 >= 500 * r.pack_voltage_v)
"""


async def insulation_once_plausible(db: Connection, vehicles: Sequence[int]) -> list[int]:
    """Return those vehicles that have reported at least 500 Ω per volt of insulation at high voltage."""
    return [row["v"] for row in await db.fetch(_ONCE_PLAUSIBLE, list(vehicles))]


async def load_rule_states(db: Connection) -> dict[int, Any]:
    """Return the stored safety state of every vehicle that has any."""
    rows = await db.fetch("SELECT vehicle_id, state FROM rule_state")
    return {row["vehicle_id"]: row["state"] for row in rows}


async def save_rule_states(
    db: Connection, changed: Sequence[tuple[int, int, Any]], gone: Sequence[int]
) -> None:
    """Write changed states (vehicle, judged until in µs, state) and forget vehicles whose state is empty."""
    await db.executemany(
        "INSERT INTO rule_state (vehicle_id, judged_until, state) "  # noqa: S608 - a constant of this module
        f"VALUES ($1, {EPOCH} + $2::bigint * interval '1 microsecond', $3::jsonb) "
        "ON CONFLICT (vehicle_id) DO UPDATE SET judged_until = excluded.judged_until, state = excluded.state",
        changed,
    )
    if gone:
        await db.execute("DELETE FROM rule_state WHERE vehicle_id = ANY($1)", list(gone))

"""Where each partition goes on, and who may write it: take over, fence, halt, hand back.

`fence()` comes first in a batch's transaction: it moves the offsets on and fails when another worker has
raised the epoch, so nothing of a fenced batch is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telltale.errors import FencedError, SettingsError
from telltale.store.pool import Connection, connect


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
    suspected: bool = False  # a record behind these may kill the worker: its deaths stay counted


_TERMINATE: Final = """
SELECT pg_terminate_backend(o.backend_pid, 2000)
FROM ingest_offset o JOIN pg_stat_activity a ON a.pid = o.backend_pid AND a.backend_start = o.backend_start
WHERE o.cluster = $1 AND o.topic = $2 AND o.partition = ANY($3) AND o.backend_pid <> pg_backend_pid()
  AND a.usename = current_user AND o.worker NOT IN ('', $4)  -- who left in order keeps its connection
"""
_REGISTER: Final = """
INSERT INTO ingest_offset (cluster, topic, partition) SELECT $1, $2, unnest($3::int[]) ON CONFLICT DO NOTHING
"""
# An unclean predecessor left its name; when the offset has not moved since it took over, that is one attempt.
_TAKE_OVER: Final = """
UPDATE ingest_offset SET epoch = epoch + 1,
    attempts = CASE WHEN worker = '' THEN 0
                    WHEN assigned_offset = next_offset OR attempts > 0 THEN attempts + 1 ELSE 0 END,
    assigned_offset = next_offset, worker = $4, backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
    updated_at = now()
WHERE cluster = $1 AND topic = $2 AND partition = ANY($3)
RETURNING partition, epoch, next_offset, attempts, suspect_offset, suspect_tries, halt_reason,
    allow_until_offset
"""
_RELEASE: Final = """
UPDATE ingest_offset SET worker = '', backend_pid = NULL, attempts = 0, suspect_offset = NULL,
    suspect_tries = 0, updated_at = now()
WHERE cluster = $1 AND topic = $2 AND partition = $3 AND epoch = $4
"""
_ADOPT: Final = """
UPDATE ingest_offset SET backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
WHERE cluster = $1 AND topic = $2 AND partition = $3 AND epoch = $4
"""
_FENCE: Final = """
UPDATE ingest_offset o SET next_offset = n.next_offset, suspect_offset = NULL, suspect_tries = 0,
    attempts = CASE WHEN n.suspected THEN attempts ELSE 0 END, last_timestamp_ms = n.timestamp_ms,
    updated_at = now()
FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bool[])
    AS n(cluster, topic, partition, epoch, expected_offset, next_offset, timestamp_ms, suspected)
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
    await db.execute(_TERMINATE, cluster, topic, parts, worker)
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
                s.suspected,
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
    known = "SELECT EXISTS (SELECT FROM ingest_offset WHERE topic = $1 AND partition = $2)"
    try:
        rows = await resume(db, topic, partition, records)
        is_known = bool(rows) or await db.fetchval(known, topic, partition)
    finally:
        await db.close()
    if not is_known:
        raise SettingsError(
            f"resume: no worker has ever read {topic}[{partition}] into this database: are topic and "
            "partition right? `telltale doctor` lists what is halted"
        )
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

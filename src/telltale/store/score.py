"""The work of `score`: leases on shards of vehicles, dirty hours, and the rows to fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from telltale.errors import FencedError
from telltale.fold.frames import HOUR_US, SIGNALS
from telltale.records import CELL, Ragged, Rows
from telltale.store.pool import Connection, Pool
from telltale.store.times import moment

POSTGRES_EPOCH_US: Final = 946_684_800_000_000


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for the vehicles of one shard, as long as the epoch stands."""

    shard: int
    shards: int
    holder: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """A vehicle hour that has rows not folded yet."""

    vehicle_id: int
    hour: int
    marked_at: datetime


async def claim(pool: Pool, holder: str, ttl_s: float) -> list[Lease]:
    """Return the shards this worker holds now: its fair share of all, given who else is alive.

    Takes free and expired shards, renews its own, hands back what is more than its share. Changes of holder
    raise the epoch, so that whoever held the shard before is fenced.
    """
    async with pool.acquire() as db, db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock(hashtext('telltale.score_shard'))")
        await db.execute(
            "INSERT INTO score_worker VALUES ($1, now()) ON CONFLICT (holder) DO UPDATE SET seen_at = now()",
            holder,
        )
        ttl = timedelta(seconds=ttl_s)
        await db.execute("DELETE FROM score_worker WHERE seen_at < now() - $1::interval", ttl)
        shards: int = await db.fetchval("SELECT count(*) FROM score_shard")
        workers: int = await db.fetchval("SELECT count(*) FROM score_worker")
        share = -(-shards // workers)
        held = await db.fetch(_CLAIM, holder, ttl, share)
        return [Lease(row["shard"], shards, holder, row["epoch"]) for row in held]


_CLAIM: Final = """
WITH candidate AS (
    SELECT shard, holder = $1 AS mine, row_number() OVER (ORDER BY (holder = $1) DESC, shard) AS place
    FROM score_shard WHERE holder = $1 OR expires_at < now()
), released AS (
    UPDATE score_shard s SET holder = '', expires_at = '-infinity'
    FROM candidate c WHERE s.shard = c.shard AND c.mine AND c.place > $3
)
UPDATE score_shard s SET holder = $1, expires_at = now() + $2::interval,
    epoch = s.epoch + CASE WHEN c.mine THEN 0 ELSE 1 END
FROM candidate c WHERE s.shard = c.shard AND c.place <= $3
RETURNING s.shard, s.epoch
"""


async def release(pool: Pool, holder: str) -> None:
    """Hand all shards back, so that another worker need not wait for the leases to run out."""
    async with pool.acquire() as db:
        await db.execute(
            "UPDATE score_shard SET holder = '', expires_at = '-infinity' WHERE holder = $1", holder
        )
        await db.execute("DELETE FROM score_worker WHERE holder = $1", holder)


async def fence(db: Connection, lease: Lease, ttl_s: float) -> None:
    """Hold the shard to the end of this transaction and renew it; raises FencedError when it is lost."""
    kept = await db.fetchval(
        "UPDATE score_shard SET expires_at = now() + $4::interval "
        "WHERE shard = $1 AND holder = $2 AND epoch = $3 RETURNING shard",
        lease.shard,
        lease.holder,
        lease.epoch,
        timedelta(seconds=ttl_s),
    )
    if kept is None:
        raise FencedError(
            f"score: shard {lease.shard}: expected to hold it at epoch {lease.epoch}, another worker has it"
        )


async def take_marks(db: Connection, lease: Lease, limit: int) -> int:
    """Move dirty marks of this shard's vehicles to dirty_bucket and the shard's cursor over them.

    Only marks older than every transaction still running are taken, in commit-safe order: none is overtaken.
    """
    taken: int = await db.fetchval(_TAKE_MARKS, lease.shard, lease.shards, limit)
    return taken


_TAKE_MARKS: Final = """
WITH next AS MATERIALIZED (
    SELECT m.txid, m.id, m.marked_at, m.vehicle_ids, m.hours
    FROM dirty_mark m, score_shard s
    WHERE s.shard = $1 AND m.txid >= s.mark_txid AND (m.txid, m.id) > (s.mark_txid, s.mark_id)
      AND m.txid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY m.txid, m.id LIMIT $3
), put AS (
    INSERT INTO dirty_bucket (vehicle_id, hour, first_marked, last_marked)
    SELECT b.vehicle_id, b.hour, min(n.marked_at), max(n.marked_at)
    FROM next n, unnest(n.vehicle_ids, n.hours) AS b(vehicle_id, hour)
    WHERE b.vehicle_id % $2 = $1
    GROUP BY b.vehicle_id, b.hour
    ON CONFLICT (vehicle_id, hour) DO UPDATE SET last_marked = excluded.last_marked
), moved AS (
    UPDATE score_shard s SET mark_txid = n.txid, mark_id = n.id
    FROM (SELECT txid, id FROM next ORDER BY txid DESC, id DESC LIMIT 1) n WHERE s.shard = $1
)
SELECT count(*) FROM next
"""


async def forget_marks(pool: Pool) -> None:
    """Delete the dirty marks that every shard has taken."""
    async with pool.acquire() as db:
        await db.execute(
            "DELETE FROM dirty_mark m USING "
            "(SELECT mark_txid, mark_id FROM score_shard ORDER BY mark_txid, mark_id LIMIT 1) c "
            "WHERE (m.txid, m.id) <= (c.mark_txid, c.mark_id)"
        )


async def ripe_buckets(
    db: Connection, lease: Lease, *, quiet_s: float, longest_wait_s: float, vehicles: int, limit: int
) -> list[Bucket]:
    """Return dirty hours to fold now, of the vehicles that have waited longest.

    An hour is ripe when it is over, and no mark came for `quiet_s` or the first came `longest_wait_s` ago:
    so a row is read back about once.
    """
    quiet, wait = timedelta(seconds=quiet_s), timedelta(seconds=longest_wait_s)
    found = await db.fetch(_RIPE, lease.shard, lease.shards, quiet, wait, vehicles, limit)
    return [Bucket(row["vehicle_id"], row["hour"], row["last_marked"]) for row in found]


_RIPE: Final = """
WITH ripe AS MATERIALIZED (
    SELECT vehicle_id, hour, first_marked, last_marked FROM dirty_bucket
    WHERE vehicle_id % $2 = $1 AND to_timestamp((hour + 1) * 3600::bigint) <= now()
      AND (last_marked <= now() - $3::interval OR first_marked <= now() - $4::interval)
), chosen AS (
    SELECT vehicle_id FROM ripe GROUP BY vehicle_id ORDER BY min(first_marked), vehicle_id LIMIT $5
)
SELECT vehicle_id, hour, last_marked FROM ripe JOIN chosen USING (vehicle_id)
ORDER BY vehicle_id, hour LIMIT $6
"""

# One record a vehicle hour: fixed-width fields of all its rows back to back, and their cells.
_FIXED: Final = np.dtype(
    [
        ("observed_at", ">i8"),
        ("part", ">i4"),
        ("flags", ">i4"),
        ("time_source", ">i2"),
        ("charging_state", ">i2"),
    ]
    + [(signal.name, ">f4") for signal in SIGNALS]
    + [("cell_bytes", ">i4")]
)
_NATIVE: Final = np.dtype([(name, _FIXED[name].newbyteorder("=")) for name in _FIXED.names or ()])
_FLOATS: Final = " || ".join(f"float4send(coalesce(r.{signal.name}, 'NaN'))" for signal in SIGNALS)
_READ: Final = f"""
SELECT b.vehicle_id, b.hour,
       string_agg(timestamptz_send(r.observed_at) || int4send(r.part) || int4send(r.flags)
                  || int2send(r.time_source) || int2send(coalesce(r.charging_state, '-32768'::smallint))
                  || {_FLOATS} || int4send(coalesce(length(r.cells_mv), 0)), ''::bytea) AS fixed,
       string_agg(coalesce(r.cells_mv, ''), ''::bytea) AS cells
FROM unnest($1::integer[], $2::integer[]) AS b(vehicle_id, hour)
JOIN report r ON r.vehicle_id = b.vehicle_id
  AND r.observed_at >= to_timestamp(b.hour * 3600::bigint)
  AND r.observed_at < to_timestamp((b.hour + 1) * 3600::bigint)
WHERE r.observed_at >= $3 AND r.observed_at < $4
GROUP BY b.vehicle_id, b.hour
"""  # noqa: S608 - column names of this module


async def read_rows(db: Connection, buckets: Sequence[Bucket]) -> dict[tuple[int, int], Rows]:
    """Return the stored rows of these vehicle hours as `frames_of` needs them, if there are any."""
    if not buckets:
        return {}
    hours = [bucket.hour for bucket in buckets]
    bounds = (moment(min(hours) * HOUR_US), moment((max(hours) + 1) * HOUR_US))
    found = await db.fetch(_READ, [bucket.vehicle_id for bucket in buckets], hours, *bounds)
    return {(row["vehicle_id"], row["hour"]): _rows(row["fixed"], row["cells"]) for row in found}


def _rows(fixed: bytes, cells: bytes) -> Rows:
    columns = np.frombuffer(fixed, _FIXED).astype(_NATIVE)
    columns["observed_at"] += POSTGRES_EPOCH_US
    lengths = columns["cell_bytes"].astype(np.int64) // CELL.itemsize
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Rows(columns, {"cells_mv": Ragged(np.frombuffer(cells, CELL), offsets)})


async def folded(db: Connection, buckets: Iterable[Bucket]) -> None:
    """Take these hours off the list of what waits."""
    await db.executemany(
        "DELETE FROM dirty_bucket WHERE vehicle_id = $1 AND hour = $2",
        [(bucket.vehicle_id, bucket.hour) for bucket in buckets],
    )

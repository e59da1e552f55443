"""What became of a batch: evidence, accounting, and which hours of which vehicles have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from telltale.store.offsets import Place
from telltale.store.pool import Connection
from telltale.store.readings import EPOCH

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


def _storable(text: str) -> str:
    """Return a text that the database takes: no NUL, no half of a surrogate pair."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


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
            _storable(letter.detail),
            letter.byte_offset,
            letter.vehicle_id,
            letter.observed_at,
            letter.raw,
            letter.received_at,
        )
        for letter in letters
    ]
    if rows:
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

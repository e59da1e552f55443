"""Readings of a batch: who sent them, which are known already, and the rows that are new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.errors import WaitableError
from telltale.records import Array, Rows, SessionEvent, Source, TimeSource
from telltale.store.copy import FUEL_CELL_LAYOUT, REPORT_LAYOUT, CopyLayout, copy_packed, pack
from telltale.store.pool import Connection, PostgresError, sqlstate_of

EPOCH: Final = "'1970-01-01T00:00:00Z'::timestamptz"


async def register_vehicles(db: Connection, vins: Sequence[tuple[str, bool]]) -> dict[str, int]:
    """Register unknown vehicles (VIN, well-formed) and return the id of each VIN. Never drops one."""
    ids = await _vehicle_ids(db, [vin for vin, _ in vins])
    # Who is known is not offered again: each row offered takes an id, in the way of another or not.
    if new := [pair for pair in vins if pair[0] not in ids]:
        await db.execute(
            "INSERT INTO vehicle (vin, vin_valid) SELECT * FROM unnest($1::text[], $2::bool[]) ORDER BY 1 "
            "ON CONFLICT (vin) DO NOTHING",
            [vin for vin, _ in new],
            [valid for _, valid in new],
        )
        ids |= await _vehicle_ids(db, [vin for vin, _ in new])
    return ids


async def _vehicle_ids(db: Connection, vins: Sequence[str]) -> dict[str, int]:
    rows = await db.fetch("SELECT vin, id FROM vehicle WHERE vin = ANY($1)", vins)
    return {row["vin"]: row["id"] for row in rows}


async def register_sources(
    db: Connection, sources: Sequence[tuple[Source, str]]
) -> dict[tuple[Source, str], int]:
    """Register (source, gateway) pairs and return their ids, of which there are 32,767 for ever."""
    ids = await _source_ids(db, sources)
    if new := [pair for pair in sources if pair not in ids]:  # each row offered takes an id
        await db.execute(
            "INSERT INTO source (protocol, edition, command, gateway) SELECT * FROM "
            "unnest($1::text[], $2::smallint[], $3::smallint[], $4::text[]) ON CONFLICT DO NOTHING",
            *_source_columns(new),
        )
        ids |= await _source_ids(db, new)
    return ids


def _source_columns(sources: Sequence[tuple[Source, str]]) -> tuple[list[str] | list[int], ...]:
    return (
        [s.protocol for s, _ in sources],
        [s.edition for s, _ in sources],
        [s.command for s, _ in sources],
        [gateway for _, gateway in sources],
    )


async def _source_ids(db: Connection, sources: Sequence[tuple[Source, str]]) -> dict[tuple[Source, str], int]:
    rows = await db.fetch(
        "SELECT id, protocol, edition, command, gateway FROM source "
        "WHERE (protocol, edition, command, gateway) IN "
        "(SELECT * FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::text[]))",
        *_source_columns(sources),
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


@dataclass(frozen=True, slots=True)
class PackedReports:
    """Report rows and their fuel-cell rows as COPY takes them; empty where there are none."""

    reports: bytes
    fuel_cells: bytes


def pack_reports(reports: Rows, fuel_cells: Rows) -> PackedReports:
    """Pack report rows with their fuel-cell rows. No database: safe in a thread."""
    packed = [
        pack(layout, rows) if len(rows) else b""
        for layout, rows in ((REPORT_LAYOUT, reports), (FUEL_CELL_LAYOUT, fuel_cells))
    ]
    return PackedReports(*packed)


async def copy_reports(db: Connection, packed: PackedReports, *, final: bool) -> bool:
    """Store packed rows; False, and nothing stored, when one of them is already there.

    With `final` set a row that is there is another worker's of this very moment: WaitableError.
    """
    if not packed.reports:
        return True
    try:
        async with db.transaction():  # a savepoint: the batch goes on without these rows
            await _copy(db, REPORT_LAYOUT, packed.reports)
            await _copy(db, FUEL_CELL_LAYOUT, packed.fuel_cells)
    except PostgresError as error:
        if sqlstate_of(error) != _UNIQUE_VIOLATION:
            raise
        if final:
            raise WaitableError("another worker is storing the same readings", 0.1) from error
        return False
    return True


async def _copy(db: Connection, layout: CopyLayout, data: bytes) -> None:
    if data:
        await copy_packed(db, layout.table, layout.columns, data)


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
    part: int  # its sequence number; of one whose time stands in, its content
    observed_at: int
    received_at: int
    time_source: int
    flags: int
    source_id: int


async def store_session(db: Connection, row: SessionRow) -> str:
    """Store a login or logout with its pack codes; return stored, duplicate or conflicting."""
    event = row.event
    key = (row.vehicle_id, event.kind, row.observed_at, row.part)
    if row.time_source == TimeSource.RECEIVED and not await remember_untimed(
        db, event.kind, [row.vehicle_id], [event.digest], [row.observed_at]
    ):
        return "duplicate"
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
    packs = [(row.vehicle_id, row.observed_at, row.part, no, code) for no, code in event.pack_codes]
    await db.executemany(_PACK, packs)
    return "stored"

"""What is no plain realtime report: sessions, control frames, JSON, fuel cells, broken bodies, clocks."""

import json
from pathlib import Path
from typing import Any

import asyncpg
from tests.ingest.reports import HEADERS, NOON_US, VINS, frames
from tests.ingest.running import accounted, ingesting, send

from telltale.broker import Producer
from telltale.config import Settings
from telltale.decode.gbt32960.encode import encode_frame, encode_login, encode_logout
from telltale.records import Flag, TimeSource

VIN = VINS[0].decode()
PUBLIC = Path(__file__).parents[1] / "frames" / "public.jsonl"


def vector(name: str) -> bytes:
    lines = map(json.loads, PUBLIC.read_text().splitlines())
    return next(bytes.fromhex(line["hex"]) for line in lines if line["id"] == name)


async def stored(db: asyncpg.Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.fetch(query)]


async def test_logins_keep_pack_codes_as_observations_and_heartbeats_are_control(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    day = 86_400_000_000
    login = encode_login(VIN, NOON_US, 7, "898600", ["PACK-A", "PACK-B"])
    swapped = encode_login(VIN, NOON_US + day, 8, "898600", ["PACK-C", ""])
    values = [
        login,
        encode_logout(VIN, NOON_US + 1_000_000, 7),
        encode_frame(VIN, 0x07, b""),
        encode_frame(VIN, 0x02, login[24:30], answer=0x01),
        swapped,
    ]
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, [(VINS[0], value) for value in [*values, login]])
        sums = await accounted(db, 6, worker)
    assert sums == {"sent": 6, "stored": 3, "duplicate": 1, "control": 2}
    assert await stored(db, "SELECT kind, part, iccid FROM telltale.session_event ORDER BY observed_at") == [
        ("login", 7, "898600"),
        ("logout", 7, None),
        ("login", 8, "898600"),
    ]
    assert await stored(
        db,
        "SELECT subsystem, code, valid_to IS NULL FROM telltale.pack_assignment ORDER BY 1, valid_from",
    ) == [(1, "PACK-A", False), (1, "PACK-C", True), (2, "PACK-B", True)]


async def test_json_readings_share_the_table_and_one_bad_reading_leaves_the_others(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    good = {"vin": VIN, "observed_at": "2026-03-14T12:00:00+08:00", "soc_pct": 61.5, "cells_v": [3.7, None]}
    value = json.dumps([good, {"vin": VIN}, good | {"observed_at": NOON_US + 1_000_000}]).encode()
    async with ingesting(settings) as worker:
        async with Producer(kafka) as producer:
            headers = [("protocol", b"json"), *HEADERS[1:]]
            await producer.send_many(settings.live_topic, [(VINS[0], value, headers, None)] * 2)
        sums = await accounted(db, 6, worker)
    assert sums == {"sent": 6, "stored": 2, "duplicate": 2, "rejected": 2}
    assert await stored(db, "SELECT soc_pct, telltale.cells_v(cells_mv)::text FROM telltale.report") == [
        (61.5, "{3.7,NULL}"),
        (61.5, "{3.7,NULL}"),
    ]


async def test_a_fuel_cell_section_stands_beside_its_report_once(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    frame = vector("gbt16-fuelcell")
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, [(VINS[0], frame), (VINS[0], frame)])
        sums = await accounted(db, 2, worker)
    assert sums == {"sent": 2, "stored": 1, "duplicate": 1}
    assert await db.fetchval(
        "SELECT count(*) FROM telltale.fuel_cell_report f "
        "JOIN telltale.report r USING (vehicle_id, observed_at, part) WHERE f.stack_voltage_v > 0"
    )


async def test_a_body_that_breaks_off_is_stored_as_far_as_it_goes_and_its_bytes_are_kept(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    whole = frames(1)[0][1]
    broken = encode_frame(VIN, 0x02, whole[24:-1] + b"\x7f\x01\x02")
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, [(VINS[0], broken), (VINS[0], broken)])
        sums = await accounted(db, 2, worker)
    assert sums == {"sent": 2, "partial": 1, "duplicate": 1}
    assert await stored(db, "SELECT outcome, reason, raw FROM telltale.dead_letter") == [
        ("partial", "UNKNOWN_INFO_TYPE", broken)
    ]
    flags = await db.fetchval("SELECT flags FROM telltale.report WHERE speed_kmh = 50")
    assert flags & Flag.PARTIAL


async def test_an_impossible_clock_loses_no_frame_and_a_resend_is_still_a_copy(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    whole = frames(1)[0][1]
    undated = [
        encode_frame(VIN, 0x02, bytes([26, 13, 40, 0, 0, 0]) + whole[30:-1]),
        encode_frame(VIN, 0x02, bytes([99, 1, 1, 0, 0, 0]) + whole[30:-1]),
    ]
    async with ingesting(settings) as worker:
        for _ in range(2):
            await send(kafka, settings.live_topic, [(VINS[0], value) for value in undated])
        sums = await accounted(db, 4, worker)
    assert sums == {"sent": 4, "stored": 2, "duplicate": 2}
    rows = await db.fetch(
        "SELECT time_source, flags, observed_at = received_at AS stands_in FROM telltale.report"
    )
    assert all(row["time_source"] == TimeSource.RECEIVED and row["stands_in"] for row in rows)
    assert {row["flags"] & (Flag.TIME_INVALID | Flag.TIME_FUTURE) for row in rows} == {
        Flag.TIME_INVALID,
        Flag.TIME_FUTURE,
    }


async def test_both_editions_of_one_vehicle_are_stored_side_by_side(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    values = [
        vector("gbt16-vehicle-basic"),
        vector("gbt25-vehicle-motor-position"),
        vector("gbt25-cells-temps-alarm"),
    ]
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, [(VINS[0], value) for value in values])
        sums = await accounted(db, 3, worker)
    assert sums["sent"] == 3
    assert sums.get("rejected", 0) == 0
    editions = (
        "SELECT DISTINCT s.edition FROM telltale.report r "
        "JOIN telltale.source s ON s.id = r.source_id ORDER BY 1"
    )
    assert await stored(db, editions) == [(2016,), (2025,)]

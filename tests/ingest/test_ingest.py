"""The ingest worker against a real broker and a real database."""

import asyncio

import asyncpg
import pytest
from tests.ingest.reports import VINS, frames
from tests.ingest.running import accounted, ingesting, send

from telltale.config import Settings
from telltale.errors import SettingsError
from telltale.store import offsets
from telltale.store.doctor import examine


async def test_every_frame_sent_is_stored_once(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    await send(kafka, settings.live_topic, frames(3000))
    async with ingesting(settings) as worker:
        assert await accounted(db, 3000, worker) == {"sent": 3000, "stored": 3000}
    assert await db.fetchval("SELECT count(*) FROM telltale.report") == 3000
    assert await db.fetchval("SELECT count(*) FROM telltale.vehicle") == 3
    row = await db.fetchrow(
        "SELECT speed_kmh, pack_current_a, telltale.cells_v(cells_mv) AS cells FROM telltale.report "
        "ORDER BY observed_at LIMIT 1"
    )
    assert (row["speed_kmh"], row["pack_current_a"]) == (50.0, -10.0)
    assert row["cells"] == pytest.approx([3.7 + i / 1000 for i in (0, 1, 2, 3, 4, 5, 6, 0)])


async def test_the_same_data_again_in_any_order_and_topic_changes_no_count(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    live = frames(600)
    again = frames(600, command=3)
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, live)
        await accounted(db, 600, worker)
        await send(kafka, settings.backlog_topic, again[::-1])
        await send(kafka, settings.live_topic, [(b"another key", value) for _, value in live])
        sums = await accounted(db, 1800, worker)
    assert sums == {"sent": 1800, "stored": 600, "duplicate": 1200}
    assert await db.fetchval("SELECT count(*) FROM telltale.report") == 600


async def test_other_content_under_the_same_identity_is_kept_as_evidence(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    first, second = frames(3), frames(3, speed_kmh=51.0)
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, first)
        await accounted(db, 3, worker)
        await send(kafka, settings.live_topic, [(key, value + first[0][1]) for key, value in second[:1]])
        sums = await accounted(db, 5, worker)
    assert sums == {"sent": 5, "stored": 3, "duplicate": 1, "conflicting": 1}
    letter = await db.fetchrow("SELECT outcome, raw, frame FROM telltale.dead_letter")
    assert tuple(letter) == ("conflicting", second[0][1], 0)
    assert await db.fetchval("SELECT max(speed_kmh) FROM telltale.report") == 50.0


async def test_one_bad_frame_is_kept_with_its_place_and_the_rest_goes_on(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    good = frames(50)
    bad = bytearray(good[7][1])
    bad[40] ^= 0xFF
    async with ingesting(settings) as worker:
        await send(
            kafka, settings.live_topic, [*good[:7], (VINS[1], bytes(bad)), (VINS[0], b"\x00\x01"), *good[8:]]
        )
        sums = await accounted(db, 51, worker)
    assert sums == {"sent": 51, "stored": 49, "rejected": 2}
    rows = await db.fetch("SELECT reason, raw, topic FROM telltale.dead_letter ORDER BY reason")
    assert [tuple(row) for row in rows] == [
        ("BAD_START", b"\x00\x01", settings.live_topic),
        ("BCC_MISMATCH", bytes(bad), settings.live_topic),
    ]


async def test_a_stream_of_mostly_bad_frames_halts_until_an_operator_says_go_on(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    await send(kafka, settings.live_topic, [(VINS[0], b"garbage" * 5)] * 400)
    async with ingesting(settings) as worker:
        for _ in range(200):
            reason = await db.fetchval(
                "SELECT halt_reason FROM telltale.ingest_offset WHERE halted_at IS NOT NULL"
            )
            if reason:
                break
            await asyncio.sleep(0.05)
        assert "telltale resume" in reason
        found = {
            item.value.split(" since")[0]: item.next_step
            for item in await examine(settings.database, timeout_s=5)
        }
        assert found["halted"] == reason
        assert await db.fetchval("SELECT count(*) FROM telltale.dead_letter") < 200
        partition = await db.fetchval(
            "SELECT partition FROM telltale.ingest_offset WHERE halted_at IS NOT NULL"
        )
        await offsets.resume_partition(settings.database, settings.live_topic, partition, 10_000)
        assert await accounted(db, 400, worker) == {"sent": 400, "rejected": 400}


async def test_a_worker_takes_up_where_the_last_one_committed(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    messages = frames(900)
    for third in (messages[:300], messages[300:600], messages[600:]):
        await send(kafka, settings.live_topic, third)
        async with ingesting(settings) as worker:
            done = await db.fetchval("SELECT count(*) FROM telltale.report")
            await accounted(db, done + 300, worker)
    assert await accounted(db, 900, worker) == {"sent": 900, "stored": 900}


async def test_a_worker_whose_epoch_was_raised_writes_nothing(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, frames(30))
        await accounted(db, 30, worker)
        await db.execute("UPDATE telltale.ingest_offset SET epoch = epoch + 1")
        await send(kafka, settings.live_topic, frames(90)[30:])
        await asyncio.sleep(1.0)
        assert await db.fetchval("SELECT count(*) FROM telltale.report") == 30


async def test_resuming_a_partition_nobody_has_read_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"nosuch\[7\]"):
        await offsets.resume_partition(settings.database, "nosuch", 7, 100)

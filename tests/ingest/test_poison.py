"""Records that the database refuses, transactions that fail half way, and what memory keeps of them."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import numpy as np
import pytest
from tests.ingest.reports import HEADERS, NOON_US, VINS, frames
from tests.ingest.running import accounted, ingesting, send
from tests.servers.postgres import DatabaseUrls
from tests.test_intake import Record

from telltale.broker import Producer
from telltale.config import Settings
from telltale.decode.gbt32960.encode import encode_login
from telltale.ingest import prepare
from telltale.ingest.loop import Worker
from telltale.records import Source
from telltale.store import offsets, readings, safety
from telltale.store.pool import connect

Topics = Callable[..., Awaitable[tuple[str, str]]]
REFUSE = """
CREATE FUNCTION telltale.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {condition} THEN RAISE EXCEPTION 'refused by a test' USING ERRCODE = '{state}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON telltale.{table} FOR EACH ROW EXECUTE FUNCTION telltale.refuse();
"""


@pytest.fixture
async def settings(kafka: str, topics: Topics, database_urls: DatabaseUrls) -> Settings:
    live, backlog = await topics(1)
    return Settings(
        kafka=kafka,
        database=database_urls.ingest,
        live_topic=live,
        backlog_topic=backlog,
        consumer_group=f"group-{live}",
        session_timeout_s=6,
    )


async def refuse(db: asyncpg.Connection, table: str, condition: str, state: str) -> None:
    await db.execute(REFUSE.format(table=table, condition=condition, state=state))


async def refuse_once(db: asyncpg.Connection, table: str) -> None:
    """Let the first insert fail as a deadlock would; a sequence is not rolled back."""
    await db.execute("CREATE SEQUENCE telltale.refusals; GRANT USAGE ON SEQUENCE telltale.refusals TO PUBLIC")
    await refuse(db, table, "nextval('telltale.refusals') = 1", "40P01")


async def test_a_record_that_the_database_refuses_is_set_aside_and_the_rest_is_stored(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    await refuse(db, "report", "NEW.speed_kmh = 66", "22003")
    good, bad = frames(40), frames(41, speed_kmh=66.0)[40]
    await send(kafka, settings.live_topic, [*good[:17], bad, *good[17:]])
    async with ingesting(settings) as worker:
        assert await accounted(db, 41, worker) == {"sent": 41, "stored": 40, "rejected": 1}
    letter = await db.fetchrow('SELECT reason, raw, "offset" FROM telltale.dead_letter')
    assert tuple(letter) == ("NOT_STORABLE", bad[1], 17)


async def test_a_stream_that_the_database_refuses_whole_halts_and_is_not_drained(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    await refuse(db, "report", "true", "22003")
    await send(kafka, settings.live_topic, frames(400))
    async with ingesting(settings) as worker:
        with pytest.raises(AssertionError, match="only"):
            await accounted(db, 400, worker)
        assert "NOT_STORABLE" in await db.fetchval(
            "SELECT halt_reason FROM telltale.ingest_offset WHERE halted_at IS NOT NULL"
        )
    assert 100 <= await db.fetchval("SELECT count(*) FROM telltale.dead_letter") < 200


async def test_a_record_that_ends_the_worker_by_an_exception_is_set_aside_in_the_end(
    kafka: str, settings: Settings, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare.settle_times

    def fails_on_one(columns: np.ndarray, rule: object) -> None:  # type: ignore[type-arg]
        if (columns["speed_kmh"] == 66).any():
            raise ValueError("a bug that one record meets")
        whole(columns, rule)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "settle_times", fails_on_one)
    good, bad = frames(6), frames(7, speed_kmh=66.0)[6]
    await send(kafka, settings.live_topic, [*good[:3], bad, *good[3:]])
    ends = 0
    for _ in range(12):
        try:
            async with ingesting(settings) as worker:
                found = await accounted(db, 7, worker)
                break
        except ValueError:
            ends += 1
    assert found == {"sent": 7, "stored": 6, "rejected": 1}
    assert await db.fetchval("SELECT reason FROM telltale.dead_letter") == "KILLED_WORKER"
    assert 3 <= ends <= 8


async def test_headers_that_no_database_takes_are_accounted_for(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    value = frames(1)[0][1]
    async with Producer(kafka) as producer:
        odd = [("protocol", b"gbt\x00"), ("gateway", b"g\x00\xff")]
        await producer.send_many(settings.live_topic, [(VINS[0], value, odd, None)])
        odd = [("protocol", b"gbt32960"), ("gateway", b"g\x00\xff"), ("received_at", b"99999999999999999")]
        await producer.send_many(settings.live_topic, [(VINS[0], value, odd, None)])
    async with ingesting(settings) as worker:
        assert await accounted(db, 2, worker) == {"sent": 2, "stored": 1, "rejected": 1}


def login(vin: bytes, at_us: int, code: str = "PACK0001") -> bytes:
    return encode_login(vin.decode(), at_us, 1, "89860000000000000001", [code])


async def test_a_login_whose_transaction_failed_is_stored_with_a_vehicle_and_source_that_exist(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    await refuse_once(db, "ingest_batch")
    await send(kafka, settings.live_topic, [(VINS[0], login(VINS[0], NOON_US)), (VINS[0], frames(1)[0][1])])
    async with ingesting(settings) as worker:
        assert await accounted(db, 2, worker) == {"sent": 2, "stored": 2}
    query = (
        "SELECT v.vin, s.command FROM telltale.session_event e "
        "JOIN telltale.vehicle v ON v.id = e.vehicle_id "
        "JOIN telltale.source s ON s.id = e.source_id"
    )
    assert [tuple(row) for row in await db.fetch(query)] == [(VINS[0].decode(), 1)]


async def test_a_login_without_a_date_is_stored_once_however_often_it_comes(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    future = [login(VINS[0], NOON_US + 10**13), login(VINS[0], NOON_US + 10**13, "PACK0002")]
    messages = []
    for seconds in range(3):
        headers = [("protocol", b"gbt32960"), ("received_at", str(NOON_US + seconds * 10**6).encode())]
        messages += [(VINS[0], value, headers, None) for value in future]
    async with Producer(kafka) as producer:
        await producer.send_many(settings.live_topic, messages)
    async with ingesting(settings) as worker:
        assert await accounted(db, 6, worker) == {"sent": 6, "stored": 2, "duplicate": 4}
    codes = await db.fetch("SELECT code FROM telltale.pack_observation ORDER BY code")
    assert [row["code"] for row in codes] == ["PACK0001", "PACK0002"]


async def test_vehicles_and_sources_that_are_known_take_no_further_ids(database_urls: DatabaseUrls) -> None:
    sources = [(Source("gbt32960", 2016, command), "g1") for command in (1, 2, 3)]
    db = await connect(database_urls.ingest, role_name="ingest", timeout_s=10)
    try:
        for _ in range(5):
            vehicles = await readings.register_vehicles(db, [("A", False), ("B", False)])
            ids = await readings.register_sources(db, sources)
        vehicles |= await readings.register_vehicles(db, [("A", False), ("C", False)])
        ids |= await readings.register_sources(db, [*sources, (Source("json"), "g1")])
    finally:
        await db.close()
    assert sorted(vehicles.values()) == [1, 2, 3]
    assert sorted(ids.values()) == [1, 2, 3, 4]


async def test_untimed_readings_that_two_workers_bring_at_once_are_stored_once(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    """The other worker's transaction is still open when this one looks, and ends while it writes."""
    columns = [("protocol", b"gbt32960"), ("received_at", str(NOON_US - 10**12).encode())]
    async with Producer(kafka) as producer:
        await producer.send_many(settings.live_topic, [(VINS[0], frames(1)[0][1], columns, None)])
    async with ingesting(settings) as worker:
        await accounted(db, 1, worker)
    await db.execute(
        "CREATE TABLE telltale.theirs AS SELECT * FROM telltale.untimed_reading; "
        "DELETE FROM telltale.untimed_reading; DELETE FROM telltale.report"
    )
    async with Producer(kafka) as producer:
        later = [columns[0], ("received_at", str(NOON_US - 10**12 + 1).encode())]
        await producer.send_many(settings.live_topic, [(VINS[0], frames(1)[0][1], later, None)])
    other = db.transaction()
    await other.start()
    await db.execute("INSERT INTO telltale.untimed_reading SELECT * FROM telltale.theirs")
    watching = await asyncpg.connect(settings.database)
    async with ingesting(settings) as worker:
        await until_waiting_for_a_lock(watching)
        await other.commit()
        await watching.close()
        assert await accounted(db, 2, worker) == {"sent": 2, "stored": 1, "duplicate": 1}
    assert await db.fetchval("SELECT count(*) FROM telltale.report") == 0


async def until_waiting_for_a_lock(db: asyncpg.Connection) -> None:
    for _ in range(400):
        if await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody waits for a lock")


async def test_a_partition_that_retention_has_dropped_is_made_again(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    messages = frames(4)
    async with ingesting(settings) as worker:
        await send(kafka, settings.live_topic, messages[:2])
        await accounted(db, 2, worker)
        assert await db.fetch("SELECT * FROM telltale.drop_readings_before('2100-01-01')")
        await send(kafka, settings.live_topic, messages[2:])
        assert await accounted(db, 4, worker) == {"sent": 4, "stored": 4}


async def test_after_an_ambiguous_commit_memory_holds_what_that_commit_stored(
    database_urls: DatabaseUrls,
) -> None:
    settings = Settings(kafka="127.0.0.1:9", database=database_urls.ingest, live_topic="t")
    worker = Worker(settings)
    db = await connect(database_urls.ingest, role_name="ingest", timeout_s=10)
    try:
        (held,) = await offsets.take_over(db, "c", "t", [0], "w")
        record = Record(frames(1)[0][1], tuple(HEADERS))
        batch = worker._prepare([prepare.Fetched(held.place, held.epoch, 0, [record])])
        vehicle = (await readings.register_vehicles(db, [("A", False)]))["A"]
        await db.execute("UPDATE ingest_offset SET next_offset = 1")
        await safety.save_rule_states(db, [(vehicle, 1, {"judged_until": 1, "entries": {}})], ())
        assert await worker._commit(db, batch, again=True) is None
        assert worker._safety._states.keys() == {vehicle}
    finally:
        await worker._consumer.stop()
        await db.close()


async def test_an_older_safety_state_does_not_replace_a_newer_one(database_urls: DatabaseUrls) -> None:
    db = await connect(database_urls.ingest, role_name="ingest", timeout_s=10)
    try:
        vehicle = (await readings.register_vehicles(db, [("A", False)]))["A"]
        for until in (5, 9, 7):
            await safety.save_rule_states(db, [(vehicle, until, {"judged_until": until})], ())
        assert await safety.load_rule_states(db) == {vehicle: {"judged_until": 9}}
    finally:
        await db.close()


async def test_a_hand_back_in_order_starts_the_count_of_ends_again(
    kafka: str, settings: Settings, db: asyncpg.Connection
) -> None:
    await send(kafka, settings.live_topic, frames(3))
    async with ingesting(settings) as worker:
        await accounted(db, 3, worker)
    assert await db.fetch("SELECT worker, attempts FROM telltale.ingest_offset WHERE worker <> ''") == []

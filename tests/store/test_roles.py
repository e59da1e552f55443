"""Each role can do its job and nothing beyond it."""

import uuid

import asyncpg
import pytest
from tests.servers.postgres import DatabaseUrls

from telltale.store.pool import Connection, connect, open_pool

ALERT = """
INSERT INTO alert (id, vehicle_id, dealer, detector, detector_version, component, severity, happened_at,
                   seen_at, evidence)
VALUES ($1, $2, $3, 'insulation', '1', 'pack', 'urgent', now(), now(), $4)
"""
REPORT = """
INSERT INTO report (vehicle_id, observed_at, part, received_at, source_id, time_source, flags, digest)
VALUES ($1, '2026-01-05', 0, now(), 1, 0, 0, 0)
"""


async def open_as(urls: DatabaseUrls, role: str) -> Connection:
    return await connect(getattr(urls, role), role_name=role, timeout_s=30)


async def two_vehicles(urls: DatabaseUrls) -> tuple[int, int]:
    """Ingest registers two vehicles; the owner gives them to dealers A and B."""
    ingest = await open_as(urls, "ingest")
    insert = "INSERT INTO vehicle (vin, vin_valid) VALUES ($1, true) RETURNING id"
    first, second = [await ingest.fetchval(insert, vin) for vin in ("LTEST000000000001", "LTEST000000000002")]
    await ingest.close()
    owner = await open_as(urls, "owner")
    await owner.execute("UPDATE vehicle SET dealer = CASE id WHEN $1 THEN 'A' ELSE 'B' END", first)
    await owner.close()
    return first, second


async def test_ingest_stores_a_whole_batch_in_one_transaction(database_urls: DatabaseUrls) -> None:
    vehicle, _ = await two_vehicles(database_urls)
    ingest = await open_as(database_urls, "ingest")
    async with ingest.transaction():
        await ingest.execute("SELECT ensure_partitions(ARRAY['2026-01-05'::timestamptz])")
        await ingest.execute(REPORT, vehicle)
        await ingest.execute(ALERT, uuid.uuid4(), vehicle, "A", {"cell": 57})
        await ingest.execute("INSERT INTO ingest_offset (cluster, topic, partition) VALUES ('c', 't', 0)")
        await ingest.execute("UPDATE ingest_offset SET next_offset = 5, epoch = epoch + 1")
        await ingest.execute("INSERT INTO dirty_mark (vehicle_ids, hours) VALUES ('{1}', '{490000}')")
        await ingest.execute("INSERT INTO rule_state VALUES ($1, now(), $2)", vehicle, {"open": []})
        await ingest.execute("DELETE FROM rule_state")
    assert await ingest.fetchval("SELECT evidence FROM alert") == {"cell": 57}
    await ingest.close()


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("ingest", "UPDATE alert SET state = 'closed'"),
        ("ingest", "DELETE FROM report"),
        ("ingest", "UPDATE report SET flags = 1"),
        ("ingest", "UPDATE vehicle SET dealer = 'A'"),
        ("ingest", "DELETE FROM dead_letter"),
        ("ingest", "SELECT drop_readings_before(now())"),
        ("ingest", "SELECT * FROM api_key"),
        ("ingest", "CREATE TABLE mine ()"),
        ("score", "INSERT INTO report SELECT * FROM report"),
        ("score", "UPDATE alert SET state = 'closed'"),
        ("score", "UPDATE ingest_offset SET next_offset = 0"),
        ("score", "SELECT * FROM api_key"),
        ("api", "SELECT * FROM report"),
        ("api", "SELECT * FROM obd_reading"),
        ("api", "SELECT * FROM vehicle_attribute"),
        ("api", "SELECT * FROM dead_letter"),
        ("api", "INSERT INTO vehicle (vin, vin_valid) VALUES ('x', false)"),
        ("api", "INSERT INTO api_key (id) VALUES ('x')"),
        ("api", "SELECT ensure_partitions('{}')"),
        ("api", "DELETE FROM alert"),
    ],
)
async def test_a_role_is_refused_what_is_not_its_job(
    database_urls: DatabaseUrls, role: str, statement: str
) -> None:
    connection = await open_as(database_urls, role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()


async def test_the_api_sees_only_vehicles_alerts_and_readings_of_its_scope(
    database_urls: DatabaseUrls,
) -> None:
    vehicles = await two_vehicles(database_urls)
    ingest = await open_as(database_urls, "ingest")
    await ingest.execute("SELECT ensure_partitions(ARRAY['2026-01-05'::timestamptz])")
    for vehicle, dealer in zip(vehicles, "AB", strict=True):
        await ingest.execute(REPORT, vehicle)
        await ingest.execute(ALERT, uuid.uuid4(), vehicle, dealer, {})
    await ingest.close()
    api = await open_as(database_urls, "api")
    for scope, seen in ((None, 0), ("", 0), ("dealer:A", 1), ("dealer:C", 0), ("fleet", 2)):
        async with api.transaction():
            if scope is not None:
                await api.execute("SELECT set_config('telltale.scope', $1, true)", scope)
            for table in ("vehicle", "alert", "scoped_report"):
                assert await api.fetchval(f"SELECT count(*) FROM {table}") == seen, (scope, table)  # noqa: S608
    await api.close()


async def test_a_dealer_cannot_touch_or_plant_another_dealers_alert(database_urls: DatabaseUrls) -> None:
    first, second = await two_vehicles(database_urls)
    ingest = await open_as(database_urls, "ingest")
    await ingest.execute(ALERT, uuid.uuid4(), second, "B", {})
    await ingest.close()
    api = await open_as(database_urls, "api")
    async with api.transaction():
        await api.execute("SET LOCAL telltale.scope = 'dealer:A'")
        assert await api.execute("UPDATE alert SET state = 'acknowledged'") == "UPDATE 0"
        await api.execute(ALERT, uuid.uuid4(), first, "A", {})
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with api.transaction():
                await api.execute(ALERT, uuid.uuid4(), second, "B", {})
    await api.close()


async def test_score_takes_dirty_marks_and_raises_alerts(database_urls: DatabaseUrls) -> None:
    vehicle, _ = await two_vehicles(database_urls)
    ingest = await open_as(database_urls, "ingest")
    await ingest.execute("INSERT INTO dirty_mark (vehicle_ids, hours) VALUES ('{1}', '{490000}')")
    await ingest.close()
    score = await open_as(database_urls, "score")
    assert await score.execute("DELETE FROM dirty_mark") == "DELETE 1"
    await score.execute(ALERT, uuid.uuid4(), vehicle, "A", {})
    await score.close()


async def test_pooled_connections_carry_every_guard(database_urls: DatabaseUrls) -> None:
    pool = await open_pool(database_urls.ingest, role_name="ingest", timeout_s=0.2)
    async with pool.acquire() as connection:
        settings = ("search_path", "application_name", "statement_timeout", "TimeZone")
        values = [await connection.fetchval("SELECT current_setting($1)", name) for name in settings]
        assert values == ["telltale", "telltale-ingest", "200ms", "UTC"]
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.execute("SELECT pg_sleep(5)")
        assert await connection.fetchval("SELECT $1::jsonb", {"a": [1, "二"]}) == {"a": [1, "二"]}
    await pool.close()

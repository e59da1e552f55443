"""What happens to ingest while everything around it fails: nothing is lost, nothing is doubled.

On Apache Kafka: these faults need a broker that keeps what it has acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.ingest.reports import HEADERS, VINS, frames
from tests.ingest.running import Gateway
from tests.ingest.workers import sums, until_accounted, until_progress, workers
from tests.servers.kafka import ApacheKafka
from tests.servers.postgres import DatabaseUrls

from telltale.broker import Producer, ensure_topics
from telltale.config import Settings
from telltale.embedded import launch_postgres
from telltale.store.migrate import migrate

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

Topics = Callable[..., Awaitable[tuple[str, str]]]
SESSION_S = 1.5


@pytest.fixture
async def settings(kafka: str, topics: Topics, database_urls: DatabaseUrls) -> Settings:
    live, backlog = await topics(4)
    return faulty(kafka, live, backlog, database_urls.ingest)


def faulty(kafka: str, live: str, backlog: str, database: str) -> Settings:
    return Settings(
        kafka=kafka,
        database=database,
        live_topic=live,
        backlog_topic=backlog,
        consumer_group=f"group-{live}",
        session_timeout_s=SESSION_S,
        batch_records=200,
    )


@pytest.fixture
async def db(database_urls: DatabaseUrls) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_urls.admin)
    yield connection
    await connection.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def assert_exact(db: asyncpg.Connection, count: int) -> None:
    """Each of `count` numbered reports is accounted for and stored once, and nothing else is."""
    assert await until_accounted(db, count) == {"sent": count, "stored": count}
    row = await db.fetchrow("SELECT count(*), count(DISTINCT observed_at) FROM telltale.report")
    assert tuple(row) == (count, count)
    assert await db.fetchval("SELECT count(*) FROM telltale.dead_letter") == 0


async def test_kill_9_at_random_moments_loses_and_doubles_nothing(
    settings: Settings, kafka: str, db: asyncpg.Connection, tmp_path: Path
) -> None:
    seeded = random.Random(1)
    async with Gateway(kafka, settings.live_topic) as gateway:
        for _ in range(8):
            with workers(settings, tmp_path):
                await until_progress(db)
                await asyncio.sleep(seeded.uniform(0, 0.4))
        sent = await gateway.stop()
    with workers(settings, tmp_path):
        await assert_exact(db, sent)


async def test_a_frozen_worker_is_replaced_and_writes_nothing_when_it_wakes(
    settings: Settings, kafka: str, db: asyncpg.Connection, tmp_path: Path
) -> None:
    with workers(settings, tmp_path, 2) as (first, second):
        async with Gateway(kafka, settings.live_topic) as gateway:
            for zombie in (first, second):
                await zombie.until_assigned()
                await until_progress(db)
                zombie.freeze()
                await asyncio.sleep(SESSION_S + 1.0)
                await until_progress(db)
                zombie.thaw()
                await asyncio.sleep(1.0)
            sent = await gateway.stop()
        await assert_exact(db, sent)
        assert first.alive
        assert second.alive


async def test_workers_coming_and_going_under_load_lose_and_double_nothing(
    settings: Settings, kafka: str, db: asyncpg.Connection, tmp_path: Path
) -> None:
    with workers(settings, tmp_path) as (steady,):
        async with Gateway(kafka, settings.live_topic) as gateway:
            for _ in range(4):
                with workers(settings, tmp_path, 2) as crew:
                    for worker in crew:
                        await worker.until_assigned()
                    await until_progress(db)
                    assert [worker.stop() for worker in crew] == [0, 0]
            sent = await gateway.stop()
        await assert_exact(db, sent)
        assert steady.peak_rss_mb < 300


async def test_ingest_goes_on_after_the_broker_was_restarted_and_killed(
    apache_kafka: ApacheKafka, database_urls: DatabaseUrls, db: asyncpg.Connection, tmp_path: Path
) -> None:
    names = ("restart.telemetry", "restart.backlog")
    await ensure_topics(apache_kafka.bootstrap, dict.fromkeys(names, 2))
    settings = faulty(apache_kafka.bootstrap, *names, database_urls.ingest)
    messages = [(*message, HEADERS, None) for message in frames(3000)]
    with workers(settings, tmp_path) as (worker,):
        await worker.until_assigned()
        for third, end in enumerate((apache_kafka.stop, apache_kafka.kill, None)):
            async with Producer(apache_kafka.bootstrap) as producer:
                await producer.send_many(settings.live_topic, messages[third * 1000 : (third + 1) * 1000])
            if end is not None:
                end()
                await asyncio.sleep(1.0)
                apache_kafka.start()
        await assert_exact(db, 3000)
        assert worker.alive


async def test_ingest_goes_on_after_its_database_connections_were_cut(
    settings: Settings, kafka: str, db: asyncpg.Connection, tmp_path: Path
) -> None:
    cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'telltale_ingest'"
    with workers(settings, tmp_path) as (worker,):
        async with Gateway(kafka, settings.live_topic) as gateway:
            hits = 0
            while hits < 10:
                await until_progress(db)
                await asyncio.sleep(0.05 * (hits % 5))
                hits += await db.fetchval(cut)
            sent = await gateway.stop()
        await assert_exact(db, sent)
        assert worker.alive


async def test_ingest_goes_on_after_the_database_was_stopped_and_killed(
    kafka: str, topics: Topics, tmp_path: Path
) -> None:
    live, backlog = await topics(2)
    server = launch_postgres(tmp_path / "postgres")
    port = urlsplit(server.address).port or 0
    await migrate(server.address)
    settings = faulty(kafka, live, backlog, server.address.replace("postgres@", "telltale_ingest@"))
    recoveries = []
    try:
        with workers(settings, tmp_path) as (worker,):
            async with Gateway(kafka, live) as gateway:
                await worker.until_assigned()
                for signal_number in (signal.SIGINT, signal.SIGKILL):
                    server.process.send_signal(signal_number)
                    server.process.wait()
                    await asyncio.sleep(3)
                    server = launch_postgres(tmp_path / "postgres", port=port)
                    back = time.monotonic()
                    async with connected(server.address) as db:
                        await until_progress(db)
                    recoveries.append(time.monotonic() - back)
                sent = await gateway.stop()
            async with connected(server.address) as db:
                await assert_exact(db, sent)
            assert worker.alive
            assert worker.peak_rss_mb < 300
    finally:
        server.stop()
    print("first commit after the database was back:", [f"{s:.1f} s" for s in recoveries])


KILLER = b'{"vin": "kill"}'
DEADLY = """
import os, sys
from telltale.decode import json_reading
whole = json_reading.JSON.__class__.decode
def decode(self, values, **how):
    if any(b'"kill"' in value for value in values.values):
        os._exit(137)
    return whole(self, values, **how)
json_reading.JSON.__class__.decode = decode
sys.argv = ["telltale", "ingest"]
from telltale.cli import main
main()
"""


async def test_a_record_that_kills_the_worker_is_set_aside(
    settings: Settings, kafka: str, db: asyncpg.Connection, tmp_path: Path
) -> None:
    import sys

    from tests.ingest.workers import environment

    messages = frames(60)
    async with Producer(kafka) as producer:
        await producer.send_many(settings.live_topic, [(VINS[0], v, HEADERS, None) for _, v in messages[:30]])
        await producer.send_many(settings.live_topic, [(VINS[0], KILLER, [("protocol", b"json")], None)])
        await producer.send_many(settings.live_topic, [(VINS[0], v, HEADERS, None) for _, v in messages[30:]])
    deaths, end = 0, time.monotonic() + 120
    while (await sums(db)).get("sent", 0) < 61:
        assert time.monotonic() < end, f"{deaths} deaths, {await sums(db)}"
        with (tmp_path / "log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-c", DEADLY], env=environment(settings), stdout=log, stderr=log
            )
        try:
            while worker.poll() is None and (await sums(db)).get("sent", 0) < 61:
                await asyncio.sleep(0.1)
            deaths += worker.poll() == 137
        finally:
            worker.kill()
            worker.wait()
    assert await sums(db) == {"sent": 61, "stored": 60, "rejected": 1}
    letter = await db.fetchrow("SELECT reason, raw FROM telltale.dead_letter")
    assert tuple(letter) == ("KILLED_WORKER", KILLER)
    assert 4 <= deaths <= 12


async def test_a_worker_told_to_stop_while_the_database_is_away_stops_at_once(
    kafka: str, topics: Topics, tmp_path: Path
) -> None:
    live, backlog = await topics(1)
    server = launch_postgres(tmp_path / "postgres")
    try:
        await migrate(server.address)
        settings = faulty(kafka, live, backlog, server.address.replace("postgres@", "telltale_ingest@"))
        with workers(settings, tmp_path) as (worker,):
            async with Gateway(kafka, live):
                await worker.until_assigned()
                async with connected(server.address) as db:
                    await until_progress(db)
                server.stop()
                while "database not available" not in worker.log.read_text():
                    await asyncio.sleep(0.1)
            assert worker.stop(timeout_s=10) == 0
    finally:
        server.stop()

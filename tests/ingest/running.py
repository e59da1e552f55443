"""An ingest worker inside the test: send, run, and wait for the accounting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from tests.ingest.reports import HEADERS

from telltale import ingest
from telltale.broker import Producer
from telltale.config import Settings


async def send(kafka: str, topic: str, messages: list[tuple[bytes, bytes]]) -> None:
    async with Producer(kafka) as producer:
        await producer.send_many(topic, [(key, value, HEADERS, None) for key, value in messages])


@asynccontextmanager
async def ingesting(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    worker = asyncio.create_task(ingest.run(settings, stop))
    try:
        yield worker
    finally:
        stop.set()
        await asyncio.wait_for(worker, 20)


async def accounted(db: asyncpg.Connection, sent: int, worker: asyncio.Task[None]) -> dict[str, int]:
    """Wait until this many frames have an outcome; return the sums."""
    query = (
        "SELECT coalesce(sum(sent), 0) AS sent, sum(stored) AS stored, sum(partial) AS partial, "
        "sum(duplicate) AS duplicate, sum(conflicting) AS conflicting, sum(control) AS control, "
        "sum(rejected) AS rejected FROM telltale.ingest_batch"
    )
    for _ in range(400):
        row = await db.fetchrow(query)
        if row["sent"] >= sent:
            return {name: int(value) for name, value in row.items() if value}
        if worker.done():
            worker.result()
        await asyncio.sleep(0.05)
    raise AssertionError(f"only {row} of {sent}")

"""An ingest worker inside the test: send, run, and wait for the accounting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from tests.ingest.reports import HEADERS, frames

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


class Gateway:
    """Sends numbered reports at a steady rate until it is told to stop, whatever the broker does."""

    def __init__(self, kafka: str, topic: str, per_s: int = 250, tick_s: float = 0.1) -> None:
        self._kafka, self._topic, self._tick_s, self._tick = kafka, topic, tick_s, round(per_s * tick_s)
        self._stop = asyncio.Event()
        self.sent = 0

    async def __aenter__(self) -> Gateway:
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> int:
        """Stop sending; return how many reports the broker has acknowledged."""
        self._stop.set()
        await self._task
        return self.sent

    async def _send(self) -> None:
        messages = frames(60_000)
        async with Producer(self._kafka) as producer:
            while not self._stop.is_set():
                batch = [(*m, HEADERS, None) for m in messages[self.sent : self.sent + self._tick]]
                self.sent += await producer.send_many(self._topic, batch)
                await asyncio.sleep(self._tick_s)

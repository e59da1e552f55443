"""Sending records: acks=all, idempotent where the broker can; whole batches on the fast path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from telltale.broker.connection import connect, knows_producer_ids
from telltale.errors import SettingsError, WaitableError

Headers = Sequence[tuple[str, bytes]]
Message = tuple[bytes | None, bytes, Headers, int | None]  # key, value, headers, timestamp in ms (None: now)
MAX_REQUEST_BYTES: Final = 1_000_000  # below Kafka's default message.max.bytes


class Producer:
    """Sends records with acks=all; idempotent where the broker offers it."""

    def __init__(self, bootstrap: str, *, linger_ms: int = 5, batch_bytes: int = 262_144) -> None:
        self._bootstrap = bootstrap
        self._linger_ms = linger_ms
        self._batch_bytes = batch_bytes
        self._partition_of_key: dict[tuple[str, bytes], int] = {}
        self._producer: AIOKafkaProducer = None
        self.idempotent = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect. Raises WaitableError when no broker answers."""
        self.idempotent = await knows_producer_ids(self._bootstrap)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id="telltale",
            acks="all",
            enable_idempotence=self.idempotent,
            linger_ms=self._linger_ms,
            max_batch_size=self._batch_bytes,
            max_request_size=MAX_REQUEST_BYTES,
        )
        try:
            await connect(self._producer.start(), self._bootstrap)
        except BaseException:
            await self._producer.stop()
            raise

    async def stop(self) -> None:
        """Deliver what is buffered and close the connections."""
        await self._producer.stop()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[object]:
        """Buffer one record; await the returned future to know it delivered."""
        future: asyncio.Future[object] = await self._producer.send(
            topic, value, key=key, headers=list(headers), timestamp_ms=timestamp_ms
        )
        return future

    async def flush(self) -> None:
        """Return once everything buffered has been delivered or has failed."""
        await self._producer.flush()

    async def send_many(self, topic: str, messages: Iterable[Message]) -> int:
        """Deliver records as fast as the broker takes them, in order per key; return how many.

        Whole batches are built per partition and one is in flight for each, so memory stays bounded however
        long `messages` is. Raises WaitableError when a batch is not acknowledged: it may be stored or not.
        """
        partitions = sorted(await connect(self._producer.partitions_for(topic), self._bootstrap))
        open_batches: dict[int, BatchBuilder] = {}
        in_flight: dict[int, Awaitable[object]] = {}
        sent = 0
        for key, value, headers, timestamp in messages:
            partition = self._choose(topic, key, partitions, sent)
            record = {"timestamp": timestamp, "key": key, "value": value, "headers": list(headers)}
            batch = open_batches.get(partition)
            if batch is None or batch.append(**record) is None:
                if batch is not None:
                    await self._dispatch(topic, partition, batch, in_flight)
                batch = open_batches[partition] = self._producer.create_batch()
                if batch.append(**record) is None:
                    raise SettingsError(
                        f"kafka: a record of {len(value)} bytes for {topic} exceeds {self._batch_bytes} bytes"
                    )
            sent += 1
        for partition, batch in open_batches.items():
            await self._dispatch(topic, partition, batch, in_flight)
        for future in in_flight.values():
            await self._acknowledged(topic, future)
        return sent

    async def _dispatch(
        self, topic: str, partition: int, batch: BatchBuilder, in_flight: dict[int, Awaitable[object]]
    ) -> None:
        before = in_flight.pop(partition, None)
        if before is not None:
            await self._acknowledged(topic, before)
        batch.close()
        in_flight[partition] = await self._producer.send_batch(batch, topic, partition=partition)

    async def _acknowledged(self, topic: str, delivery: Awaitable[object]) -> None:
        try:
            await delivery
        except KafkaError as error:
            raise WaitableError(
                f"kafka: {self._bootstrap} did not take a batch for {topic}: {error!r}"
            ) from error

    def _choose(self, topic: str, key: bytes | None, partitions: list[int], count: int) -> int:
        """Return the partition the Java client would choose; without a key, each in turn."""
        if key is None:
            return partitions[count % len(partitions)]
        chosen = self._partition_of_key.get((topic, key))
        if chosen is None:
            chosen = partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)]
            self._partition_of_key[(topic, key)] = chosen
        return chosen

"""A member of the ingest group. Where to read on is the caller's to say, on every assignment.

aiokafka 0.14, read in its source: rebalances are eager and run in a background task; its exceptions from
rebalance callbacks are only logged; between assignment and seek it may already fetch from the committed
offset. Hence the pause around `on_assigned`, and failures kept for the next `fetch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from telltale.broker.connection import admin_client, connect, existing_topics
from telltale.config import Settings
from telltale.errors import SettingsError, TelltaleError, WaitableError

log = structlog.get_logger()

COMMIT_EVERY_S: Final = 1.0
COMMIT_TIMEOUT_S: Final = 2.0
UNLIMITED: Final = 1 << 40
FIRST_SLICE: Final = 64  # records; tells how large values are
SLICE: Final = 1_000  # records parsed without a pause: about 3 ms
FETCH_WAIT_MS: Final = 100  # one request per broker at a time: a long wait on idle partitions delays the rest


class Record(Protocol):
    """One Kafka record as aiokafka's parser left it; nothing is copied."""

    @property
    def offset(self) -> int:
        """Return its place in the partition."""

    @property
    def timestamp(self) -> int:
        """Return milliseconds since 1970: when it was produced, or appended if the topic says so."""

    @property
    def key(self) -> bytes | None:
        """Return the key: the VIN."""

    @property
    def value(self) -> bytes | None:
        """Return the value; None in a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Return the headers in order."""


class OutOfRangeError(TelltaleError):
    """The broker does not hold the offset where reading shall go on."""

    def __init__(self, partition: TopicPartition, offset: int, earliest: int, end: int) -> None:
        gone = f"records {offset} to {earliest - 1} were deleted before they were read"
        why = gone if offset < earliest else "the topic was made anew or has lost records"
        super().__init__(
            f"kafka: {partition.topic}[{partition.partition}] has no offset {offset}, it holds {earliest} to "
            f"{end}: {why}. To go on without them, set next_offset of this partition in "
            f"telltale.ingest_offset to {earliest} and start the worker again"
        )
        self.partition = partition
        self.offset = offset
        self.earliest = earliest
        self.end = end


def checksum_of(record: Record) -> int:
    """Return the CRC-32 of key and value; format v2 records carry none of their own."""
    return zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))


class Consumer:
    """A member of the ingest group, reading the live and the backlog topic.

    `on_assigned(partitions)` runs in the background when partitions come; it calls `seek` for each, and
    `pause` for those that must not be read. No record of the new assignment is returned before it has ended;
    a partition it leaves alone is read from its earliest record. `on_revoked(partitions)` runs before they
    go. An error of either is raised by the next `fetch`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_assigned: Callable[[list[TopicPartition]], Awaitable[None]],
        on_revoked: Callable[[list[TopicPartition]], Awaitable[None]] | None = None,
    ) -> None:
        self._settings = settings
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._consumer = _aiokafka_consumer(settings)
        self._ready = asyncio.Event()
        self._failure: Exception | None = None
        self._paused: set[TopicPartition] = set()
        self._sought: set[TopicPartition] = set()
        self._to_commit: dict[TopicPartition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self.generation = 0  # raised on every revocation and assignment: what was fetched before is stale

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect and join the group.

        Raises WaitableError when no broker answers, SettingsError when a topic does not exist.
        """
        try:
            await self._join()
        except BaseException:
            await self._consumer.stop()
            raise
        self._committing = asyncio.create_task(self._commit_now_and_then())

    async def _join(self) -> None:
        topics = {self._settings.live_topic, self._settings.backlog_topic}
        missing = topics - await existing_topics(self._settings.kafka)
        if missing:
            raise SettingsError(
                f"kafka: {self._settings.kafka} has no topic {', '.join(sorted(missing))}: create it, or set "
                "TELLTALE_LIVE_TOPIC and TELLTALE_BACKLOG_TOPIC to topics that exist"
            )
        self._consumer.subscribe(sorted(topics), listener=_Listener(self._revoked, self._assigned))
        await connect(self._consumer.start(), self._settings.kafka)

    async def stop(self) -> None:
        """Commit what is to commit, leave the group, close the connections."""
        if self._committing is not None:
            self._committing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._committing
            await self._commit_pending()
        await self._consumer.stop()

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions this member holds and whose `on_assigned` has ended."""
        held: frozenset[TopicPartition] = self._consumer.assignment()
        return held if self._ready.is_set() else frozenset()

    @property
    def live(self) -> list[TopicPartition]:
        """Return the held partitions of the live topic."""
        return sorted(p for p in self.assignment if p.topic == self._settings.live_topic)

    @property
    def backlog(self) -> list[TopicPartition]:
        """Return the held partitions of the backlog topic."""
        return sorted(p for p in self.assignment if p.topic == self._settings.backlog_topic)

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        max_records: int,
        timeout_ms: int,
        max_bytes: int = UNLIMITED,
    ) -> dict[TopicPartition, list[Record]]:
        """Return up to `max_records` records of about `max_bytes`, in order per partition.

        Waits up to `timeout_ms` for the first; empty when none came, during a rebalance, or when
        `partitions` is empty or not ours. Raises what a rebalance callback raised, OutOfRangeError when an
        offset is gone, WaitableError when Kafka cannot be read.
        """
        self._raise_failure()
        ours = [p for p in partitions if p in self.assignment]
        if not ours:
            return await self._nothing(timeout_ms)
        found = await self._slice(ours, timeout_ms, min(FIRST_SLICE, max_records))
        while (wanted := _next_slice(found, max_records, max_bytes)) > 0:
            await asyncio.sleep(0)  # parsing holds the loop: let others have it in between
            held = self.assignment
            ours = [p for p in ours if p in held]  # `getmany` of none would read all
            more = await self._slice(ours, 0, wanted) if ours else {}
            if not more:
                break
            for partition, records in more.items():
                found.setdefault(partition, []).extend(records)
        self._raise_failure()
        return found

    async def _slice(
        self, ours: Sequence[TopicPartition], timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Record]]:
        try:
            found: dict[TopicPartition, list[Record]] = await self._consumer.getmany(
                *ours, timeout_ms=timeout_ms, max_records=max_records
            )
        except NoOffsetForPartitionError:  # revoked and assigned meanwhile, not yet sought
            return {}
        except OffsetOutOfRangeError as error:
            await self._leave_range(error.args[0])
            return {}
        except KafkaError as error:
            raise WaitableError(f"kafka: reading from {self._settings.kafka} failed: {error!r}") from error
        return found

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read this partition on from `offset`; 0 means its earliest record, whatever its number."""
        self._consumer.seek(partition, offset)
        self._sought.add(partition)

    def pause(self, *partitions: TopicPartition) -> None:
        """Fetch nothing of these partitions until `resume` or the next assignment."""
        self._paused.update(partitions)
        self._consumer.pause(*partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Fetch these partitions again."""
        self._paused.difference_update(partitions)
        self._consumer.resume(*partitions)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember next offsets; they reach Kafka within a second, if it can take them."""
        self._to_commit.update(offsets)

    def highwater(self, partition: TopicPartition) -> int | None:
        """Return the end offset the last fetch reported; None before the first, or if not ours."""
        if partition not in self._consumer.assignment():
            return None
        end: int | None = self._consumer.highwater(partition)
        return end

    def lag(self, partition: TopicPartition, next_offset: int) -> int | None:
        """Return how many records lie at or behind `next_offset`, as far as the last fetch told."""
        end = self.highwater(partition)
        return None if end is None else max(0, end - next_offset)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the end offsets. Tansu answers with the start of the last batch."""
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets(list(partitions))
        return ends

    async def cluster_id(self) -> str:
        """Return the cluster's id, which keys stored offsets together with topic and partition."""
        async with admin_client(self._settings.kafka) as admin:
            cluster = await admin.describe_cluster()
        return str(cluster.get("cluster_id") or "unnamed")

    async def _revoked(self, partitions: set[TopicPartition]) -> None:
        self._ready.clear()
        self.generation += 1
        self._paused.clear()
        self._sought.clear()
        if not partitions:
            return
        await self._commit_pending()
        if self._on_revoked is not None:
            await self._guarded(self._on_revoked(sorted(partitions)))

    async def _assigned(self, partitions: set[TopicPartition]) -> None:
        self.generation += 1
        self._consumer.pause(*partitions)  # before anything is awaited: nothing may come from a wrong place
        await self._guarded(self._on_assigned(sorted(partitions)))
        if self._failure is None:
            await self._guarded(self._start_at_earliest(partitions - self._sought - self._paused))
        if self._consumer.assignment() == partitions:
            self._consumer.resume(*(partitions - self._paused))
            self._ready.set()

    async def _guarded(self, callback: Awaitable[None]) -> None:
        try:
            await callback
        except Exception as error:
            self._failure = error
            self._ready.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def _nothing(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        """Wait for an assignment, at most `timeout_ms`; with one, just wait."""
        if self._ready.is_set():
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await self._ready.wait()
        return {}

    async def _start_at_earliest(self, partitions: set[TopicPartition]) -> None:
        if partitions:
            earliest = await self._consumer.beginning_offsets(list(partitions))
            for partition, offset in earliest.items():
                self.seek(partition, offset)

    async def _leave_range(self, asked: Mapping[TopicPartition, int]) -> None:
        """Go to the earliest record where nothing was read yet; raise where records would be left out."""
        for partition, offset in asked.items():
            earliest = (await self._consumer.beginning_offsets([partition]))[partition]
            end = (await self._consumer.end_offsets([partition]))[partition]
            if offset != 0:
                raise OutOfRangeError(partition, offset, earliest, end)
            if partition in self._consumer.assignment():
                self.seek(partition, earliest)

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            await self._commit_pending()

    async def _commit_pending(self) -> None:
        """Tell Kafka how far we are; whoever needs to know exactly asks the database."""
        held = self._consumer.assignment()
        offsets = {p: offset for p, offset in self._to_commit.items() if p in held}
        self._to_commit.clear()
        if not offsets:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await self._consumer.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            log.debug("kafka_commit_skipped", error=repr(error))


def _next_slice(found: Mapping[TopicPartition, Sequence[Record]], max_records: int, max_bytes: int) -> int:
    """Return how many records to ask for next; 0 when there are enough, or none waits."""
    count = sum(map(len, found.values()))
    if not count:
        return 0
    size = sum(len(record.value or b"") for records in found.values() for record in records[-FIRST_SLICE:])
    mean = max(1.0, size / sum(min(len(records), FIRST_SLICE) for records in found.values()))
    return min(SLICE, max_records - count, int(max_bytes / mean) - count)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hands aiokafka's callbacks on."""

    def __init__(
        self,
        revoked: Callable[[set[TopicPartition]], Awaitable[None]],
        assigned: Callable[[set[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._revoked(set(revoked))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        await self._assigned(set(assigned))


def _aiokafka_consumer(settings: Settings) -> AIOKafkaConsumer:
    session_ms = int(settings.session_timeout_s * 1000)
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        group_id=settings.consumer_group,
        client_id="telltale-ingest",
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=settings.fetch_bytes,
        fetch_max_bytes=settings.fetch_bytes * 4,
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=min(3000, session_ms // 3),
        max_poll_interval_ms=int(settings.max_poll_interval_s * 1000),
        request_timeout_ms=max(40_000, session_ms + 10_000),  # joining waits for the slowest member
    )

"""The loop of the ingest worker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import structlog

from telltale import metrics
from telltale.broker import Consumer, TopicPartition
from telltale.config import Settings
from telltale.errors import FencedError, TelltaleError
from telltale.ingest import meter
from telltale.ingest.database import Database
from telltale.ingest.partitions import Partition, partition_of, runnable
from telltale.ingest.prepare import Fetched, Options, Prepared, apart, frames_by_slice, prepare, set_aside
from telltale.ingest.registry import Registry
from telltale.ingest.safety import SafetyLane
from telltale.ingest.write import Writer, Written
from telltale.intake import BadWindow, Message, TimeRule
from telltale.store import offsets, safety
from telltale.store.pool import Connection, is_waitable, may_be_of_the_data

log = structlog.get_logger("telltale.ingest")

IDLE_WAIT_MS: Final = 50
HALT_POLL_S: Final = 2.0
COURTESY_COMMIT_S: Final = 1.0
RELEASE_WAIT_S: Final = 5.0
# Of the poll interval, what a batch may spend on retries before the worker gives up in order.
RETRY_SHARE: Final = 0.8
RECORD_BYTES: Final = 500  # a batch of larger values, of many frames each, holds fewer of them
GC_THRESHOLD: Final = 200_000  # new objects
SWITCH_S: Final = 0.0005


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Ingest until `stop` is set; raises when it cannot go on."""
    try:
        worker = Worker(settings)
        # The port first: a worker that cannot have it must not have made its group share out partitions.
        async with await metrics.serve(settings.metrics_port, lambda: worker.ready), _started(worker):
            await worker.run(stop)
    except Exception as error:
        if isinstance(error, TelltaleError) or not is_waitable(error):
            raise
        raise TelltaleError(
            f"ingest: the database does not answer: {type(error).__name__}: {error}"
        ) from error


def tune_interpreter() -> None:
    """Set this process up for batches of many small objects, none of them in a circle.

    A batch holds several objects a Kafka record: collecting after each 700 walked through all of them again
    and again, half of what reading Kafka cost. And the thread that decodes must not keep the one that feeds
    the database waiting for 5 ms each time.
    """
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    sys.setswitchinterval(SWITCH_S)


@contextlib.asynccontextmanager
async def _started(worker: Worker) -> AsyncIterator[None]:
    orderly = True
    try:
        await worker.start()
        yield
    except Exception as error:
        orderly = not may_be_of_the_data(error)
        raise
    finally:
        await worker.close(orderly=orderly)


class _ToldToStopError(Exception):
    """The worker was told to stop while it waited for the database."""


@dataclass(slots=True)
class _Pace:
    """When things that happen now and then happened last (monotonic seconds)."""

    halt_poll: float = 0.0
    courtesy: float = 0.0


class Worker:
    """One ingest worker: a Kafka consumer, one database connection, and the memory of what it holds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A container that is started again has the host name and process id of the one before.
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        times = TimeRule(
            round(settings.future_tolerance_s * 1e6), round(settings.max_age_days * 86_400_000_000)
        )
        self._options = Options(times, settings.current_sign, settings.position_decimals)
        self._safety = SafetyLane()
        self._writer = Writer(Registry(), self._safety, times)
        self._consumer = Consumer(settings, on_assigned=self._assigned, on_revoked=self._revoked)
        self._cluster = ""
        self._held: dict[TopicPartition, Partition] = {}
        self._position: dict[TopicPartition, int] = {}  # where the next fetched record must follow on
        self._database = Database(settings, lambda: [(p.place, p.epoch) for p in self._held.values()])
        self._generation = 0  # raised when fetched batches are no longer to be written
        self._backlog_waits = False
        self._live_caught_up = False  # the last live batch took all there was
        self._stop = asyncio.Event()
        self._pace = _Pace()
        self._untaken: set[TopicPartition] = set()  # assigned while the database was away

    async def start(self) -> None:
        """Connect to both ends and join the group."""
        async with self._database.session():
            pass
        await self._consumer.start()
        self._cluster = await self._consumer.cluster_id()

    @property
    def ready(self) -> bool:
        """Tell whether this worker could write a batch now."""
        return self._database.is_connected

    async def close(self, *, orderly: bool = True) -> None:
        """Hand partitions back, leave the group, close the connection.

        Partitions are not handed back where a record may have been the end of this worker: its successors
        count such ends, and after some of them look for that record.
        """
        if not orderly:
            self._held.clear()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(RELEASE_WAIT_S):  # wait_for can swallow a cancellation before 3.12
                await self._hand_back(list(self._held))
        await self._consumer.stop()
        await self._database.close(RELEASE_WAIT_S)

    async def run(self, stop: asyncio.Event) -> None:
        """Fetch and write until told to stop; what is being written is finished first."""
        self._stop = stop
        ahead: asyncio.Task[tuple[int, Prepared] | None] | None = None
        try:
            while not stop.is_set():
                batch = await (ahead or self._patiently())
                ahead = asyncio.create_task(self._patiently())
                if batch is not None and batch[0] == self._generation:
                    await self._write(batch[1])
                await self._housekeeping()
        except _ToldToStopError:
            log.warning("stopped while the database was away: the batch under way is read again")
        finally:
            if ahead is not None:
                ahead.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await ahead

    async def _patiently(self) -> tuple[int, Prepared] | None:
        """Fetch and decode one batch, waiting out a broker or database that is away."""
        try:
            return await self._next()
        except Exception as error:
            if not self._database.may_pass(error):
                raise
            await self._wait_for_better(error)
            return None

    async def _housekeeping(self) -> None:
        """Do what is due now and then; what fails for a broker or database that is away is due again."""
        try:
            await self._now_and_then()
        except Exception as error:
            if not self._database.may_pass(error):
                raise
            await self._wait_for_better(error)

    @staticmethod
    async def _wait_for_better(error: Exception) -> None:
        log.warning("kafka or database not available, waiting", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(getattr(error, "retry_after_s", 1.0))

    # ── fetching ──────────────────────────────────────────────────────────────────────────────────────

    async def _next(self) -> tuple[int, Prepared] | None:
        """Fetch and decode one batch; None when nothing waits."""
        generation = self._generation
        fetched = await self._fetch()
        if not fetched:
            return None
        suspect = next((part for part in fetched if self._partition(part).isolating), None)
        if suspect is not None:
            return await self._alone(generation, suspect, fetched)
        return generation, await asyncio.to_thread(self._prepare, fetched)

    def _prepare(self, fetched: Sequence[Fetched]) -> Prepared:
        """Do all that a batch needs before its transaction; runs in a thread beside the one being written."""
        return self._writer.arranged(prepare(fetched, self._options))

    async def _fetch(self) -> list[Fetched]:
        """Live first; backlog only when no live record waits."""
        live = [self._tp(p) for p in runnable(self._held.values(), self._settings.live_topic)]
        backlog = [self._tp(p) for p in runnable(self._held.values(), self._settings.backlog_topic)]
        if not live and not backlog:
            await asyncio.sleep(IDLE_WAIT_MS / 1000)
            return []
        generation = self._generation
        records = await self._poll(live, backlog)
        if generation != self._generation:  # partitions changed hands meanwhile: what came may not follow on
            for tp in records.keys() & self._held.keys():
                self._consumer.seek(tp, self._position[tp])
            return []
        return [part for tp, messages in records.items() if (part := self._accept(tp, messages))]

    async def _poll(
        self, live: Sequence[TopicPartition], backlog: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Sequence[Message]]:
        """Read live records; a small batch of backlog whenever all that waited live has been taken."""
        most = self._settings.batch_records
        if backlog and self._live_caught_up:
            self._live_caught_up = False
            if records := await self._read(backlog, self._settings.backlog_batch_records, 0):
                self._backlog_waits = True
                return records
        if live:
            wait_ms = 0 if backlog and self._backlog_waits else IDLE_WAIT_MS
            if records := await self._read(live, most, wait_ms):
                self._live_caught_up = not _is_full(records, most)
                return records
        if not backlog:
            return {}
        records = await self._read(backlog, self._settings.backlog_batch_records, IDLE_WAIT_MS)
        self._backlog_waits = bool(records)
        return records

    async def _read(
        self, partitions: Sequence[TopicPartition], records: int, wait_ms: int
    ) -> Mapping[TopicPartition, Sequence[Message]]:
        return await self._consumer.fetch(partitions, records, wait_ms, records * RECORD_BYTES)

    def _accept(self, tp: TopicPartition, messages: Sequence[Message]) -> Fetched | None:
        """Take fetched records as the next ones of a partition this worker holds."""
        partition = self._held.get(tp)
        if partition is None or not messages:
            return None
        if partition.isolating:
            messages = messages[: partition.cautious_records]
            self._consumer.seek(tp, messages[-1].offset + 1)
        expected, self._position[tp] = self._position[tp], messages[-1].offset + 1
        return Fetched(partition.place, partition.epoch, expected, messages, partition.isolating)

    async def _alone(
        self, generation: int, suspect: Fetched, fetched: Sequence[Fetched]
    ) -> tuple[int, Prepared] | None:
        """Try a few records by themselves, one at first; set one aside that has killed whoever tried it."""
        for part in fetched:
            if part is not suspect:  # comes again after this one
                self._rewind(part)
        partition, offset = self._partition(suspect), suspect.messages[0].offset
        if suspect.expected_offset != partition.next_offset:  # the one before it is still being tried
            self._rewind(suspect)
            return None
        if partition.is_killer(offset):
            partition.cautious_records = 0
            detail = (
                f"the worker died {partition.suspect_tries} times while this record was tried alone; "
                "fix the decoder, then redrive it"
            )
            meter.set_aside(suspect, "KILLED_WORKER")
            innocent = replace(suspect, messages=suspect.messages[:1], suspected=False)
            self._position[self._tp(partition)] = offset + 1
            self._consumer.seek(self._tp(partition), offset + 1)
            return generation, set_aside(innocent, "KILLED_WORKER", detail)
        if len(suspect.messages) == 1:
            async with self._database.session() as db:
                await offsets.mark_suspect(db, suspect.place, suspect.epoch, offset)
        return generation, await asyncio.to_thread(self._prepare, [suspect])

    def _rewind(self, part: Fetched) -> None:
        tp = TopicPartition(part.place.topic, part.place.partition)
        self._position[tp] = part.expected_offset
        self._consumer.seek(tp, part.expected_offset)

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────

    async def _write(self, batch: Prepared) -> None:
        """Commit a batch, unless the stream it comes from is mostly bad."""
        if not await self._halts(batch):
            await self._store(batch)

    async def _store(self, batch: Prepared) -> None:
        """Commit a batch, waiting out what can be waited out; a lost partition drops it."""
        deadline = time.monotonic() + RETRY_SHARE * self._settings.max_poll_interval_s
        for attempt in itertools.count():
            try:
                async with self._database.session() as db:
                    written = await self._commit(db, batch, again=attempt > 0)
                break
            except FencedError as error:
                log.warning("batch dropped", reason=str(error))
                meter.dropped(batch)
                await self._start_over()
                return
            except Exception as error:
                if not may_be_of_the_data(error):
                    await self._wait_out(error, deadline, min(0.1 * 2**attempt, 5.0))
                elif attempt:
                    await self._store_apart(batch, error)
                    return
                self._writer.forget_partitions()  # retention may have dropped one that is needed
        self._committed(batch, written)

    async def _store_apart(self, batch: Prepared, error: Exception) -> None:
        """Find the records for which a batch cannot be stored, and set only those aside."""
        parts, generation = apart(batch), self._generation
        if len(parts) > 1:
            for part in parts:
                if generation == self._generation:
                    await self._store(await asyncio.to_thread(self._prepare, part))
            return
        if not batch.sources:  # it was to be set aside already
            raise error
        (record,) = parts[0]
        said = f"{type(error).__name__}: {error}".splitlines()[0]  # the evidence may tell more than a log may
        meter.set_aside(record, type(error).__name__)
        await self._write(set_aside(record, "NOT_STORABLE", f"the record cannot be stored: {said}"))

    async def _wait_out(self, error: Exception, deadline: float, wait_s: float) -> None:
        """Wait before a batch is tried again, or raise: not to be waited out, or waited for long enough."""
        said = f"{type(error).__name__}: {error}"
        if not self._database.may_pass(error):
            raise error
        if time.monotonic() + wait_s > deadline:
            raise TelltaleError(
                "ingest: the database has taken no batch for most of the poll interval, last answer: "
                f"{said}; nothing is lost, start again when it is back"
            ) from error
        log.warning("database not available, waiting", error=said, wait_s=wait_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stop.wait()
                raise _ToldToStopError

    async def _commit(self, db: Connection, batch: Prepared, *, again: bool) -> Written | None:
        """Write once; None when an earlier try turns out to have been committed."""
        if again:
            held = {part.place: part.epoch for part in batch.slices}
            reached = await offsets.offsets(db, list(held))
            ends = {part.place: batch.messages[part.stop - 1].offset + 1 for part in batch.slices}
            if all(reached[place] == (held[place], ends[place]) for place in held):
                self._safety.load(await safety.load_rule_states(db))  # memory has missed that batch
                return None
        return await self._writer.write(db, batch)

    def _committed(self, batch: Prepared, written: Written | None) -> None:
        for part in batch.slices:
            partition = self._held.get(TopicPartition(part.place.topic, part.place.partition))
            if partition is not None and partition.epoch == part.epoch:
                last = batch.messages[part.stop - 1]
                partition.next_offset, partition.last_timestamp_ms = last.offset + 1, last.timestamp
                partition.went_well(self._settings.batch_records)
        if written is not None:
            meter.ingested(batch, written)

    async def _halts(self, batch: Prepared) -> bool:
        """Halt a partition whose stream is mostly bad before its batch drains into the dead letters."""
        frames, rejected = frames_by_slice(batch)
        for i, part in enumerate(batch.slices):
            partition = self._held.get(TopicPartition(part.place.topic, part.place.partition))
            if partition is None or partition.epoch != part.epoch:
                continue
            window = partition.window.after(int(frames[i]), int(rejected[i]))
            if window.must_halt() and batch.messages[part.start].offset >= partition.allow_until_offset:
                await self._halt(batch, partition, window)
                return True
            partition.window = window
        return False

    async def _halt(self, batch: Prepared, partition: Partition, window: BadWindow) -> None:
        place = partition.place
        reasons = sorted({item.reason for item in batch.decoded.evidence if item.outcome == "rejected"})
        reason = (
            f"{window.bad:.0f} of the last {window.seen} frames were rejected ({', '.join(reasons[:5])}); "
            f"those kept so far are in telltale.dead_letter; go on with: telltale resume {place.topic} "
            f"{place.partition}"
        )
        async with self._database.session() as db:
            await offsets.halt(db, place, partition.epoch, reason)
        partition.halt_reason = reason
        log.error("partition halted", topic=place.topic, partition=place.partition, reason=reason)
        await self._start_over()

    async def _start_over(self) -> None:
        """Forget batches under way and read on from where the database stands."""
        self._generation += 1
        async with self._database.session() as db:
            reached = await offsets.offsets(db, [p.place for p in self._held.values()])
        for tp, partition in list(self._held.items()):
            epoch, next_offset = reached.get(partition.place, (-1, 0))
            if epoch != partition.epoch:
                del self._held[tp]
                continue
            partition.next_offset = self._position[tp] = next_offset
            with contextlib.suppress(TelltaleError):
                self._consumer.seek(tp, next_offset)

    # ── partitions come and go ────────────────────────────────────────────────────────────────────────

    async def _assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Take these partitions over in the database, then read on from the offset stored there."""
        self._cluster = self._cluster or await self._consumer.cluster_id()
        self._untaken = set(assigned)
        async with self._database.session() as db:
            await self._take_over(db, assigned)

    async def _take_over(self, db: Connection, assigned: Sequence[TopicPartition]) -> None:
        self._generation += 1
        window = BadWindow(self._settings.halt_window, self._settings.halt_bad_share)
        ordered = sorted(assigned)
        for topic, parts in groupby(ordered, key=lambda tp: tp.topic):
            numbers = [tp.partition for tp in parts]
            for held in await offsets.take_over(db, self._cluster, topic, numbers, self._name):
                tp = TopicPartition(topic, held.place.partition)
                self._held[tp] = partition_of(held, window)
                self._position[tp] = held.next_offset
                self._consumer.seek(tp, held.next_offset)
        self._safety.load(await safety.load_rule_states(db))
        self._untaken -= set(assigned)
        log.info("partitions assigned", partitions=[f"{tp.topic}[{tp.partition}]" for tp in ordered])

    async def _revoked(self, revoked: Sequence[TopicPartition]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_WAIT_S):
                await self._hand_back(revoked)

    async def _hand_back(self, revoked: Sequence[TopicPartition]) -> None:
        """Give partitions up cleanly, after the write under way; the fence covers us if this fails."""
        async with self._database.as_it_is() as db:
            self._generation += 1
            self._untaken -= set(revoked)
            gone = [self._held.pop(tp) for tp in revoked if tp in self._held]
            if gone and db is not None:
                await offsets.release(db, [(p.place, p.epoch) for p in gone])

    # ── now and then ──────────────────────────────────────────────────────────────────────────────────

    async def _now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._pace.courtesy > COURTESY_COMMIT_S:
            self._pace.courtesy = now
            offsets = {tp: p.next_offset for tp, p in self._held.items()}
            await self._consumer.commit(offsets)
            meter.held(self._held, {tp: self._consumer.lag(tp, at) for tp, at in offsets.items()})
        if now - self._pace.halt_poll > HALT_POLL_S:
            self._pace.halt_poll = now
            if missed := sorted(self._untaken & self._consumer.assignment):
                async with self._database.session() as db:
                    await self._take_over(db, missed)
            await self._poll_halted()

    async def _poll_halted(self) -> None:
        for tp, partition in list(self._held.items()):
            if partition.halt_reason is None:
                continue
            async with self._database.session() as db:
                allowed = await offsets.allowed_until(db, partition.place)
            if allowed is not None:
                partition.halt_reason, partition.allow_until_offset = None, allowed
                partition.window = BadWindow(self._settings.halt_window, self._settings.halt_bad_share)
                log.info("partition goes on", topic=tp.topic, partition=tp.partition)

    def _partition(self, part: Fetched) -> Partition:
        return self._held[TopicPartition(part.place.topic, part.place.partition)]

    @staticmethod
    def _tp(partition: Partition) -> TopicPartition:
        return TopicPartition(partition.place.topic, partition.place.partition)


def _is_full(records: Mapping[TopicPartition, Sequence[Message]], most: int) -> bool:
    """Tell whether a batch was cut at its limits, so that more waits behind it."""
    if sum(map(len, records.values())) >= most:
        return True
    return sum(len(m.value or b"") for part in records.values() for m in part) >= most * RECORD_BYTES

"""The door to Kafka against a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from tests.servers.kafka import ApacheKafka

from telltale.broker import Consumer, OutOfRangeError, Producer, Record, TopicPartition, ensure_topics
from telltale.config import Settings
from telltale.errors import SettingsError, WaitableError

Topics = Callable[..., Awaitable[tuple[str, str]]]
Batches = dict[TopicPartition, list[Record]]


def settings_for(kafka: str, live: str, backlog: str) -> Settings:
    return Settings(
        kafka=kafka,
        live_topic=live,
        backlog_topic=backlog,
        consumer_group=f"group-{live}",
        session_timeout_s=6,
    )


async def read(consumer: Consumer, count: int, *, backlog: bool = False, wait_s: float = 20) -> Batches:
    found: Batches = {}
    deadline = time.monotonic() + wait_s
    while sum(map(len, found.values())) < count and time.monotonic() < deadline:
        wanted = consumer.backlog if backlog else consumer.live
        for partition, records in (await consumer.fetch(wanted, 1000, 200)).items():
            found.setdefault(partition, []).extend(records)
    return found


async def nothing_to_say(_: list[TopicPartition]) -> None:
    return None


async def test_records_arrive_in_order_with_key_headers_and_timestamp(kafka: str, topics: Topics) -> None:
    live, backlog = await topics(3)
    async with Producer(kafka) as producer:
        messages = [(b"VIN%d" % (i % 7), b"%d" % i, [("protocol", b"json")], 1000 + i) for i in range(500)]
        assert await producer.send_many(live, messages) == 500
    async with Consumer(settings_for(kafka, live, backlog), on_assigned=nothing_to_say) as consumer:
        found = await read(consumer, 500)
    records = [record for batch in found.values() for record in batch]
    assert sorted(int(record.value or b"") for record in records) == list(range(500))
    for batch in found.values():
        assert [record.offset for record in batch] == list(range(len(batch)))
    assert {(r.key, r.timestamp, tuple(r.headers)) for r in records} == {
        (key, timestamp, tuple(headers)) for key, _, headers, timestamp in messages
    }


async def test_one_key_lands_in_one_partition_whichever_way_it_is_sent(kafka: str, topics: Topics) -> None:
    live, backlog = await topics(4)
    async with Producer(kafka) as producer:
        await producer.send_many(live, [(b"VIN%02d" % i, b"x", (), None) for i in range(40)])
        for i in range(40):
            await producer.send(live, b"VIN%02d" % i, b"y")
        await producer.flush()
    async with Consumer(settings_for(kafka, live, backlog), on_assigned=nothing_to_say) as consumer:
        found = await read(consumer, 80)
    homes: dict[bytes, set[int]] = {}
    for partition, records in found.items():
        for record in records:
            homes.setdefault(record.key or b"", set()).add(partition.partition)
    assert len(homes) == 40
    assert all(len(partitions) == 1 for partitions in homes.values())


async def test_reading_starts_where_on_assigned_says_not_where_kafka_was_told(
    kafka: str, topics: Topics
) -> None:
    live, backlog = await topics(1)
    settings = settings_for(kafka, live, backlog)
    async with Producer(kafka) as producer:
        await producer.send_many(live, [(b"V", b"%d" % i, (), None) for i in range(100)])
    only = TopicPartition(live, 0)
    async with Consumer(settings, on_assigned=nothing_to_say) as consumer:
        await read(consumer, 100)
        await consumer.commit({only: 90})

    async def slowly(partitions: list[TopicPartition]) -> None:
        await asyncio.sleep(0.5)
        consumer.seek(only, 40)

    consumer = Consumer(settings, on_assigned=slowly)
    async with consumer:
        found = await read(consumer, 60)
    assert [record.offset for record in found[only]] == list(range(40, 100))


async def test_a_paused_partition_stays_unread_until_resumed(kafka: str, topics: Topics) -> None:
    live, backlog = await topics(2)

    async def halt_first(partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            consumer.seek(partition, 0)
        consumer.pause(TopicPartition(live, 0))

    async with Producer(kafka) as producer:
        await producer.send_many(live, [(None, b"%d" % i, (), None) for i in range(20)])
    consumer = Consumer(settings_for(kafka, live, backlog), on_assigned=halt_first)
    async with consumer:
        found = await read(consumer, 20, wait_s=8)
        assert {partition.partition for partition in found} == {1}
        consumer.resume(TopicPartition(live, 0))
        assert len((await read(consumer, 10))[TopicPartition(live, 0)]) == 10


async def test_an_error_while_taking_over_reaches_the_reader(kafka: str, topics: Topics) -> None:
    live, backlog = await topics(1)

    async def fail(_: list[TopicPartition]) -> None:
        raise WaitableError("the database is away")

    async with Consumer(settings_for(kafka, live, backlog), on_assigned=fail) as consumer:
        with pytest.raises(WaitableError, match="the database is away"):
            await read(consumer, 1)


async def test_a_second_member_takes_its_share_and_gives_it_back(kafka: str, topics: Topics) -> None:
    live, backlog = await topics(4)
    settings = settings_for(kafka, live, backlog)
    async with Consumer(settings, on_assigned=nothing_to_say) as first:
        await until(lambda: len(first.live) == 4)
        before = first.generation
        async with Consumer(settings, on_assigned=nothing_to_say) as second:
            await until(lambda: len(first.live) == 2 and len(second.live) == 2)
            assert first.generation > before
            assert not set(first.assignment) & set(second.assignment)
        await until(lambda: len(first.live) == 4)


async def test_live_and_backlog_are_fetched_apart(kafka: str, topics: Topics) -> None:
    live, backlog = await topics(1)
    async with Producer(kafka) as producer:
        await producer.send_many(backlog, [(b"V", b"late", (), None)] * 10)
        await producer.send_many(live, [(b"V", b"now", (), None)] * 10)
    async with Consumer(settings_for(kafka, live, backlog), on_assigned=nothing_to_say) as consumer:
        found = await read(consumer, 10)
        assert {record.value for batch in found.values() for record in batch} == {b"now"}
        assert await consumer.fetch([], 10, 50) == {}
        found = await read(consumer, 10, backlog=True)
        assert {record.value for batch in found.values() for record in batch} == {b"late"}


@pytest.mark.kafka
async def test_an_offset_that_is_gone_stops_reading_with_the_way_on(kafka: str, topics: Topics) -> None:
    live, backlog = await topics(1)
    only = TopicPartition(live, 0)

    async def ahead(_: list[TopicPartition]) -> None:
        consumer.seek(only, 500)

    async with Producer(kafka) as producer:
        await producer.send_many(live, [(b"V", b"x", (), None)] * 10)
    consumer = Consumer(settings_for(kafka, live, backlog), on_assigned=ahead)
    async with consumer:
        with pytest.raises(
            OutOfRangeError, match=r"no offset 500, it holds 0 to 10.*set next_offset"
        ) as caught:
            await read(consumer, 1)
    assert (caught.value.earliest, caught.value.end) == (0, 10)


async def test_a_missing_topic_is_named_at_start(kafka: str, topics: Topics) -> None:
    live, _ = await topics(1)
    with pytest.raises(SettingsError, match=r"no topic test\.nowhere"):
        async with Consumer(settings_for(kafka, live, "test.nowhere"), on_assigned=nothing_to_say):
            pass


async def test_a_broker_that_does_not_answer_is_named_at_start() -> None:
    with pytest.raises(WaitableError, match=r"no broker answers at 127\.0\.0\.1:1 "):
        async with Producer("127.0.0.1:1"):
            pass


async def test_making_a_topic_twice_changes_nothing(kafka: str, topics: Topics) -> None:
    live, _ = await topics(2)
    await ensure_topics(kafka, {live: 5})
    async with Producer(kafka) as producer:
        assert await producer.send_many(live, [(None, b"x", (), None)] * 4) == 4


async def until(condition: Callable[[], bool], wait_s: float = 20) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        await asyncio.sleep(0.05)


@pytest.mark.kafka
async def test_reading_goes_on_after_the_broker_was_killed_and_started_again(
    apache_kafka: ApacheKafka,
) -> None:
    live, backlog = "test.live", "test.backlog"
    await ensure_topics(apache_kafka.bootstrap, {live: 2, backlog: 1})
    messages = [(b"VIN%d" % (i % 9), b"%d" % i, (), None) for i in range(100)]
    async with Producer(apache_kafka.bootstrap) as producer:
        assert producer.idempotent
        await producer.send_many(live, messages)
    settings = settings_for(apache_kafka.bootstrap, live, backlog)
    async with Consumer(settings, on_assigned=nothing_to_say) as consumer:
        assert sum(map(len, (await read(consumer, 100)).values())) == 100
        apache_kafka.kill()
        await asyncio.to_thread(apache_kafka.start)
        async with Producer(apache_kafka.bootstrap) as producer:
            await producer.send_many(live, messages)
        found = await read(consumer, 100, wait_s=40)
    assert sum(map(len, found.values())) >= 100  # a rejoin without a say of ours starts at the earliest
    assert {record.value for batch in found.values() for record in batch} == {
        value for _, value, _, _ in messages
    }

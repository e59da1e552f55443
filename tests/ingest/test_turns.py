"""Whose turn it is: live records before backlog, and backlog as soon as live has been caught up with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from telltale.broker import TopicPartition
from telltale.config import Settings
from telltale.ingest.loop import Worker

pytestmark = pytest.mark.unit

LIVE, BACKLOG = TopicPartition("live", 0), TopicPartition("backlog", 0)


@dataclass
class Record:
    value: bytes = b"frame"


class Waiting:
    """A consumer whose topics hold so many records."""

    def __init__(self, live: int, backlog: int) -> None:
        self.held = {LIVE: live, BACKLOG: backlog}

    async def fetch(
        self, partitions: Sequence[TopicPartition], max_records: int, *_: Any
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        (partition,) = partitions
        taken = min(max_records, self.held[partition])
        self.held[partition] -= taken
        return {partition: [Record()] * taken} if taken else {}


async def turns(worker: Worker, consumer: Waiting, count: int, live_arriving: int = 0) -> list[str]:
    """Which topics are read in the next turns, while so many live records arrive between any two."""
    worker._consumer = consumer  # type: ignore[assignment]
    read = []
    for _ in range(count):
        (partition,) = await worker._poll([LIVE], [BACKLOG])
        read.append(partition.topic)
        consumer.held[LIVE] += live_arriving
    return read


@pytest.fixture
async def worker() -> Worker:
    return Worker(Settings(batch_records=100, backlog_batch_records=10))


async def test_a_live_rush_is_read_before_any_backlog(worker: Worker) -> None:
    assert await turns(worker, Waiting(live=300, backlog=50), 4) == ["live", "live", "live", "backlog"]


async def test_backlog_has_its_turn_although_live_records_never_cease(worker: Worker) -> None:
    read = await turns(worker, Waiting(live=30, backlog=1000), 6, live_arriving=20)
    assert read == ["live", "backlog", "live", "backlog", "live", "backlog"]

"""What operations see of ingest: outcomes, rejects, lag, latency."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import structlog

from telltale import metrics
from telltale.broker import TopicPartition
from telltale.ingest.partitions import Partition
from telltale.ingest.prepare import Fetched, Prepared
from telltale.ingest.write import Written

log = structlog.get_logger("telltale.ingest")


def ingested(batch: Prepared, written: Written) -> None:
    """Count a committed batch."""
    for (_, protocol), tally in written.tallies.items():
        name = batch.envelopes.protocols[protocol]
        for outcome in ("stored", "partial", "duplicate", "conflicting", "control", "rejected"):
            if count := getattr(tally, outcome):
                metrics.READINGS.labels(name, outcome).inc(count)
    for (protocol_name, reason), count in written.rejects.items():
        metrics.REJECTS.labels(protocol_name, reason).inc(count)
    for (signal, kind), count in batch.decoded.markers.items():
        metrics.MARKERS.labels(signal, kind).inc(count)
    now_s = time.time()
    for part in batch.slices:
        oldest_s = batch.messages[part.start].timestamp / 1000
        metrics.EVENT_TO_STORED.labels(part.place.topic).observe(max(0.0, now_s - oldest_s))
        metrics.BATCHES.labels(part.place.topic, "committed").inc()
    for alert in written.alerts:
        metrics.ALERTS.labels(alert.detector, alert.severity).inc()
        metrics.EVENT_TO_ALERT.observe(max(0.0, now_s - alert.seen_at / 1e6))


def dropped(batch: Prepared) -> None:
    """Count a batch that was refused because another worker has taken over."""
    for part in batch.slices:
        metrics.BATCHES.labels(part.place.topic, "fenced").inc()


def set_aside(record: Fetched, reason: str) -> None:
    """Say where a record was set aside, and nothing of what is in it."""
    place, offset = record.place, record.messages[0].offset
    log.error("record set aside", topic=place.topic, partition=place.partition, offset=offset, reason=reason)


def held(partitions: Mapping[TopicPartition, Partition], lag: Mapping[TopicPartition, int | None]) -> None:
    """Show lag and halted partitions of what this worker holds."""
    waiting: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    age_s: dict[str, float] = {}
    now_s = time.time()
    for tp, partition in partitions.items():
        behind = lag.get(tp) or 0
        waiting[tp.topic] += behind
        stopped[tp.topic] += partition.halt_reason is not None
        last_ms = partition.last_timestamp_ms
        seconds = max(0.0, now_s - last_ms / 1000) if behind and last_ms else 0.0
        age_s[tp.topic] = max(age_s.get(tp.topic, 0.0), seconds)
    for topic, seconds in age_s.items():
        metrics.LAG_MESSAGES.labels(topic).set(waiting[topic])
        metrics.LAG_SECONDS.labels(topic).set(seconds)
        metrics.HALTED.labels(topic).set(stopped[topic])

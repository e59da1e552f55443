"""The loop of the score worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Final

import structlog

from telltale import boosting, metrics
from telltale.config import Settings
from telltale.errors import FencedError, TelltaleError
from telltale.failures.cell_fault import DETECTOR
from telltale.features import FEATURES_VERSION, RANKED_BY
from telltale.score.work import Done, Limits, work
from telltale.store import score
from telltale.store.pool import Pool, is_waitable, open_pool
from telltale.store.score import Lease

log = structlog.get_logger("telltale.score")

IDLE_S: Final = 1.0
CLEAN_EVERY: Final = 20  # rounds between deletions of marks that every shard has taken
MOST_FAILURES: Final = 8
LONGEST_BACKOFF_S: Final = 15.0


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Fold and score until `stop` is set; raises when it cannot go on."""
    model = boosting.load(settings.models / DETECTOR, features=RANKED_BY, features_version=FEATURES_VERSION)
    metrics.MODEL_INFO.labels(DETECTOR, model.card.version).set(1)
    holder = f"{socket.gethostname()}:{os.getpid()}"
    ready = asyncio.Event()
    server = await metrics.serve(settings.metrics_port, ready.is_set)
    log.info("started", model=model.card.version, metrics_port=metrics.port_of(server))
    try:
        await _with_patience(settings, holder, model, stop, ready)
    finally:
        server.close()


async def _with_patience(
    settings: Settings, holder: str, model: boosting.Model, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """Run rounds; wait out what passes by itself, and give up when it does not pass."""
    failures = 0
    pool: Pool | None = None
    while not stop.is_set():
        try:
            pool = pool or await open_pool(
                settings.database, role_name="score", timeout_s=settings.database_timeout_s, max_size=2
            )
            await _rounds(pool, settings, holder, model, stop, ready)
        except Exception as error:
            failures += 1
            ready.clear()
            if not is_waitable(error):
                raise
            if failures > MOST_FAILURES:
                raise TelltaleError(f"score: the database does not answer: {error}") from error
            log.warning("waiting", error=f"{type(error).__name__}: {error}", failures=failures)
            await _pause(stop, min(2.0 ** (failures - 1), LONGEST_BACKOFF_S))
    if pool is not None:
        with contextlib.suppress(Exception):
            await score.release(pool, holder)
        await pool.close()


async def _rounds(
    pool: Pool,
    settings: Settings,
    holder: str,
    model: boosting.Model,
    stop: asyncio.Event,
    ready: asyncio.Event,
) -> None:
    limits = Limits(
        ttl_s=settings.score_lease_s,
        quiet_s=settings.score_quiet_s,
        longest_wait_s=settings.score_wait_s,
        vehicles=settings.score_vehicles,
        buckets=settings.score_buckets,
        marks=settings.score_buckets,
    )
    number = 0
    while not stop.is_set():
        leases = await score.claim(pool, holder, limits.ttl_s)
        ready.set()
        busy = False
        for lease in leases:
            if not stop.is_set():
                busy |= await _shard(pool, lease, model, limits)
        if number % CLEAN_EVERY == 0:
            await score.forget_marks(pool)
        number += 1
        if not busy:
            await _pause(stop, IDLE_S)


async def _shard(pool: Pool, lease: Lease, model: boosting.Model, limits: Limits) -> bool:
    """Do one transaction of a shard; tell whether there may be more to do at once."""
    try:
        async with pool.acquire() as db:
            done = await work(db, lease, model, limits)
    except FencedError as error:
        log.info("fenced", shard=lease.shard, reason=str(error))
        return False
    _count(done)
    return done.buckets > 0 or done.marks >= limits.marks


def _count(done: Done) -> None:
    metrics.FOLDED.inc(done.buckets)
    for judged in done.verdicts.values():
        for verdict in judged:
            metrics.SCORED.labels(DETECTOR, verdict.not_scored or "scored").inc()
    for alert in done.alerts:
        metrics.ALERTS.labels(alert.detector, alert.severity).inc()
        log.info("alert", vehicle=alert.vehicle_id, component=alert.component, severity=alert.severity)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()

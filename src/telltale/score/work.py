"""One transaction of `score`: fold what is dirty, summarise the days, judge them, set the alerts right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from telltale.boosting import Model
from telltale.failures.cell_fault import DETECTOR, RULES_VERSION, DayVerdict, episodes, judge_day
from telltale.failures.reconcile import changes
from telltale.features import LONG_DAYS, rest_points
from telltale.fold.days import day_summary, days_touched
from telltale.fold.frames import frames_of, hours_of_day
from telltale.fold.segments import Segment, fold, merge
from telltale.records import Rows
from telltale.score.evidence import Context, write_of
from telltale.store import findings, score, summaries
from telltale.store.findings import AlertWrite
from telltale.store.pool import Connection
from telltale.store.score import Bucket, Lease

EPISODE_DAYS: Final = 180  # how far back verdicts are read to follow an episode

Key = tuple[int, int]  # vehicle and hour, or vehicle and day


@dataclass(frozen=True, slots=True)
class Done:
    """What a transaction did, for metrics and for the decision to go on at once."""

    marks: int = 0
    buckets: int = 0
    verdicts: Mapping[int, Sequence[DayVerdict]] = field(default_factory=dict)
    alerts: Sequence[AlertWrite] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one transaction takes on, and when an hour is ripe."""

    ttl_s: float
    quiet_s: float
    longest_wait_s: float
    vehicles: int
    buckets: int
    marks: int


async def work(db: Connection, lease: Lease, model: Model, limits: Limits) -> Done:
    """Do one transaction for a shard; raises FencedError, changing nothing, when the lease is lost."""
    async with db.transaction():
        await score.fence(db, lease, limits.ttl_s)
        marks = await score.take_marks(db, lease, limits.marks)
        buckets = await score.ripe_buckets(
            db,
            lease,
            quiet_s=limits.quiet_s,
            longest_wait_s=limits.longest_wait_s,
            vehicles=limits.vehicles,
            limit=limits.buckets,
        )
        if not buckets:
            return Done(marks)
        days = await _fold(db, buckets)
        verdicts = await _judge(db, days, model)
        alerts = await _settle(db, verdicts, model, _seen(buckets))
        await score.folded(db, buckets)
        return Done(marks, len(buckets), verdicts, alerts)


def _seen(buckets: Sequence[Bucket]) -> dict[int, datetime]:
    seen: dict[int, datetime] = {}
    for bucket in buckets:
        seen[bucket.vehicle_id] = max(bucket.marked_at, seen.get(bucket.vehicle_id, bucket.marked_at))
    return seen


async def _fold(db: Connection, buckets: Sequence[Bucket]) -> set[Key]:
    """Fold these hours from raw and write them and the days they touch; return those days."""
    rows = await score.read_rows(db, buckets)
    known = await summaries.load_hours(db, [(b.vehicle_id, b.hour, b.hour + 1) for b in buckets])
    hours = await asyncio.to_thread(_fold_hours, rows, known)
    await summaries.store_hours(db, hours)
    days = {(b.vehicle_id, day) for b in buckets for day in days_touched(b.hour)}
    around = [(v, hours_of_day(day)[0] - 1, hours_of_day(day)[-1] + 1) for v, day in days]
    of_days = await summaries.load_hours(db, around)
    found = {(v, day): day_summary(of_days.get(v, {}), day) for v, day in sorted(days)}
    kept = {key: segment for key, segment in found.items() if segment is not None}
    await summaries.store_days(db, kept)
    return set(kept)


def _fold_hours(rows: Mapping[Key, Rows], known: Mapping[int, Mapping[int, Segment]]) -> dict[Key, Segment]:
    folded: dict[Key, Segment] = {}
    for (vehicle, hour), raw in rows.items():
        fresh = fold(frames_of(raw))
        before = known.get(vehicle, {}).get(hour)
        if fresh is not None:
            folded[vehicle, hour] = fresh if before is None else _renewed(before, fresh)
    return folded


def _renewed(before: Segment, fresh: Segment) -> Segment:
    """Return the segment now: rows never go away but by retention, so fewer rows mean that raw is gone.

    Then what is new is merged into what is known where it lies before or after it; rows that fall
    between cannot be placed any more and leave the summary as it is.
    """
    if fresh.frames >= before.frames:
        return fresh
    if fresh.first_us > before.last_us:
        return merge(before, fresh)
    if fresh.last_us < before.first_us:
        return merge(fresh, before)
    return before


async def _judge(db: Connection, days: set[Key], model: Model) -> dict[int, list[DayVerdict]]:
    """Judge every day that these days may have changed; write the verdicts and return them by vehicle."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for vehicle, day in days:
        first[vehicle] = min(day, first.get(vehicle, day))
        last[vehicle] = max(day, last.get(vehicle, day))
    vehicles = sorted(first)
    history = await summaries.load_days(db, vehicles, [first[v] - LONG_DAYS for v in vehicles])
    verdicts = await asyncio.to_thread(_verdicts, history, first, last, model)
    await findings.store_verdicts(
        db, DETECTOR, verdicts, model_version=model.card.version, rules_version=RULES_VERSION
    )
    return verdicts


def _verdicts(
    history: Mapping[int, Sequence[tuple[int, Segment]]],
    first: Mapping[int, int],
    last: Mapping[int, int],
    model: Model,
) -> dict[int, list[DayVerdict]]:
    judged: dict[int, list[DayVerdict]] = {}
    for vehicle, days in history.items():
        points = rest_points(days)
        reach = range(first[vehicle], last[vehicle] + LONG_DAYS)
        touched = [day for day, _ in days if day in reach]
        judged[vehicle] = [judge_day(points, day, model.score, model.card.threshold) for day in touched]
    return judged


async def _settle(
    db: Connection,
    fresh: Mapping[int, Sequence[DayVerdict]],
    model: Model,
    seen: Mapping[int, datetime],
) -> list[AlertWrite]:
    """Bring the alerts of these vehicles in line with their verdicts; return the alerts opened."""
    vehicles = [vehicle for vehicle, judged in fresh.items() if judged]
    since = {vehicle: fresh[vehicle][0].day - EPISODE_DAYS for vehicle in vehicles}
    verdicts = await findings.load_verdicts(db, DETECTOR, vehicles, [since[v] for v in vehicles])
    known = await findings.load_alerts(db, DETECTOR, vehicles)
    facts = await findings.load_facts(db, vehicles)
    writes = []
    for vehicle in vehicles:
        context = Context(vehicle, facts[vehicle], model, seen[vehicle])
        steps = changes(known.get(vehicle, []), episodes(verdicts[vehicle]), since=since[vehicle])
        writes += [write_of(step, context) for step in steps]
    return await findings.write_alerts(db, writes)

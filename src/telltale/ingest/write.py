"""One batch, one transaction: fence, rows, evidence, alerts, dirty marks, ledger, offsets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.errors import WaitableError
from telltale.ingest.arrange import Arranged, Ids, Settled, arrange, is_timed, settle
from telltale.ingest.prepare import Prepared, Slice
from telltale.ingest.registry import Registry
from telltale.ingest.safety import Judged, SafetyLane
from telltale.intake import (
    Outcome,
    Tally,
    TimeRule,
    settle_session,
    timestamp_us,
    untimed_part,
)
from telltale.records import Array, Evidence, Flag, Source, TimeSource
from telltale.store import ledger, offsets, readings, safety
from telltale.store.pool import Connection


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed batch came to."""

    tallies: dict[tuple[int, int], Tally]  # (slice, protocol) → accounting
    rejects: Counter[tuple[str, str]]  # (protocol, reason)
    alerts: Sequence[safety.AlertRow]
    newest_observed_at: NDArray[np.int64]  # µs of stored rows with the vehicle's own time


class Writer:
    """Writes prepared batches through one connection."""

    def __init__(self, registry: Registry, safety: SafetyLane, times: TimeRule) -> None:
        self._registry = registry
        self._safety = safety
        self._times = times
        self._weeks: set[int] = set()
        self._again = False  # the last batch brought readings again that memory took for new

    def arranged(self, batch: Prepared) -> Prepared:
        """Arrange a batch ahead of its transaction, if all in it is registered. Safe in a thread."""
        ids = self._ids(batch)
        if ids is None:
            return batch
        return replace(batch, arranged=arrange(batch.decoded.reports, ids, likely_new=not self._again))

    async def write(self, db: Connection, batch: Prepared) -> Written:
        """Commit a batch whole, or leave nothing of it; raises FencedError when a partition was lost."""
        arranged = batch.arranged or await self._register(db, batch)
        await self._register_sessions(db, batch)
        await self._ensure_partitions(db, arranged.weeks)
        async with db.transaction():
            await offsets.fence(db, [_step(batch, part) for part in batch.slices])
            settled, judged = await self._store_reports(db, batch, arranged)
            sessions = await self._store_sessions(db, batch)
            letters, rejects = await asyncio.to_thread(self._letters, batch, settled.outcome, sessions)
            await ledger.bury(db, letters)
            judged = await self._act_on(db, batch, settled, judged)
            tallies = _tallies(batch, settled.outcome, sessions)
            await ledger.enter_ledger(db, [_entry(batch, key, tally) for key, tally in tallies.items()])
        observed_at = self._committed(settled, judged)
        return Written(tallies, rejects, judged.opened, observed_at)

    async def _register(self, db: Connection, batch: Prepared) -> Arranged:
        """Register what is new in a batch, then arrange it. Before its transaction: no id is ever wrong."""
        await self._registry.vehicle_ids(db, batch.decoded.reports.vin.tolist())
        await self._registry.source_ids(db, _sources(batch)[0])
        arranged = (await asyncio.to_thread(self.arranged, batch)).arranged
        assert arranged is not None  # noqa: S101  all of it is registered now
        return arranged

    async def _register_sessions(self, db: Connection, batch: Prepared) -> None:
        """Register who logs in or out, before the transaction: memory outlives an id that is rolled back."""
        if events := batch.decoded.sessions:
            await self._registry.vehicle_ids(db, [event.vin.encode() for event in events])
            await self._registry.source_ids(db, _session_sources(batch))

    async def _ensure_partitions(self, db: Connection, weeks: frozenset[int]) -> None:
        if new_weeks := weeks - self._weeks:
            await readings.ensure_partitions(db, new_weeks)
            self._weeks |= new_weeks

    def _ids(self, batch: Prepared) -> Ids | None:
        vehicles = self._registry.known_vehicles(batch.decoded.reports.vin.tolist())
        pairs, pair_of = _sources(batch)
        sources = self._registry.known_sources(pairs)
        if vehicles is None or sources is None:
            return None
        editions = np.array([source.edition for source, _ in pairs], np.int16)
        well_formed = self._registry.is_well_formed(vehicles)
        return Ids(vehicles, well_formed, sources[pair_of], editions[pair_of])

    async def _store_reports(
        self, db: Connection, batch: Prepared, arranged: Arranged
    ) -> tuple[Settled, Judged]:
        """Store the rows that are new. New by memory is tried at once; the primary key has the last word."""
        columns, first = arranged.reports.rows.columns, arranged.ordered.first
        timed = is_timed(columns)[first]
        newer = timed & self._registry.is_newer(columns["vehicle_id"][first], columns["observed_at"][first])
        trusted = np.zeros_like(newer) if self._again else newer
        known = await readings.known_untimed(db, columns, first[~timed])
        known |= await readings.known_digests(db, columns, first[timed & ~trusted])
        settled = await asyncio.to_thread(settle, arranged, known)
        stored, judged = await self._copy_and_judge(db, batch, settled)
        if not stored:
            known |= await readings.known_digests(db, columns, first[trusted])
            settled = await asyncio.to_thread(settle, arranged, known)
            _, judged = await self._copy_and_judge(db, batch, settled, final=True)
        self._again = not known.keys().isdisjoint(first[newer].tolist())
        await _remember_untimed(db, settled.reports.columns)
        return settled, judged

    async def _copy_and_judge(
        self, db: Connection, batch: Prepared, settled: Settled, *, final: bool = False
    ) -> tuple[bool, Judged]:
        """Judge the new rows while the database takes them in."""
        judging = asyncio.create_task(asyncio.to_thread(self._judge, batch, settled))
        try:
            stored = await readings.copy_reports(db, settled.packed, final=final)
        finally:
            judged = await judging
        return stored, judged

    def _judge(self, batch: Prepared, settled: Settled, believed: Sequence[int] = ()) -> Judged:
        reports = batch.decoded.reports
        if not len(settled.rows):
            return self._safety.nothing()

        def seen_at(row: int) -> int:
            return timestamp_us(batch.messages[int(reports.record[settled.rows[row]])])

        vin = reports.vin[settled.rows]
        return self._safety.judge(settled.reports, settled.edition, seen_at, vin, believed)

    async def _act_on(self, db: Connection, batch: Prepared, settled: Settled, judged: Judged) -> Judged:
        """Mark what has changed, and store what the safety lane found."""
        if not len(settled.rows):
            return judged
        await ledger.mark_dirty(db, *settled.dirty)
        now_us = int(batch.messages[-1].timestamp) * 1000
        if ask := self._safety.to_ask(judged, now_us):
            believed = await safety.insulation_once_plausible(db, ask)
            self._safety.asked(ask, now_us)
            judged = await asyncio.to_thread(self._judge, batch, settled, believed)
        opened = await safety.store_alerts(db, judged.alerts)
        await safety.save_rule_states(db, judged.changed, judged.gone)
        return judged.with_opened(opened)

    async def _store_sessions(self, db: Connection, batch: Prepared) -> list[str]:
        """Store logins and logouts; return the outcome of each."""
        events = batch.decoded.sessions
        if not events:
            return []
        vehicles = await self._registry.vehicle_ids(db, [event.vin.encode() for event in events])
        sources = _session_sources(batch)
        ids = await self._registry.source_ids(db, sources)
        outcomes = []
        for event, vehicle, source in zip(events, vehicles.tolist(), sources, strict=True):
            received = int(batch.envelopes.received_at[event.record])
            observed, time_source, flags = settle_session(event, received, self._times)
            timed = time_source == TimeSource.VEHICLE
            part = event.sequence if timed else untimed_part(event.digest)
            row = readings.SessionRow(
                event, vehicle, part, observed, received, time_source, flags, ids[source]
            )
            outcomes.append(await readings.store_session(db, row))
        return outcomes

    def forget_partitions(self) -> None:
        """Ask for the partitions of a batch again: retention may have dropped what was there."""
        self._weeks.clear()

    def _letters(
        self, batch: Prepared, outcome: NDArray[np.int8], sessions: Sequence[str]
    ) -> tuple[list[ledger.DeadLetter], Counter[tuple[str, str]]]:
        letters = []
        rejects: Counter[tuple[str, str]] = Counter()
        rows = _rows_by_frame(batch) if batch.decoded.evidence else {}
        for item in batch.decoded.evidence:
            row = rows.get((item.record, item.frame))
            if item.outcome == "rejected":
                rejects[batch.envelopes.protocol(item.record), item.reason] += 1
            elif row is None or outcome[row] != Outcome.PARTIAL:
                continue  # decoded in part, but a copy of what is stored
            letters.append(_letter(batch, item, row))
        letters += [_conflict(batch, int(row)) for row in np.flatnonzero(outcome == Outcome.CONFLICTING)]
        for event, result in zip(batch.decoded.sessions, sessions, strict=True):
            if result == "conflicting":
                raw = batch.frame(event.record, event.frame)
                item = Evidence(event.record, event.frame, result, "CONFLICTING", _OTHER_CONTENT, raw)
                letters.append(_letter(batch, item, None))
        return letters, rejects

    def _committed(self, settled: Settled, judged: Judged) -> NDArray[np.int64]:
        """Remember what is stored now; return the vehicle's own times of it."""
        columns = settled.reports.columns
        timed = is_timed(columns)
        observed_at: NDArray[np.int64] = columns["observed_at"][timed]
        self._registry.stored(columns["vehicle_id"][timed], observed_at)
        self._safety.committed(judged)
        return observed_at


_OTHER_CONTENT: Final = "a reading of this identity with other content is stored; the first stays"


def _step(batch: Prepared, part: Slice) -> offsets.Step:
    last = batch.messages[part.stop - 1]
    return offsets.Step(
        part.place, part.epoch, part.expected_offset, last.offset + 1, last.timestamp, part.suspected
    )


def _sources(batch: Prepared) -> tuple[list[tuple[Source, str]], NDArray[np.int64]]:
    """Return the distinct (source, gateway) pairs of a batch's reports, and which of them each row has."""
    reports, names = batch.decoded.reports, batch.envelopes.gateways
    pairs = reports.rows.columns["source_id"].astype(np.int64) * len(names)
    pairs += batch.envelopes.gateway_of[reports.record]
    present = np.bincount(pairs) > 0
    numbers = np.flatnonzero(present).tolist()
    named = [(batch.sources[pair // len(names)], names[pair % len(names)]) for pair in numbers]
    return named, (np.cumsum(present) - 1)[pairs]


def _session_sources(batch: Prepared) -> list[tuple[Source, str]]:
    return [(event.source, batch.envelopes.gateway(event.record)) for event in batch.decoded.sessions]


async def _remember_untimed(db: Connection, stored: Array) -> None:
    columns = stored[~is_timed(stored)]
    if len(columns):
        new = await readings.remember_untimed(
            db,
            "report",
            columns["vehicle_id"].tolist(),
            columns["digest"].tolist(),
            columns["observed_at"].tolist(),
        )
        if len(new) < len(columns):
            raise WaitableError("another worker is storing the same readings", 0.1)


def _rows_by_frame(batch: Prepared) -> dict[tuple[int, int], int]:
    reports = batch.decoded.reports
    partial = np.flatnonzero(reports.rows.columns["flags"] & int(Flag.PARTIAL))
    return {(int(reports.record[i]), int(reports.frame[i])): int(i) for i in partial}


def _letter(batch: Prepared, item: Evidence, row: int | None) -> ledger.DeadLetter:
    message = batch.messages[item.record]
    columns = batch.decoded.reports.rows.columns
    return ledger.DeadLetter(
        batch.slices[int(batch.slice_of[item.record])].place,
        message.offset,
        item.frame,
        item.outcome,
        batch.envelopes.protocol(item.record),
        item.reason,
        item.detail,
        item.byte_offset,
        None if row is None else int(columns["vehicle_id"][row]),
        None if row is None else int(columns["observed_at"][row]),
        item.raw,
        int(batch.envelopes.received_at[item.record]),
    )


def _conflict(batch: Prepared, row: int) -> ledger.DeadLetter:
    reports = batch.decoded.reports
    record, frame = int(reports.record[row]), int(reports.frame[row])
    raw = batch.frame(record, frame)
    item = Evidence(record, frame, "conflicting", "CONFLICTING", _OTHER_CONTENT, raw)
    return _letter(batch, item, row)


def _tallies(
    batch: Prepared, outcome: NDArray[np.int8], sessions: Sequence[str]
) -> dict[tuple[int, int], Tally]:
    """Count outcomes by (slice, protocol); every frame seen has one."""
    protocols = len(batch.envelopes.protocols)
    key = batch.slice_of * protocols + batch.envelopes.protocol_of  # per message
    size = len(batch.slices) * protocols
    decoded = batch.decoded
    rows = key[decoded.reports.record]
    by_outcome = {o.name.lower(): np.bincount(rows[outcome == o], minlength=size) for o in Outcome}
    for event, result in zip(decoded.sessions, sessions, strict=True):
        by_outcome[result][key[event.record]] += 1
    refused = [key[item.record] for item in decoded.evidence if item.outcome == "rejected"]
    by_outcome["rejected"] = np.bincount(np.array(refused, np.int64), minlength=size)
    by_outcome["control"] = np.bincount(key, weights=decoded.control, minlength=size).astype(np.int64)
    sent = np.sum(list(by_outcome.values()), axis=0)
    present = np.flatnonzero(np.bincount(key, minlength=size))
    return {
        (int(k) // protocols, int(k) % protocols): Tally(
            int(sent[k]), **{name: int(counts[k]) for name, counts in by_outcome.items()}
        )
        for k in present
    }


def _entry(batch: Prepared, key: tuple[int, int], tally: Tally) -> tuple[object, ...]:
    part = batch.slices[key[0]]
    place = part.place
    offsets = batch.messages[part.start].offset, batch.messages[part.stop - 1].offset + 1
    counts = (tally.stored, tally.partial, tally.duplicate, tally.conflicting, tally.control, tally.rejected)
    protocol = batch.envelopes.protocols[key[1]]
    return (place.cluster, place.topic, place.partition, protocol, *offsets, tally.sent, *counts)

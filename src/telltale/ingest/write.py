"""One batch, one transaction: fence, rows, evidence, alerts, dirty marks, ledger, offsets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.ingest.prepare import Prepared, Slice
from telltale.ingest.registry import Registry
from telltale.ingest.safety import Judged, SafetyLane
from telltale.intake import (
    Outcome,
    Tally,
    TimeRule,
    classify,
    dirty_hours,
    order_by_identity,
    settle_session,
)
from telltale.records import Array, Evidence, Flag, Rows, TimeSource
from telltale.store import ledger, offsets, readings, safety
from telltale.store.pool import Connection


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed batch came to."""

    tallies: dict[tuple[int, int], Tally]  # (slice, protocol) → accounting
    rejects: Counter[tuple[str, str]]  # (protocol, reason)
    alerts: Sequence[safety.AlertRow]
    newest_observed_at: NDArray[np.int64]  # µs of stored rows with the vehicle's own time


@dataclass(frozen=True, slots=True)
class _Sorted:
    outcome: NDArray[np.int8]  # per row
    stored: NDArray[np.int64]  # rows now in the database


class Writer:
    """Writes prepared batches through one connection."""

    def __init__(self, registry: Registry, safety: SafetyLane, times: TimeRule) -> None:
        self._registry = registry
        self._safety = safety
        self._times = times
        self._weeks: set[int] = set()

    async def write(self, db: Connection, batch: Prepared) -> Written:
        """Commit a batch whole, or leave nothing of it; raises FencedError when a partition was lost."""
        await self._identify(db, batch)
        async with db.transaction():
            await offsets.fence(db, [_step(batch, part) for part in batch.slices])
            sorted_rows = await self._store_reports(db, batch)
            sessions = await self._store_sessions(db, batch)
            letters, rejects = self._letters(batch, sorted_rows.outcome, sessions)
            await ledger.bury(db, letters)
            judged = await self._judge(db, batch, sorted_rows.stored)
            tallies = _tallies(batch, sorted_rows.outcome, sessions)
            await ledger.enter_ledger(db, [_entry(batch, key, tally) for key, tally in tallies.items()])
        return self._committed(batch, sorted_rows, judged, tallies, rejects)

    async def _identify(self, db: Connection, batch: Prepared) -> None:
        """Fill in vehicle and source ids. Outside the transaction: a registered vehicle is never wrong."""
        reports = batch.decoded.reports
        columns = reports.rows.columns
        columns["vehicle_id"] = await self._registry.vehicle_ids(db, reports.vin.tolist())
        badly_formed = ~self._registry.is_well_formed(columns["vehicle_id"])
        columns["flags"][badly_formed] |= int(Flag.VIN_INVALID)
        new_weeks = readings.weeks_of(columns["observed_at"]) - self._weeks
        if new_weeks:
            await readings.ensure_partitions(db, new_weeks)
            self._weeks |= new_weeks

    async def _source_ids(self, db: Connection, batch: Prepared) -> NDArray[np.int16]:
        reports = batch.decoded.reports
        names = batch.envelopes.gateways
        pairs = reports.rows.columns["source_id"].astype(np.int64) * len(names)
        pairs += batch.envelopes.gateway_of[reports.record]
        distinct, inverse = np.unique(pairs, return_inverse=True)
        named = [(batch.sources[pair // len(names)], names[pair % len(names)]) for pair in distinct.tolist()]
        ids = await self._registry.source_ids(db, named)
        return np.array([ids[pair] for pair in named], np.int16)[inverse]

    async def _store_reports(self, db: Connection, batch: Prepared) -> _Sorted:
        """Store the rows that are new. New by memory is tried at once; the primary key has the last word."""
        reports = batch.decoded.reports
        if not len(reports):
            return _Sorted(np.zeros(0, np.int8), np.zeros(0, np.int64))
        columns = reports.rows.columns
        source_ids = await self._source_ids(db, batch)
        ordered = order_by_identity(columns)
        timed = columns["time_source"][ordered.first] == TimeSource.VEHICLE
        newer = self._registry.is_newer(columns[ordered.first])
        known = await readings.known_untimed(db, columns, ordered.first[~timed])
        known |= await readings.known_digests(db, columns, ordered.first[timed & ~newer])
        outcome, rows = classify(reports, ordered, known)
        if not await self._copy(db, batch, rows, source_ids):
            known |= await readings.known_digests(db, columns, ordered.first[timed & newer])
            outcome, rows = classify(reports, ordered, known)
            await self._copy(db, batch, rows, source_ids, final=True)
        untimed = rows[columns["time_source"][rows] == TimeSource.RECEIVED]
        await _remember_untimed(db, columns[untimed])
        return _Sorted(outcome, rows)

    async def _copy(
        self,
        db: Connection,
        batch: Prepared,
        rows: NDArray[np.int64],
        source_ids: NDArray[np.int16],
        *,
        final: bool = False,
    ) -> bool:
        reports = batch.decoded.reports
        chosen = reports.rows.take(rows)
        chosen.columns["source_id"] = source_ids[rows]
        return await readings.copy_reports(db, chosen, _fuel_cells(batch, rows), final=final)

    async def _store_sessions(self, db: Connection, batch: Prepared) -> list[str]:
        """Store logins and logouts; return the outcome of each."""
        events = batch.decoded.sessions
        if not events:
            return []
        vehicles = await self._registry.vehicle_ids(db, [event.vin.encode() for event in events])
        sources = [(event.source, batch.envelopes.gateway(event.record)) for event in events]
        ids = await self._registry.source_ids(db, sources)
        outcomes = []
        for event, vehicle, source in zip(events, vehicles.tolist(), sources, strict=True):
            received = int(batch.envelopes.received_at[event.record])
            observed, time_source, flags = settle_session(event, received, self._times)
            row = readings.SessionRow(event, vehicle, observed, received, time_source, flags, ids[source])
            outcomes.append(await readings.store_session(db, row))
        return outcomes

    async def _judge(self, db: Connection, batch: Prepared, stored: NDArray[np.int64]) -> Judged:
        reports = batch.decoded.reports
        if not len(stored):
            return self._safety.nothing()
        rows = reports.rows.take(stored)
        vehicles, hours = dirty_hours(rows.columns)
        await ledger.mark_dirty(db, vehicles, hours)
        editions = np.array([source.edition for source in batch.sources], np.int16)
        seen_at = np.array([m.timestamp * 1000 for m in batch.messages], np.int64)[reports.record[stored]]
        edition, vin = editions[rows.columns["source_id"]], reports.vin[stored]
        judged = self._safety.judge(rows, edition, seen_at, vin)
        if ask := self._safety.to_ask(judged):
            believed = await safety.insulation_once_plausible(db, ask)
            judged = self._safety.judge(rows, edition, seen_at, vin, believed)
        opened = await safety.store_alerts(db, judged.alerts)
        await safety.save_rule_states(db, judged.changed, judged.gone)
        return judged.with_opened(opened)

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

    def _committed(
        self,
        batch: Prepared,
        sorted_rows: _Sorted,
        judged: Judged,
        tallies: dict[tuple[int, int], Tally],
        rejects: Counter[tuple[str, str]],
    ) -> Written:
        columns = batch.decoded.reports.rows.columns[sorted_rows.stored]
        timed = columns[columns["time_source"] == TimeSource.VEHICLE]
        self._registry.stored(timed)
        self._safety.committed(judged)
        return Written(tallies, rejects, judged.opened, timed["observed_at"])


_OTHER_CONTENT: Final = "a reading of this identity with other content is stored; the first stays"


def _step(batch: Prepared, part: Slice) -> offsets.Step:
    last = batch.messages[part.stop - 1]
    return offsets.Step(part.place, part.epoch, part.expected_offset, last.offset + 1, last.timestamp)


def _fuel_cells(batch: Prepared, rows: NDArray[np.int64]) -> Rows:
    """Return the fuel-cell rows of these reports, with their identity filled in."""
    reports = batch.decoded.reports
    wanted = np.zeros(len(reports), bool)
    wanted[rows] = True
    chosen = np.flatnonzero(wanted[reports.fuel_cell_row])
    fuel_cells = reports.fuel_cell.take(chosen)
    parents = reports.rows.columns[reports.fuel_cell_row[chosen]]
    for name in ("vehicle_id", "observed_at", "part"):
        fuel_cells.columns[name] = parents[name]
    return fuel_cells


async def _remember_untimed(db: Connection, columns: Array) -> None:
    if len(columns):
        await readings.remember_untimed(
            db,
            "report",
            columns["vehicle_id"].tolist(),
            columns["digest"].tolist(),
            columns["observed_at"].tolist(),
        )


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

"""From fetched records to rows ready for the database: envelope, event time, identity, accounting.

Pure functions over one batch; the clock is the receive time that the records carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from telltale.records import (
    Array,
    Decoded,
    Evidence,
    Flag,
    Reports,
    Rows,
    SessionEvent,
    Source,
    TimeSource,
    concat_ragged,
)

NO_TIME: Final = np.iinfo(np.int64).min
# A reading without a usable vehicle time is told apart by its content: its part carries digest bits.
UNTIMED_PART: Final = 0x40000000
_EPOCH_DIGITS: Final = 16  # microseconds since 1970, from 2001 to 2286
# No telemetry is received outside these, whatever a header or a record's timestamp says in a wrong unit; and
# the database, and who reads from it, can hold what is inside.
EARLIEST_US: Final = 946_684_800_000_000  # 2000-01-01
LATEST_US: Final = 4_102_444_800_000_000  # 2100-01-01


class Message(Protocol):
    """What intake reads of a Kafka record."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Envelopes:
    """The headers of a batch of records, completed where they were missing; a column a header."""

    protocols: tuple[str, ...]
    protocol_of: NDArray[np.int64]  # per record, into `protocols`
    gateways: tuple[str, ...]
    gateway_of: NDArray[np.int64]  # per record, into `gateways`
    received_at: NDArray[np.int64]  # µs
    filled: NDArray[np.bool_]  # something was missing and comes from the record itself

    def protocol(self, record: int) -> str:
        """Return the protocol of one record."""
        return self.protocols[int(self.protocol_of[record])]

    def gateway(self, record: int) -> str:
        """Return the gateway of one record."""
        return self.gateways[int(self.gateway_of[record])]


class Outcome(IntEnum):
    """What became of one decoded row."""

    STORED = 0
    PARTIAL = 1
    DUPLICATE = 2
    CONFLICTING = 3


@dataclass(slots=True)
class Tally:
    """Accounting of one partition and protocol in one batch: rule 1 of the promise."""

    sent: int = 0
    stored: int = 0
    partial: int = 0
    duplicate: int = 0
    conflicting: int = 0
    control: int = 0
    rejected: int = 0

    def adds_up(self) -> bool:
        """Tell whether every frame sent has exactly one outcome."""
        parts = (self.stored, self.partial, self.duplicate, self.conflicting, self.control, self.rejected)
        return self.sent == sum(parts)


def envelopes_of(messages: Sequence[Message]) -> Envelopes:
    """Return the records' envelopes; what is missing comes from the record itself and is marked `filled`."""
    headers = [dict(message.headers) for message in messages]
    named = [header.get("protocol") for header in headers]
    protocols, protocol_of = _numbered(
        [name or _sniff(message.value or b"") for name, message in zip(named, messages, strict=True)]
    )
    gateways, gateway_of = _numbered([header.get("gateway") or b"" for header in headers])
    received_at, missing = _receive_times([header.get("received_at") or b"" for header in headers], messages)
    nameless = np.fromiter((not name for name in named), bool, len(named))
    return Envelopes(protocols, protocol_of, gateways, gateway_of, received_at, nameless | missing)


def _numbered(names: list[bytes]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the distinct names, and the number of each name among them."""
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    texts = tuple(name.decode("utf-8", "replace").replace("\x00", "\ufffd")[:200] for name in number)
    return texts, np.fromiter((number[name] for name in names), np.int64, len(names))


def _receive_times(
    texts: list[bytes], messages: Sequence[Message]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the receive time of each record in µs, and where it is the record's own timestamp."""
    digits = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(48)
    if {*map(len, texts)} == {_EPOCH_DIGITS} and digits.max() <= 9:  # what gateways send, all at once
        decimals = digits.reshape(-1, _EPOCH_DIGITS).astype(np.int64)
        received_at = decimals @ 10 ** np.arange(_EPOCH_DIGITS)[::-1]
        if received_at.min() >= EARLIEST_US and received_at.max() < LATEST_US:
            return received_at, np.zeros(len(texts), bool)
    times = [_time_us(text) for text in texts]
    filled = [
        timestamp_us(message) if at is None else at for at, message in zip(times, messages, strict=True)
    ]
    return np.array(filled, np.int64), np.array([at is None for at in times], bool)


def timestamp_us(message: Message) -> int:
    """Return the record's own timestamp in µs; one that cannot be is brought to the nearest that can."""
    return min(max(message.timestamp * 1000, EARLIEST_US), LATEST_US - 1)


def _time_us(text: bytes) -> int | None:
    """Read epoch microseconds in decimal, or RFC 3339 with a zone; None when it is neither or cannot be."""
    if text.isdigit() and len(text) <= 17:
        at = int(text)
    else:
        try:
            moment = datetime.fromisoformat(text.decode("ascii"))
        except ValueError:
            return None
        if moment.tzinfo is None:
            return None
        at = round(moment.timestamp() * 1e6)
    return at if EARLIEST_US <= at < LATEST_US else None


def _sniff(value: bytes) -> bytes:
    """Name the protocol of a value without a header by its first byte; empty when it is none we know."""
    if value[:2] in (b"##", b"$$"):
        return b"gbt32960"
    return b"json" if value[:4].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") else b""


@dataclass(frozen=True, slots=True)
class TimeRule:
    """When a vehicle's own time is not believed."""

    future_tolerance_us: int
    max_age_us: int  # 0 = no limit


def settle_times(columns: Array, rule: TimeRule) -> None:
    """Let the receive time stand in, in place and flagged, where the vehicle's time is unusable.

    Such a row's identity is its content: `part` takes bits of the digest, so that two different reports
    received in the same microsecond both stay.
    """
    observed, received = columns["observed_at"], columns["received_at"]
    invalid = observed == NO_TIME
    future = ~invalid & (observed > received + rule.future_tolerance_us)
    too_old = np.zeros(len(columns), bool)
    if rule.max_age_us:
        too_old = ~invalid & (observed < received - rule.max_age_us)
    standing_in = invalid | future | too_old
    if not standing_in.any():
        return
    for mask, flag in (
        (invalid, Flag.TIME_INVALID),
        (future, Flag.TIME_FUTURE),
        (too_old, Flag.TIME_TOO_OLD),
    ):
        columns["flags"][mask] |= int(flag)
    columns["observed_at"][standing_in] = received[standing_in]
    columns["time_source"][standing_in] = TimeSource.RECEIVED
    columns["part"][standing_in] = untimed_part(columns["digest"][standing_in])


def untimed_part(digest: Any) -> Any:
    """Return the part by which readings received in the same microsecond are told apart."""
    return UNTIMED_PART | (digest & 0x3FFFFFFF)


def settle_session(event: SessionEvent, received_at: int, rule: TimeRule) -> tuple[int, TimeSource, int]:
    """Return (observed_at, time source, flags) of a login or logout, by the same rule as for reports."""
    observed, flags = event.observed_at, event.flags
    if observed is None:
        flags |= Flag.TIME_INVALID
    elif observed > received_at + rule.future_tolerance_us:
        flags |= Flag.TIME_FUTURE
    elif rule.max_age_us and observed < received_at - rule.max_age_us:
        flags |= Flag.TIME_TOO_OLD
    else:
        return observed, TimeSource.VEHICLE, flags
    return received_at, TimeSource.RECEIVED, flags


@dataclass(frozen=True, slots=True)
class Ordered:
    """Rows of a batch by identity: the first of each identity, and the copies that came after it."""

    first: NDArray[np.int64]  # row numbers, sorted by (vehicle, observed_at, part)
    copies: NDArray[np.int64]  # row numbers of later rows with an identity already in `first`
    copy_of: NDArray[np.int64]  # for each copy, its position in `first`


def order_by_identity(columns: Array) -> Ordered:
    """Sort rows by identity, arrival order among equals, and split off repeated identities.

    Untimed rows compare by (vehicle, digest) through their part; their observed_at is left out.
    """
    observed = np.where(columns["time_source"] == TimeSource.RECEIVED, NO_TIME, columns["observed_at"])
    order = np.lexsort((columns["part"], observed, columns["vehicle_id"]))
    vehicle, when, part = columns["vehicle_id"][order], observed[order], columns["part"][order]
    repeated = np.zeros(len(order), bool)
    repeated[1:] = (vehicle[1:] == vehicle[:-1]) & (when[1:] == when[:-1]) & (part[1:] == part[:-1])
    position = np.cumsum(~repeated) - 1
    return Ordered(order[~repeated], order[repeated], position[repeated])


def classify(
    reports: Reports, ordered: Ordered, known: Mapping[int, int]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return (outcome per row, rows to store).

    `known` maps a row number of `ordered.first` that the database already has to the stored digest.
    """
    digest = reports.rows.columns["digest"]
    outcome = np.zeros(len(reports), np.int8)
    partial = (reports.rows.columns["flags"] & int(Flag.PARTIAL)) != 0
    outcome[partial] = Outcome.PARTIAL
    keeper = digest[ordered.first].copy()
    in_database = np.zeros(len(ordered.first), bool)
    if known:
        rows = np.fromiter(known, np.int64, len(known))
        place = np.full(len(reports), -1, np.int64)
        place[ordered.first] = np.arange(len(ordered.first))
        in_database[place[rows]] = True
        stored = np.fromiter(known.values(), np.int64, len(known))
        keeper[place[rows]] = stored
        outcome[rows] = np.where(digest[rows] == stored, Outcome.DUPLICATE, Outcome.CONFLICTING)
    same = digest[ordered.copies] == keeper[ordered.copy_of]
    outcome[ordered.copies] = np.where(same, Outcome.DUPLICATE, Outcome.CONFLICTING)
    return outcome, ordered.first[~in_database]


def merge(parts: Sequence[tuple[Decoded, NDArray[np.int64]]]) -> tuple[Decoded, tuple[Source, ...]]:
    """Join what several decoders made of one batch.

    Each part comes with the batch's record number of each of its values. Returns one `Decoded` whose
    record numbers are the batch's and whose `source_id` indexes the returned sources.
    """
    sources: list[Source] = []
    pieces: list[Reports] = []
    sessions: list[SessionEvent] = []
    evidence: list[Evidence] = []
    markers: dict[tuple[str, str], int] = {}
    control = np.zeros(sum(len(numbers) for _, numbers in parts), np.int32)
    for decoded, numbers in parts:
        decoded.reports.rows.columns["source_id"] += len(sources)
        sources += decoded.source_of
        pieces.append(replace(decoded.reports, record=numbers[decoded.reports.record].astype(np.int32)))
        sessions += [replace(event, record=int(numbers[event.record])) for event in decoded.sessions]
        evidence += [replace(item, record=int(numbers[item.record])) for item in decoded.evidence]
        if len(decoded.control):
            control[numbers] = decoded.control
        for key, count in decoded.markers.items():
            markers[key] = markers.get(key, 0) + count
    reports = _in_order_of_arrival(_concat(pieces))
    return (
        Decoded(reports, (), tuple(sessions), control, tuple(evidence), markers),
        tuple(sources),
    )


def _in_order_of_arrival(reports: Reports) -> Reports:
    """Return the rows by record, as they came: of two copies the first stays, whatever their protocols."""
    if (np.diff(reports.record) >= 0).all():
        return reports
    return reports.take(np.argsort(reports.record, kind="stable"))


def _concat(pieces: Sequence[Reports]) -> Reports:
    if len(pieces) == 1:
        return pieces[0]
    starts = np.cumsum([0] + [len(piece) for piece in pieces])
    return Reports(
        _concat_rows([p.rows for p in pieces]),
        np.concatenate([p.vin for p in pieces]),
        np.concatenate([p.record for p in pieces]),
        np.concatenate([p.frame for p in pieces]),
        _concat_rows([p.fuel_cell for p in pieces]),
        np.concatenate([p.fuel_cell_row + start for p, start in zip(pieces, starts, strict=False)]),
    )


def _concat_rows(rows: Sequence[Rows]) -> Rows:
    names = rows[0].lists
    return Rows(
        np.concatenate([r.columns for r in rows]),
        {name: concat_ragged([r.lists[name] for r in rows]) for name in names},
    )


def dirty_hours(columns: Array) -> tuple[list[int], list[int]]:
    """Return the distinct (vehicle, hour since 1970) pairs of these rows as two lists."""
    hours = columns["observed_at"] // 3_600_000_000
    pairs = np.unique((columns["vehicle_id"].astype(np.int64) << 32) | hours)
    return (pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist()


@dataclass(slots=True)
class BadWindow:
    """The share of rejected frames among the last ones of a partition."""

    size: int
    bad_share: float
    bad: float = 0.0  # a fraction once older frames have faded
    seen: int = 0

    def after(self, frames: int, rejected: int) -> BadWindow:
        """Return the window moved on over these frames; older ones fade in proportion."""
        seen, bad = self.seen + frames, self.bad + rejected
        if seen > self.size:
            keep = max(self.size - frames, 0) / max(self.seen, 1)
            bad = self.bad * keep + rejected
            seen = max(self.size, frames)
        return BadWindow(self.size, self.bad_share, bad, seen)

    def must_halt(self) -> bool:
        """Tell whether most of a full window was bad."""
        return self.seen >= self.size and self.bad > self.bad_share * self.seen


def per_partition(
    counts: NDArray[Any], partition_of: NDArray[np.int64], partitions: int
) -> NDArray[np.int64]:
    """Sum a count per record into a count per partition."""
    return np.bincount(partition_of, weights=counts, minlength=partitions).astype(np.int64)

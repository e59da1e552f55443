"""Records as fetched to one decoded batch: envelope, decoder, event time. No database, safe in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from telltale.decode import Decoder, decoder_for
from telltale.ingest.arrange import Arranged
from telltale.intake import Envelopes, Message, TimeRule, envelopes_of, merge, per_partition, settle_times
from telltale.records import Decoded, Evidence, Flag, Source, Values, no_reports
from telltale.store.offsets import Place


@dataclass(frozen=True, slots=True)
class Slice:
    """The records of one partition within a batch: `messages[start:stop]` of it, contiguous in offset."""

    place: Place
    epoch: int
    expected_offset: int  # where the database must stand for this slice to follow
    start: int
    stop: int
    suspected: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records of one partition as fetched, and the offset the database must have reached before them."""

    place: Place
    epoch: int
    expected_offset: int
    messages: Sequence[Message]
    suspected: bool = False  # one of them may have killed workers


@dataclass(frozen=True, slots=True)
class Prepared:
    """One decoded batch, ready to be written."""

    slices: tuple[Slice, ...]
    messages: Sequence[Message]
    slice_of: NDArray[np.int64]  # per message
    envelopes: Envelopes  # per message
    decoded: Decoded
    sources: tuple[Source, ...]
    arranged: Arranged | None = None  # None: a vehicle or source in it has to be registered first

    def value(self, record: int) -> bytes:
        """Return the original bytes of one record."""
        return self.messages[record].value or b""

    def frame(self, record: int, frame: int) -> bytes:
        """Return the original bytes of one frame of a record."""
        decoder = decoder_for(self.envelopes.protocol(record))
        return decoder.raw_frame(self.value(record), frame) if decoder else self.value(record)


@dataclass(frozen=True, slots=True)
class Options:
    """How to read the wire, from the settings."""

    times: TimeRule
    current_sign: int
    position_decimals: int


def prepare(fetched: Sequence[Fetched], options: Options) -> Prepared:
    """Decode what was fetched into one batch."""
    batch = _undecoded(fetched)
    parts = [
        _decode(protocol, np.flatnonzero(batch.envelopes.protocol_of == i), batch, options)
        for i, protocol in enumerate(batch.envelopes.protocols)
    ]
    decoded, sources = merge(parts)
    columns = decoded.reports.rows.columns
    columns["flags"][batch.envelopes.filled[decoded.reports.record]] |= int(Flag.ENVELOPE_FILLED)
    settle_times(columns, options.times)
    return replace(batch, decoded=_without_nameless(decoded, batch), sources=sources)


def set_aside(fetched: Fetched, reason: str, detail: str) -> Prepared:
    """Return a batch that refuses these records without looking inside them."""
    batch = _undecoded([fetched])
    values = Values([m.value or b"" for m in batch.messages], batch.envelopes.received_at)
    return replace(batch, decoded=_refuse_all(values, reason, detail))


def records_of(batch: Prepared) -> list[Fetched]:
    """Return the records of a batch as they were fetched."""
    return [
        Fetched(
            part.place,
            part.epoch,
            part.expected_offset,
            batch.messages[part.start : part.stop],
            part.suspected,
        )
        for part in batch.slices
    ]


def apart(batch: Prepared) -> list[list[Fetched]]:
    """Return the records of a batch in two parts, the earlier ones first; in one when it is of one record."""
    parts = records_of(batch)
    if len(parts) > 1:
        return [parts[: len(parts) // 2], parts[len(parts) // 2 :]]
    (part,) = parts
    half = len(part.messages) // 2
    if not half:
        return [parts]
    first, second = part.messages[:half], part.messages[half:]
    return [
        [replace(part, messages=first)],
        [replace(part, messages=second, expected_offset=first[-1].offset + 1)],
    ]


def _undecoded(fetched: Sequence[Fetched]) -> Prepared:
    slices: list[Slice] = []
    messages: list[Message] = []
    for part in fetched:
        start = len(messages)
        messages += part.messages
        slices.append(
            Slice(part.place, part.epoch, part.expected_offset, start, len(messages), part.suspected)
        )
    return Prepared(
        tuple(slices),
        messages,
        np.repeat(np.arange(len(slices)), [s.stop - s.start for s in slices]),
        envelopes_of(messages),
        Decoded(no_reports()),
        (),
    )


def _decode(
    protocol: str, numbers: NDArray[np.int64], batch: Prepared, options: Options
) -> tuple[Decoded, NDArray[np.int64]]:
    messages = batch.messages
    values = Values(
        [messages[i].value or b"" for i in numbers.tolist()], batch.envelopes.received_at[numbers]
    )
    decoder = decoder_for(protocol)
    if decoder is None:
        return _refuse_all(values, "UNKNOWN_PROTOCOL", f"no decoder for protocol {protocol!r}"), numbers
    return _decode_guarded(decoder, values, options), numbers


def _decode_guarded(decoder: Decoder, values: Values, options: Options) -> Decoded:
    """Decode; should the decoder itself fail, find the values it fails on and refuse only those."""
    try:
        return _call(decoder, values, options)
    except Exception as error:
        if len(values.values) == 1:
            reason = f"{decoder.protocol}: decoder failed with {type(error).__name__}: {error}"
            return _refuse_all(values, "DECODER_ERROR", reason)
    half = len(values.values) // 2
    halves = (slice(0, half), slice(half, None))
    parts = [
        (_decode_guarded(decoder, Values(values.values[s], values.received_at[s]), options), numbers)
        for s, numbers in zip(halves, np.split(np.arange(len(values.values)), [half]), strict=True)
    ]
    decoded, sources = merge(parts)
    return replace(decoded, source_of=sources)


def _call(decoder: Decoder, values: Values, options: Options) -> Decoded:
    return decoder.decode(
        values, current_sign=options.current_sign, position_decimals=options.position_decimals
    )


def _refuse_all(values: Values, reason: str, detail: str) -> Decoded:
    evidence = tuple(
        Evidence(i, 0, "rejected", reason, detail, value, 0) for i, value in enumerate(values.values)
    )
    return Decoded(no_reports(), control=np.zeros(len(values.values), np.int32), evidence=evidence)


def _without_nameless(decoded: Decoded, batch: Prepared) -> Decoded:
    """Refuse rows without any vehicle id: nobody could be told what was found in them."""
    reports = decoded.reports
    nameless = reports.vin == b""
    if not nameless.any():
        return decoded
    refused = tuple(
        Evidence(
            int(reports.record[i]),
            int(reports.frame[i]),
            "rejected",
            "VIN_MISSING",
            "the frame's vehicle id is blank; expected 17 characters",
            batch.frame(int(reports.record[i]), int(reports.frame[i])),
            4,
        )
        for i in np.flatnonzero(nameless)
    )
    lost = {(item.record, item.frame) for item in refused}
    kept = tuple(item for item in decoded.evidence if (item.record, item.frame) not in lost)
    return replace(decoded, reports=reports.take(np.flatnonzero(~nameless)), evidence=kept + refused)


def frames_by_slice(batch: Prepared) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many frames, and how many rejected ones, each slice of a batch holds."""
    decoded = batch.decoded
    per_message = np.bincount(decoded.reports.record, minlength=len(batch.messages)) + decoded.control
    for event in decoded.sessions:
        per_message[event.record] += 1
    rejected = np.zeros(len(batch.messages), np.int64)
    for item in decoded.evidence:
        rejected[item.record] += item.outcome == "rejected"
    slices = len(batch.slices)
    bad = per_partition(rejected, batch.slice_of, slices)
    return per_partition(per_message, batch.slice_of, slices) + bad, bad

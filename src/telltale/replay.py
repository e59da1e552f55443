"""Recorded cars to frames on the topic: `telltale replay`.

Each car becomes a vehicle with a VIN of its own (maker L0T, from the car's name) whose frames are realtime
reports of the 2016 edition, or reissued ones. What a recording lacks goes out as the wire's marker or not
at all; what the wire cannot carry is counted and named, never bent.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from telltale.broker import Producer
from telltale.config import Settings
from telltale.decode.gbt32960.encode import encode_reports
from telltale.errors import EncodeError, SettingsError, WaitableError
from telltale.recordings import load_recording
from telltale.records import REPORT_COLUMNS, REPORT_LISTS, Ragged, Rows, empty_ragged, nulls
from telltale.simulate.inject import inject_leak_deviation
from telltale.simulate.publish import progress_bar, require_topics
from telltale.simulate.transit import REALTIME, REISSUED
from telltale.simulate.vin import PREFIX, vin_of_name

CELLS_PER_FRAME = 200  # GB/T 32960.3-2016 table 8: more go into further reports of the same time
SEND_AT_ONCE = 5_000
TICK_S = 0.1
REASONS_SHOWN = 10
GATEWAY = b"replay"
Message = tuple[bytes | None, bytes, tuple[tuple[str, bytes], ...], None]


@dataclass(frozen=True, slots=True)
class LeakAt:
    """A leak to inject: its cell (from 1), and how far that stands below the others at rest on which day."""

    cell: int
    mv: float = 40.0
    day: float = 14.0  # from the first report


@dataclass(frozen=True, slots=True)
class Replay:
    """How to send recordings. `speed` is a factor on recorded time; None sends as fast as Kafka takes it."""

    speed: float | None = None
    reissued: bool = False
    shuffle: int | None = None  # seed
    partitions: int | None = None  # make the topics with so many, where they do not exist
    split_partitions: bool = False  # one vehicle's frames to all partitions in turn
    vin_prefix: str = PREFIX
    leak: LeakAt | None = None  # put into every car; such a car gets a VIN of its own


@dataclass(slots=True)
class Tally:
    """What became of one recording."""

    car: str
    vin: str
    read: int = 0
    sendable: int = 0  # frames; a row of more than 200 cells is several
    sent: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # rows, by reason

    @property
    def lost(self) -> bool:
        """Tell whether anything read was not sent."""
        return bool(self.refused) or self.sent < self.sendable


@dataclass(frozen=True, slots=True)
class Timeline:
    """All frames of all cars in sending order, with the µs each follows the start of its recording."""

    values: list[bytes]
    keys: list[bytes]
    car: NDArray[np.int64]  # index of its tally
    after_us: NDArray[np.int64]

    def take(self, order: NDArray[np.int64]) -> Timeline:
        """Return these frames, in this order."""
        places = order.tolist()
        values, keys = [self.values[at] for at in places], [self.keys[at] for at in places]
        return Timeline(values, keys, self.car[order], self.after_us[order])


async def replay(settings: Settings, path: Path, how: Replay) -> list[Tally]:
    """Send a recording, or a folder of them, to the topic and return what became of each car.

    Raises SettingsError when there is nothing to send or no topic, WaitableError when Kafka fails.
    """
    tallies, timeline = load_timeline(path, how)
    topic = settings.backlog_topic if how.reissued else settings.live_topic
    await require_topics(settings, how.partitions)
    async with Producer(settings.kafka) as producer:
        with progress_bar() as progress:
            task = progress.add_task(
                f"replaying {len(tallies)} cars", total=len(timeline.values), unit="frames"
            )
            for batch in _batches(timeline, how.speed):
                await asyncio.sleep(max(0.0, batch.due - time.monotonic()))
                await _deliver(producer, topic, timeline, batch, how)
                for car, count in enumerate(np.bincount(timeline.car[batch.first : batch.last])):
                    tallies[car].sent += int(count)
                progress.advance(task, batch.last - batch.first)
    return tallies


async def _deliver(producer: Producer, topic: str, timeline: Timeline, batch: _Batch, how: Replay) -> None:
    try:
        await producer.send_many(topic, _messages(timeline, batch, how))
    except WaitableError as error:
        raise WaitableError(
            f"replay stopped: {batch.first:,} of {len(timeline.values):,} frames were delivered, of the next "
            f"{batch.last - batch.first:,} some may be. Replay again, what is stored counts once: {error}",
            error.retry_after_s,
        ) from error


def load_timeline(path: Path, how: Replay) -> tuple[list[Tally], Timeline]:
    """Return a tally per recording and all their frames in the order in which to send them."""
    tallies: list[Tally] = []
    parts: list[Timeline] = []
    for file in recordings_at(path):
        car, rows = _prepared(*load_recording(file), how.leak)
        tally = Tally(car, vin_of_name(car, prefix=how.vin_prefix), read=len(rows))
        parts.append(_frames(rows, tally, REISSUED if how.reissued else REALTIME, len(tallies)))
        tallies.append(tally)
    whole = Timeline(
        [value for part in parts for value in part.values],
        [key for part in parts for key in part.keys],
        np.concatenate([part.car for part in parts]),
        np.concatenate([part.after_us for part in parts]),
    )
    if how.shuffle is not None:
        return tallies, whole.take(np.random.default_rng(how.shuffle).permutation(len(whole.values)))
    return tallies, whole.take(np.argsort(whole.after_us, kind="stable"))


def _prepared(car: str, rows: Rows, leak: LeakAt | None) -> tuple[str, Rows]:
    """Return the car as it is, or as it would be with the leak, under a name that says so."""
    if leak is None:
        return car, rows
    most = int(rows.lists["cells_mv"].lengths.max(initial=0))
    if not 1 <= leak.cell <= most:
        raise SettingsError(
            f"replay: {car} has cells 1 to {most}, expected the leak in one of them, got {leak.cell}"
        )
    start_us = int(rows.columns["observed_at"].min())
    leaking = inject_leak_deviation(rows, leak.cell, leak.mv, leak.day, start_us)
    return f"{car} leaking at {leak.cell} by {leak.mv:g} mV on day {leak.day:g}", leaking


def recordings_at(path: Path) -> list[Path]:
    """Return the Parquet files of a path. Raises SettingsError when there are none."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise SettingsError(f"replay: expected a Parquet recording or a folder of them, found none at {path}")
    return files


def _frames(rows: Rows, tally: Tally, command: int, car: int) -> Timeline:
    observed = rows.columns["observed_at"]
    values, of_row = encode_rows(rows, tally.vin.encode(), command, tally.refused)
    tally.sendable = len(values)
    after_us = (observed - observed.min())[of_row]
    return Timeline(values, [tally.vin.encode()] * len(values), np.full(len(values), car), after_us)


def encode_rows(
    rows: Rows, vin: bytes, command: int, refused: Counter[str]
) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the frames of these rows in order and the row each is of; count rows that fit no frame."""
    frames: list[list[bytes]] = [[] for _ in range(len(rows))]
    for part, of_row in sub_reports(rows):
        for place, value in _encoded(part, np.arange(len(part)), vin, command, refused):
            frames[of_row[place]].append(value)
    lengths = np.array([len(of_one) for of_one in frames], np.int64)
    return [value for of_one in frames for value in of_one], np.repeat(np.arange(len(rows)), lengths)


def _encoded(
    rows: Rows, places: NDArray[np.int64], vin: bytes, command: int, refused: Counter[str]
) -> Iterator[tuple[int, bytes]]:
    """Yield (place, frame); on refusal, look for the rows at fault by halves."""
    try:
        values = encode_reports(rows.take(places), np.full(len(places), vin, "S17"), command=command)
    except EncodeError as error:
        if len(places) == 1:
            refused[f"{error} (row {places[0]} of the recording)"] += 1
            return
        for half in np.array_split(places, 2):
            yield from _encoded(rows, half, vin, command, refused)
        return
    yield from zip(places.tolist(), values, strict=True)


def sub_reports(rows: Rows) -> list[tuple[Rows, NDArray[np.int64]]]:
    """Return the rows cut to 200 cells, then what follows: reports of cells 201 to 400 and so on.

    Each part comes with the row each of its reports is of. Recordings have one subsystem.
    """
    cells = rows.lists["cells_mv"]
    widest = int(cells.lengths.max(initial=0))
    if widest <= CELLS_PER_FRAME:
        return [(rows, np.arange(len(rows)))]
    parts = []
    for first in range(0, widest, CELLS_PER_FRAME):
        of_row = np.nonzero((cells.lengths > first) | (first == 0))[0]
        part = rows.take(of_row) if first == 0 else _cells_only(rows, of_row)
        parts.append((_cut(part, rows.lists["cells_mv"].take(of_row), first), of_row))
    return parts


def _cells_only(rows: Rows, of_row: NDArray[np.int64]) -> Rows:
    columns = nulls(REPORT_COLUMNS, len(of_row))
    columns["observed_at"] = rows.columns["observed_at"][of_row]
    lists = {column.name: empty_ragged(column.item, len(of_row)) for column in REPORT_LISTS}
    subsystems = rows.lists["subsystems"].take(of_row)
    subsystems.values["probes"] = 0
    return Rows(columns, lists | {"subsystems": subsystems})


def _cut(part: Rows, cells: Ragged, first: int) -> Rows:
    """Return the part with cells `first` (from 0) and up to 199 more, and its subsystem saying so."""
    kept = np.clip(cells.lengths - first, 0, CELLS_PER_FRAME)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    shift = np.repeat(cells.offsets[:-1] + first - offsets[:-1], kept)
    values = cells.values[np.arange(offsets[-1]) + shift]
    subsystems = part.lists["subsystems"].values.copy()
    subsystems["start_cell"], subsystems["cells"] = first + 1, kept
    lists = {
        "cells_mv": Ragged(values, offsets),
        "subsystems": Ragged(subsystems, part.lists["subsystems"].offsets),
    }
    return replace(part, lists=part.lists | lists)


@dataclass(frozen=True, slots=True)
class _Batch:
    first: int
    last: int
    due: float  # time.monotonic()


def _batches(timeline: Timeline, speed: float | None) -> Iterator[_Batch]:
    """Yield what to send at once and when: by ticks of recorded time, or simply in slices."""
    count = len(timeline.values)
    if speed is None:
        for first in range(0, count, SEND_AT_ONCE):
            yield _Batch(first, min(first + SEND_AT_ONCE, count), 0.0)
        return
    start = time.monotonic()
    due_s = timeline.after_us / 1e6 / speed
    ticks = np.maximum.accumulate(due_s // TICK_S)
    firsts = np.concatenate([[0], np.nonzero(np.diff(ticks))[0] + 1, [count]]).tolist()
    for first, last in itertools.pairwise(firsts):
        yield _Batch(first, last, start + float(ticks[first]) * TICK_S)


def _messages(timeline: Timeline, batch: _Batch, how: Replay) -> Iterator[Message]:
    protocol, gateway = ("protocol", b"gbt32960"), ("gateway", GATEWAY)
    received = ("received_at", b"%d" % (time.time_ns() // 1000))
    for at in range(batch.first, batch.last):
        key = None if how.split_partitions else timeline.keys[at]
        yield key, timeline.values[at], (protocol, received, gateway), None


def report(tallies: list[Tally], say: Callable[[str], None]) -> bool:
    """Say per car what was read, sent and not sent, and why; return whether all was sent."""
    for tally in tallies:
        say(f"{tally.car} as {tally.vin}: {tally.read:,} rows read, {tally.sent:,} frames sent")
        for reason, count in tally.refused.most_common(REASONS_SHOWN):
            say(f"  {count:,} rows not sent: {reason}")
        if len(tally.refused) > REASONS_SHOWN:
            say(f"  {tally.refused.total():,} rows not sent in all")
    read, sent = sum(tally.read for tally in tallies), sum(tally.sent for tally in tallies)
    refused = sum(tally.refused.total() for tally in tallies)
    say(f"{read:,} rows read, {sent:,} frames sent, {refused:,} rows not sent")
    return not any(tally.lost for tally in tallies)

"""How long from the record in Kafka to the alert at a reader of /v1/events, under load?

Run: python -m benchmarks.latency [--seconds N] [--frames-per-value N] [--load SHARE]
     [--kafka apache|embedded]
First the ingest rate is measured twice: on a topic filled beforehand, the machine to itself, and beside the
load generator, the API and its reader, all of which share the machine. Then reports come at a share (0.8) of
the second and ten vehicles a second report a thermal event; the same again while seven days of another fleet
are read from the backlog topic. Latency: Kafka timestamp of the alarming record to its arrival at an SSE
client, a process of its own behind the real API.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import numpy as np

from benchmarks.ingest import Course, packed, run_worker
from benchmarks.stand import Database, Stand, fresh_database, settings_of, stand, until_sent, worker
from benchmarks.traffic import ON_THE_WAY_US, PERIOD_US, VEHICLES, Traffic, fill, traffic
from telltale.broker import Producer, ensure_topics
from telltale.decode.gbt32960.encode import encode_reports
from telltale.decode.gbt32960.times import stamps_of
from telltale.embedded import free_port
from telltale.records import Rows
from telltale.simulate.vin import synthetic_vin
from telltale.store.keys import make_key

TICK_S = 0.02
ALARMS_PER_S = 10
WARM_UP_S = 3.0
MOST_WAITING = 40_000  # reports sent and not yet stored while the sustained rate is measured
WEEK_US = 7 * 86_400_000_000
HEADERS = (("protocol", b"gbt32960"), ("gateway", b"bench"))
LISTENER = """
import json, sys, time, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
with urllib.request.urlopen(request) as stream:
    for line in stream:
        if line.startswith(b"data: "):
            print(json.dumps([time.time(), json.loads(line[6:])]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one phase came to."""

    latencies_s: list[float]
    alarms: int
    rows_s: float  # what was really sent
    backlog_rows_s: float


class Stream:
    """An endless fleet: a block of frames sent again and again, each time with the clock moved on."""

    def __init__(self, frames_per_value: int, start_us: int) -> None:
        sent = traffic(VEHICLES, start_us=start_us)
        by_gateway = np.argsort(np.arange(VEHICLES) % 8, kind="stable")  # a value holds one gateway's
        self._frames = np.frombuffer(b"".join(sent.frames), np.uint8).reshape(VEHICLES, -1)[by_gateway].copy()
        self._vins = sent.vin[by_gateway].tolist()
        self._observed = sent.rows.columns["observed_at"][by_gateway].copy()
        self._per_value, self._next = frames_per_value, 0

    def take(self, count: int) -> Iterator[tuple[bytes, bytes, tuple[tuple[str, bytes], ...], None]]:
        """Yield the next messages, of about `count` frames."""
        for _ in range(max(1, round(count / self._per_value))):
            if self._next == 0:
                self._turn()
            chosen = slice(self._next, self._next + self._per_value)
            received = b"%d" % (self._observed[chosen].max() + ON_THE_WAY_US)
            headers = (*HEADERS, ("received_at", received))
            yield self._vins[self._next], self._frames[chosen].tobytes(), headers, None
            self._next = chosen.stop % VEHICLES

    def _turn(self) -> None:
        """Move every vehicle's clock on by one period, and mend the checksums."""
        self._observed += PERIOD_US
        stamps = stamps_of(self._observed).astype(np.uint8)
        changed = np.bitwise_xor.reduce(self._frames[:, 24:30] ^ stamps, axis=1)
        self._frames[:, 24:30] = stamps
        self._frames[:, -1] ^= changed


def alarms(count: int, first_vehicle: int) -> list[tuple[bytes, bytes]]:
    """Return (VIN, frame) of as many vehicles, each of which reports a thermal event for the first time."""
    rows = traffic(count, vehicles=count).rows
    columns = rows.columns
    columns["alarm_level"], columns["alarm_flags"], columns["cell_temp_max_degc"] = 3, 2, 70
    rows.lists["probes_ddegc"].values[::24] = 700
    vin = np.array([synthetic_vin(first_vehicle + i).encode() for i in range(count)], "S17")
    return list(zip(vin.tolist(), encode_reports(Rows(columns, rows.lists), vin), strict=True))


def week(rows: int) -> Traffic:
    """Return a week of another fleet's reissued reports, in time order."""
    vehicles = 200
    sent = traffic(rows, vehicles=vehicles, command=3)
    sent.rows.columns["observed_at"] -= WEEK_US
    sent.rows.columns["observed_at"] += np.arange(rows) * (WEEK_US // rows)
    vin = np.array([synthetic_vin(900_000 + i).encode() for i in range(vehicles)], "S17")[
        np.arange(rows) % vehicles
    ]
    return Traffic(sent.rows, vin, encode_reports(sent.rows, vin, command=3), sent.headers_at)


async def offer(producer: Producer, topic: str, stream: Stream, rate: float, seconds: float) -> float:
    """Send reports at this rate; return the rate that was reached."""
    began, frames = time.perf_counter(), 0.0
    while (now := time.perf_counter() - began) < seconds:
        due = rate * now - frames
        if due >= 1:
            frames += due
            await producer.send_many(topic, stream.take(round(due)))
        await asyncio.sleep(TICK_S)
    return frames / (time.perf_counter() - began)


async def alarm(producer: Producer, topic: str, due: list[tuple[bytes, bytes]]) -> None:
    """Send one alarming report every tenth of a second."""
    for vin, frame in due:
        await (await producer.send(topic, vin, frame, HEADERS))
        await asyncio.sleep(1 / ALARMS_PER_S)


@asynccontextmanager
async def listening(on: Stand, database: Database, undo: ExitStack) -> AsyncIterator[subprocess.Popen[str]]:
    """Run the API, and a client of /v1/events as a process of its own."""
    port = free_port()
    environment = {"TELLTALE_DATABASE": database.api, "TELLTALE_HTTP_PORT": str(port)}
    undo.enter_context(worker("api", environment=environment))
    key = await make_key(database.admin, "quality", None, "bench")
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=1).close()  # noqa: S310  our own
            break
        except OSError:
            await asyncio.sleep(0.1)
    command = [sys.executable, "-c", LISTENER, f"{url}/v1/events", key.token]
    listener = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield listener
    finally:
        listener.terminate()
        listener.wait()


async def sustained(on: Stand, seconds: float, per_value: int, backlog: str) -> float:
    """Return the rows/s ingest keeps up with while they are made, sent and watched on the same machine."""
    live = f"bench.most.{secrets.token_hex(3)}"
    await ensure_topics(on.kafka, {live: 4})
    start_us = int((time.time() - 86_400) * 1e6)
    with ExitStack() as undo:
        async with fresh_database(on) as database, listening(on, database, undo):
            db = await asyncpg.connect(database.admin)
            environment = settings_of(on, database, live, backlog)
            process = undo.enter_context(worker("ingest", environment=environment))
            async with Producer(on.kafka) as producer:
                stream, sent = Stream(per_value, start_us), VEHICLES
                await producer.send_many(live, stream.take(VEHICLES))
                await until_sent(db, VEHICLES, process, 0.2)
                began, first = time.perf_counter(), await _backlog(db, live)
                while (took := time.perf_counter() - began) < seconds:
                    if sent - (done := await _backlog(db, live)) < MOST_WAITING:
                        sent += per_value * await producer.send_many(live, stream.take(MOST_WAITING // 8))
                    else:
                        await asyncio.sleep(TICK_S)
            await db.close()
    return (done - first) / took


async def phase(on: Stand, rate: float, seconds: float, per_value: int, backlog: str) -> Outcome:
    """Offer live reports at this rate beside what the backlog topic holds; return what alerts took."""
    live = f"bench.live.{secrets.token_hex(3)}"
    await ensure_topics(on.kafka, {live: 4})
    due = alarms(round((seconds - WARM_UP_S) * ALARMS_PER_S), 500_000)
    start_us = int((time.time() - 86_400) * 1e6)
    with ExitStack() as undo:
        async with fresh_database(on) as database, listening(on, database, undo) as listener:
            db = await asyncpg.connect(database.admin)
            environment = settings_of(on, database, live, backlog)
            process = undo.enter_context(worker("ingest", environment=environment))
            async with Producer(on.kafka) as producer:
                stream = Stream(per_value, start_us)
                await producer.send_many(live, stream.take(VEHICLES))  # the fleet is known, the worker runs
                await until_sent(db, VEHICLES, process, 0.2)
                offering = asyncio.create_task(offer(producer, live, stream, rate, seconds))
                await asyncio.sleep(WARM_UP_S)
                before, began = await _backlog(db, backlog), time.perf_counter()
                await alarm(producer, live, due)
                after, took = await _backlog(db, backlog), time.perf_counter() - began
                reached = await offering
            latencies = await asyncio.to_thread(_arrivals, listener, len(due))
            await db.close()
    return Outcome(latencies, len(due), reached, (after - before) / took)


async def _backlog(db: asyncpg.Connection, topic: str) -> int:
    query = "SELECT coalesce(sum(sent), 0) FROM telltale.ingest_batch WHERE topic = $1"
    return int(await db.fetchval(query, topic))


def _arrivals(listener: subprocess.Popen[str], count: int) -> list[float]:
    """Return arrival minus Kafka timestamp of each alert; waits 20 s for the last."""
    assert listener.stdout is not None
    found: list[float] = []
    deadline = time.monotonic() + 20
    stopper = subprocess.Popen(["sleep", "20"])
    try:
        for line in listener.stdout:
            at, data = json.loads(line)
            if data.get("detector") == "thermal_event" and data.get("kind") == "raised":
                found.append(
                    at - np.datetime64(data["seen_at"].removesuffix("+00:00"), "us").astype(int) / 1e6
                )
            if len(found) == count or time.monotonic() > deadline:
                break
    finally:
        stopper.kill()
        stopper.wait()
    return found


def show(name: str, rate: float, outcome: Outcome) -> None:
    """Print one phase."""
    times = np.sort(outcome.latencies_s)
    p50, p99 = np.percentile(times, [50, 99], method="higher") if len(times) else (np.nan, np.nan)
    worst = times[-1] if len(times) else np.nan
    print(f"{name}: offered {rate:,.0f} rows/s, sent {outcome.rows_s:,.0f}", end="; ")
    print(f"{len(times)} of {outcome.alarms}", end="")
    print(f" alerts: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, max {worst * 1e3:.0f} ms", end="")
    print(f"; backlog {outcome.backlog_rows_s:,.0f} rows/s")


async def measure(on: Stand, seconds: float, per_value: int, load: float, rows: int) -> None:
    """Measure the rate, then the latency at a share of it, without and with a backlog."""
    run = secrets.token_hex(3)
    empty, full, filled = f"bench.empty.{run}", f"bench.week.{run}", f"bench.rate.{run}"
    sent = traffic(rows)
    await fill(on.kafka, empty, traffic(0), partitions=1)
    await fill(on.kafka, filled, sent, frames_per_value=per_value)
    await fill(on.kafka, full, week(4 * rows), frames_per_value=1)
    course = Course("rate", filled, per_value)
    rate = (await run_worker(on, course, packed(sent), empty)).rows_s
    print(f"ingest rate, {per_value} frames a value, the machine to itself: {rate:,.0f} rows/s")
    rate = await sustained(on, seconds, per_value, empty)
    print(f"ingest rate beside load generator, API and reader: {rate:,.0f} rows/s")
    show(f"live at {load:.0%}", rate * load, await phase(on, rate * load, seconds, per_value, empty))
    show("and 7 days of backlog", rate * load, await phase(on, rate * load, seconds, per_value, full))


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=25.0, help="of each phase")
    parser.add_argument("--frames-per-value", type=int, default=50)
    parser.add_argument("--load", type=float, default=0.8, help="share of the ingest rate")
    parser.add_argument("--rows", type=int, default=100_000, help="to measure the ingest rate on")
    parser.add_argument("--kafka", choices=["embedded", "apache"], default="embedded")
    given = parser.parse_args()
    with stand(given.kafka) as on:
        asyncio.run(measure(on, given.seconds, given.frames_per_value, given.load, given.rows))


if __name__ == "__main__":
    main()

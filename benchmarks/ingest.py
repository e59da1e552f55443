"""How fast is Kafka to database, set against a bare COPY of the same rows into the same tables?

Run: python -m benchmarks.ingest [--rows N] [--rounds N] [--frames-per-value N] [--kafka apache|embedded]
     [--database URL of a superuser]
One run, alternating rounds, medians and ranges. The worker is a process of its own and reads a topic filled
beforehand; its rate is taken from the ledger, first batch excluded. The COPY is one connection, the rows
packed before the clock starts, sorted by identity within batches of the worker's size, one durable
transaction each. Every run starts from an empty database and is thrown out if count or checksum is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import asyncpg
import numpy as np

from benchmarks.stand import (
    Database,
    Stand,
    fresh_database,
    settings_of,
    spread,
    stand,
    until_sent,
    worker,
)
from benchmarks.traffic import Traffic, fill, late_order, traffic
from telltale.config import Settings
from telltale.decode import decoder_for
from telltale.intake import order_by_identity
from telltale.records import Values
from telltale.store.copy import REPORT_LAYOUT, copy_packed, pack
from telltale.store.pool import connect
from telltale.store.readings import ensure_partitions, weeks_of

BATCH = Settings.model_fields["batch_records"].default
CHECK = "SELECT count(*), coalesce(sum(digest::numeric), 0) FROM telltale.report"
SIZES = """
SELECT sum(pg_table_size(c.oid)) / $1::float, sum(pg_indexes_size(c.oid)) / $1::float
FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = 'telltale.report'::regclass
"""
LEDGER = """
SELECT extract(epoch FROM committed_at)::float AS began, sum(sent)::bigint AS sent
FROM telltale.ingest_batch GROUP BY committed_at ORDER BY committed_at
"""


@dataclass(frozen=True, slots=True)
class Packed:
    """What COPY is given: whole files of sorted rows, and what must then be in the table."""

    files: tuple[bytes, ...]
    rows: int
    checksum: int
    observed_us: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Result:
    """One run: rate, CPU per row, and rows per transaction."""

    rows_s: float
    client_us: float
    postgres_us: float
    broker_us: float
    batch: float


@dataclass(frozen=True, slots=True)
class Course:
    """One way of feeding the worker."""

    name: str
    topic: str
    frames_per_value: int
    again: str = ""  # a topic to be ingested before, unmeasured


def packed(sent: Traffic) -> Packed:
    """Decode the frames as the worker would, and pack them in batches sorted by identity."""
    decoder = decoder_for("gbt32960")
    assert decoder is not None
    _, vehicle = np.unique(sent.vin, return_inverse=True)
    files, checksum = [], 0
    for start in range(0, len(sent), BATCH):
        chosen = slice(start, start + BATCH)
        received = np.array([int(at) for at in sent.headers_at[chosen]])
        rows = decoder.decode(Values(sent.frames[chosen], received)).reports.rows
        rows.columns["vehicle_id"] = vehicle[chosen] + 1
        rows.columns["source_id"] = 1
        checksum += sum(rows.columns["digest"].tolist())
        files.append(pack(REPORT_LAYOUT, rows.take(order_by_identity(rows.columns).first)))
    observed = sent.rows.columns["observed_at"]
    return Packed(tuple(files), len(sent), checksum, (int(observed.min()), int(observed.max())))


async def run_copy(on: Stand, what: Packed) -> tuple[Result, tuple[float, float]]:
    """COPY packed batches through one connection; return the result and stored (table, index) bytes a row."""
    async with fresh_database(on) as database:
        db = await connect(database.ingest, role_name="bench", timeout_s=60)
        try:
            await ensure_partitions(db, weeks_of(np.array(what.observed_us)))
            await _copy_one(db, what.files[0])
            began, client, servers = time.perf_counter(), time.process_time(), on.cpu_s()
            for data in what.files[1:]:
                await _copy_one(db, data)
            took, client = time.perf_counter() - began, time.process_time() - client
            used = {name: seconds - servers[name] for name, seconds in on.cpu_s().items()}
        finally:
            await db.close()
        sizes = await _checked(database, what)
    rows = what.rows - BATCH
    per_row = 1e6 / rows
    return (
        Result(
            rows / took, client * per_row, used["postgres"] * per_row, used["broker"] * per_row, float(BATCH)
        ),
        sizes,
    )


async def _copy_one(db: asyncpg.Connection, data: bytes) -> None:
    async with db.transaction():
        await copy_packed(db, REPORT_LAYOUT.table, REPORT_LAYOUT.columns, data)


async def _checked(database: Database, what: Packed) -> tuple[float, float]:
    """Raise unless the table holds exactly these rows; return the bytes a row of table and index."""
    db = await asyncpg.connect(database.admin)
    try:
        count, checksum = await db.fetchrow(CHECK)
        if (count, int(checksum)) != (what.rows, what.checksum):
            raise RuntimeError(f"wrong result: {count} rows of {what.rows}, checksum {checksum}")
        table, index = await db.fetchrow(SIZES, count)
        return float(table), float(index)
    finally:
        await db.close()


async def run_worker(on: Stand, course: Course, what: Packed, backlog: str) -> Result:
    """Let one worker process ingest a topic; `again` first fills the database with the same readings."""
    async with fresh_database(on) as database:
        db = await asyncpg.connect(database.admin)
        try:
            if course.again:
                with worker(
                    "ingest", environment=settings_of(on, database, course.again, backlog)
                ) as process:
                    await until_sent(db, what.rows, process, 0.2)
                await db.execute("TRUNCATE telltale.ingest_batch")
            with worker("ingest", environment=settings_of(on, database, course.topic, backlog)) as process:
                result = await _measured(on, db, process, what)
        finally:
            await db.close()
        await _checked(database, what)
        return result


async def _measured(on: Stand, db: asyncpg.Connection, process: object, what: Packed) -> Result:
    first = await until_sent(db, 1, process, 0.02)
    used, servers = process.cpu_times(), on.cpu_s()
    await until_sent(db, what.rows, process, 0.1)
    after = process.cpu_times()
    served = {name: seconds - servers[name] for name, seconds in on.cpu_s().items()}
    batches = await db.fetch(LEDGER)
    # committed_at is when a transaction began: from the second one's begin to the last one's begin lie
    # all batches but the first and the last
    rows = sum(batch["sent"] for batch in batches[1:-1])
    per_row = 1e6 / (what.rows - first)
    return Result(
        rows / (batches[-1]["began"] - batches[1]["began"]),
        (after.user + after.system - used.user - used.system) * per_row,
        served["postgres"] * per_row,
        served["broker"] * per_row,
        median(batch["sent"] for batch in batches),
    )


async def compare(on: Stand, rows: int, rounds: int, shapes: Sequence[int]) -> None:
    """Fill the topics, run all courses in turn, and print what came out."""
    sent = traffic(rows)
    what = packed(sent)
    run = secrets.token_hex(3)
    backlog = f"bench.backlog.{run}"
    await fill(on.kafka, backlog, traffic(0), partitions=1)
    courses = []
    for per_value in shapes:
        courses += await _courses(on, sent, run, per_value)
    copies: list[Result] = []
    results: dict[str, list[Result]] = {course.name: [] for course in courses}
    sizes = (0.0, 0.0)
    for _ in range(rounds):
        result, sizes = await run_copy(on, what)
        copies.append(result)
        for course in courses:
            results[course.name].append(await run_worker(on, course, what, backlog))
    wire = sum(len(data) for data in what.files) / what.rows
    print(f"{rows:,} reports of 2,000 vehicles, 96 cells and 24 probes, {rounds} rounds, median (range)")
    print(f"bytes a row: frame {len(sent.frames[0])}, COPY wire {wire:.0f}, ", end="")
    print(f"stored {sizes[0]:.0f} table + {sizes[1]:.0f} index\n")
    _print(copies, results)


async def _courses(on: Stand, sent: Traffic, run: str, per_value: int) -> list[Course]:
    """Fill the topics of one shape of value; return the courses that read them."""
    late = late_order(len(sent), 0.2)
    names = {kind: f"bench.{kind}{per_value}.{run}" for kind in ("order", "late", "again")}
    await fill(on.kafka, names["order"], sent, frames_per_value=per_value)
    await fill(on.kafka, names["late"], sent, order=late, frames_per_value=per_value)
    again = traffic(len(sent), command=3)
    await fill(on.kafka, names["again"], again, frames_per_value=per_value)
    shape = f"{per_value}/value"
    return [
        Course(f"in order, {shape}", names["order"], per_value),
        Course(f"20 % late, {shape}", names["late"], per_value),
        Course(f"100 % reissued, {shape}", names["again"], per_value, again=names["order"]),
    ]


def _print(copies: list[Result], results: dict[str, list[Result]]) -> None:
    head = f"{'':24} {'rows/s':>26} {'÷ COPY':>18} {'÷ in order':>10}"
    print(f"{head} {'client':>7} {'postgres':>8} {'broker':>7} {'rows/tx':>8}   (µs of CPU a row)")
    _line("COPY, packed before", copies, copies, copies)
    in_order = copies
    for name, runs in results.items():
        in_order = runs if name.startswith("in order") else in_order
        _line(name, runs, copies, in_order)


def _line(name: str, runs: list[Result], copies: list[Result], in_order: list[Result]) -> None:
    ratios = [run.rows_s / copy.rows_s for run, copy in zip(runs, copies, strict=True)]
    share = median(run.rows_s / base.rows_s for run, base in zip(runs, in_order, strict=True))
    cpu = [median(getattr(run, who) for run in runs) for who in ("client_us", "postgres_us", "broker_us")]
    print(
        f"{name:24} {spread([run.rows_s for run in runs]):>26} {spread(ratios, '.2f'):>18} {share:10.2f} "
        f"{cpu[0]:7.2f} {cpu[1]:8.2f} {cpu[2]:7.2f} {median(run.batch for run in runs):8,.0f}"
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames-per-value", type=int, help="only this shape (default: 1 and 50)")
    parser.add_argument("--kafka", choices=["embedded", "apache"], default="embedded")
    parser.add_argument("--database", default="", help="URL of a superuser (default: an embedded PostgreSQL)")
    given = parser.parse_args()
    shapes = [given.frames_per_value] if given.frames_per_value else [1, 50]
    with stand(given.kafka, given.database) as on:
        asyncio.run(compare(on, given.rows, given.rounds, shapes))


if __name__ == "__main__":
    main()

"""Which table shape should lists and sixty OBD PIDs have? COPY, bytes and read-back, measured.

Every shape gets the same readings in the same run: prepared binary COPY bytes (numpy), sent by asyncpg to the
embedded PostgreSQL with its normal durability, a primary key on (vehicle, time, ...) in every table.
µs are per reading (not per table row): numpy packing + COPY until committed; median (range) of batches.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np

from telltale.embedded import start_postgres
from telltale.store.copy import HEADER, TRAILER, messages

VEHICLES, PER_DAY, BATCHES = 10, 2880, 6  # one reading in 30 s; one vehicle-day is read back
PIDS = 60
INT2, FLOAT4, INT4 = 21, 700, 23  # pg_type.oid
KEY = ("vehicle_id integer NOT NULL", "observed_at timestamptz NOT NULL")


@dataclass(frozen=True)
class Shape:
    """A way to keep one list per reading: its table, and the COPY fields after vehicle and time."""

    name: str
    columns: tuple[str, ...]
    fields: Callable[[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]  # values → one array a column
    read: str = ""
    long: bool = False  # one table row per item


def packed_rows(keys: Sequence[np.ndarray[Any, Any]], fields: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """Binary COPY of these columns; a field of dtype V0 or a masked one is null."""
    columns = [*keys, *fields]
    parts: list[Any] = [("n", ">i2")]
    for i, column in enumerate(columns):
        parts += [(f"l{i}", ">i4")] + ([(f"c{i}", column.dtype)] if column.dtype.itemsize else [])
    out = np.zeros(len(columns[0]), np.dtype(parts))
    out["n"] = len(columns)
    for i, column in enumerate(columns):
        out[f"l{i}"] = column.dtype.itemsize or -1
        if column.dtype.itemsize:
            out[f"c{i}"] = column
    return out.tobytes()


def array_field(values: np.ndarray[Any, Any], element: str, oid: int) -> np.ndarray[Any, Any]:
    """A PostgreSQL array per row: header, then a length word before every element."""
    rows, count = values.shape
    head = [("dimensions", ">i4"), ("flags", ">i4"), ("oid", ">i4"), ("count", ">i4"), ("lower", ">i4")]
    item = np.dtype([("size", ">i4"), ("value", element)])
    out = np.zeros(rows, np.dtype([*head, ("items", item, (count,))]))
    out["dimensions"], out["oid"], out["count"], out["lower"] = 1, oid, count, 1
    out["items"]["size"] = np.dtype(element).itemsize
    out["items"]["value"] = values
    return out.view(f"V{out.dtype.itemsize}")


def bytes_field(values: np.ndarray[Any, Any], element: str) -> np.ndarray[Any, Any]:
    """The same items back to back."""
    flat = np.ascontiguousarray(values.astype(element))
    return flat.view(f"V{flat.shape[1] * flat.itemsize}").ravel()


CELLS = (
    Shape("bytea", ("value bytea",), lambda v: [bytes_field(v, ">u2")]),
    Shape("int2[]", ("value smallint[]",), lambda v: [array_field(v, ">i2", INT2)]),
    Shape("real[]", ("value real[]",), lambda v: [array_field(v / 1000, ">f4", FLOAT4)]),
    Shape(
        "long table",
        ("cell smallint NOT NULL", "value smallint NOT NULL"),
        lambda v: [np.tile(np.arange(v.shape[1]).astype(">i2"), len(v)), v.ravel().astype(">i2")],
        long=True,
    ),
)
MOTORS = (  # two motors of eight numbers
    Shape("bytea", ("value bytea",), lambda v: [bytes_field(v, ">i2")]),
    Shape("int4[]", ("value integer[]",), lambda v: [array_field(v, ">i4", INT4)]),
    Shape(
        "long table",
        ("motor smallint NOT NULL", *(f"m{i} integer" for i in range(8))),
        lambda v: [
            np.tile(np.arange(2).astype(">i2"), len(v)),
            *v.reshape(-1, 8).astype(">i4").T,
        ],
        long=True,
    ),
)


def obd_shapes(present: np.ndarray[Any, Any]) -> tuple[Shape, ...]:
    """The three ways to keep a reading of `present` PIDs, of sixty that exist."""
    count = len(present)

    def wide(values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        empty = np.zeros(len(values), "V0")
        where = {int(pid): i for i, pid in enumerate(present)}
        return [values[:, where[p]].astype(">f4") if p in where else empty for p in range(PIDS)]

    pids = np.frombuffer(present.astype("u1").tobytes(), f"V{count}")
    one = int(present[count // 2])
    return (
        Shape(
            "wide: 60 real columns",
            tuple(f"pid_{p} real" for p in range(PIDS)),
            wide,
            f"SELECT observed_at, pid_{one} FROM shape "  # noqa: S608
            f"WHERE vehicle_id = 3 AND pid_{one} IS NOT NULL ORDER BY 1",
        ),
        Shape(
            "packed: pids + values bytea",
            ("pids bytea", "vals bytea"),
            lambda v: [np.repeat(pids, len(v)), bytes_field(v, ">f4")],
            "SELECT observed_at, pids, vals FROM shape WHERE vehicle_id = 3 ORDER BY 1",
        ),
        Shape(
            "long: one row a PID",
            ("pid smallint NOT NULL", "value real NOT NULL"),
            lambda v: [np.tile(present.astype(">i2"), len(v)), v.ravel().astype(">f4")],
            f"SELECT observed_at, value FROM shape WHERE vehicle_id = 3 AND pid = {one} ORDER BY 1",  # noqa: S608
            long=True,
        ),
    )


async def make_table(connection: asyncpg.Connection, shape: Shape) -> None:
    """Make an empty table of this shape; a long one has the item's number in its key."""
    await connection.execute("DROP TABLE IF EXISTS shape")
    key = ["vehicle_id", "observed_at"] + ([shape.columns[0].split()[0]] if shape.long else [])
    columns = ", ".join((*KEY, *shape.columns, f"PRIMARY KEY ({', '.join(key)})"))
    await connection.execute(f"CREATE TABLE shape ({columns})")
    await connection.execute("CHECKPOINT")


async def measure(
    connection: asyncpg.Connection, shape: Shape, values: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """Load all batches into a fresh table; return µs and bytes per reading, and read-back ms."""
    await make_table(connection, shape)
    wal = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
    size = len(values) // BATCHES
    times = []
    for batch in range(BATCHES):
        part = values[batch * size : (batch + 1) * size]
        number = np.arange(batch * size, batch * size + size)
        keys = [(number % VEHICLES).astype(">i4"), (number // VEHICLES * 30_000_000).astype(">i8")]
        start = time.perf_counter()
        fields = shape.fields(part)
        repeat = len(fields[0]) // size
        data = HEADER + packed_rows([np.repeat(k, repeat) for k in keys], fields) + TRAILER
        await connection.copy_to_table("shape", source=messages([data]), format="binary")
        times.append((time.perf_counter() - start) / size * 1e6)
    written = await connection.fetchval(
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)::bigint", wal
    )
    table, index = await connection.fetchrow("SELECT pg_table_size('shape'), pg_indexes_size('shape')")
    await connection.execute("VACUUM ANALYZE shape")
    return {
        "us": times[1:],  # the first batch warms up
        "bytes": [n / (size * BATCHES) for n in (table, index, written)],
        "read_ms": [await read_back(connection, shape) for _ in range(7)][1:] if shape.read else [],
    }


async def read_back(connection: asyncpg.Connection, shape: Shape) -> float:
    """Milliseconds to get one PID of one vehicle-day into numpy."""
    start = time.perf_counter()
    rows = await connection.fetch(shape.read)
    if shape.name.startswith("packed"):
        pids = rows[0]["pids"]
        assert all(row["pids"] == pids for row in rows)  # one car answers the same PIDs all day
        values = np.frombuffer(b"".join(row["vals"] for row in rows), ">f4").reshape(len(rows), -1)
        found = values[:, len(pids) // 2]
    else:
        found = np.array([row[1] for row in rows], np.float32)
    assert len(found) == PER_DAY
    return (time.perf_counter() - start) * 1e3


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


async def compare(connection: asyncpg.Connection, title: str, shapes: Sequence[Shape], values: Any) -> None:
    """Print one table: each shape, and its ratio to the first."""
    print(f"\n### {title}\n")
    read = "read one PID of a vehicle-day, ms | " if shapes[0].read else ""
    print(f"| shape | µs a reading | ratio | bytes a reading: table, index, WAL | ratio | {read}")
    print("|---|---|---|---|---|" + ("---|" if read else ""))
    first: dict[str, Any] = {}
    for shape in shapes:
        seen = await measure(connection, shape, values)
        first = first or seen
        speed = statistics.median(seen["us"]) / statistics.median(first["us"])
        room = sum(seen["bytes"][:2]) / sum(first["bytes"][:2])
        sizes = ", ".join(f"{n:.0f}" for n in seen["bytes"])
        back = f" {spread(seen['read_ms'])} |" if shape.read else ""
        print(
            f"| {shape.name} | {spread(seen['us'])} | {speed:.2f} | {sizes} | {room:.2f} |{back}", flush=True
        )


async def run(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=20, command_timeout=300)
    random = np.random.default_rng(1)
    count = VEHICLES * PER_DAY
    print(f"PostgreSQL {await connection.fetchval('SHOW server_version')}, {count} readings a shape")
    cells = (3300 + random.integers(-5, 6, (count, 96)) + random.integers(0, 800, (count, 1))).astype("i4")
    await compare(connection, "96 cells", CELLS, cells)
    await compare(connection, "Two motors", MOTORS, random.integers(-3000, 3000, (count, 16)))
    for present in (10, 40):
        pids = np.sort(random.choice(PIDS, present, replace=False))
        values = random.integers(0, 2000, (count, present)) / 8
        await compare(connection, f"OBD, {present} of 60 PIDs present", obd_shapes(pids), values)
    await connection.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, start_postgres(Path(folder)) as address:
        asyncio.run(run(address))

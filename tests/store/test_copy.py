"""The packed COPY bytes say exactly what the columns say."""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.servers.postgres import DatabaseUrls

from telltale import records
from telltale.store import copy
from telltale.store.pool import connect

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMED = frozenset({"observed_at", "received_at"})


def random_rows(count: int, seed: int, *, null_share: float = 0.0, patterns: int = 1) -> records.Rows:
    """Report rows with random content; nulls and list lengths follow `patterns` random patterns."""
    random = np.random.default_rng(seed)
    columns = np.zeros(count, records.REPORT)
    for column in records.REPORT_COLUMNS:
        columns[column.name] = random.integers(-100, 100, count)
    for name in TIMED:
        columns[name] = 1_700_000_000_123_456 + np.arange(count) * 1_000_000
    columns["vehicle_id"] = np.arange(count)
    pattern = random.integers(0, patterns, count)
    absent = random.random((patterns, len(records.REPORT_SCALARS))) < null_share
    for i, column in enumerate(records.REPORT_SCALARS):
        columns[column.name][absent[pattern, i]] = column.null
    lists = {}
    for item in records.REPORT_LISTS:
        lengths = random.integers(0, 6, patterns)[pattern]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        raw = random.bytes(int(offsets[-1]) * item.item.itemsize)
        lists[item.name] = records.Ragged(np.frombuffer(raw, item.item), offsets)
    return records.Rows(columns, lists)


def expected(rows: records.Rows) -> list[tuple[Any, ...]]:
    """The rows as a person would write them: None for null, datetimes, bytes."""
    return [tuple(expected_row(rows, i)) for i in range(len(rows))]


def expected_row(rows: records.Rows, index: int) -> Iterator[Any]:
    for column in records.REPORT_COLUMNS:
        value = rows.columns[index][column.name]
        if np.isnan(value) if column.dtype.startswith("f") else value == column.null:
            yield None
        elif column.pg_type == "timestamptz":
            yield EPOCH + timedelta(microseconds=int(value))
        else:
            yield value.item()
    for item in records.REPORT_LISTS:
        yield rows.lists[item.name].row(index).tobytes() or None


def read_back(data: bytes) -> list[tuple[Any, ...]]:
    """Read a binary COPY file field by field, as the documentation describes it."""
    assert data[:19] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    assert data[-2:] == b"\xff\xff"
    rows, at = [], 19
    while at < len(data) - 2:
        (count,) = struct.unpack_from(">h", data, at)
        at += 2
        fields: list[Any] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", data, at)
            at += 4
            fields.append(None if size == -1 else data[at : at + size])
            at += max(size, 0)
        rows.append(tuple(typed(fields)))
    return rows


def typed(fields: list[Any]) -> Iterator[Any]:
    code = {"smallint": ">h", "integer": ">i", "bigint": ">q", "timestamptz": ">q", "real": ">f"}
    for column, field in zip(records.REPORT_COLUMNS, fields, strict=False):
        value = field if field is None else struct.unpack(code.get(column.pg_type, ">d"), field)[0]
        if column.pg_type == "timestamptz" and value is not None:
            value = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
        yield value
    yield from fields[len(records.REPORT_COLUMNS) :]


def by_vehicle(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=lambda row: row[0])


@pytest.mark.unit
@given(
    count=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
    null_share=st.sampled_from([0.0, 0.2, 1.0]),
    patterns=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_null_is_null_on_the_wire(
    count: int, seed: int, null_share: float, patterns: int
) -> None:
    rows = random_rows(count, seed, null_share=null_share, patterns=patterns)
    assert read_back(copy.pack(copy.REPORT_LAYOUT, rows, keep_order=True)) == expected(rows)
    assert by_vehicle(read_back(copy.pack(copy.REPORT_LAYOUT, rows))) == expected(rows)


@pytest.mark.unit
@pytest.mark.parametrize("patterns", [1, 3, 40, 500])
def test_groups_large_and_small_hold_every_row_once(patterns: int) -> None:
    rows = random_rows(1000, 7, null_share=0.3, patterns=patterns)
    assert by_vehicle(read_back(copy.pack(copy.REPORT_LAYOUT, rows))) == expected(rows)


@pytest.mark.unit
def test_one_huge_list_does_not_widen_every_row() -> None:
    rows = random_rows(3000, 3, null_share=0.3, patterns=3000)
    huge = np.frombuffer(bytes(1_000_000), records.BYTE)
    lists = [rows.lists["user_data"].row(i) for i in range(3000)]
    lists[1500] = huge
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    rows.lists["user_data"] = records.Ragged(np.concatenate(lists), offsets)
    block = copy.block_of(copy.REPORT_LAYOUT, rows)
    assert all(
        len(part) * (part.sizes.max(axis=1).sum()) <= 2 * copy.MASKED_BYTES for part in copy.slices(block)
    )
    assert by_vehicle(read_back(copy.pack(copy.REPORT_LAYOUT, rows))) == expected(rows)


@pytest.mark.unit
def test_pieces_join_to_the_packed_file() -> None:
    rows = random_rows(50, 1, null_share=0.5, patterns=9)
    pieces = [copy.HEADER, *copy.chunks(copy.REPORT_LAYOUT, rows), copy.TRAILER]
    assert b"".join(pieces) == copy.pack(copy.REPORT_LAYOUT, rows)


async def test_packed_rows_read_back_as_rows_that_the_driver_wrote(database_urls: DatabaseUrls) -> None:
    rows = random_rows(2000, 11, null_share=0.3, patterns=5)
    names = copy.REPORT_LAYOUT.columns
    await make_partitions(database_urls.ingest, rows)
    admin = await asyncpg.connect(database_urls.admin)
    await admin.execute("CREATE TABLE telltale.driver AS SELECT * FROM telltale.report")
    await admin.copy_records_to_table(
        "driver", schema_name="telltale", columns=list(names), records=expected(rows)
    )
    ingest = await connect(database_urls.ingest, role_name="ingest", timeout_s=30)
    packed = copy.pack(copy.REPORT_LAYOUT, rows)
    assert await copy.copy_packed(ingest, "report", names, packed) == 2000
    await admin.execute("ALTER TABLE telltale.driver DROP stored_at")
    stored = await admin.fetch(f"SELECT {', '.join(names)} FROM telltale.report ORDER BY vehicle_id")  # noqa: S608
    assert stored == await admin.fetch("SELECT * FROM telltale.driver ORDER BY vehicle_id")
    assert len(stored) == 2000
    await ingest.close()
    await admin.close()


async def test_a_refused_copy_stores_nothing(database_urls: DatabaseUrls) -> None:
    rows = random_rows(100, 5)
    await make_partitions(database_urls.ingest, rows)
    rows.columns["vehicle_id"][99] = rows.columns["vehicle_id"][98]
    rows.columns["observed_at"][99] = rows.columns["observed_at"][98]
    rows.columns["part"][99] = rows.columns["part"][98]
    ingest = await connect(database_urls.ingest, role_name="ingest", timeout_s=30)
    with pytest.raises(asyncpg.UniqueViolationError):
        await copy.copy_packed(
            ingest, "report", copy.REPORT_LAYOUT.columns, copy.pack(copy.REPORT_LAYOUT, rows)
        )
    assert await ingest.fetchval("SELECT count(*) FROM report") == 0
    await ingest.close()


async def make_partitions(url: str, rows: records.Rows) -> None:
    ingest = await connect(url, role_name="ingest", timeout_s=30)
    times = [EPOCH + timedelta(microseconds=int(t)) for t in np.unique(rows.columns["observed_at"])]
    await ingest.execute("SELECT ensure_partitions($1)", times)
    await ingest.close()

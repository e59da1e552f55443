"""Columns to PostgreSQL's binary COPY format without a Python object per row.

Rows that are null in the same places and whose lists have the same lengths have the same layout on the wire:
a field count, then per field a length word and big-endian bytes. Such a group is one structured array, the
length words copied in from a template. What is left over in small groups is written at full width and the
bytes that are not there are cut out by a mask.
Source: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from telltale.records import (
    FUEL_CELL_LISTS,
    FUEL_CELL_SCALARS,
    IDENTITY,
    REPORT_COLUMNS,
    REPORT_LISTS,
    Array,
    Column,
    ListColumn,
    Ragged,
    Rows,
)
from telltale.store.pool import Connection

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
POSTGRES_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01T00:00Z in µs since 1970
NULL: Final = -1
WIRE: Final = {
    "smallint": ">i2",
    "integer": ">i4",
    "bigint": ">i8",
    "timestamptz": ">i8",
    "real": ">f4",
    "double precision": ">f8",
}
GROUP_ROWS: Final = 64  # smaller groups cost more in numpy calls than in masked bytes
MASKED_BYTES: Final = 8 << 20  # most memory of a block written at full width
MESSAGE_BYTES: Final = 512 << 10


@dataclass(frozen=True)
class CopyLayout:
    """A table as COPY sees it: scalar columns first, then list columns."""

    table: str
    scalars: tuple[Column, ...]
    lists: tuple[ListColumn, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Return the column names in COPY order."""
        return tuple([column.name for column in self.scalars] + [item.name for item in self.lists])

    def __hash__(self) -> int:
        return hash(self.table)


REPORT_LAYOUT: Final = CopyLayout("report", REPORT_COLUMNS, REPORT_LISTS)
FUEL_CELL_LAYOUT: Final = CopyLayout("fuel_cell_report", IDENTITY + FUEL_CELL_SCALARS, FUEL_CELL_LISTS)


@dataclass(frozen=True, slots=True)
class Template:
    """The wire form of one group of rows: field names are `n`, `<column>` and `#<column>` (length words)."""

    dtype: np.dtype[Any]
    blank: NDArray[np.void]  # one row with field count and length words, no values


@cache
def template(layout: CopyLayout, absent: tuple[bool, ...], sizes: tuple[int, ...]) -> Template:
    """Return the wire form of rows null in these scalars, with lists of these byte sizes (0 = null)."""
    fields: list[tuple[str, str]] = [("n", ">i2")]
    words = {"n": len(layout.columns)}
    for column, missing in zip(layout.scalars, absent, strict=True):
        wire = np.dtype(WIRE[column.pg_type])
        fields.append((f"#{column.name}", ">i4"))
        fields += [] if missing else [(column.name, wire.str)]
        words[f"#{column.name}"] = NULL if missing else wire.itemsize
    for item, size in zip(layout.lists, sizes, strict=True):
        fields.append((f"#{item.name}", ">i4"))
        fields += [(item.name, f"V{size}")] if size else []
        words[f"#{item.name}"] = size or NULL
    dtype = np.dtype(fields)
    blank = np.zeros(1, dtype)
    for name, value in words.items():
        blank[name] = value
    return Template(dtype, blank.view(f"V{dtype.itemsize}"))


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one batch with what grouping needs."""

    layout: CopyLayout
    scalars: Array
    absent: NDArray[np.bool_]  # scalars × rows
    items: list[NDArray[np.uint8]]  # bytes of each list column
    starts: list[NDArray[np.int64]]  # first byte of each row's list
    sizes: NDArray[np.int64]  # lists × rows, bytes

    def __len__(self) -> int:
        return len(self.scalars)

    def take(self, rows: NDArray[np.int64]) -> Block:
        """Return these rows, in this order."""
        return Block(
            self.layout,
            self.scalars[rows],
            self.absent[:, rows],
            self.items,
            [start[rows] for start in self.starts],
            self.sizes[:, rows],
        )


def pack(layout: CopyLayout, rows: Rows, *, keep_order: bool = False) -> bytes:
    """Return a whole binary COPY file of these rows: columns `layout.columns`.

    Nulls become NULL, empty lists too; times turn from µs since 1970 into PostgreSQL's epoch. Rows come
    group by group, not in their own order, unless `keep_order`, which is slower for mixed batches.
    """
    return b"".join((HEADER, *chunks(layout, rows, keep_order=keep_order), TRAILER))


def chunks(layout: CopyLayout, rows: Rows, *, keep_order: bool = False) -> Iterator[memoryview]:
    """Yield the rows' bytes without header and trailer, one piece a group."""
    if len(rows) == 0:
        return
    block = block_of(layout, rows)
    if uniform(block):
        yield same_layout(block)
        return
    rest = np.arange(len(block))
    if not keep_order:
        groups, rest = large_groups(block)
        for group in groups:
            yield same_layout(block.take(group))
    yield from (mixed_layout(part) for part in slices(block.take(rest)))


def block_of(layout: CopyLayout, rows: Rows) -> Block:
    """Look at a batch once: which scalars are null, where each list's bytes are."""
    absent = np.array([is_null(rows.columns[c.name], c) for c in layout.scalars])
    lists = [(rows.lists[c.name], c.item) for c in layout.lists]
    items = [bytes_of(ragged, item) for ragged, item in lists]
    starts = [ragged.offsets[:-1] * item.itemsize for ragged, item in lists]
    sizes = np.array([ragged.lengths * item.itemsize for ragged, item in lists], np.int64)
    return Block(layout, rows.columns, absent, items, starts, sizes.reshape(len(lists), len(rows)))


def is_null(values: Array, column: Column) -> NDArray[np.bool_]:
    """Tell which values stand for null."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    nulls: NDArray[np.bool_] = values == column.null
    return nulls


def bytes_of(ragged: Ragged, item: np.dtype[Any]) -> NDArray[np.uint8]:
    """Return the items' bytes in wire order."""
    return np.ascontiguousarray(ragged.values, dtype=item).view(np.uint8)


def uniform(block: Block) -> bool:
    """Tell whether all rows have one layout."""
    return bool((block.absent == block.absent[:, :1]).all() and (block.sizes == block.sizes[:, :1]).all())


def large_groups(block: Block) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Return the row numbers of each layout that many rows share, and of all other rows."""
    bits = np.packbits(block.absent, axis=0).T
    key = np.ascontiguousarray(np.hstack([bits, np.ascontiguousarray(block.sizes.T).view(np.uint8)]))
    _, group, count = np.unique(key.view(f"V{key.shape[1]}"), return_inverse=True, return_counts=True)
    order = np.argsort(group.ravel(), kind="stable")
    parts = np.split(order, np.cumsum(count)[:-1])
    rest = [part for part in parts if len(part) < GROUP_ROWS]
    return [p for p in parts if len(p) >= GROUP_ROWS], np.concatenate([np.zeros(0, np.int64), *rest])


def same_layout(block: Block) -> memoryview:
    """Write rows of one layout."""
    form = template(block.layout, tuple(block.absent[:, 0].tolist()), tuple(block.sizes[:, 0].tolist()))
    out = np.empty(len(block), form.dtype)
    out.view(f"V{form.dtype.itemsize}")[:] = form.blank
    for column, missing in zip(block.layout.scalars, block.absent[:, 0], strict=True):
        if not missing:
            out[column.name] = wire_values(block.scalars, column)
    for i, item in enumerate(block.layout.lists):
        if size := int(block.sizes[i, 0]):
            out[item.name] = windows(block.items[i], size)[block.starts[i]]
    return out.view(np.uint8).data


def wire_values(scalars: Array, column: Column) -> Array:
    """Return a column as PostgreSQL counts it."""
    values = scalars[column.name]
    return values - POSTGRES_EPOCH_US if column.pg_type == "timestamptz" else values


def windows(items: NDArray[np.uint8], size: int) -> NDArray[np.void]:
    """Return every run of `size` bytes, by its first byte, without copying."""
    return np.ndarray((len(items) - size + 1,), f"V{size}", items.data, 0, (1,))


def slices(block: Block) -> Iterator[Block]:
    """Cut rows into blocks that fit in memory at the full width of their longest lists."""
    width = template(
        block.layout, (False,) * len(block.layout.scalars), (0,) * len(block.sizes)
    ).dtype.itemsize
    first = 0
    while first < len(block):
        widest = np.maximum.accumulate(block.sizes[:, first:], axis=1).sum(axis=0) + width
        fits = np.flatnonzero(widest * np.arange(1, len(widest) + 1) <= MASKED_BYTES)
        last = first + max(1, len(fits))
        yield block.take(np.arange(first, last))
        first = last


def mixed_layout(block: Block) -> memoryview:
    """Write rows of any layouts, in order: all fields at full width, then cut out what is not there."""
    widest = tuple(block.sizes.max(axis=1).tolist())
    form = template(block.layout, (False,) * len(block.layout.scalars), widest)
    fields: dict[str, Any] = dict(form.dtype.fields or {})
    out = np.empty(len(block), form.dtype)
    out.view(f"V{form.dtype.itemsize}")[:] = form.blank
    flat = out.view(np.uint8).reshape(len(block), form.dtype.itemsize)
    keep = np.ones(flat.shape, bool)
    for column, absent in zip(block.layout.scalars, block.absent, strict=True):
        out[column.name] = wire_values(block.scalars, column)
        if absent.any():
            out[f"#{column.name}"][absent] = NULL
            offset = fields[column.name][1]
            keep[absent, offset : offset + fields[column.name][0].itemsize] = False
    for i, item in enumerate(block.layout.lists):
        if widest[i]:
            out[f"#{item.name}"] = np.where(block.sizes[i] > 0, block.sizes[i], NULL)
            place = slice(fields[item.name][1], fields[item.name][1] + widest[i])
            present = np.arange(widest[i]) < block.sizes[i][:, None]
            flat[:, place][present] = gather(block.items[i], block.starts[i], block.sizes[i])
            keep[:, place] = present
    return flat[keep].data


def gather(
    items: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the bytes of these lists back to back."""
    ends = np.cumsum(sizes)
    shift = np.repeat(starts - (ends - sizes), sizes)
    found: NDArray[np.uint8] = items[np.arange(ends[-1]) + shift]
    return found


async def copy_packed(
    connection: Connection, table: str, columns: Sequence[str], data: bytes | Iterable[bytes | memoryview]
) -> int:
    """COPY a packed file, or its pieces, into a table of the search path; return the number of rows.

    Pieces are header, rows in any cut, and trailer. Errors are PostgreSQL's, with their SQLSTATE; the
    statement stores all rows or none.
    """
    pieces = [data] if isinstance(data, bytes) else data
    status = await connection.copy_to_table(
        table, columns=list(columns), source=messages(pieces), format="binary"
    )
    return int(status.rpartition(" ")[2])


async def messages(pieces: Iterable[bytes | memoryview]) -> AsyncIterator[bytes]:
    """Cut pieces into messages small enough that the driver's write buffer stays small."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), MESSAGE_BYTES):
            yield bytes(view[start : start + MESSAGE_BYTES])

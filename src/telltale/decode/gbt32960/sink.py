"""Where decoded reports go: one row each in structured arrays, lists in blocks until all are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telltale import records
from telltale.decode.gbt32960.fields import Field
from telltale.records import Array, ListColumn, Ragged

_RAW: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype(">u2"), 4: np.dtype(">u4")}
_NATIVE: dict[int, np.dtype[Any]] = {1: np.dtype("i4"), 2: np.dtype("i4"), 4: np.dtype("i8")}


class Chunks:
    """List columns under construction: blocks of equal list length, and the rows they belong to."""

    def __init__(self, columns: tuple[ListColumn, ...], rows: int) -> None:
        self._items = {column.name: column.item for column in columns}
        self._rows = rows
        self._blocks: dict[str, list[tuple[NDArray[np.int64], Array]]] = {name: [] for name in self._items}

    def add(self, name: str, rows: NDArray[np.int64], block: Array) -> None:
        """Take lists (n, length) for these rows."""
        if block.size:
            self._blocks[name].append((rows, block))

    def lists(self) -> dict[str, Ragged]:
        """Return every list column over all rows."""
        return {name: self._ragged(item, self._blocks[name]) for name, item in self._items.items()}

    def _ragged(self, item: np.dtype[Any], blocks: list[tuple[NDArray[np.int64], Array]]) -> Ragged:
        lengths = np.zeros(self._rows, np.int64)
        for rows, block in blocks:
            lengths[rows] = block.shape[1]
        offsets = np.zeros(self._rows + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        if len(blocks) == 1 and len(blocks[0][0]) == self._rows:
            return Ragged(np.ascontiguousarray(blocks[0][1]).reshape(-1).view(item), offsets)
        values = np.empty(offsets[-1], item)
        raw = values.view(np.uint8)
        for rows, block in blocks:
            flat = np.ascontiguousarray(block).view(np.uint8).reshape(len(rows), -1)
            windows = np.lib.stride_tricks.sliding_window_view(raw, flat.shape[1], writeable=True)
            windows[offsets[rows] * item.itemsize] = flat
        return Ragged(values, offsets)


@dataclass(slots=True)
class Sink:
    """Where decoded reports of a batch go: one row per report, in arrival order."""

    report: Array
    lists: Chunks
    fuel_cell: Array
    fuel_lists: Chunks
    fuel_row: NDArray[np.int64]  # row of `fuel_cell` of each report that has one
    current_sign: int
    position_decimals: int
    markers: dict[tuple[str, str], int] = field(default_factory=dict)

    def mark(self, column: str, kind: str, count: int) -> None:
        """Count markers of one kind in one column."""
        if count:
            self.markers[column, kind] = self.markers.get((column, kind), 0) + count


def sink(rows: int, fuel_row: NDArray[np.int64], current_sign: int, position_decimals: int) -> Sink:
    """Return an empty sink for this many reports; `fuel_row` is -1 for reports without a fuel cell."""
    fuel_rows = int(fuel_row.max(initial=-1)) + 1
    report = records.nulls(records.REPORT_COLUMNS, rows)
    for column in records.IDENTITY + records.PROVENANCE:
        report[column.name] = 0
    return Sink(
        report,
        Chunks(records.REPORT_LISTS, rows),
        records.nulls(records.IDENTITY + records.FUEL_CELL_SCALARS, fuel_rows),
        Chunks(records.FUEL_CELL_LISTS, fuel_rows),
        fuel_row,
        current_sign,
        position_decimals,
    )


@dataclass(slots=True)
class Block:
    """Bytes laid out alike, one row each, and the rows of the sink they fill."""

    raws: Array  # (n, length), C order
    rows: NDArray[np.int64]
    into: Sink
    wild: NDArray[np.bool_]  # rows holding a value outside the standard's range

    def raw(self, width: int, offset: int, count: int = 1, step: int = 0) -> Array:
        """Return a big-endian field of every row (n, count), `step` bytes apart."""
        n, length = self.raws.shape
        return np.ndarray((n, count), _RAW[width], self.raws.data, offset, (length, step or width))

    def settle(self, spec: Field, column: str, raw: Array) -> tuple[Array, Array | None]:
        """Return native raw values, and where they are markers (None: nowhere); counts and flags them."""
        values = raw.astype(_NATIVE[spec.width])
        if not values.size or (
            values.max() <= spec.raw_max and (not spec.raw_min or values.min() >= spec.raw_min)
        ):
            return values, None
        outside = (values > spec.raw_max) | (values < spec.raw_min)
        nulls = None
        if spec.marked:
            invalid, abnormal = values == spec.invalid, values == spec.invalid - 1
            self.into.mark(column, "invalid", int(invalid.sum()))
            self.into.mark(column, "abnormal", int(abnormal.sum()))
            nulls = invalid | abnormal
            outside &= ~nulls
        self.wild |= outside.any(axis=1)
        return values, nulls

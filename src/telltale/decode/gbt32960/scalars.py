"""Fixed fields of sections, decoded once a batch for all frames that have the section, whatever their layout.

A fleet sends dozens of layouts in a batch; a section's fixed fields lie the same way in all of them. So their
bytes are gathered over all layouts first, and a field costs its array operations once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from telltale import records
from telltale.decode.gbt32960.fields import POSITION, Field
from telltale.decode.gbt32960.layout import Part
from telltale.decode.gbt32960.sink import Block, Sink
from telltale.records import Array, Flag


@dataclass(slots=True)
class _Places:
    """Where one section's fixed fields lie in the joined values, and which rows they are for."""

    edition: int
    type: int
    table: str
    fields: tuple[tuple[Field, int], ...]  # offsets from the section's type byte
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    starts: list[NDArray[np.int64]] = field(default_factory=list)


class Scalars:
    """Sections seen so far, by edition, type and the offsets of their fixed fields."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], _Places] = {}

    def add(self, edition: int, part: Part, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """Take a section of frames of one layout: their rows, and where the frames start."""
        if not part.body.fields:
            return
        offsets = [offset - part.start for _, offset in part.body.fields]
        key = (edition, part.section.type, *offsets)
        places = self._places.get(key)
        if places is None:
            fields = tuple((spec, at) for (spec, _), at in zip(part.body.fields, offsets, strict=True))
            places = _Places(edition, part.section.type, part.section.table, fields)
            self._places[key] = places
        places.rows.append(rows)
        places.starts.append(starts + part.start)

    def decode(self, buffer: Array, into: Sink) -> None:
        """Decode everything taken from the joined values into the sink."""
        for places in self._places.values():
            rows, starts = np.concatenate(places.rows), np.concatenate(places.starts)
            last, offset = places.fields[-1]
            windows = np.lib.stride_tricks.sliding_window_view(buffer, offset + last.width)
            block = Block(windows[starts], rows, into, np.zeros(len(rows), bool))
            if places.table == "report":
                _fields(block, places.fields, into.report, rows)
            else:
                _fields(block, places.fields, into.fuel_cell, into.fuel_row[rows])
            if places.type == POSITION:
                _position(into, rows, places.edition)
            into.report["flags"][rows] |= block.wild.astype(np.int32) * int(Flag.OUT_OF_RANGE)


def _fields(
    block: Block, fields: tuple[tuple[Field, int], ...], table: Array, rows: NDArray[np.int64]
) -> None:
    for spec, offset in fields:
        if not spec.column:
            continue
        raw, nulls = block.settle(spec, spec.column, block.raw(spec.width, offset))
        values: Array = raw[:, 0]
        if spec.bias:
            values = values + spec.bias
        if spec.flips and block.into.current_sign != 1:
            values = values * block.into.current_sign
        if spec.per_unit != 1:
            values = values / spec.per_unit
        column = table[spec.column]
        column[rows] = values
        if nulls is not None:
            column[rows[nulls[:, 0]]] = records.null_of(column.dtype)


def _position(into: Sink, rows: NDArray[np.int64], edition: int) -> None:
    """Apply the hemisphere bits and the rounding; 2016 frames do not say which datum they use."""
    report = into.report
    state = report["position_state"][rows]
    for column, bit in (("latitude_deg", 2), ("longitude_deg", 4)):
        degrees = report[column][rows]
        signed = np.where((state & bit) != 0, -degrees, degrees)
        report[column][rows] = np.round(signed, into.position_decimals) + 0.0
    if edition == 2016:
        report["coordinate_system"][rows] = 0

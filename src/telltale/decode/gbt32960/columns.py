"""The hot path: reports of one layout to columns, all rows at once.

Frames are rows of a byte matrix; a field is a strided big-endian view of it. A field's largest raw value
tells in one pass whether any marker or out-of-range value is present, so that healthy data cost one compare
a field. Results go into one structured array for all reports of a batch, and lists into `Ragged` columns.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale import records
from telltale.decode.gbt32960.fields import FAULT_GROUPS, PROBE_STEPS, SIGNATURE, VEHICLE, Field
from telltale.decode.gbt32960.layout import HEADER, Item, Layout, Part, Placed
from telltale.decode.gbt32960.sink import Block, Sink
from telltale.records import PROBE, SUBSYSTEM, Array, Flag

CELL_BLOCKS: Final = frozenset({(2016, 0x08), (2025, 0x07)})
PROBE_BLOCKS: Final = frozenset({(2016, 0x09), (2025, 0x08)})
_ITEM_OF = {column.name: column.item for column in records.REPORT_LISTS}
_REPORT_NAMES = frozenset(column.name for column in records.REPORT_SCALARS)


def _probe_table() -> Array:
    """Return probe items by raw byte: 0.1 degC from 1 degC steps, markers carried over."""
    table = ((np.arange(256) - 40) * PROBE_STEPS).astype(PROBE)
    table[0xFF], table[0xFE] = records.PROBE_INVALID, records.PROBE_ABNORMAL
    return table


_PROBE_OF_RAW: Final = _probe_table()


def decode_group(frames: Array, layout: Layout, rows: NDArray[np.int64], into: Sink) -> None:
    """Decode all but the fixed fields of frames of one layout (n, length) into these rows of the sink."""
    group = Block(np.ascontiguousarray(frames), rows, into, np.zeros(len(rows), bool))
    parts = layout.last_parts()
    for part in parts.values():
        if part.section.table == "report":
            _flat_lists(group, part)
        elif part.section.table == "fuel_cell":
            _fuel_cell(group, part)
    _faults(group, parts)
    _subsystems(group, layout, parts)
    _kept_bytes(group, layout)
    into.report["part"][rows] = _part_number(group, layout, parts)
    into.report["flags"][rows] |= _flags(layout) + group.wild.astype(np.int32) * int(Flag.OUT_OF_RANGE)


def _flags(layout: Layout) -> int:
    flags = Flag.PARTIAL if layout.error else Flag(0)
    if layout.duplicate_types:
        flags |= Flag.DUPLICATE_SECTION
    if layout.signed:
        flags |= Flag.SIGNED
    return int(flags)


def _flat_lists(group: Block, part: Part) -> None:
    """Decode lists of fixed records whose column's item has a member per field: motors, alarm levels."""
    for placed in part.body.lists:
        _count_markers(group, placed)
        if placed.listing.column in ("motors", "alarm_levels") and placed.length:
            block = np.empty((len(group.rows), placed.length), _ITEM_OF[placed.listing.column])
            block.view(np.uint8)[:] = 0
            _items(group, placed, block)
            group.into.lists.add(placed.listing.column, group.rows, block)


def _items(group: Block, placed: Placed, block: Array) -> None:
    offset = placed.offset
    for spec in placed.listing.items:
        if not isinstance(spec, Field):
            continue
        raw = group.raw(spec.width, offset, placed.length, placed.listing.item_bytes)
        name = f"{placed.listing.column}.{spec.column}"
        values, nulls = group.settle(spec, name, raw)
        member = block[spec.column]
        if spec.width == 4 and member.dtype.kind == "i":  # absurd, but kept: as large as the item can hold
            values = np.minimum(values, np.iinfo(member.dtype).max - spec.bias)
        member[...] = values + spec.bias if spec.bias else values
        if nulls is not None and member.dtype.kind == "i":
            member[nulls] = records.null_of(member.dtype)
        offset += spec.width


def _count_markers(group: Block, placed: Placed) -> None:
    counter = placed.listing.count
    if placed.raw_count <= counter.raw_max:
        return
    if counter.marked and placed.raw_count >= counter.invalid - 1:
        kind = "invalid" if placed.raw_count == counter.invalid else "abnormal"
        group.into.mark(placed.listing.column or placed.listing.name, kind, len(group.rows))
    else:
        group.wild[:] = True


def _fuel_cell(group: Block, part: Part) -> None:
    rows = group.into.fuel_row[group.rows]
    for placed in part.body.lists:
        _count_markers(group, placed)
        block = _probes(group, placed)
        group.into.fuel_lists.add("probes_ddegc", rows, block)


def _faults(group: Block, parts: dict[int, Part]) -> None:
    """Join the four fault lists of the alarm section into one list with its group beside each code."""
    lists = [
        (FAULT_GROUPS.index(placed.listing.name), placed)
        for part in parts.values()
        for placed in part.body.lists
        if placed.listing.column == "fault_codes"
    ]
    total = sum(placed.length for _, placed in lists)
    if not total:
        return
    block = np.empty((len(group.rows), total), records.FAULT)
    at = 0
    for number, placed in lists:
        here = block[:, at : at + placed.length]
        here["group"] = number
        here["code"] = group.raw(4, placed.offset, placed.length)
        at += placed.length
    group.into.lists.add("fault_codes", group.rows, block)


def _blocks(layout: Layout, parts: dict[int, Part], kinds: frozenset[tuple[int, int]]) -> tuple[Item, ...]:
    for edition, kind in kinds:
        if edition == layout.edition and kind in parts:
            return parts[kind].body.lists[0].items
    return ()


def _number_of(group: Block, item: Item) -> int:
    """Return the subsystem number of a block; it is structural, so every frame of the group has it."""
    return int(group.raws[0, item.fields[0][1]])


def _subsystems(group: Block, layout: Layout, parts: dict[int, Part]) -> None:
    """Merge cell blocks and probe blocks by subsystem number, lists in subsystem order."""
    cells = _blocks(layout, parts, CELL_BLOCKS)
    probes = list(_blocks(layout, parts, PROBE_BLOCKS))
    pairs: list[tuple[Item | None, Item | None]] = []
    for block in cells:
        number = _number_of(group, block)
        match = next((i for i, probe in enumerate(probes) if _number_of(group, probe) == number), None)
        pairs.append((block, None if match is None else probes.pop(match)))
    pairs += [(None, probe) for probe in probes]
    if not pairs:
        return
    table = np.zeros((len(group.rows), len(pairs)), SUBSYSTEM)
    for at, (cell_block, probe_block) in enumerate(pairs):
        _subsystem(group, table[:, at], cell_block, probe_block)
    lists = group.into.lists
    lists.add("subsystems", group.rows, table)
    lists.add("cells_mv", group.rows, _beside([_cells(group, b.lists[0]) for b, _ in pairs if b]))
    lists.add("probes_ddegc", group.rows, _beside([_probes(group, p.lists[0]) for _, p in pairs if p]))


def _beside(blocks: list[Array]) -> Array:
    if not blocks:
        return np.zeros((0, 0), np.uint8)
    if len(blocks) == 1:
        return blocks[0]
    # As bytes: concatenating big-endian items would turn them native.
    raw = [np.ascontiguousarray(block).view(np.uint8) for block in blocks if block.size]
    return np.concatenate(raw, axis=1).view(blocks[0].dtype) if raw else blocks[0]


def _subsystem(group: Block, row: Array, block: Item | None, probe: Item | None) -> None:
    for name in ("voltage_dv", "current_da"):
        row[name] = records.null_of(row.dtype[name])
    if probe is not None:
        _count_markers(group, probe.lists[0])
        _check_number(group, probe)
        row["no"], row["probes"] = _number_of(group, probe), probe.lists[0].length
    if block is None:
        return
    _count_markers(group, block.lists[0])
    row["start_cell"], row["cells"] = 1, block.lists[0].length
    for spec, offset in block.fields:
        raw, nulls = group.settle(spec, f"subsystems.{spec.column}", group.raw(spec.width, offset))
        values = raw[:, 0] + spec.bias
        if spec.flips:
            values *= group.into.current_sign
        row[spec.column] = values
        if nulls is not None and row.dtype[spec.column].kind == "i":
            row[spec.column][nulls[:, 0]] = records.null_of(row.dtype[spec.column])
    if block.lists[0].listing.count.column:
        row["cell_total"] = block.lists[0].raw_count


def _check_number(group: Block, item: Item) -> None:
    spec, offset = item.fields[0]
    group.settle(spec, f"subsystems.{spec.column}", group.raw(1, offset))


def _cells(group: Block, placed: Placed) -> Array:
    """Return cell voltages as on the wire (n, count), markers included."""
    spec = placed.listing.items[0]
    block = np.ascontiguousarray(group.raws[:, placed.offset : placed.offset + 2 * placed.length])
    if block.size and isinstance(spec, Field) and block.view("<u2").byteswap().max() > spec.raw_max:
        group.settle(spec, "cells_mv", block.view(">u2"))
    return block.view(records.CELL)


def _probes(group: Block, placed: Placed) -> Array:
    """Return probe temperatures in 0.1 degC (n, count)."""
    spec = placed.listing.items[0]
    block = group.raws[:, placed.offset : placed.offset + placed.length]
    if block.size and isinstance(spec, Field) and block.max() > spec.raw_max:
        group.settle(spec, "probes_ddegc", block)
    return _PROBE_OF_RAW.take(block)


def _kept_bytes(group: Block, layout: Layout) -> None:
    """Keep the bytes of sections that have no columns, as on the wire from their type byte on."""
    kept = [part for part in layout.parts if part.section.table == "raw"]
    if kept:
        block = np.concatenate([group.raws[:, part.start : part.end] for part in kept], axis=1)
        group.into.lists.add("user_data", group.rows, block)


def _part_number(group: Block, layout: Layout, parts: dict[int, Part]) -> NDArray[np.int32] | int:
    """Return which part of a split report these are, by the rule of `records.IDENTITY`'s `part`.

    The report with the vehicle section and the first cells, or no cells, is part 0; another with cells is
    (subsystem << 16) | first cell; one with neither is minus its lowest section type.
    """
    cells = _blocks(layout, parts, CELL_BLOCKS)
    if not cells:
        return 0 if VEHICLE in parts else -min(parts)
    number = _number_of(group, cells[0])
    starts = [offset for spec, offset in cells[0].fields if spec.column == "start_cell"]
    start: Array = np.ones(len(group.rows), np.int32)
    if starts:
        start = group.raw(2, starts[0])[:, 0].astype(np.int32)
    whole = (start == 1) & (number == 1) & (VEHICLE in parts)
    return np.where(whole, 0, (number << 16) | start).astype(np.int32)


def content(frames: Array, layout: Layout) -> Array:
    """Return the bytes of the data unit that are content: all but a signature, which re-signing renews."""
    end = frames.shape[1] - 1
    cuts = [(part.start, part.end) for part in layout.parts if part.section.type == SIGNATURE]
    if not cuts:
        return frames[:, HEADER:end]
    pieces, at = [], HEADER
    for start, after in cuts:
        pieces.append(frames[:, at:start])
        at = after
    return np.concatenate([*pieces, frames[:, at:end]], axis=1)

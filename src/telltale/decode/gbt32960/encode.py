"""Columns to frames: the inverse of the decoder, for replay, simulation and tests.

Which sections a frame carries follows from which of its columns and lists are not null. Rows are grouped by
the layout that gives; each group is one byte matrix, filled field by field from the same tables the decoder
reads. Nulls go out as the marker *invalid*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telltale import records
from telltale.decode.gbt32960 import session
from telltale.decode.gbt32960.columns import CELL_BLOCKS, PROBE_BLOCKS
from telltale.decode.gbt32960.fields import FAULT_GROUPS, PROBE_STEPS, SECTIONS, Field, Listing, Section
from telltale.decode.gbt32960.frames import MAX_UNIT, xor_rows
from telltale.decode.gbt32960.layout import HEADER
from telltale.decode.gbt32960.times import NO_TIME, stamps_of
from telltale.errors import EncodeError
from telltale.records import Array, Rows

_START = {2016: 0x23, 2025: 0x24}
_BY_LIST: Final = {"motors": "motors", "alarm_levels": "alarm_levels", "fault_codes": "fault_codes"}


class Shape(NamedTuple):
    """What decides a report's layout: section types, list lengths, blocks (no, cells, probes), tail bytes."""

    types: tuple[int, ...]
    motors: int
    levels: int
    faults: tuple[int, ...]
    blocks: tuple[tuple[int, int, int], ...]
    tail: int


def encode_reports(
    rows: Rows, vin: Array, *, edition: int = 2016, command: int = 2, current_sign: int = -1
) -> list[bytes]:
    """Return one frame per row, in order; `vin` is S17 per row.

    Raises EncodeError when a value does not fit its wire field: the text names column, row and value.
    """
    frames: list[bytes] = [b""] * len(rows)
    for shape, members in _by_shape(rows, edition):
        writer = _Writer(rows.take(members), members, shape, edition, current_sign)
        block = _envelope(writer.unit(), vin[members], edition, command)
        size, blob = block.shape[1], block.tobytes()
        for place, row in enumerate(members.tolist()):
            frames[row] = blob[place * size : (place + 1) * size]
    return frames


def encode_login(
    vin: str, observed_at: int, sequence: int, iccid: str, codes: list[str], *, edition: int = 2016
) -> bytes:
    """Return a vehicle login frame; `observed_at` in µs, 2016: codes of one length, 2025: 24 characters."""
    size = session.CODE_2025 if edition == 2025 else max((len(code) for code in codes), default=0)
    counts = bytes([len(codes), size]) if edition == 2016 else bytes([1, len(codes)])
    if any(len(code) > size for code in codes) or len(codes) > 50 or size > 50 or len(iccid) > 20:
        raise EncodeError(f"gbt32960: login of {vin} has codes or ICCID too long for edition {edition}")
    body = _stamp(observed_at) + sequence.to_bytes(2) + iccid.encode().ljust(20, b"\0") + counts
    body += b"".join(code.encode().ljust(size, b"\0") for code in codes)
    return encode_frame(vin, session.LOGIN, body, edition=edition)


def encode_logout(vin: str, observed_at: int, sequence: int, *, edition: int = 2016) -> bytes:
    """Return a vehicle logout frame; `sequence` is that of the login it closes."""
    return encode_frame(vin, session.LOGOUT, _stamp(observed_at) + sequence.to_bytes(2), edition=edition)


def encode_frame(
    vin: str, command: int, unit: bytes, *, edition: int = 2016, answer: int = 0xFE, encryption: int = 1
) -> bytes:
    """Return a frame with right length and BCC around a data unit."""
    units = np.frombuffer(unit, np.uint8).reshape(1, -1)
    frame = _envelope(units, np.array([vin.encode()], "S17"), edition, command)
    frame[0, 3], frame[0, 21] = answer, encryption
    frame[0, -1] = xor_rows(frame[:, 2:-1])[0]
    return frame.tobytes()


def _stamp(observed_at: int) -> bytes:
    return stamps_of(np.array([observed_at])).astype(np.uint8).tobytes()


def _envelope(units: Array, vin: Array, edition: int, command: int) -> Array:
    count, size = units.shape
    if size > MAX_UNIT:
        raise EncodeError(f"gbt32960: data unit of {size} bytes, a frame carries at most {MAX_UNIT}")
    block = np.zeros((count, HEADER + size + 1), np.uint8)
    block[:, 0:2] = _START[edition]
    block[:, 2], block[:, 3], block[:, 21] = command, 0xFE, 1
    block[:, 4:21] = np.ascontiguousarray(vin.astype("S17")).view(np.uint8).reshape(count, 17)
    block[:, 22], block[:, 23] = size >> 8, size & 0xFF
    block[:, HEADER:-1] = units
    block[:, -1] = xor_rows(block[:, 2:-1])
    return block


def _by_shape(rows: Rows, edition: int) -> Iterator[tuple[Shape, NDArray[np.int64]]]:
    """Yield each layout the rows need, with the rows that need it."""
    keys: list[Any] = [_scalar_sections(rows, edition).tolist()]
    keys += [rows.lists[name].lengths.tolist() for name in ("motors", "alarm_levels", "user_data")]
    keys.append(_bytes_per_row(rows, "fault_codes", ("group",)))
    keys.append(_bytes_per_row(rows, "subsystems", ("no", "cells", "probes")))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(zip(*keys, strict=True)):
        groups.setdefault(key, []).append(row)
    for members in groups.values():
        yield _shape(rows, members[0], edition), np.array(members, np.int64)


def _bytes_per_row(rows: Rows, name: str, members: tuple[str, ...]) -> list[bytes]:
    ragged = rows.lists[name]
    columns = [ragged.values[member].astype(np.uint16) for member in members]
    raw = np.stack(columns, axis=1).tobytes()
    step = 2 * len(members)
    offsets = (ragged.offsets * step).tolist()
    return [raw[a:b] for a, b in pairwise(offsets)]


def _scalar_sections(rows: Rows, edition: int) -> NDArray[np.int64]:
    """Return a bit per section type: whether any of its columns is not null."""
    present = np.zeros(len(rows), np.int64)
    for section in _report_sections(edition):
        for spec in section.elements:
            if isinstance(spec, Field) and spec.column:
                present |= (~_is_null(rows.columns[spec.column])).astype(np.int64) << section.type
    return present


def _report_sections(edition: int) -> list[Section]:
    return [section for section in SECTIONS[edition].values() if section.table == "report"]


def _is_null(column: Array) -> NDArray[np.bool_]:
    return np.isnan(column) if column.dtype.kind == "f" else column == records.null_of(column.dtype)


def _shape(rows: Rows, row: int, edition: int) -> Shape:
    one = rows.take(np.array([row]))
    lists = {name: ragged.values for name, ragged in one.lists.items()}
    bits = int(_scalar_sections(one, edition)[0])
    blocks = tuple((int(s["no"]), int(s["cells"]), int(s["probes"])) for s in lists["subsystems"])
    groups = lists["fault_codes"]["group"]
    faults = tuple(int((groups == number).sum()) for number in range(len(FAULT_GROUPS)))
    types = []
    for section in _report_sections(edition):
        kind = (edition, section.type)
        wanted = bits >> section.type & 1
        wanted |= section.name == "motors" and len(lists["motors"]) > 0
        wanted |= section.name == "alarm" and len(groups) + len(lists["alarm_levels"]) > 0
        wanted |= kind in CELL_BLOCKS and any(cells for _, cells, _ in blocks)
        wanted |= kind in PROBE_BLOCKS and any(probes for _, _, probes in blocks)
        if wanted:
            types.append(section.type)
    return Shape(
        tuple(types),
        len(lists["motors"]),
        len(lists["alarm_levels"]),
        faults,
        blocks,
        len(lists["user_data"]),
    )


@dataclass(slots=True)
class _Writer:
    """Rows of one shape on their way into a matrix of data units."""

    rows: Rows
    members: NDArray[np.int64]  # for error texts: which rows of the caller these are
    shape: Shape
    edition: int
    current_sign: int

    def unit(self) -> Array:
        """Return the data units (n, size)."""
        count = len(self.rows)
        pieces = [self._times()]
        for kind in self.shape.types:
            section = SECTIONS[self.edition][kind]
            pieces.append(np.full((count, 1), kind, np.uint8))
            for element in section.elements:
                pieces += self._field(element) if isinstance(element, Field) else self._list(element)
        if self.shape.tail:
            pieces.append(self.rows.lists["user_data"].values.reshape(count, -1))
        return np.concatenate(pieces, axis=1)

    def _times(self) -> Array:
        observed_at = self.rows.columns["observed_at"]
        stamps = stamps_of(np.where(observed_at == NO_TIME, 0, observed_at))
        unusable = observed_at == NO_TIME
        stamps[unusable] = 0xFF
        if stamps.size and (stamps.min() < 0 or stamps.max() > 255):
            raise EncodeError("gbt32960: observed_at lies outside the years 2000-2255 the wire can carry")
        return stamps.astype(np.uint8)

    def _field(self, spec: Field) -> list[Array]:
        column = self.rows.columns[spec.column]
        nulls = _is_null(column)
        values = np.where(nulls, 0, column).astype(np.float64)
        if spec.name in ("lat_deg", "lon_deg"):
            values = np.abs(values)
        if spec.name == "state":
            values = self._hemispheres(values)
        return [self._raw(spec, values * spec.per_unit, nulls)]

    def _hemispheres(self, state: Array) -> Array:
        """Set the hemisphere bits from the signs, so that positions survive whatever the state byte says."""
        bits = state.astype(np.int64) & ~6
        bits |= np.where(self.rows.columns["latitude_deg"] < 0, 2, 0)
        bits |= np.where(self.rows.columns["longitude_deg"] < 0, 4, 0)
        return bits

    def _raw(self, spec: Field, steps: Array, nulls: NDArray[np.bool_]) -> Array:
        """Return scaled values as big-endian bytes; whole steps, bias and sign taken off, nulls as marker."""
        if spec.flips:
            steps = steps * self.current_sign
        raw = np.rint(steps).astype(np.int64) - spec.bias
        largest = spec.invalid - 2 if spec.marked else spec.invalid
        wrong = np.flatnonzero(((raw < 0) | (raw > largest)) & ~nulls)
        if len(wrong):
            row = int(self.members[wrong[0]])
            fits = f"raw {int(raw[wrong[0]])} is not in 0..{largest}"
            raise EncodeError(f"gbt32960: {spec.column or spec.name} of row {row} does not fit: {fits}")
        raw[nulls] = spec.invalid if spec.marked else 0
        return raw.astype(f">u{spec.width}").view(np.uint8).reshape(len(raw), -1)

    def _list(self, listing: Listing) -> list[Array]:
        if listing.column == "subsystems":
            return self._blocks(listing)
        if listing.column == "fault_codes":
            return self._faults(listing)
        items = self.rows.lists[listing.column].values.reshape(len(self.rows), -1)
        pieces = [self._count(listing, items.shape[1])]
        for at in range(items.shape[1]):
            pieces += [self._item(spec, items[:, at]) for spec in listing.items if isinstance(spec, Field)]
        return pieces

    def _count(self, listing: Listing, length: int) -> Array:
        limit = listing.count.invalid - 2 if listing.count.marked else listing.count.invalid
        if length > limit:
            raise EncodeError(f"gbt32960: {length} {listing.name} do not fit a count of at most {limit}")
        raw = np.frombuffer(length.to_bytes(listing.count.width), np.uint8)
        return np.tile(raw, (len(self.rows), 1))

    def _item(self, spec: Field, items: Array) -> Array:
        """Return one member of list items; stored in the wire's steps, so only bias and sign move."""
        values = items[spec.column].astype(np.int64)
        if items.dtype[spec.column].kind == "u":
            return values.astype(f">u{spec.width}").view(np.uint8).reshape(len(items), -1)
        return self._raw(spec, values, values == records.null_of(items.dtype[spec.column]))

    def _faults(self, listing: Listing) -> list[Array]:
        group = FAULT_GROUPS.index(listing.name)
        length = self.shape.faults[group]
        items = self.rows.lists["fault_codes"].values
        codes = items["code"][items["group"] == group].reshape(len(self.rows), length)
        return [
            self._count(listing, length),
            np.ascontiguousarray(codes).view(np.uint8).reshape(len(codes), -1),
        ]

    def _blocks(self, listing: Listing) -> list[Array]:
        """Return cell blocks or probe blocks, whichever this listing is of, in subsystem order."""
        inner = next(item for item in listing.items if isinstance(item, Listing))
        which = 1 if inner.column == "cells_mv" else 2
        length = [block[which] for block in self.shape.blocks]
        ends = np.cumsum(length)
        count = len(self.rows)
        items = self.rows.lists[inner.column].values.reshape(count, -1)
        subsystems = self.rows.lists["subsystems"].values.reshape(count, -1)
        sent = [at for at, size in enumerate(length) if size]
        pieces = [self._count(listing, len(sent))]
        for at in sent:
            pieces += [
                self._item(spec, subsystems[:, at]) for spec in listing.items if isinstance(spec, Field)
            ]
            pieces += [
                self._count(inner, length[at]),
                self._values(inner, items[:, ends[at] - length[at] : ends[at]]),
            ]
        return pieces

    def _values(self, inner: Listing, items: Array) -> Array:
        """Return cells as they are, probes from 0.1 degC back to whole degrees, markers carried over."""
        if inner.column == "cells_mv":
            return np.ascontiguousarray(items).view(np.uint8).reshape(len(items), -1)
        steps = items.astype(np.int64)
        raw = np.rint(steps / PROBE_STEPS).astype(np.int64) + 40
        raw[steps == records.PROBE_INVALID] = 0xFF
        raw[steps == records.PROBE_ABNORMAL] = 0xFE
        wild = (raw < 0) | (raw > 0xFF) | ((raw > 0xFD) & (steps < records.PROBE_ABNORMAL))
        if wild.any():
            row = int(self.members[np.flatnonzero(wild.any(axis=1))[0]])
            raise EncodeError(
                f"gbt32960: probes_ddegc of row {row} does not fit: -40..213 degC goes on the wire"
            )
        return raw.astype(np.uint8)

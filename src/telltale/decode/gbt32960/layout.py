"""Where each section of a report lies: walk one frame, then recognise all frames laid out the same way.

A layout depends only on a few *structural* bytes: section types, counts and subsystem numbers. Frames that
agree on those bytes are decoded together as columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telltale.decode.gbt32960.fields import SECTIONS, SIGNATURE, Field, Listing, Section
from telltale.records import Array

HEADER: Final = 24  # start, command, answer, id, encryption, length
FIRST_SECTION: Final = HEADER + 6  # after the time
LEADERS: Final = 12  # layouts found by comparing whole groups; what is left is walked frame by frame


class Item(NamedTuple):
    """One row of elements at a place: fixed fields with their offsets, and lists."""

    fields: tuple[tuple[Field, int], ...]
    lists: tuple[Placed, ...]


class Placed(NamedTuple):
    """A list at a place. Flat lists have no `items`: they are `length` records from `offset`."""

    listing: Listing
    raw_count: int
    length: int
    offset: int
    items: tuple[Item, ...]


class Part(NamedTuple):
    """A section at a place: `start` is its type byte, `end` the byte after it."""

    section: Section
    start: int
    end: int
    body: Item


@dataclass(frozen=True, slots=True)
class Layout:
    """The sections of a report, and why the walk ended early, if it did."""

    edition: int
    parts: tuple[Part, ...]
    places: tuple[int, ...]  # offsets of the structural bytes
    error: str = ""  # UNKNOWN_INFO_TYPE | INFO_TRUNCATED
    error_at: int = 0
    detail: str = ""

    @property
    def duplicate_types(self) -> tuple[int, ...]:
        """Return the standard section types that occur more than once, ascending."""
        types = [part.section.type for part in self.parts if part.section.type < 0x80]
        return tuple(sorted({kind for kind in types if types.count(kind) > 1}))

    @property
    def signed(self) -> bool:
        """Return whether a signature section is present."""
        return any(part.section.type == SIGNATURE for part in self.parts)

    def last_parts(self) -> dict[int, Part]:
        """Return the section that counts of each type: the last one."""
        return {part.section.type: part for part in self.parts}


class _ShortError(Exception):
    """A list or field needs more bytes than the data unit has left."""

    def __init__(self, what: str, needs: int, offset: int, left: int) -> None:
        super().__init__(f"{what} needs {needs} bytes at offset {offset}, data unit has {left} left")


def walk(edition: int, frame: bytes) -> Layout:
    """Return the layout of one report frame whose envelope is right; bounded by its length, never raises."""
    at, end = FIRST_SECTION, len(frame) - 1
    parts: list[Part] = []
    places: list[int] = []
    sections = SECTIONS[edition]
    while at < end:
        places.append(at)
        section = sections.get(frame[at])
        if section is None:
            detail = f"section type 0x{frame[at]:02X} at offset {at} has no known length in edition {edition}"
            return Layout(edition, tuple(parts), tuple(places), "UNKNOWN_INFO_TYPE", at, detail)
        try:
            body, after = _place(section.elements, frame, at + 1, end, places)
        except _ShortError as short:
            detail = f"{section.name} section: {short}"
            return Layout(edition, tuple(parts), tuple(places), "INFO_TRUNCATED", at, detail)
        parts.append(Part(section, at, after, body))
        at = after
    return Layout(edition, tuple(parts), tuple(places))


def _place(
    elements: tuple[Field | Listing, ...], frame: bytes, at: int, end: int, places: list[int]
) -> tuple[Item, int]:
    fields: list[tuple[Field, int]] = []
    lists: list[Placed] = []
    for element in elements:
        if isinstance(element, Field):
            _need(element.name, element.width, at, end)
            if element.structural:
                places.extend(range(at, at + element.width))
            fields.append((element, at))
            at += element.width
        else:
            placed, at = _place_list(element, frame, at, end, places)
            lists.append(placed)
    return Item(tuple(fields), tuple(lists)), at


def _place_list(listing: Listing, frame: bytes, at: int, end: int, places: list[int]) -> tuple[Placed, int]:
    counter = listing.count
    _need(counter.name, counter.width, at, end)
    raw = int.from_bytes(frame[at : at + counter.width])
    places.extend(range(at, at + counter.width))
    count = 0 if counter.marked and raw >= counter.invalid - 1 else raw
    first = at + counter.width
    if listing.item_bytes:
        _need(f"{listing.name} list", count * listing.item_bytes, first, end)
        return Placed(listing, raw, count, first, ()), first + count * listing.item_bytes
    items: list[Item] = []
    at = first
    for _ in range(count):
        item, at = _place(listing.items, frame, at, end, places)
        items.append(item)
    return Placed(listing, raw, count, first, tuple(items)), at


def _need(what: str, size: int, at: int, end: int) -> None:
    if at + size > end:
        raise _ShortError(what, size, at, end - at)


def by_layout(edition: int, frames: Array) -> Iterator[tuple[Layout, NDArray[np.int64]]]:
    """Yield each layout among frames of one length (n, length) with the rows that have it.

    The first row left leads: its structural bytes are compared with all others at once. A stream with more
    than `LEADERS` layouts of one length is finished frame by frame, so time stays linear whatever comes.
    """
    rest = np.arange(len(frames))
    for _ in range(LEADERS):
        if not len(rest):
            return
        layout = walk(edition, frames[0].tobytes())
        same = np.ones(len(frames), bool)
        for place in layout.places:
            column = frames[:, place]
            same &= column == column[0]
        yield layout, rest[same]
        if same.all():
            return
        rest, frames = rest[~same], frames[~same]
    yield from _one_by_one(edition, frames, rest)


def _one_by_one(
    edition: int, frames: Array, rows: NDArray[np.int64]
) -> Iterator[tuple[Layout, NDArray[np.int64]]]:
    groups: dict[tuple[object, ...], tuple[Layout, list[int]]] = {}
    for row, frame in zip(rows.tolist(), frames, strict=True):
        raw = frame.tobytes()
        layout = walk(edition, raw)
        key = (layout.places, bytes(raw[place] for place in layout.places))
        groups.setdefault(key, (layout, []))[1].append(row)
    for layout, members in groups.values():
        yield layout, np.array(members, np.int64)

"""Frames within values: find them, check them, and account for every byte between them.

A value is usually one frame, or frames back to back. Both are recognised from the length fields and checked
(start, length, BCC) as arrays over the joined values. A value that is anything else is scanned byte by byte:
after a failed candidate the scan moves one byte, never by a length it cannot trust (gateways glue, cut and
corrupt). The running XOR makes each candidate's check constant time, so the scan is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telltale.records import Array, Evidence

HEADER: Final = 24  # bytes before the data unit
ENVELOPE: Final = 25  # bytes of a frame beside its data unit
MAX_UNIT: Final = 65_531  # longest data unit; 0xFFFE and 0xFFFF are markers
EDITION_OF_START: Final = {0x23: 2016, 0x24: 2025}
PLATFORM_LOGIN: Final = 0x05
PASSWORD: Final = slice(24 + 6 + 2 + 12, 24 + 6 + 2 + 12 + 20)
_FEW = 8  # values still holding frames below which a plain loop is quicker


class Span(NamedTuple):
    """A run of bytes of a value: from, to."""

    start: int
    end: int


class Scan(NamedTuple):
    """What a byte-by-byte scan found: valid frames, and where an incomplete one begins at the end."""

    frames: tuple[Span, ...]
    remainder: int  # offset; the value's length when nothing is left over


@dataclass(frozen=True, slots=True)
class Frames:
    """Valid frames of a batch, in arrival order, and the evidence of everything that is none."""

    buffer: Array  # u1, all values joined
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    record: NDArray[np.int32]  # which value
    index: NDArray[np.int32]  # which frame or rejected run within the value
    rejected: tuple[Evidence, ...]

    def __len__(self) -> int:
        return len(self.start)

    def byte(self, offset: int) -> Array:
        """Return the byte at this offset of every frame."""
        return self.buffer[self.start + offset]

    def raw(self, frame: int) -> bytes:
        """Return the bytes of one frame."""
        return self.buffer[self.start[frame] : self.start[frame] + self.size[frame]].tobytes()


def split(values: Sequence[bytes]) -> Frames:
    """Return the valid frames of these values and evidence for every other byte; never raises."""
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    begins = np.cumsum(sizes) - sizes
    buffer = np.frombuffer(b"".join(values), np.uint8)
    record, start, size, whole = _chains(buffer, begins, sizes)
    whole[record[~checksums_hold(buffer, start, size)]] = False
    keep = whole[record]
    record, start, size = record[keep], start[keep], size[keep]
    index = _number(record)
    if whole.all():
        return Frames(buffer, start, size, record, index, ())
    return _with_scanned(
        values, begins, np.flatnonzero(~whole), Frames(buffer, start, size, record, index, ())
    )


def raw_frame(value: bytes, index: int) -> bytes:
    """Return the bytes of one frame of a value, by its number as decoded; the value if there is none."""
    frames = _frames_of(value)
    found = np.flatnonzero(frames.index == index)
    return frames.raw(int(found[0])) if len(found) else value


@lru_cache(maxsize=1)
def _frames_of(value: bytes) -> Frames:
    """Split one value; one frame after the other is asked for, and it may hold thousands."""
    return split([value])


def _unit_sizes(buffer: Array, start: NDArray[np.int64]) -> NDArray[np.int64]:
    high: NDArray[np.int64] = buffer[start + 22].astype(np.int64) << 8
    return high | buffer[start + 23]


def _chains(
    buffer: Array, begins: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Hop from frame to frame through all values at once, trusting length fields.

    Returns value, start and size of each candidate in arrival order, and which values are nothing but
    candidates back to back.
    """
    ends = begins + sizes
    whole = np.zeros(len(sizes), bool)
    at, alive = begins.copy(), np.arange(len(sizes))
    found: list[tuple[Array, Array, Array]] = []
    while len(alive):
        alive = alive[ends[alive] - at[alive] >= ENVELOPE]
        here = at[alive]
        first = buffer[here]
        size = _unit_sizes(buffer, here) + ENVELOPE
        good = ((first == 0x23) | (first == 0x24)) & (buffer[here + 1] == first)
        good &= (size <= MAX_UNIT + ENVELOPE) & (here + size <= ends[alive])
        alive, here, size = alive[good], here[good], size[good]
        found.append((alive, here, size))
        at[alive] = here + size
        done = at[alive] == ends[alive]
        whole[alive[done]] = True
        alive = alive[~done]
        if 0 < len(alive) < _FEW:
            for value in alive.tolist():
                whole[value] = _hop(buffer, value, int(at[value]), int(ends[value]), found)
            break
    if not found:
        none = np.zeros(0, np.int64)
        return none.astype(np.int32), none, none, whole
    record, start, size = (np.concatenate(column) for column in zip(*found, strict=True))
    if len(found) > 1:
        order = np.argsort(start, kind="stable")
        record, start, size = record[order], start[order], size[order]
    return record.astype(np.int32), start, size, whole


def _hop(buffer: Array, value: int, at: int, end: int, found: list[tuple[Array, Array, Array]]) -> bool:
    """Hop through the rest of one value; tell whether it ended exactly at a frame's end."""
    raw = buffer[at:end].tobytes()
    base, starts, sizes = at, [], []
    at, end = 0, len(raw)
    while end - at >= ENVELOPE and raw[at] == raw[at + 1] and raw[at] in EDITION_OF_START:
        unit = raw[at + 22] << 8 | raw[at + 23]
        if unit > MAX_UNIT or at + unit + ENVELOPE > end:
            break
        starts.append(base + at)
        sizes.append(unit + ENVELOPE)
        at += unit + ENVELOPE
    found.append((np.full(len(starts), value), np.array(starts, np.int64), np.array(sizes, np.int64)))
    return at == end


def gather(buffer: Array, start: NDArray[np.int64], size: int) -> Array:
    """Return frames of one size as rows (n, size); no copy when they lie back to back."""
    if len(start) and start[-1] - start[0] == (len(start) - 1) * size and (np.diff(start) == size).all():
        return buffer[start[0] : start[0] + len(start) * size].reshape(len(start), size)
    rows: Array = np.lib.stride_tricks.sliding_window_view(buffer, size)[start]
    return rows


def by_size(size: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Return each size with the indexes of the frames that have it, ascending."""
    if not len(size):
        return []
    if (size == size[0]).all():
        return [(int(size[0]), np.arange(len(size)))]
    order = np.argsort(size, kind="stable")
    ordered = size[order]
    cuts = np.flatnonzero(np.diff(ordered)) + 1
    return [(int(size[rows[0]]), rows) for rows in np.split(order, cuts)]


def checksums_hold(buffer: Array, start: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether the XOR from the command to the last byte of each frame's data unit equals its BCC."""
    holds = np.zeros(len(start), bool)
    for length, rows in by_size(size):
        holds[rows] = xor_rows(gather(buffer, start[rows], length)[:, 2:]) == 0
    return holds


def xor_rows(rows: Array) -> Array:
    """Return the XOR of each row's bytes, folding halves so that whole cache lines are combined."""
    width = rows.shape[1]
    while width > 1:
        half = width // 2
        folded = rows[:, :half] ^ rows[:, half : 2 * half]
        if width % 2:
            folded[:, 0] ^= rows[:, width - 1]
        rows, width = folded, half
    return rows[:, 0]


def _number(record: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the position of each frame within its value; records ascend."""
    positions = np.arange(len(record))
    first = np.flatnonzero(np.diff(record, prepend=-1))
    return (positions - np.repeat(first, np.diff(first, append=len(record)))).astype(np.int32)


def scan(value: bytes) -> Scan:
    """Return the valid frames anywhere in a value, and where an incomplete one begins at its end."""
    raw = np.frombuffer(value, np.uint8)
    running = np.concatenate([np.zeros(1, np.uint8), np.bitwise_xor.accumulate(raw)])
    pairs = (raw[:-1] == raw[1:]) & ((raw[:-1] == 0x23) | (raw[:-1] == 0x24))
    frames: list[Span] = []
    done, incomplete = 0, -1
    for at in np.flatnonzero(pairs).tolist():
        unit = value[at + 22] << 8 | value[at + 23] if at + HEADER <= len(value) else -1
        end = at + ENVELOPE + unit
        if at < done or unit > MAX_UNIT:
            continue
        if unit < 0 or end > len(value):
            incomplete = at if incomplete < 0 else incomplete
        elif running[end] == running[at + 2]:
            frames.append(Span(at, end))
            done, incomplete = end, -1
    return Scan(tuple(frames), len(value) if incomplete < 0 else incomplete)


def _with_scanned(
    values: Sequence[bytes], begins: NDArray[np.int64], broken: NDArray[np.int64], clean: Frames
) -> Frames:
    """Add the frames and the rejected runs of values that are not frames back to back."""
    starts, sizes, records, indexes, rejected = [], [], [], [], []
    for value in broken.tolist():
        raw = bytes(values[value])
        for index, (span, valid) in enumerate(_runs(scan(raw).frames, len(raw))):
            if valid:
                starts.append(int(begins[value]) + span.start)
                sizes.append(span.end - span.start)
                records.append(value)
                indexes.append(index)
            else:
                rejected.append(_refuse(raw[span.start : span.end], span.start, value, index))
    start = np.concatenate([clean.start, np.array(starts, np.int64)])
    order = np.argsort(start, kind="stable")
    return Frames(
        clean.buffer,
        start[order],
        np.concatenate([clean.size, np.array(sizes, np.int64)])[order],
        np.concatenate([clean.record, np.array(records, np.int32)])[order],
        np.concatenate([clean.index, np.array(indexes, np.int32)])[order],
        tuple(rejected),
    )


def _runs(frames: tuple[Span, ...], size: int) -> list[tuple[Span, bool]]:
    """Return frames and the runs between them in order; an empty value is one empty run."""
    runs: list[tuple[Span, bool]] = []
    at = 0
    for span in frames:
        if span.start > at:
            runs.append((Span(at, span.start), False))
        runs.append((span, True))
        at = span.end
    if at < size or not runs:
        runs.append((Span(at, size), False))
    return runs


def _refuse(raw: bytes, at: int, record: int, index: int) -> Evidence:
    # A run is judged by the frame it begins with; what follows is part of the same loss.
    reason, offset, detail = envelope_fault(raw[: _claimed(raw)])
    vin = raw[4:21].decode("ascii", "replace").rstrip("\0 ") if reason == "BCC_MISMATCH" else ""
    where = f"gbt32960: {len(raw)} bytes at offset {at} of the value are no frame: {detail}"
    return Evidence(record, index, "rejected", reason, where, redacted(raw), offset, text(vin))


def _claimed(raw: bytes) -> int:
    """Return how many bytes the length field asks for; all there are when there is none."""
    return ENVELOPE + (raw[22] << 8 | raw[23]) if len(raw) >= ENVELOPE else len(raw)


def envelope_fault(raw: bytes) -> tuple[str, int, str]:
    """Return code, byte offset and detail of what keeps these bytes from being one frame, or "" first.

    Checked in the order start bytes, least length, declared length, BCC.
    """
    if len(raw) < 2:
        return "TRUNCATED", len(raw), "a frame needs at least 25 bytes"
    if raw[0] != raw[1] or raw[0] not in EDITION_OF_START:
        return "BAD_START", 0, f"expected ## or $$, got {raw[:2].hex()}"
    if len(raw) < ENVELOPE:
        return "TRUNCATED", len(raw), "a frame needs at least 25 bytes"
    need = _claimed(raw)
    if len(raw) < need:
        return "TRUNCATED", len(raw), f"the length field asks for {need} bytes"
    if len(raw) > need:
        return "LENGTH_MISMATCH", need, f"expected {need} bytes"
    if need > MAX_UNIT + ENVELOPE:
        return "LENGTH_MISMATCH", 22, f"the length field holds the marker 0x{need - ENVELOPE:X}"
    check = int(np.bitwise_xor.reduce(np.frombuffer(raw, np.uint8, need - 3, 2)))
    if check != raw[need - 1]:
        return "BCC_MISMATCH", need - 1, f"BCC is 0x{raw[need - 1]:02X}, the bytes give 0x{check:02X}"
    return "", len(raw), ""


def redacted(raw: bytes) -> bytes:
    """Blank the passwords of platform logins anywhere in these bytes: evidence never keeps a secret."""
    kept = bytearray(raw)
    for start in (b"##", b"$$"):
        at = raw.find(start + bytes([PLATFORM_LOGIN]))
        while at >= 0:
            secret = range(at + PASSWORD.start, min(at + PASSWORD.stop, len(raw)))
            kept[secret.start : secret.stop] = b"*" * len(secret)
            at = raw.find(start + bytes([PLATFORM_LOGIN]), at + 1)
    return bytes(kept)


def text(raw: str) -> str:
    """Return text a database can hold: no NUL, no other control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in raw)

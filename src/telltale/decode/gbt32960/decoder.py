"""Values to columns, events and evidence: every frame of a batch ends in exactly one of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telltale.decode.gbt32960 import session
from telltale.decode.gbt32960.columns import content, decode_group
from telltale.decode.gbt32960.digest import digest, digests
from telltale.decode.gbt32960.frames import Frames, by_size, gather, raw_frame, redacted, split
from telltale.decode.gbt32960.layout import FIRST_SECTION, HEADER, Layout, by_layout
from telltale.decode.gbt32960.scalars import Scalars
from telltale.decode.gbt32960.sink import Sink, sink
from telltale.decode.gbt32960.times import NO_TIME, time_of, times
from telltale.records import Array, Decoded, Evidence, Flag, Reports, Rows, SessionEvent, Source, Values

PROTOCOL: Final = "gbt32960"
COMMAND: Final = 0xFE  # answer flag of a frame that is no answer
PLAIN: Final = 0x01  # encryption byte of a readable data unit
_REPORT, _CONTROL, _SESSION, _UNKNOWN, _BODY, _ENCRYPTED = range(6)
_SOURCES: Final = tuple(
    Source(PROTOCOL, edition, command) for edition in (2016, 2025) for command in session.REPORTS
)


def _kind_table(edition: int) -> Array:
    """Return what a command code stands for, by code."""
    kinds = np.full(256, _UNKNOWN, np.uint8)
    kinds[sorted(session.KNOWN[edition])] = _CONTROL
    kinds[list(session.REPORTS)] = _REPORT
    kinds[[session.LOGIN, session.LOGOUT]] = _SESSION
    kinds[sorted(set(session.FIXED_UNIT) - {session.LOGOUT})] = _BODY
    return kinds


_KINDS: Final = np.stack([_kind_table(2016), _kind_table(2025)])
_VIN_BYTE: Final = np.isin(np.arange(256), list(b"ABCDEFGHJKLMNPRSTUVWXYZ0123456789"))
_VIN_TEXT: Final = bytes(byte if byte == 0 or 32 <= byte < 127 else ord("?") for byte in range(256))


class _Group(NamedTuple):
    """Report frames of one layout: their bytes, and which frames of the batch they are."""

    layout: Layout
    frames: Array
    which: NDArray[np.int64]


@dataclass(slots=True)
class _Ledger:
    """What becomes of frames that are no stored report."""

    control: NDArray[np.int32]
    sessions: list[SessionEvent] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Decoder:
    """The GB/T 32960 decoder as ingest knows it."""

    protocol: str = PROTOCOL

    def decode(self, values: Values, *, current_sign: int = -1, position_decimals: int = 2) -> Decoded:
        """Decode values of frames; see `decode`."""
        return decode(values, current_sign=current_sign, position_decimals=position_decimals)

    def raw_frame(self, value: bytes, index: int) -> bytes:
        """Return the bytes of one frame of a value."""
        return raw_frame(value, index)


GBT32960: Final = Decoder()


def decode(values: Values, *, current_sign: int = -1, position_decimals: int = 2) -> Decoded:
    """Return everything in these values as columns, session events, control counts and evidence.

    Pack currents are multiplied by `current_sign` (the wire's sign to positive into the pack), positions
    rounded to `position_decimals`. Bad input of any kind ends as evidence; nothing raises.
    """
    frames = split(values.values)
    command = frames.byte(2)
    newer = (frames.byte(0) == 0x24).astype(np.int64)
    kind = _KINDS[newer, command]
    kind = np.where((frames.byte(3) != COMMAND) & (kind != _UNKNOWN), _CONTROL, kind)
    sealed = (frames.byte(21) != PLAIN) & (frames.size > HEADER + 1) & (kind != _CONTROL) & (kind != _UNKNOWN)
    kind = np.where(sealed, _ENCRYPTED, kind)
    ledger = _Ledger(np.zeros(len(values.values), np.int32), evidence=list(frames.rejected))
    _settle_others(frames, kind, newer, ledger)
    groups = _groups(frames, np.flatnonzero(kind == _REPORT), newer, ledger)
    reports, markers, partial = _reports(frames, groups, values.received_at, current_sign, position_decimals)
    np.add.at(ledger.control, frames.record[kind == _CONTROL], 1)
    evidence = sorted(ledger.evidence + partial, key=lambda found: (found.record, found.frame))
    return Decoded(reports, _SOURCES, tuple(ledger.sessions), ledger.control, tuple(evidence), markers)


def _vin_text(raw: bytes) -> str:
    return raw.translate(_VIN_TEXT).strip(b"\0 ").replace(b"\0", b"?").decode("ascii")


def _reject(frames: Frames, at: int, reason: str, detail: str, byte_offset: int) -> Evidence:
    raw = frames.raw(at)
    return Evidence(
        int(frames.record[at]),
        int(frames.index[at]),
        "rejected",
        reason,
        detail,
        redacted(raw) if raw[2] == session.PLATFORM_LOGIN else raw,
        byte_offset,
        _vin_text(raw[4:21]),
    )


def _settle_others(frames: Frames, kind: Array, newer: NDArray[np.int64], ledger: _Ledger) -> None:
    """Take in every frame that is neither report nor counted control."""
    for at in np.flatnonzero((kind != _REPORT) & (kind != _CONTROL)).tolist():
        raw = frames.raw(at)
        name = session.NAMES.get(raw[2], "")
        unit = raw[HEADER:-1]
        if kind[at] == _UNKNOWN:
            detail = f"gbt32960: command 0x{raw[2]:02X} is not in edition {2025 if newer[at] else 2016}"
            ledger.evidence.append(_reject(frames, at, "UNKNOWN_COMMAND", detail, 2))
        elif kind[at] == _ENCRYPTED:
            detail = f"gbt32960: {name} data unit is encrypted (0x{raw[21]:02X}); no key is configured"
            ledger.evidence.append(_reject(frames, at, "ENCRYPTED", detail, 21))
        elif kind[at] == _BODY:
            fault = session.length_fault(name, len(unit), session.FIXED_UNIT[raw[2]])
            if fault:
                ledger.evidence.append(_reject(frames, at, fault.code, fault.detail, HEADER))
            else:
                ledger.control[frames.record[at]] += 1
        else:
            _take_session(frames, at, raw, ledger)


def _take_session(frames: Frames, at: int, raw: bytes, ledger: _Ledger) -> None:
    edition = 2025 if raw[0] == 0x24 else 2016
    unit = raw[HEADER:-1]
    found: session.Login | session.Fault | None = None
    if raw[2] == session.LOGIN:
        found = session.login(edition, unit)
    else:
        found = session.length_fault("vehicle_logout", len(unit), session.FIXED_UNIT[session.LOGOUT])
    if isinstance(found, session.Fault):
        ledger.evidence.append(_reject(frames, at, found.code, found.detail, HEADER))
        return
    observed = time_of(unit[:6])
    vin = _vin_text(raw[4:21])
    flags = (0 if observed is not None else Flag.TIME_INVALID) | (0 if _valid(vin) else Flag.VIN_INVALID)
    codes = [code for packs in found.codes for code in packs] if found else []
    event = SessionEvent(
        int(frames.record[at]),
        int(frames.index[at]),
        vin,
        "login" if raw[2] == session.LOGIN else "logout",
        observed,
        int.from_bytes(unit[6:8]),
        digest(unit),
        Source(PROTOCOL, edition, raw[2]),
        found.iccid if found else "",
        tuple(enumerate(codes, start=1)),
        int(flags),
    )
    ledger.sessions.append(event)


def _valid(vin: str) -> bool:
    return len(vin) == 17 and all(_VIN_BYTE[ord(letter)] for letter in vin)


def _groups(
    frames: Frames, which: NDArray[np.int64], newer: NDArray[np.int64], ledger: _Ledger
) -> list[_Group]:
    """Group report frames by edition, length and layout; refuse those of which nothing can be decoded."""
    groups: list[_Group] = []
    for edition in (2016, 2025):
        chosen = which[newer[which] == (edition == 2025)]
        for size, places in by_size(frames.size[chosen]):
            members = chosen[places]
            if size <= FIRST_SECTION:
                _refuse(
                    frames,
                    members,
                    "BODY_TRUNCATED",
                    "gbt32960: report has no 6 bytes of time",
                    HEADER,
                    ledger,
                )
                continue
            rows = gather(frames.buffer, frames.start[members], size)
            for layout, same in by_layout(edition, rows):
                picked = rows if len(same) == len(rows) else rows[same]
                if layout.parts:
                    groups.append(_Group(layout, picked, members[same]))
                else:
                    reason = layout.error or "INFO_TRUNCATED"
                    detail = f"gbt32960: {layout.detail or 'report holds no section after its time'}"
                    _refuse(frames, members[same], reason, detail, FIRST_SECTION, ledger)
    return groups


def _refuse(
    frames: Frames, which: NDArray[np.int64], reason: str, detail: str, offset: int, ledger: _Ledger
) -> None:
    ledger.evidence.extend(_reject(frames, at, reason, detail, offset) for at in which.tolist())


def _reports(
    frames: Frames, groups: list[_Group], received_at: NDArray[np.int64], current_sign: int, decimals: int
) -> tuple[Reports, dict[tuple[str, str], int], list[Evidence]]:
    """Decode all groups into one set of rows in arrival order; also markers, and evidence of partial ones."""
    stored = np.zeros(len(frames), bool)
    fuelled = np.zeros(len(frames), bool)
    for group in groups:
        stored[group.which] = True
        fuelled[group.which] = any(part.section.table == "fuel_cell" for part in group.layout.parts)
    row_of = np.cumsum(stored) - 1
    which = np.flatnonzero(stored)
    fuelled = fuelled[which]
    into = sink(len(which), np.where(fuelled, np.cumsum(fuelled) - 1, -1), current_sign, decimals)
    into.report["received_at"] = received_at[frames.record[which]]
    partial: list[Evidence] = []
    scalars = Scalars()
    for group in groups:
        rows, starts = row_of[group.which], frames.start[group.which]
        for part in group.layout.last_parts().values():
            if part.section.table in ("report", "fuel_cell"):
                scalars.add(group.layout.edition, part, rows, starts)
        decode_group(group.frames, group.layout, rows, into)
        into.report["digest"][rows] = digests(content(group.frames, group.layout))
        if group.layout.error:
            partial.extend(_partial(frames, group, at) for at in group.which.tolist())
    scalars.decode(frames.buffer, into)
    _identify(frames, which, into.report)
    vin = _vins(frames, which, into)
    rows_of = Rows(into.report, into.lists.lists())
    fuel = Rows(into.fuel_cell, into.fuel_lists.lists())
    fuel_row = np.flatnonzero(fuelled)
    for name in ("vehicle_id", "observed_at", "part"):
        fuel.columns[name] = into.report[name][fuel_row]
    reports = Reports(rows_of, vin, frames.record[which], frames.index[which], fuel, fuel_row)
    return reports, into.markers, partial


def _identify(frames: Frames, which: NDArray[np.int64], report: Array) -> None:
    """Fill time and source of all rows."""
    observed_at = times(gather_at(frames, which, HEADER, FIRST_SECTION - HEADER))
    reissued = frames.byte(2)[which] == session.REISSUED
    report["observed_at"] = observed_at
    report["source_id"] = np.where(frames.byte(0)[which] == 0x24, 2, 0) + reissued
    report["flags"] |= reissued * np.int32(Flag.REISSUED)
    report["flags"] |= (observed_at == NO_TIME) * np.int32(Flag.TIME_INVALID)


def _partial(frames: Frames, group: _Group, at: int) -> Evidence:
    layout = group.layout
    refused = _reject(frames, at, layout.error, f"gbt32960: {layout.detail}", layout.error_at)
    return replace(refused, outcome="partial")


def _vins(frames: Frames, which: NDArray[np.int64], into: Sink) -> Array:
    """Return vehicle ids as S17 and flag those that are no well-formed VIN."""
    letters = gather_at(frames, which, 4, 17)
    odd = np.flatnonzero(~_VIN_BYTE[letters].all(axis=1))
    vin = letters.view("S17")[:, 0].copy()
    for row in odd.tolist():
        vin[row] = _vin_text(letters[row].tobytes()).encode()
    into.report["flags"][odd] |= int(Flag.VIN_INVALID)
    return vin


def gather_at(frames: Frames, which: NDArray[np.int64], offset: int, width: int) -> Array:
    """Return `width` bytes from this offset of the chosen frames (n, width)."""
    if not len(which):
        return np.zeros((0, width), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(frames.buffer, width)
    rows: Array = windows[frames.start[which] + offset]
    return rows

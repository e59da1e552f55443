"""Frames that are no report: login and logout become session events, the rest is control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from telltale.decode.gbt32960.frames import text

LOGIN: Final = 0x01
REALTIME: Final = 0x02
REISSUED: Final = 0x03
REPORTS: Final = (REALTIME, REISSUED)
LOGOUT: Final = 0x04
PLATFORM_LOGIN: Final = 0x05
KEY_EXCHANGE: Final = 0x0B
NAMES: Final = {
    0x01: "vehicle_login",
    0x02: "realtime",
    0x03: "reissue",
    0x04: "vehicle_logout",
    0x05: "platform_login",
    0x06: "platform_logout",
    0x07: "heartbeat",
    0x08: "time_sync",
    0x09: "activation",
    0x0A: "activation_reply",
    0x0B: "key_exchange",
    0x80: "param_query",
    0x81: "param_set",
    0x82: "terminal_control",
}
KNOWN: Final = {2016: frozenset(NAMES) - {0x09, 0x0A, 0x0B}, 2025: frozenset(NAMES)}
FIXED_UNIT: Final = {0x04: 8, 0x05: 41, 0x06: 8, 0x07: 0, 0x08: 0}  # bytes of the data unit, both editions
CODE_2025: Final = 24  # bytes of a pack code, GB/T 34014
_MARKERS = (0xFE, 0xFF)


class Fault(NamedTuple):
    """Why a session body cannot be used."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Login:
    """A vehicle's login as sent: codes per subsystem (2016) or per battery-management unit (2025)."""

    sequence: int
    iccid: str
    count: int  # subsystems (2016) or battery-management units (2025)
    code_length: int
    codes: tuple[tuple[str, ...], ...]


def plain(raw: bytes) -> str:
    """Return a STRING field as text: padding off, Chinese as GB18030, nothing a database refuses."""
    return text(raw.rstrip(b"\0 ").decode("gb18030", "replace"))


def length_fault(name: str, got: int, expected: int) -> Fault | None:
    """Return the fault of a body of `got` bytes where its table asks for `expected`."""
    if got == expected:
        return None
    code = "BODY_TRUNCATED" if got < expected else "BODY_LENGTH"
    return Fault(code, f"gbt32960: {name} data unit needs {expected} bytes, has {got}")


def login(edition: int, unit: bytes) -> Login | Fault:
    """Return a vehicle login (2016 section 2.2, 2025 section 2.3), or why its body is none."""
    if len(unit) < 30 and (edition == 2016 or len(unit) < 29):
        return Fault("BODY_TRUNCATED", f"gbt32960: vehicle_login data unit has {len(unit)} bytes, needs 30")
    counts, size, at = _codes_2016(unit) if edition == 2016 else _codes_2025(unit)
    fault = length_fault("vehicle_login", len(unit), at + sum(counts) * size)
    if fault:
        return fault
    codes: list[tuple[str, ...]] = []
    for count in counts if size else ():
        codes.append(tuple(plain(unit[at + i * size : at + (i + 1) * size]) for i in range(count)))
        at += count * size
    return Login(int.from_bytes(unit[6:8]), plain(unit[8:28]), len(counts), size, tuple(codes))


def _codes_2016(unit: bytes) -> tuple[list[int], int, int]:
    count, size = (0 if byte in _MARKERS else byte for byte in unit[28:30])
    return [1] * count, size, 30


def _codes_2025(unit: bytes) -> tuple[list[int], int, int]:
    units = 0 if unit[28] in _MARKERS else unit[28]
    counts = [0 if byte in _MARKERS else byte for byte in unit[29 : 29 + units]]
    return counts, CODE_2025, 29 + units

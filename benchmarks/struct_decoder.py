"""A plain per-frame GB/T 32960-2016 decoder with `struct`: what one writes first, written well.

The peer of `benchmarks/decode.py`. It checks start, length and BCC, reads the time, and decodes vehicle,
motors, position, extremes, alarm, cell and probe sections to the same values the column decoder gives,
markers as None; it makes no digest and no columns. Precompiled structs, no dict a field, BCC by folding one
big integer.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct

_HEAD = Struct(">2sBB17sBH")
_VEHICLE = Struct(">BBBHIHHBBBHBB")
_MOTOR = Struct(">BBBHHBHH")
_POSITION = Struct(">BII")
_EXTREMES = Struct(">BBHBBHBBBBBB")
_ALARM = Struct(">BI")
_BLOCK = Struct(">BHHHHB")
_PROBE_BLOCK = Struct(">BH")
_LIST = {size: Struct(f">{size}H") for size in range(201)}
_CODES = {size: Struct(f">{size}I") for size in range(256)}
_ZONE = timedelta(hours=8)


def _byte(raw: int, bias: int = 0) -> int | None:
    return None if raw >= 0xFE else raw + bias


def _word(raw: int, per_unit: int = 1, bias: int = 0) -> float | None:
    return None if raw >= 0xFFFE else (raw + bias) / per_unit


def _double(raw: int, per_unit: int) -> float | None:
    return None if raw >= 0xFFFFFFFE else raw / per_unit


def bcc(data: bytes) -> int:
    """Return the XOR of all bytes, folding one big integer in halves."""
    folded, size = int.from_bytes(data), len(data)
    while size > 1:
        half = size // 2
        folded = (folded >> 8 * half) ^ (folded & ((1 << 8 * half) - 1))
        size -= half
    return folded


def _vehicle(frame: bytes, at: int) -> tuple[object, ...]:
    (status, charging, mode, speed, odometer, volts, amps, soc, dcdc, gear, insulation, pedal, brake) = (
        _VEHICLE.unpack_from(frame, at)
    )
    return (
        _byte(status),
        _byte(charging),
        _byte(mode),
        _word(speed, 10),
        _double(odometer, 10),
        _word(volts, 10),
        None if amps >= 0xFFFE else (10_000 - amps) / 10,
        _byte(soc),
        _byte(dcdc),
        gear,
        _word(insulation),
        _byte(pedal),
        _byte(brake),
    )


def _motors(frame: bytes, at: int, count: int) -> list[tuple[object, ...]]:
    found = []
    for offset in range(at, at + 12 * count, 12):
        seq, status, hot, speed, torque, warm, volts, amps = _MOTOR.unpack_from(frame, offset)
        found.append(
            (
                seq,
                status,
                _byte(hot, -40),
                _word(speed, 1, -20_000),
                _word(torque, 10, -20_000),
                _byte(warm, -40),
                _word(volts, 10),
                _word(amps, 10, -10_000),
            )
        )
    return found


def _position(frame: bytes, at: int) -> tuple[object, ...]:
    state, east, north = _POSITION.unpack_from(frame, at)
    longitude, latitude = _double(east, 1_000_000), _double(north, 1_000_000)
    if latitude is not None:
        latitude = round(-latitude if state & 2 else latitude, 2)
    if longitude is not None:
        longitude = round(-longitude if state & 4 else longitude, 2)
    return state, longitude, latitude


def _extremes(frame: bytes, at: int) -> tuple[object, ...]:
    raw = _EXTREMES.unpack_from(frame, at)
    return (
        _byte(raw[0]),
        _byte(raw[1]),
        _word(raw[2], 1000),
        _byte(raw[3]),
        _byte(raw[4]),
        _word(raw[5], 1000),
        _byte(raw[6]),
        _byte(raw[7]),
        _byte(raw[8], -40),
        _byte(raw[9]),
        _byte(raw[10]),
        _byte(raw[11], -40),
    )


def _faults(frame: bytes, at: int) -> tuple[list[tuple[int, ...]], int]:
    found = []
    for _ in range(4):
        found.append(_CODES[frame[at]].unpack_from(frame, at + 1))
        at += 1 + 4 * frame[at]
    return found, at


def _cells(frame: bytes, at: int) -> tuple[list[tuple[object, ...]], int]:
    found, count, at = [], frame[at], at + 1
    for _ in range(count):
        no, volts, amps, total, first, here = _BLOCK.unpack_from(frame, at)
        values = _LIST[here].unpack_from(frame, at + 10)
        found.append((no, _word(volts, 10), _word(amps, 10, -10_000), total, first, values))
        at += 10 + 2 * here
    return found, at


def _probes(frame: bytes, at: int) -> tuple[list[tuple[object, ...]], int]:
    found, count, at = [], frame[at], at + 1
    for _ in range(count):
        no, here = _PROBE_BLOCK.unpack_from(frame, at)
        found.append((no, [None if raw >= 0xFE else raw - 40 for raw in frame[at + 3 : at + 3 + here]]))
        at += 3 + here
    return found, at


def _checked(frame: bytes) -> tuple[int, bytes]:
    start, command, answer, vin, encryption, size = _HEAD.unpack_from(frame)
    if start != b"##" or answer != 0xFE or encryption != 1 or size + 25 != len(frame):
        raise ValueError("no plain 2016 frame")
    if command not in (2, 3) or bcc(frame[2:-1]) != frame[-1]:
        raise ValueError("no report, or BCC")
    return command, vin.rstrip(b"\0 ")


def decode(frame: bytes) -> tuple[object, ...]:
    """Return one 2016 report frame as a tuple; raises ValueError for anything else."""
    command, vin = _checked(frame)
    year, month, day, hour, minute, second = frame[24:30]
    time = datetime(2000 + year, month, day, hour, minute, second, tzinfo=UTC) - _ZONE
    vehicle = position = extremes = level = flags = None
    motors = faults = cells = probes = None
    at, end = 30, len(frame) - 1
    while at < end:
        kind = frame[at]
        at += 1
        if kind == 1:
            vehicle = _vehicle(frame, at)
            at += 20
        elif kind == 2:
            motors = _motors(frame, at + 1, frame[at])
            at += 1 + 12 * frame[at]
        elif kind == 5:
            position = _position(frame, at)
            at += 9
        elif kind == 6:
            extremes = _extremes(frame, at)
            at += 14
        elif kind == 7:
            level, flags = _ALARM.unpack_from(frame, at)
            faults, at = _faults(frame, at + 5)
        elif kind == 8:
            cells, at = _cells(frame, at)
        elif kind == 9:
            probes, at = _probes(frame, at)
        else:
            raise ValueError("section type")
    return vin, time, command, vehicle, motors, position, extremes, level, flags, faults, cells, probes

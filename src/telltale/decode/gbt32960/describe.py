"""One frame in words: every field by its wire name, scaled, with the wire's own sign and every marker named.

Sequential and plain, from the same tables as the columns: what `telltale decode` shows, and the reference
the vectorised decoder is tested against.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from telltale.decode.gbt32960 import session
from telltale.decode.gbt32960.fields import FAULT_GROUPS, SIGNATURE, Field
from telltale.decode.gbt32960.frames import EDITION_OF_START, envelope_fault, scan
from telltale.decode.gbt32960.layout import FIRST_SECTION, HEADER, Item, Layout, Part, Placed, walk
from telltale.decode.gbt32960.times import time_of

ALARM_BITS: Final = (
    "temp_difference",
    "battery_high_temp",
    "pack_overvoltage",
    "pack_undervoltage",
    "soc_low",
    "cell_overvoltage",
    "cell_undervoltage",
    "soc_high",
    "soc_jump",
    "ess_mismatch",
    "cell_inconsistency",
    "insulation_fault",
    "dcdc_temp",
    "brake_system",
    "dcdc_status",
    "motor_controller_temp",
    "hvil",
    "motor_temp",
    "overcharge",
    "motor_overspeed",
    "motor_overcurrent",
    "supercap_overtemp",
    "supercap_overvoltage",
    "thermal_event",
    "h2_leak",
    "h2_pressure",
    "h2_temp",
    "fc_stack_overtemp",
)
ALARM_BITS_OF: Final = {2016: ALARM_BITS[:19], 2025: ALARM_BITS}
GEARS: Final = ("N", *(str(gear) for gear in range(1, 13)), "R", "D", "P")
DATUMS: Final = {1: "WGS84", 2: "GCJ02", 3: "other"}
ALGORITHMS: Final = {1: "SM2", 2: "RSA", 3: "ECC"}
_CST = timezone(timedelta(hours=8))
_TIMED = frozenset({0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x09, 0x80, 0x81, 0x82})
Described = dict[str, Any]


def describe(frame: bytes) -> Described:
    """Return one frame as a dict: `ok`, header, `time`, `quality` and its sections or body; never raises.

    `quality` names by path what is invalid, abnormal or out of range. A frame that cannot be read has `ok`
    false and `error`; a report keeps in `partial_sections` the names of what was read before.
    """
    code, _, detail = envelope_fault(frame)
    if code:
        return {"ok": False, "error": code, "detail": detail}
    edition, command = EDITION_OF_START[frame[0]], frame[2]
    vin = frame[4:21].decode("ascii", "replace").strip("\0 ")
    head: Described = {"version": edition, "command": command, "vin": vin}
    if command not in session.KNOWN[edition]:
        return {"ok": False, "error": "UNKNOWN_COMMAND", **head, "time": None}
    quality: dict[str, str] = {}
    unit = frame[HEADER:-1]
    head |= {
        "command_name": session.NAMES[command],
        "ack": frame[3],
        "is_command": frame[3] == 0xFE,
        "encryption": frame[21],
        "data_len": len(unit),
        "time": None,
        "quality": quality,
    }
    if frame[21] != 1:
        return {"ok": True, **head, "encrypted": True}
    if len(unit) >= 6 and (command in _TIMED or frame[3] != 0xFE):
        head["time"] = _iso(unit[:6])
        if head["time"] is None:
            quality["time"] = "out_of_range"
    if frame[3] != 0xFE:
        return {"ok": True, **head}
    if command in session.REPORTS:
        return _report(edition, frame, head, quality)
    return _session(edition, command, unit, head)


def describe_value(value: bytes) -> list[Described]:
    """Return every frame of a value described; a value that holds none is described as a broken one."""
    found = scan(value).frames
    if not found:
        return [describe(value)]
    return [describe(value[span.start : span.end]) for span in found]


def _iso(stamp: bytes) -> str | None:
    observed = time_of(stamp)
    if observed is None:
        return None
    return datetime.fromtimestamp(observed / 1_000_000, UTC).astimezone(_CST).isoformat()


def _failed(error: str, head: Described, **more: Any) -> Described:
    kept = {name: head[name] for name in ("version", "command", "vin", "time")}
    return {"ok": False, "error": error, **kept, **more}


def _report(edition: int, frame: bytes, head: Described, quality: dict[str, str]) -> Described:
    if len(frame) <= FIRST_SECTION:
        return _failed("BODY_TRUNCATED", head, partial_sections=[])
    layout = walk(edition, frame)
    if layout.error:
        names = [part.section.name for part in layout.parts]
        return _failed(layout.error, head, detail=layout.detail, partial_sections=names)
    result = {"ok": True, **head, "sections": sections(layout, frame, quality)}
    if layout.signed:
        result["signed"] = True
    if layout.duplicate_types:
        result["duplicate_types"] = list(layout.duplicate_types)
    return result


def sections(layout: Layout, frame: bytes, quality: dict[str, str]) -> list[Described]:
    """Return every decoded section of a report in frame order, filling `quality` by path."""
    return [
        _section(layout.edition, part, frame, f"sections[{at}]", quality)
        for at, part in enumerate(layout.parts)
    ]


def _section(edition: int, part: Part, frame: bytes, path: str, quality: dict[str, str]) -> Described:
    found = {"type": part.section.type, "name": part.section.name} | _item(part.body, frame, path, quality)
    finish = _FINISH.get(part.section.name)
    return finish(edition, found) if finish else found


def _raw(frame: bytes, offset: int, width: int) -> int:
    return int.from_bytes(frame[offset : offset + width])


def _value(spec: Field, raw: int, path: str, quality: dict[str, str]) -> float | int | None:
    if spec.marked and raw >= spec.invalid - 1:
        quality[path] = "invalid" if raw == spec.invalid else "abnormal"
        return None
    if not spec.legal(raw):
        quality[path] = "out_of_range"
    steps = raw + spec.bias
    return steps if spec.per_unit == 1 else steps / spec.per_unit


def _item(item: Item, frame: bytes, path: str, quality: dict[str, str]) -> Described:
    found: Described = {}
    for spec, offset in item.fields:
        raw = _raw(frame, offset, spec.width)
        found[spec.name] = _value(spec, raw, f"{path}.{spec.name}", quality)
    for placed in item.lists:
        counter = placed.listing.count
        count = _value(counter, placed.raw_count, f"{path}.{counter.name}", quality)
        found[counter.name] = count
        found[placed.listing.name] = _list(placed, frame, f"{path}.{placed.listing.name}", quality)
    return found


def _list(placed: Placed, frame: bytes, path: str, quality: dict[str, str]) -> list[Any]:
    if placed.items:
        return [_item(item, frame, f"{path}[{at}]", quality) for at, item in enumerate(placed.items)]
    return [
        _record(placed, frame, placed.offset + at * placed.listing.item_bytes, f"{path}[{at}]", quality)
        for at in range(placed.length)
    ]


def _record(placed: Placed, frame: bytes, at: int, path: str, quality: dict[str, str]) -> Any:
    specs = [spec for spec in placed.listing.items if isinstance(spec, Field)]
    if len(specs) == 1:
        return _value(specs[0], _raw(frame, at, specs[0].width), path, quality)
    found: Described = {}
    for spec in specs:
        found[spec.name] = _value(spec, _raw(frame, at, spec.width), f"{path}.{spec.name}", quality)
        at += spec.width
    return found


def _vehicle(edition: int, found: Described) -> Described:
    raw = found["gear"]
    gear = {"position": GEARS[raw & 15], "brake_force": bool(raw & 16), "drive_force": bool(raw & 32)}
    if edition == 2025:
        gear["valid"] = not raw & 128
    return found | {"gear": gear}


def _position(edition: int, found: Described) -> Described:
    state = found.pop("state")
    found["fix_valid"] = not state & 1
    for name, bit in (("lat_deg", 2), ("lon_deg", 4)):
        if found[name] is not None and state & bit:
            found[name] = -found[name]
    if edition == 2025:
        found["coord_sys"] = DATUMS.get(found["coord_sys"])
    return found


def _alarm(edition: int, found: Described) -> Described:
    names = ALARM_BITS_OF[edition]
    bits = [bit for bit in range(32) if found["flags"] >> bit & 1]
    found["active"] = [names[bit] for bit in bits if bit < len(names)]
    found["reserved_bits"] = [bit for bit in bits if bit >= len(names)]
    for group in FAULT_GROUPS:
        found[group] = [f"{code:08x}" for code in found[group]]
    if "general_levels" in found:
        found["general_levels"] = [[pair["bit"], pair["level"]] for pair in found["general_levels"]]
    return found


def _custom(_edition: int, found: Described) -> Described:
    return {"type": found["type"], "name": found["name"], "data": bytes(found["data"]).hex()}


def _signature(_edition: int, found: Described) -> Described:
    algorithm = ALGORITHMS.get(found["algo"])
    kept = {name: found[name] for name in ("r_len", "s_len")}
    return {"type": SIGNATURE, "name": found["name"], "algo": algorithm, **kept}


_FINISH: Final = {
    "vehicle": _vehicle,
    "position": _position,
    "alarm": _alarm,
    "custom": _custom,
    "signature": _signature,
}


def _session(edition: int, command: int, unit: bytes, head: Described) -> Described:
    if command == session.LOGIN:
        found = session.login(edition, unit)
        if isinstance(found, session.Fault):
            return _failed(found.code, head)
        return {"ok": True, **head, "body": _login(edition, found)}
    if command == session.KEY_EXCHANGE:
        return _key_exchange(unit, head)
    if command not in session.FIXED_UNIT:
        return {"ok": True, **head}
    fault = session.length_fault(session.NAMES[command], len(unit), session.FIXED_UNIT[command])
    if fault:
        return _failed(fault.code, head)
    result = {"ok": True, **head}
    if len(unit) >= 8:
        result["body"] = {"seq": int.from_bytes(unit[6:8])}
    if command == session.PLATFORM_LOGIN:
        result["body"] |= {
            "username": session.plain(unit[8:20]),
            "password_redacted": True,
            "cipher": unit[40],
        }
    return result


def _login(edition: int, found: session.Login) -> Described:
    body: Described = {"seq": found.sequence, "iccid": found.iccid}
    if edition == 2016:
        codes = [code for codes in found.codes for code in codes]
        return body | {"subsystem_count": found.count, "code_length": found.code_length, "codes": codes}
    packs = [list(codes) for codes in found.codes]
    return body | {"bms_count": found.count, "packs_per_bms": [len(p) for p in packs], "pack_codes": packs}


def _key_exchange(unit: bytes, head: Described) -> Described:
    size = int.from_bytes(unit[1:3])
    fault = session.length_fault("key_exchange", len(unit), 15 + size if len(unit) >= 3 else 15)
    if fault:
        return _failed(fault.code, head)
    valid_from, valid_to = _iso(unit[3 + size : 9 + size]), _iso(unit[9 + size :])
    body = {"key_type": unit[0], "key_len": size, "valid_from": valid_from, "valid_to": valid_to}
    return {"ok": True, **head, "body": body}

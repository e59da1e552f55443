"""The expected row of a report, computed from its description alone: slow, plain and independent of numpy."""

from typing import Any

from telltale import records
from telltale.decode.gbt32960.describe import sections
from telltale.decode.gbt32960.fields import FAULT_GROUPS, SECTIONS, Field
from telltale.decode.gbt32960.layout import walk

REPORT = {column.name for column in records.REPORT_SCALARS}


def expected(frame: bytes) -> dict[str, Any] | None:
    """Return columns, lists and flags of a report frame, or None when no section decodes."""
    edition = 2025 if frame[0] == 0x24 else 2016
    layout = walk(edition, frame)
    if not layout.parts:
        return None
    quality: dict[str, str] = {}
    described = sections(layout, frame, quality)
    last = {found["type"]: at for at, found in enumerate(described)}
    used = {at: described[at] for at in sorted(last.values())}
    row: dict[str, Any] = dict.fromkeys(REPORT)
    for at, found in used.items():
        scalars(row, edition, found, frame, layout.parts[at])
    stored = {at for at in used if SECTIONS[edition][used[at]["type"]].table in ("report", "fuel_cell")}
    wild = {path for path, word in quality.items() if word == "out_of_range"}
    row["out_of_range"] = any(path.startswith(f"sections[{at}].") for path in wild for at in stored)
    row["lists"] = lists(edition, used)
    row["lists"]["user_data"] = kept_bytes(layout, frame)
    row["part"] = part(used)
    return row


def scalars(row: dict[str, Any], edition: int, found: dict[str, Any], frame: bytes, place: Any) -> None:
    for spec in SECTIONS[edition][found["type"]].elements:
        if isinstance(spec, Field) and spec.column in REPORT and spec.name in found:
            row[spec.column] = found[spec.name]
    if found["name"] == "vehicle":
        row["gear"] = frame[place.start + 16]
        row["pack_current_a"] = None if found["current_a"] is None else -found["current_a"]
    if found["name"] == "position":
        row["position_state"] = frame[place.start + 1]
        raw = frame[place.start + 2]
        row["coordinate_system"] = 0 if edition == 2016 else None if raw >= 0xFE else raw


def steps(value: float | None, per_unit: int, null: int) -> int:
    return null if value is None else round(value * per_unit)


def lists(edition: int, used: dict[int, dict[str, Any]]) -> dict[str, Any]:
    named = {found["name"]: found for found in used.values()}
    cells = blocks(named.get("cell_voltages", {}))
    probes = blocks(named.get("probe_temps", {}))
    alarm = named.get("alarm", {})
    pairs: list[tuple[Any, Any]] = []
    for block in cells:
        match = next((p for p in probes if number(p) == number(block)), None)
        if match is not None:
            probes = [p for p in probes if p is not match]
        pairs.append((block, match))
    pairs += [(None, probe) for probe in probes]
    return {
        "cells": [v for block, _ in pairs if block for v in block["cells_v"]],
        "probes": [v for _, probe in pairs if probe for v in probe["temps_c"]],
        "subsystems": [subsystem(block, probe) for block, probe in pairs],
        "motors": named.get("motors", {}).get("motors", []),
        "faults": [
            (group, int(code, 16)) for group, name in enumerate(FAULT_GROUPS) for code in alarm.get(name, [])
        ],
        "levels": [tuple(pair) for pair in alarm.get("general_levels", [])],
    }


def blocks(found: dict[str, Any]) -> list[dict[str, Any]]:
    return list(found.get("subsystems", found.get("packs", [])))


def number(block: dict[str, Any]) -> Any:
    """Return a block's number; both markers count as themselves, so tests leave them apart."""
    return block["no"]


def subsystem(block: dict[str, Any] | None, probe: dict[str, Any] | None) -> tuple[Any, ...]:
    voltage = current = None
    if block is not None:
        voltage, current = block["voltage_v"], block["current_a"]
    return (
        None if voltage is None else round(voltage * 10),
        None if current is None else -round(current * 10),
        0 if block is None else len(block["cells_v"]),
        0 if probe is None else len(probe["temps_c"]),
    )


def kept_bytes(layout: Any, frame: bytes) -> bytes:
    kept = [part for part in layout.parts if part.section.table == "raw"]
    return b"".join(frame[part.start : part.end] for part in kept)


def part(used: dict[int, dict[str, Any]]) -> int | None:
    types = [found["type"] for found in used.values()]
    named = {found["name"]: found for found in used.values()}
    cells = blocks(named.get("cell_voltages", {}))
    if not cells:
        return 0 if 1 in types else -min(types)
    first, start = cells[0]["no"], cells[0].get("start_cell", 1)
    if first is None or start is None:
        return None  # markers in the identity: any number will do
    return 0 if 1 in types and (first, start) == (1, 1) else (first << 16) | start

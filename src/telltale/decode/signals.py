"""Which wire field becomes which column: the decoders' tables as one sheet, `schemas/signals.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

from telltale import records
from telltale.decode.gbt32960.fields import SECTIONS, Field, Listing, Section

HEAD: Final = (
    "protocol",
    "edition",
    "section",
    "clause",
    "wire_field",
    "column",
    "vss_path",
    "unit",
    "scale",
    "offset",
    "minimum",
    "maximum",
    "invalid_code",
    "abnormal_code",
    "meaning",
)
_TABLES: Final = {
    "report": (records.REPORT_SCALARS, records.REPORT_LISTS),
    "fuel_cell": (records.FUEL_CELL_SCALARS, records.FUEL_CELL_LISTS),
}


def signals_csv() -> str:
    """Return the sheet: a row per wire field of every protocol, then per column that JSON readings carry."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    for edition, sections in SECTIONS.items():
        for section in sections.values():
            if section.type <= 0x80 or section.type == 0xFF:  # 80-FE are alike
                writer.writerows(_section_rows(edition, section))
    writer.writerows(_json_rows())
    return text.getvalue()


def _section_rows(edition: int, section: Section) -> Iterator[tuple[str, ...]]:
    for path, spec, listing in _fields(section.elements, "", ""):
        column, vss, meaning = _target(section, spec, listing)
        markers = (f"0x{spec.invalid:X}", f"0x{spec.invalid - 1:X}") if spec.marked else ("", "")
        yield (
            "gbt32960",
            str(edition),
            f"0x{section.type:02X} {section.name}",
            section.clause,
            path,
            column,
            vss,
            spec.unit,
            _number(1, spec.per_unit),
            _number(spec.bias, spec.per_unit),
            _number(spec.raw_min + spec.bias, spec.per_unit),
            _number(spec.raw_max + spec.bias, spec.per_unit),
            *markers,
            meaning,
        )


def _fields(
    elements: tuple[Field | Listing, ...], path: str, column: str
) -> Iterator[tuple[str, Field, str]]:
    for element in elements:
        if isinstance(element, Field):
            yield path + element.name, element, column
        else:
            yield path + element.count.name, element.count, column
            yield from _fields(element.items, f"{path}{element.name}[].", element.column or column)


def _target(section: Section, spec: Field, listing: str) -> tuple[str, str, str]:
    """Return column, VSS path and meaning of a field; members of list items as `list.member`."""
    if section.table == "raw":
        return "user_data", "", "bytes kept as on the wire"
    scalars, lists = _TABLES.get(section.table, ((), ()))
    scalar = next((c for c in scalars if c.name == spec.column), None)
    if scalar and not listing:
        return scalar.name, scalar.vss, scalar.meaning
    ragged = next((c for c in lists if c.name == listing), None)
    if ragged is None or not spec.column:
        return "", "", ""
    name = ragged.name if spec.column == ragged.name else f"{ragged.name}.{spec.column}"
    return name, ragged.vss, ragged.meaning


def _number(steps: int, per_unit: int) -> str:
    return f"{steps / per_unit:.10f}".rstrip("0").rstrip(".") if per_unit != 1 else str(steps)


def _json_rows() -> Iterator[tuple[str, ...]]:
    for scalar in records.REPORT_SCALARS:
        row = (
            scalar.name,
            scalar.name,
            scalar.vss,
            scalar.unit,
            "1",
            "0",
            "",
            "",
            "null",
            "",
            scalar.meaning,
        )
        yield ("json", "", "reading", "telemetry-reading.schema.json", *row)
    for path, column, unit, scale in (
        ("cells_v[]", "cells_mv", "V", "0.001"),
        ("probe_temps_degc[]", "probes_ddegc", "degC", "0.1"),
    ):
        ragged = next(c for c in records.REPORT_LISTS if c.name == column)
        row = (path, column, ragged.vss, unit, scale, "0", "", "", "null", "", ragged.meaning)
        yield ("json", "", "reading", "telemetry-reading.schema.json", *row)

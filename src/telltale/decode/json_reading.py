"""JSON readings: one or a list, to columns.

A reading carries the column names of `telltale.records` in their units; absent and null mean not known. Pack
current is positive into the pack (COVESA VSS), so no source's current sign applies. The type below is the
contract; `schemas/telemetry-reading.schema.json` is made from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from telltale import records
from telltale.records import Array, Column, Decoded, Evidence, Flag, Ragged, Reports, Rows, Source, Values

PROTOCOL: Final = "json"
MAX_BYTES: Final = 4_194_304  # of one value
MAX_READINGS: Final = 10_000  # in one value
MAX_ITEMS: Final = 65_535  # cells or probes of one reading
NO_TIME: Final = int(np.iinfo(np.int64).min)
GROUPS: Final = ("battery", "motor", "engine", "other")
_END: Final = (
    r"$(?!\n)"  # without the look-ahead, Python's $ lets a line feed pass, other languages' does not
)
RFC3339: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
    + _END
)
VEHICLE_ID: Final = r"^[!-~]{1,17}" + _END
_BOM = b"\xef\xbb\xbf"
_VIN_LETTERS = frozenset("ABCDEFGHJKLMNPRSTUVWXYZ0123456789")
_F4 = float(np.finfo("f4").max)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Byte = Annotated[int, Meta(ge=0, le=255)]
Word = Annotated[int, Meta(ge=0, le=65_535)]
Real = Annotated[float, Meta(ge=-_F4, le=_F4)]
Tenths = Annotated[float, Meta(ge=-200_000_000, le=200_000_000)]  # stored as 32-bit tenths
Degrees = Annotated[int, Meta(ge=-32_767, le=32_767)]
CellVolts = Annotated[float, Meta(ge=0, le=65.533)]
ProbeDegrees = Annotated[float, Meta(ge=-3_276, le=3_276)]
Moment = (
    Annotated[str, Meta(pattern=RFC3339, description="RFC 3339 with zone")]
    | Annotated[int, Meta(ge=0, lt=10**17, description="seconds, ms or µs since 1970 by magnitude")]
    | Annotated[float, Meta(ge=0, lt=1e17)]
)


class Subsystem(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """One rechargeable-storage subsystem: how many of the reading's cells and probes are its own."""

    no: Byte
    cells: Word = 0
    probes: Word = 0
    voltage_v: Tenths | None = None
    current_a: Tenths | None = None
    cell_total: Word | None = None
    start_cell: Word = 1


class Motor(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """One drive motor."""

    seq: Byte
    status: Byte = 255
    controller_temp_degc: Degrees | None = None
    speed_rpm: Annotated[int, Meta(ge=-(2**31) + 1, le=2**31 - 1)] | None = None
    torque_nm: Tenths | None = None
    motor_temp_degc: Degrees | None = None
    controller_voltage_v: Tenths | None = None
    dc_bus_current_a: Tenths | None = None


class FaultCode(Struct, forbid_unknown_fields=True, frozen=True):
    """One manufacturer's fault code."""

    group: Literal["battery", "motor", "engine", "other"]
    code: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]


class AlarmLevel(Struct, forbid_unknown_fields=True, frozen=True):
    """The level of one active general alarm."""

    bit: Byte
    level: Byte


def _scalar(column: Column) -> tuple[str, Any, None]:
    if np.dtype(column.dtype).kind == "f":
        kind: Any = Real if column.dtype == "f4" else Annotated[float, Meta(ge=-1e300, le=1e300)]
    else:
        # Beyond 2^53 a JSON number is no integer to many writers.
        largest = min(int(np.iinfo(column.dtype).max), 2**53)
        kind = Annotated[int, Meta(ge=-largest, le=largest)]
    return column.name, kind | None, None


_SCALARS = [_scalar(column) for column in records.REPORT_SCALARS]
Cells = Annotated[list[CellVolts | None], Meta(max_length=MAX_ITEMS)]
Probes = Annotated[list[ProbeDegrees | None], Meta(max_length=MAX_ITEMS)]
Reading: Final = msgspec.defstruct(
    "Reading",
    [
        (
            "vin",
            Annotated[str, Meta(pattern=VEHICLE_ID, description="VIN, or another vehicle id")],
        ),
        ("observed_at", Moment),
        ("part", Annotated[int, Meta(ge=-(2**31) + 1, le=2**31 - 1)], 0),
        *_SCALARS,
        ("cells_v", Cells, msgspec.field(default_factory=list)),
        ("probe_temps_degc", Probes, msgspec.field(default_factory=list)),
        ("subsystems", Annotated[list[Subsystem], Meta(max_length=255)], msgspec.field(default_factory=list)),
        ("motors", Annotated[list[Motor], Meta(max_length=255)], msgspec.field(default_factory=list)),
        (
            "fault_codes",
            Annotated[list[FaultCode], Meta(max_length=1024)],
            msgspec.field(default_factory=list),
        ),
        (
            "alarm_levels",
            Annotated[list[AlarmLevel], Meta(max_length=255)],
            msgspec.field(default_factory=list),
        ),
    ],
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
)
_ONE = msgspec.json.Decoder(Reading)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_CANONICAL = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A reading that passed its checks."""

    record: int
    frame: int
    reading: Any
    observed_at: int


@dataclass(slots=True)
class _Batch:
    taken: list[_Taken] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)

    def refuse(self, record: int, frame: int, reason: str, detail: str, raw: bytes) -> None:
        # An error text may quote the value: nothing a database refuses may pass.
        shown = "".join(letter if letter.isprintable() else "?" for letter in detail)
        self.evidence.append(Evidence(record, frame, "rejected", reason, f"json: {shown}", raw))


@dataclass(frozen=True, slots=True)
class Decoder:
    """The JSON decoder as ingest knows it."""

    protocol: str = PROTOCOL

    def decode(self, values: Values, *, current_sign: int = -1, position_decimals: int = 2) -> Decoded:
        """Decode values of JSON readings; `current_sign` does not apply to them."""
        del current_sign
        return decode(values, position_decimals=position_decimals)

    def raw_frame(self, value: bytes, index: int) -> bytes:
        """Return the original bytes of one reading of a value, by its number as decoded."""
        text = value.removeprefix(_BOM)
        return bytes(_readings_of(text)[index]) if _is_list(text) else text


@lru_cache(maxsize=1)
def _readings_of(text: bytes) -> list[msgspec.Raw]:
    """Return the readings of a list; one after the other is asked for, and the list may be of thousands."""
    return _LIST.decode(text)


JSON: Final = Decoder()


def decode(values: Values, *, position_decimals: int = 2) -> Decoded:
    """Return the readings of these values as columns; bad ones as evidence, by index. Never raises."""
    batch = _Batch()
    for record, value in enumerate(values.values):
        _take_value(record, bytes(value), batch)
    control = np.zeros(len(values.values), np.int32)
    reports = _reports(batch.taken, values.received_at, position_decimals)
    return Decoded(reports, (Source(PROTOCOL),), control=control, evidence=tuple(batch.evidence))


def _is_list(text: bytes) -> bool:
    return text.lstrip(b" \t\r\n").startswith(b"[")


def _take_value(record: int, raw: bytes, batch: _Batch) -> None:
    if len(raw) > MAX_BYTES:
        batch.refuse(record, 0, "TOO_LARGE", f"value of {len(raw)} bytes, at most {MAX_BYTES}", raw)
        return
    text = raw.removeprefix(_BOM)
    if not _is_list(text):
        _take_reading(record, 0, text, batch)
        return
    try:
        readings = _LIST.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        batch.refuse(record, 0, "BAD_JSON", str(error), raw)
        return
    if not 0 < len(readings) <= MAX_READINGS:
        batch.refuse(
            record, 0, "TOO_LARGE" if readings else "BAD_READING", f"list of {len(readings)} readings", raw
        )
        return
    for frame, reading in enumerate(readings):
        _take_reading(record, frame, bytes(reading), batch)


def _take_reading(record: int, frame: int, raw: bytes, batch: _Batch) -> None:
    try:
        reading: Any = _ONE.decode(raw)
    except msgspec.ValidationError as error:
        batch.refuse(record, frame, "BAD_READING", str(error), raw)
        return
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        batch.refuse(record, frame, "BAD_JSON", str(error), raw)
        return
    for name, total in (("cells", len(reading.cells_v)), ("probes", len(reading.probe_temps_degc))):
        claimed = sum(getattr(subsystem, name) for subsystem in reading.subsystems)
        if reading.subsystems and claimed != total:
            detail = f"subsystems claim {claimed} {name}, the reading has {total}"
            batch.refuse(record, frame, "BAD_READING", detail, raw)
            return
    batch.taken.append(_Taken(record, frame, reading, moment(reading.observed_at)))


def moment(observed_at: str | float) -> int:
    """Return µs since 1970 UTC, `NO_TIME` when the text names no date; numbers count s, ms or µs by size."""
    if isinstance(observed_at, str):
        try:
            found = datetime.fromisoformat(observed_at.upper())
            return (found - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError):
            return NO_TIME
    for limit, step in ((1e11, 1_000_000), (1e14, 1_000)):
        if observed_at < limit:
            return round(observed_at * step)
    return round(observed_at)


def _content_digest(taken: _Taken) -> int:
    """Return a digest of the reading in one canonical spelling: field order, number format, time in µs."""
    same = msgspec.structs.replace(taken.reading, observed_at=taken.observed_at)
    return int.from_bytes(blake2b(_CANONICAL.encode(same), digest_size=8).digest(), signed=True)


def _reports(taken: list[_Taken], received_at: NDArray[np.int64], position_decimals: int) -> Reports:
    rows = records.nulls(records.REPORT_COLUMNS, len(taken))
    for column in records.IDENTITY + records.PROVENANCE:
        rows[column.name] = 0
    record = np.array([t.record for t in taken], np.int32)
    rows["observed_at"] = [t.observed_at for t in taken]
    rows["received_at"] = received_at[record]
    rows["part"] = [t.reading.part for t in taken]
    rows["digest"] = [_content_digest(t) for t in taken]
    rows["flags"] = [_flags(t) for t in taken]
    for column in records.REPORT_SCALARS:
        null = column.null
        cells = [getattr(t.reading, column.name) for t in taken]
        rows[column.name] = [null if cell is None else cell for cell in cells]
    for name in ("longitude_deg", "latitude_deg"):
        rows[name] = np.round(rows[name], position_decimals)
    fuel_cell = Rows(
        records.nulls(records.IDENTITY + records.FUEL_CELL_SCALARS, 0),
        {column.name: records.empty_ragged(column.item, 0) for column in records.FUEL_CELL_LISTS},
    )
    return Reports(
        Rows(rows, _lists([t.reading for t in taken])),
        np.array([t.reading.vin.encode() for t in taken], "S17"),
        record,
        np.array([t.frame for t in taken], np.int32),
        fuel_cell,
        np.zeros(0, np.int64),
    )


def _flags(taken: _Taken) -> int:
    vin = taken.reading.vin
    flags = Flag.TIME_INVALID if taken.observed_at == NO_TIME else Flag(0)
    if len(vin) != 17 or not _VIN_LETTERS.issuperset(vin):
        flags |= Flag.VIN_INVALID
    return int(flags)


def _lists(readings: list[Any]) -> dict[str, Ragged]:
    make: dict[str, list[list[Any]]] = {
        "cells_mv": [_steps(r.cells_v, 1000, records.CELL_INVALID) for r in readings],
        "probes_ddegc": [_steps(r.probe_temps_degc, 10, records.PROBE_INVALID) for r in readings],
        "subsystems": [_subsystems(r) for r in readings],
        "motors": [[_motor(motor) for motor in r.motors] for r in readings],
        "fault_codes": [[(GROUPS.index(f.group), f.code) for f in r.fault_codes] for r in readings],
        "alarm_levels": [[(level.bit, level.level) for level in r.alarm_levels] for r in readings],
        "user_data": [[] for _ in readings],
    }
    return {column.name: _ragged(make[column.name], column.item) for column in records.REPORT_LISTS}


def _ragged(lists: list[list[Any]], item: np.dtype[Any]) -> Ragged:
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(items) for items in lists], out=offsets[1:])
    values: Array = np.array(list(chain.from_iterable(lists)), item)
    return Ragged(values, offsets)


def _steps(values: Iterable[float | None], per_unit: int, null: int) -> list[int]:
    return [null if value is None else round(value * per_unit) for value in values]


def _tenths(value: float | None) -> int:
    return int(np.iinfo(np.int32).min) if value is None else round(value * 10)


def _subsystems(reading: Any) -> list[tuple[int, ...]]:
    cells, probes = len(reading.cells_v), len(reading.probe_temps_degc)
    found = reading.subsystems
    if not found and cells + probes:
        found = [Subsystem(no=1, cells=cells, probes=probes)]
    return [
        (
            s.no,
            _tenths(s.voltage_v),
            _tenths(s.current_a),
            s.cells if s.cell_total is None else s.cell_total,
            s.start_cell,
            s.cells,
            s.probes,
        )
        for s in found
    ]


def _motor(motor: Motor) -> tuple[int, ...]:
    word, double = int(np.iinfo(np.int16).min), int(np.iinfo(np.int32).min)
    return (
        motor.seq,
        motor.status,
        word if motor.controller_temp_degc is None else motor.controller_temp_degc,
        double if motor.speed_rpm is None else motor.speed_rpm,
        _tenths(motor.torque_nm),
        word if motor.motor_temp_degc is None else motor.motor_temp_degc,
        _tenths(motor.controller_voltage_v),
        _tenths(motor.dc_bus_current_a),
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a value: one reading or a list of them."""
    (one,), components = msgspec.json.schema_components([Reading], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "telemetry-reading.schema.json",
        "title": "telltale telemetry reading",
        "description": "One reading or a list; units by column name, current positive into the pack.",
        "oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_READINGS}],
        "$defs": components,
    }

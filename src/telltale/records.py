"""The shapes that travel between Kafka and the database: columns, lists, verdicts.

A decoded batch is columns, never objects: one structured array per table plus ragged lists. Here stand
the columns themselves, once: their numpy type, their PostgreSQL type, unit and VSS path. Decoders fill
them, `store` packs them, rules and features read them, `schemas/signals.csv` is generated from them.

Nulls: NaN in float columns, the smallest value of the type in integer columns (`null_of`).
Times: int64 microseconds since 1970-01-01T00:00:00Z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

VSS = "Vehicle."
BATTERY = "Vehicle.Powertrain.TractionBattery."
EXT = "Vehicle.GBT32960."


class TimeSource(IntEnum):
    """Where `observed_at` comes from."""

    VEHICLE = 0  # the vehicle's own clock
    RECEIVED = 1  # the vehicle sent no usable time: the receive time stands in


class Flag(IntFlag):
    """What a reader of a stored row must know beside its values."""

    PARTIAL = 1  # the body could not be decoded from some byte on
    REISSUED = 2  # arrived as a reissued (buffered) report
    TIME_INVALID = 4  # the vehicle's time is no date
    TIME_FUTURE = 8  # the vehicle's time lies in the future of the receive time
    TIME_TOO_OLD = 16  # the vehicle's time is older than the age limit
    VIN_INVALID = 32  # the vehicle id is not a well-formed VIN
    DUPLICATE_SECTION = 64  # a section type occurred twice; the last one won
    ENVELOPE_FILLED = 128  # a Kafka header was missing and taken from the record
    OUT_OF_RANGE = 256  # at least one value lies outside the standard's range (kept)
    SIGNED = 512  # the frame carries a signature block (not verified)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a reading table."""

    name: str
    dtype: str  # numpy scalar type, native byte order
    pg_type: str
    unit: str = ""
    vss: str = ""
    meaning: str = ""

    @property
    def null(self) -> float | int:
        """Return the in-memory stand-in for SQL NULL."""
        return null_of(np.dtype(self.dtype))


def null_of(dtype: np.dtype[Any]) -> float | int:
    """Return the value that stands for null in a column of this type: NaN, or the type's smallest integer."""
    return float("nan") if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _i2(name: str, unit: str = "", vss: str = "", meaning: str = "") -> Column:
    return Column(name, "i2", "smallint", unit, vss, meaning)


def _f4(name: str, unit: str, vss: str, meaning: str = "") -> Column:
    return Column(name, "f4", "real", unit, vss, meaning)


IDENTITY: Final = (
    Column("vehicle_id", "i4", "integer", meaning="vehicle.id; the VIN is stored once, there"),
    Column("observed_at", "i8", "timestamptz", meaning="event time"),
    Column("part", "i4", "integer", meaning="0, or which part of a report split over several frames"),
)
PROVENANCE: Final = (
    Column("received_at", "i8", "timestamptz", meaning="when the gateway took it in"),
    _i2("source_id", meaning="source.id: protocol, edition, command, gateway"),
    _i2("time_source", meaning="0 vehicle clock, 1 receive time stands in"),
    Column("flags", "i4", "integer", meaning="bits of telltale.records.Flag"),
    Column(
        "digest", "i8", "bigint", meaning="64-bit digest of the content; differs on a conflicting re-send"
    ),
)
REPORT_SCALARS: Final = (
    _i2("vehicle_status", vss=EXT + "VehicleStatus", meaning="1 started, 2 off, 3 other"),
    _i2("charging_state", vss=EXT + "ChargingState", meaning="1 parked, 2 driving, 3 none, 4 complete"),
    _i2("run_mode", vss=EXT + "RunMode", meaning="1 electric, 2 hybrid, 3 fuel"),
    _f4("speed_kmh", "km/h", VSS + "Speed"),
    _f4("odometer_km", "km", VSS + "TraveledDistance"),
    _f4("pack_voltage_v", "V", BATTERY + "CurrentVoltage"),
    _f4("pack_current_a", "A", BATTERY + "CurrentCurrent", "positive into the pack"),
    _f4("soc_pct", "percent", BATTERY + "StateOfCharge.Displayed"),
    _i2("dcdc_state", vss=EXT + "DCDCState", meaning="1 working, 2 disconnected"),
    _i2("gear", vss=EXT + "Gear", meaning="raw byte: bits 0-3 position, 4 brake force, 5 drive force"),
    _f4("insulation_kohm", "kOhm", EXT + "InsulationResistance"),
    _i2("accelerator_pedal_pct", "percent", VSS + "Chassis.Accelerator.PedalPosition"),
    _i2("brake_pedal_pct", "percent", VSS + "Chassis.Brake.PedalPosition", "101 pressed, position unknown"),
    _f4("cell_voltage_max_v", "V", BATTERY + "CellVoltage.Max"),
    _i2("cell_voltage_max_subsystem", vss=EXT + "Extremes.MaxVoltageSubsystem"),
    _i2("cell_voltage_max_cell", vss=BATTERY + "CellVoltage.IdMax", meaning="counts from 1 (VSS from 0)"),
    _f4("cell_voltage_min_v", "V", BATTERY + "CellVoltage.Min"),
    _i2("cell_voltage_min_subsystem", vss=EXT + "Extremes.MinVoltageSubsystem"),
    _i2("cell_voltage_min_cell", vss=BATTERY + "CellVoltage.IdMin", meaning="counts from 1 (VSS from 0)"),
    _f4("cell_temp_max_degc", "degC", BATTERY + "Temperature.Max"),
    _i2("cell_temp_max_subsystem", vss=EXT + "Extremes.MaxTemperatureSubsystem"),
    _i2("cell_temp_max_probe", vss=EXT + "Extremes.MaxTemperatureProbe"),
    _f4("cell_temp_min_degc", "degC", BATTERY + "Temperature.Min"),
    _i2("cell_temp_min_subsystem", vss=EXT + "Extremes.MinTemperatureSubsystem"),
    _i2("cell_temp_min_probe", vss=EXT + "Extremes.MinTemperatureProbe"),
    _i2("alarm_level", vss=EXT + "Alarm.MaxLevel", meaning="2016: 0-3, 2025: 0-4"),
    Column("alarm_flags", "i8", "bigint", "", EXT + "Alarm.Flags", "general alarm bits, bit 0 lowest"),
    _i2("engine_status", vss=VSS + "Powertrain.CombustionEngine.IsRunning", meaning="1 on, 2 off"),
    _f4("engine_speed_rpm", "rpm", VSS + "Powertrain.CombustionEngine.Speed"),
    _f4("fuel_consumption_l_100km", "l/100km", VSS + "Powertrain.FuelSystem.InstantConsumption"),
    Column("longitude_deg", "f8", "double precision", "degrees", VSS + "CurrentLocation.Longitude"),
    Column("latitude_deg", "f8", "double precision", "degrees", VSS + "CurrentLocation.Latitude"),
    _i2("position_state", vss=EXT + "Position.State", meaning="raw byte: bit 0 fix invalid"),
    _i2(
        "coordinate_system", vss=EXT + "Position.CoordinateSystem", meaning="0 unknown, 1 WGS-84, 2 GCJ-02, 3"
    ),
)

# Lists are one `bytea` per row: big-endian fixed-size items, back to back, in subsystem order.
CELL_INVALID, CELL_ABNORMAL = 0xFFFF, 0xFFFE  # cells: mV; the wire's own markers
PROBE_INVALID, PROBE_ABNORMAL = 0x7FFF, 0x7FFE  # probes: 0.1 degC
CELL: Final = np.dtype(">u2")
PROBE: Final = np.dtype(">i2")
SUBSYSTEM: Final = np.dtype(
    [
        ("no", "u1"),
        ("voltage_dv", ">i4"),
        ("current_da", ">i4"),  # positive into the pack
        ("cell_total", ">u2"),
        ("start_cell", ">u2"),  # 1-based number of the first cell in this row
        ("cells", ">u2"),  # how many items of cells_mv belong to it
        ("probes", ">u2"),  # how many items of probes_ddegc belong to it
    ]
)
MOTOR: Final = np.dtype(
    [
        ("seq", "u1"),
        ("status", "u1"),
        ("controller_temp_degc", ">i2"),
        ("speed_rpm", ">i4"),
        ("torque_dnm", ">i4"),
        ("motor_temp_degc", ">i2"),
        ("controller_voltage_dv", ">i4"),
        ("dc_bus_current_da", ">i4"),
    ]
)
FAULT: Final = np.dtype([("group", "u1"), ("code", ">u4")])  # group: 0 battery, 1 motor, 2 engine, 3 other
ALARM_LEVEL: Final = np.dtype([("bit", "u1"), ("level", "u1")])
BYTE: Final = np.dtype("u1")


@dataclass(frozen=True, slots=True)
class ListColumn:
    """One list column of a reading table, stored as packed big-endian items."""

    name: str
    item: np.dtype[Any]
    unit: str = ""
    vss: str = ""
    meaning: str = ""


REPORT_LISTS: Final = (
    ListColumn(
        "cells_mv", CELL, "mV", BATTERY + "CellVoltage.CellVoltages", "0xFFFF invalid, 0xFFFE abnormal"
    ),
    ListColumn(
        "probes_ddegc", PROBE, "0.1 degC", BATTERY + "Temperature.CellTemperature", "0x7FFF, 0x7FFE null"
    ),
    ListColumn("subsystems", SUBSYSTEM, "", EXT + "Subsystem"),
    ListColumn("motors", MOTOR, "", EXT + "Motor"),
    ListColumn("fault_codes", FAULT, "", BATTERY + "ErrorCodes"),
    ListColumn("alarm_levels", ALARM_LEVEL, "", EXT + "Alarm.Levels", "2025: level of each active alarm"),
    ListColumn(
        "user_data", BYTE, "", EXT + "UserDefined", "sections 80-FE as on the wire: type, length, bytes"
    ),
)
REPORT_COLUMNS: Final = IDENTITY + PROVENANCE + REPORT_SCALARS

FUEL_CELL_SCALARS: Final = (
    _f4("stack_voltage_v", "V", EXT + "FuelCell.Voltage"),
    _f4("stack_current_a", "A", EXT + "FuelCell.Current"),
    _f4("hydrogen_consumption_kg_100km", "kg/100km", EXT + "FuelCell.Consumption"),
    _f4("hydrogen_temp_max_degc", "degC", EXT + "Hydrogen.MaxTemperature"),
    _i2("hydrogen_temp_max_probe", vss=EXT + "Hydrogen.MaxTemperatureProbe"),
    _f4("hydrogen_concentration_max_mg_kg", "mg/kg", EXT + "Hydrogen.MaxConcentration"),
    _i2("hydrogen_concentration_max_sensor", vss=EXT + "Hydrogen.MaxConcentrationSensor"),
    _f4("hydrogen_pressure_max_mpa", "MPa", EXT + "Hydrogen.MaxPressure"),
    _i2("hydrogen_pressure_max_sensor", vss=EXT + "Hydrogen.MaxPressureSensor"),
    _i2("hv_dcdc_state", vss=EXT + "FuelCell.DCDCState", meaning="1 working, 2 disconnected"),
)
FUEL_CELL_LISTS: Final = (ListColumn("probes_ddegc", PROBE, "0.1 degC", EXT + "FuelCell.ProbeTemperatures"),)


def dtype_of(columns: Sequence[Column]) -> np.dtype[Any]:
    """Return the structured dtype of a table's scalar columns."""
    return np.dtype([(column.name, column.dtype) for column in columns])


REPORT: Final = dtype_of(REPORT_COLUMNS)
FUEL_CELL: Final = dtype_of(IDENTITY + FUEL_CELL_SCALARS)


def nulls(columns: Sequence[Column], rows: int) -> Array:
    """Return `rows` structured rows with every column null (identity and flags included)."""
    blank = np.zeros(1, dtype_of(columns))
    for column in columns:
        blank[column.name] = column.null
    return np.repeat(blank, rows)


@dataclass(frozen=True, slots=True)
class Ragged:
    """A list per row: items of row i are `values[offsets[i]:offsets[i + 1]]`."""

    values: Array
    offsets: NDArray[np.int64]  # rows + 1, ascending, first 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the number of items of each row."""
        return np.diff(self.offsets)

    def row(self, index: int) -> Array:
        """Return the items of one row."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """Return the lists of these rows, in this order."""
        if (size := self._size_of_all()) is not None:
            table = self.values.reshape(len(self), size)[rows]
            return Ragged(table.reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * size)
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Ragged(self.values[np.arange(offsets[-1]) + shift], offsets)

    def _size_of_all(self) -> int | None:
        """Return how many items every row has, or None when rows differ: most batches are of one shape."""
        if len(self) == 0:
            return None
        size, remainder = divmod(len(self.values), len(self))
        even = not remainder and (self.lengths == size).all()
        return size if even else None


def empty_ragged(item: np.dtype[Any], rows: int) -> Ragged:
    """Return `rows` empty lists of items of this type."""
    return Ragged(np.zeros(0, item), np.zeros(rows + 1, np.int64))


def concat_ragged(parts: Sequence[Ragged]) -> Ragged:
    """Return the rows of all parts, in order; there must be at least one part."""
    base = np.cumsum([0] + [part.offsets[-1] for part in parts])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, base, strict=False)]
    return Ragged(np.concatenate([p.values for p in parts]), np.concatenate([[0], *offsets]).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one reading table: scalars as a structured array, lists by column name."""

    columns: Array
    lists: dict[str, Ragged]

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Return these rows, in this order."""
        return Rows(self.columns[rows], {name: ragged.take(rows) for name, ragged in self.lists.items()})


@dataclass(frozen=True, slots=True)
class Reports:
    """Decoded realtime and reissued reports of one batch, in arrival order."""

    rows: Rows  # table `report`; vehicle_id is 0 until the ingest loop fills it from `vin`
    vin: Array  # S17 per row, NUL/space stripped
    record: NDArray[np.int32]  # which value of the batch the row came from
    frame: NDArray[np.int32]  # which frame or reading within that value
    fuel_cell: Rows  # table `fuel_cell_report`
    fuel_cell_row: NDArray[np.int64]  # row of `rows` each belongs to

    def __len__(self) -> int:
        return len(self.vin)

    def take(self, rows: NDArray[np.int64]) -> Reports:
        """Return these rows, in this order, with what hangs on them."""
        place = np.full(len(self), -1, np.int64)
        place[rows] = np.arange(len(rows))
        kept = np.flatnonzero(place[self.fuel_cell_row] >= 0)
        return Reports(
            self.rows.take(rows),
            self.vin[rows],
            self.record[rows],
            self.frame[rows],
            self.fuel_cell.take(kept),
            place[self.fuel_cell_row[kept]],
        )


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """A vehicle's login or logout. Identity: (vehicle, kind, observed_at, sequence)."""

    record: int
    frame: int
    vin: str
    kind: str  # login | logout
    observed_at: int | None  # µs; None when the vehicle's time is no date
    sequence: int
    digest: int
    source: Source
    iccid: str = ""
    pack_codes: tuple[tuple[int, str], ...] = ()  # (subsystem number from 1, code as sent; may be empty)
    flags: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """What a row came from; becomes `source.id`."""

    protocol: str
    edition: int = 0
    command: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Bytes kept because they were refused, or decoded only in part, with place and reason."""

    record: int
    frame: int
    outcome: str  # rejected | partial
    reason: str  # upper-case code of the protocol's error table
    detail: str  # what, where, expected, got
    raw: bytes
    byte_offset: int | None = None  # within raw
    vin: str = ""


@dataclass(frozen=True, slots=True)
class Values:
    """What a decoder is given: Kafka values of one protocol and when each was received."""

    values: Sequence[bytes]
    received_at: NDArray[np.int64]  # µs per value


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder returns. sent == len(reports) + len(sessions) + sum(control) + rejected evidence."""

    reports: Reports
    source_of: tuple[Source, ...] = ()  # `source_id` of a decoded row indexes this until the loop maps it
    sessions: tuple[SessionEvent, ...] = ()
    control: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # per value
    evidence: tuple[Evidence, ...] = ()
    markers: dict[tuple[str, str], int] = field(default_factory=dict)  # (column, invalid|abnormal) → count


def no_rows(columns: Sequence[Column], lists: Sequence[ListColumn]) -> Rows:
    """Return a table of these columns and lists without any row."""
    return Rows(np.zeros(0, dtype_of(columns)), {item.name: empty_ragged(item.item, 0) for item in lists})


def no_reports() -> Reports:
    """Return decoded reports of a batch that held none."""
    return Reports(
        no_rows(REPORT_COLUMNS, REPORT_LISTS),
        np.zeros(0, "S17"),
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        no_rows(IDENTITY + FUEL_CELL_SCALARS, FUEL_CELL_LISTS),
        np.zeros(0, np.int64),
    )

"""GB/T 32960.3 as tables: one table maps wire field → column, for both editions.

A section body is a row of elements. A `Field` is a number of fixed width; a `Listing` is a count field
followed by that many items, each again a row of elements. Everything that walks a frame (layout.py), turns
it into columns (columns.py), writes it (encode.py), describes it (describe.py) or documents it
(signals.py) reads these tables and nothing else.

Decoded value = (raw + bias) / per_unit. All bits one is the marker *invalid*, all bits one minus one
*abnormal*; both become null. Clauses are those of the 2016 and 2025 editions' tables by section type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """One number on the wire: where it goes, how it scales, what it may be."""

    name: str  # the wire's name, as `telltale decode` shows it
    width: int  # bytes, big-endian unsigned
    raw_max: int  # largest legal raw value; above it, and no marker: kept and flagged out of range
    column: str = ""  # column, or member of a list column's item; empty: not stored
    per_unit: int = 1  # raw steps per unit
    bias: int = 0  # added to the raw value before scaling
    raw_min: int = 0
    unit: str = ""
    marked: bool = True  # whether all-ones and all-ones-minus-one are markers
    structural: bool = False  # frames whose value differs here are decoded apart
    flips: bool = False  # takes the source's current sign

    @property
    def invalid(self) -> int:
        """Return the raw marker for invalid; one less is abnormal."""
        return (1 << (8 * self.width)) - 1

    def legal(self, raw: int) -> bool:
        """Return whether a raw value lies within the standard's range."""
        return self.raw_min <= raw <= self.raw_max


@dataclass(frozen=True, slots=True)
class Listing:
    """A count and that many items."""

    name: str
    count: Field
    items: tuple[Field | Listing, ...]
    column: str = ""  # list column of the report; empty: not stored as such
    item_bytes: int = field(init=False)  # bytes of one item; 0 when items hold lists themselves

    def __post_init__(self) -> None:
        """Work out the size of an item once."""
        widths = [item.width if isinstance(item, Field) else 0 for item in self.items]
        object.__setattr__(self, "item_bytes", sum(widths) if all(widths) else 0)


@dataclass(frozen=True, slots=True)
class Section:
    """One information type of a report."""

    type: int
    name: str
    clause: str
    elements: tuple[Field | Listing, ...]
    table: str = "report"  # report | fuel_cell | raw: kept as bytes in `user_data` | none


def _enum(name: str, largest: int, column: str = "") -> Field:
    return Field(name, 1, largest, column, raw_min=1)


def _temp(name: str, column: str = "", raw_max: int = 250) -> Field:
    return Field(name, 1, raw_max, column, bias=-40, unit="degC")


def _number(name: str, column: str, raw_max: int = 250) -> Field:
    return Field(name, 1, raw_max, column, raw_min=1)


def _count(name: str, raw_max: int, width: int = 1, column: str = "") -> Field:
    return Field(name, width, raw_max, column, structural=True)


def _vehicle(speed_max: int, voltage_max: int, current_bias: int, current_max: int) -> tuple[Field, ...]:
    return (
        _enum("status", 3, "vehicle_status"),
        _enum("charging", 4, "charging_state"),
        _enum("run_mode", 3, "run_mode"),
        Field("speed_kmh", 2, speed_max, "speed_kmh", 10, unit="km/h"),
        Field("odometer_km", 4, 9_999_999, "odometer_km", 10, unit="km"),
        Field("voltage_v", 2, voltage_max, "pack_voltage_v", 10, unit="V"),
        Field("current_a", 2, current_max, "pack_current_a", 10, current_bias, unit="A", flips=True),
        Field("soc_pct", 1, 100, "soc_pct", unit="percent"),
        _enum("dcdc", 2, "dcdc_state"),
        Field("gear", 1, 255, "gear", marked=False),
        Field("insulation_kohm", 2, 60_000, "insulation_kohm", unit="kOhm"),
    )


_PEDALS = (
    Field("accel_pedal_pct", 1, 100, "accelerator_pedal_pct", unit="percent"),
    Field("brake_pedal_pct", 1, 101, "brake_pedal_pct", unit="percent"),
)


def _motors(speed_bias: int, torque: Field, extra: tuple[Field, ...] = ()) -> Listing:
    items = (
        _number("seq", "seq", 253),
        _enum("status", 4, "status"),
        _temp("controller_temp_c", "controller_temp_degc"),
        Field("speed_rpm", 2, 65_531, "speed_rpm", bias=speed_bias, unit="rpm"),
        torque,
        _temp("motor_temp_c", "motor_temp_degc"),
        *extra,
    )
    return Listing("motors", _count("count", 253), items, "motors")


def _faults(name: str, limit: int) -> Listing:
    code = Field("code", 4, 0xFFFFFFFF, "code", marked=False)
    return Listing(name, _count(f"{name}_count", limit), (code,), "fault_codes")


def _alarm(level_max: int, limit: int) -> tuple[Field | Listing, ...]:
    return (
        Field("max_level", 1, level_max, "alarm_level"),
        Field("flags", 4, 0xFFFFFFFF, "alarm_flags", marked=False),
        _faults("battery_faults", limit),
        _faults("motor_faults", limit),
        _faults("engine_faults", limit),
        _faults("other_faults", limit),
    )


_CELLS = (Field("cells_v", 2, 60_000, "cells_mv", 1000, unit="V"),)
_PROBES = (_temp("temps_c", "probes_ddegc"),)
_CELL_TOTAL = Field("cell_total", 2, 65_531, "cell_total", raw_min=1)
_START_CELL = Field("start_cell", 2, 65_531, "start_cell", raw_min=1)
_STATE = Field("state", 1, 255, "position_state", marked=False)
_LONGITUDE = Field("lon_deg", 4, 180_000_000, "longitude_deg", 1_000_000, unit="degrees")
_LATITUDE = Field("lat_deg", 4, 90_000_000, "latitude_deg", 1_000_000, unit="degrees")
_HV_DCDC = _enum("hv_dcdc", 2, "hv_dcdc_state")


def _subsystem_no(limit: int) -> Field:
    return Field("no", 1, limit, "no", raw_min=1, structural=True)


def _block(voltage_max: int, current_bias: int, current_max: int) -> tuple[Field, Field]:
    return (
        Field("voltage_v", 2, voltage_max, "voltage_dv", 10, unit="V"),
        Field("current_a", 2, current_max, "current_da", 10, current_bias, unit="A", flips=True),
    )


def _probe_blocks(name: str, limit: int) -> Listing:
    temps = Listing("temps_c", _count("probe_count", 65_531, 2), _PROBES, "probes_ddegc")
    return Listing(name, _count("count", limit), (_subsystem_no(limit), temps), "subsystems")


def _user_defined(section_type: int) -> Section:
    """A section of the maker's own: a length and bytes."""
    length = Field("length", 2, 65_535, marked=False, structural=True)
    data = Listing("data", length, (Field("byte", 1, 255, marked=False),))
    return Section(section_type, "custom", "80-FE", (data,), "raw")


_MOTOR_2016 = _motors(
    -20_000,
    Field("torque_nm", 2, 65_531, "torque_dnm", 10, -20_000, unit="N.m"),
    (
        Field("controller_voltage_v", 2, 60_000, "controller_voltage_dv", 10, unit="V"),
        Field("dc_bus_current_a", 2, 20_000, "dc_bus_current_da", 10, -10_000, unit="A"),
    ),
)
_FUEL_CELL_2016 = (
    Field("voltage_v", 2, 20_000, "stack_voltage_v", 10, unit="V"),
    Field("current_a", 2, 20_000, "stack_current_a", 10, unit="A"),
    Field("consumption_kg_100km", 2, 60_000, "hydrogen_consumption_kg_100km", 100, unit="kg/100km"),
    Listing(
        "probe_temps_c",
        _count("probe_count", 65_531, 2),
        (_temp("probe_temps_c", "probes_ddegc", 240),),
        "probes_ddegc",
    ),
    Field("h2_max_temp_c", 2, 2_400, "hydrogen_temp_max_degc", 10, -400, unit="degC"),
    _number("h2_max_temp_probe", "hydrogen_temp_max_probe", 252),
    Field("h2_max_conc_mg_kg", 2, 60_000, "hydrogen_concentration_max_mg_kg", unit="mg/kg"),
    _number("h2_max_conc_sensor", "hydrogen_concentration_max_sensor", 252),
    Field("h2_max_pressure_mpa", 2, 1_000, "hydrogen_pressure_max_mpa", 10, unit="MPa"),
    _number("h2_max_pressure_sensor", "hydrogen_pressure_max_sensor", 252),
    _HV_DCDC,
)
_ENGINE_SPEED = Field("crank_rpm", 2, 60_000, "engine_speed_rpm", unit="rpm")
_ENGINE_2016 = (
    _enum("status", 2, "engine_status"),
    _ENGINE_SPEED,
    Field("fuel_l_100km", 2, 60_000, "fuel_consumption_l_100km", 100, unit="l/100km"),
)
_EXTREMES_2016 = (
    _number("max_v_subsystem", "cell_voltage_max_subsystem"),
    _number("max_v_cell", "cell_voltage_max_cell"),
    Field("max_cell_v", 2, 15_000, "cell_voltage_max_v", 1000, unit="V"),
    _number("min_v_subsystem", "cell_voltage_min_subsystem"),
    _number("min_v_cell", "cell_voltage_min_cell"),
    Field("min_cell_v", 2, 15_000, "cell_voltage_min_v", 1000, unit="V"),
    _number("max_t_subsystem", "cell_temp_max_subsystem"),
    _number("max_t_probe", "cell_temp_max_probe"),
    _temp("max_temp_c", "cell_temp_max_degc"),
    _number("min_t_subsystem", "cell_temp_min_subsystem"),
    _number("min_t_probe", "cell_temp_min_probe"),
    _temp("min_temp_c", "cell_temp_min_degc"),
)
_CELL_BLOCKS_2016 = Listing(
    "subsystems",
    _count("count", 250),
    (
        _subsystem_no(250),
        *_block(10_000, -10_000, 20_000),
        _CELL_TOTAL,
        _START_CELL,
        Listing("cells_v", _count("frame_cells", 200), _CELLS, "cells_mv"),
    ),
    "subsystems",
)
_CELL_BLOCKS_2025 = Listing(
    "packs",
    _count("count", 50),
    (
        _subsystem_no(50),
        *_block(60_000, -30_000, 60_000),
        Listing("cells_v", _count("cell_total", 65_531, 2, "cell_total"), _CELLS, "cells_mv"),
    ),
    "subsystems",
)
_FUEL_CELL_2025 = (
    Field("h2_max_temp_c", 2, 250, bias=-40, unit="degC"),
    _number("h2_max_temp_probe", "", 253),
    Field("h2_max_conc_pct", 2, 60_000, per_unit=10_000, unit="percent"),
    _number("h2_max_conc_sensor", "", 253),
    Field("h2_max_pressure_mpa", 2, 1_000, per_unit=10, unit="MPa"),
    _number("h2_max_pressure_sensor", "", 253),
    _enum("hv_dcdc", 2),
    Field("h2_remaining_pct", 1, 100, unit="percent"),
    _temp("hv_dcdc_temp_c"),
)
_STACKS_2025 = Listing(
    "stacks",
    _count("count", 253),
    (
        _number("no", "", 253),
        Field("voltage_v", 2, 20_000, per_unit=10, unit="V"),
        Field("current_a", 2, 20_000, per_unit=10, unit="A"),
        Field("h2_inlet_kpa", 2, 5_000, per_unit=10, bias=-1_000, unit="kPa"),
        Field("air_inlet_kpa", 2, 5_000, per_unit=10, bias=-1_000, unit="kPa"),
        _temp("air_inlet_temp_c"),
        Listing("coolant_out_temps_c", _count("probe_count", 65_531, 2), (_temp("coolant_out_temps_c"),)),
    ),
)
_SUPERCAP_2025 = (
    _number("no", "", 253),
    Field("voltage_v", 2, 10_000, per_unit=10, unit="V"),
    Field("current_a", 2, 60_000, per_unit=10, bias=-30_000, unit="A"),
    Listing("cells_v", _count("cell_total", 65_531, 2), (Field("cells_v", 2, 60_000, per_unit=1000),)),
    Listing("temps_c", _count("probe_count", 65_531, 2), (_temp("temps_c"),)),
)


def _supercap_extreme(which: str, value: Field) -> tuple[Field, ...]:
    identity = Field(f"{which}_id", 2, 65_531, raw_min=1)
    return (_number(f"{which}_system", "", 253), identity, value)


_SUPERCAP_EXTREMES_2025 = (
    *_supercap_extreme("max_v", Field("max_cell_v", 2, 60_000, per_unit=1000, unit="V")),
    *_supercap_extreme("min_v", Field("min_cell_v", 2, 60_000, per_unit=1000, unit="V")),
    *_supercap_extreme("max_t", _temp("max_temp_c")),
    *_supercap_extreme("min_t", _temp("min_temp_c")),
)
_LEVELS_2025 = Listing(
    "general_levels",
    _count("general_levels_count", 253),
    (Field("bit", 1, 255, "bit", marked=False), Field("level", 1, 255, "level", marked=False)),
    "alarm_levels",
)


def _signature_bytes(name: str) -> Listing:
    length = Field(f"{name}_len", 2, 65_535, marked=False, structural=True)
    return Listing(name, length, (Field("byte", 1, 255, marked=False),))


_SIGNATURE_2025 = (
    Field("algo", 1, 3, raw_min=1, marked=False),
    _signature_bytes("r"),
    _signature_bytes("s"),
)

VEHICLE, MOTORS, FUEL_CELL, ENGINE, POSITION = 0x01, 0x02, 0x03, 0x04, 0x05
SIGNATURE: Final = 0xFF
_2016 = (
    Section(VEHICLE, "vehicle", "2016 7.2.3.1", (*_vehicle(2_200, 10_000, -10_000, 20_000), *_PEDALS)),
    Section(MOTORS, "motors", "2016 7.2.3.2", (_MOTOR_2016,)),
    Section(FUEL_CELL, "fuel_cell", "2016 7.2.3.3", _FUEL_CELL_2016, "fuel_cell"),
    Section(ENGINE, "engine", "2016 7.2.3.4", _ENGINE_2016),
    Section(POSITION, "position", "2016 7.2.3.5", (_STATE, _LONGITUDE, _LATITUDE)),
    Section(0x06, "extremes", "2016 7.2.3.6", _EXTREMES_2016),
    Section(0x07, "alarm", "2016 7.2.3.7", _alarm(3, 252)),
    Section(0x08, "cell_voltages", "2016 annex, type 08", (_CELL_BLOCKS_2016,)),
    Section(0x09, "probe_temps", "2016 annex, type 09", (_probe_blocks("subsystems", 250),)),
)
_2025 = (
    Section(VEHICLE, "vehicle", "2025 type 01", _vehicle(5_000, 60_000, -30_000, 60_000)),
    Section(
        MOTORS,
        "motors",
        "2025 type 02",
        (_motors(-32_000, Field("torque_nm", 4, 400_000, "torque_dnm", 10, -200_000, unit="N.m")),),
    ),
    Section(FUEL_CELL, "fuel_cell_system", "2025 type 03", _FUEL_CELL_2025, "raw"),
    Section(ENGINE, "engine", "2025 type 04", (_ENGINE_SPEED,)),
    Section(
        POSITION,
        "position",
        "2025 type 05",
        (_STATE, _enum("coord_sys", 3, "coordinate_system"), _LONGITUDE, _LATITUDE),
    ),
    Section(0x06, "alarm", "2025 type 06", (*_alarm(4, 253), _LEVELS_2025)),
    Section(0x07, "cell_voltages", "2025 type 07", (_CELL_BLOCKS_2025,)),
    Section(0x08, "probe_temps", "2025 type 08", (_probe_blocks("packs", 50),)),
    Section(0x30, "fuel_cell_stacks", "2025 type 30", (_STACKS_2025,), "raw"),
    Section(0x31, "supercap", "2025 type 31", _SUPERCAP_2025, "raw"),
    Section(0x32, "supercap_extremes", "2025 type 32", _SUPERCAP_EXTREMES_2025, "raw"),
    Section(SIGNATURE, "signature", "2025 type FF", _SIGNATURE_2025, "none"),
)
_USER_DEFINED = tuple(_user_defined(section_type) for section_type in range(0x80, 0xFF))
SECTIONS: Final[dict[int, dict[int, Section]]] = {
    2016: {section.type: section for section in _2016 + _USER_DEFINED},
    2025: {section.type: section for section in _2025 + _USER_DEFINED},
}
FAULT_GROUPS: Final = ("battery_faults", "motor_faults", "engine_faults", "other_faults")
PROBE_STEPS: Final = 10  # a probe item of the store is 0.1 degC, one raw step of the wire 1 degC

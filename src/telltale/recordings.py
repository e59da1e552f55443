"""Recorded electric cars (Parquet, one car a file) as rows of the `report` table.

The format is that of BatICM/unsupervised-battery-faults (MIT; Nie, Deng et al., Energy 323 (2025) 135754):
one row per report with `ts`, pack values, every cell voltage `V_1…` and every probe temperature `T_1…`.
What a reader has to know about these files, and what is done about it here:

* `ts` is China Standard Time without saying so;
* `pack_a` is positive on discharge, stored current is positive into the pack;
* `T_*` are °C in some files and wire codes (°C + 40) in others: the pack's own `temp_max_c` tells which;
* `T_*` of 511 means that there is no such probe; an odometer of 0 means that it was not read;
* a cell of 66.535 V fits no 16-bit millivolt word, so it cannot have been measured: invalid.

Everything else is kept as it stands, cells at 0 V or 5 V included: implausible is not invalid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from telltale.errors import SettingsError
from telltale.records import (
    CELL,
    CELL_ABNORMAL,
    CELL_INVALID,
    PROBE,
    PROBE_INVALID,
    REPORT_COLUMNS,
    REPORT_LISTS,
    SUBSYSTEM,
    Array,
    Ragged,
    Rows,
    empty_ragged,
    nulls,
)

CST_OFFSET_US: Final = 8 * 3600 * 1_000_000
WIRE_TEMPERATURE_OFFSET: Final = 40  # GB/T 32960 sends °C + 40 in a byte
ABSENT_PROBE: Final = 511

# Column of the file → column of `report`. A file that lacks one leaves the column null.
SCALARS: Final = {
    "vehicle_status": "vehicle_status",
    "charge_status": "charging_state",
    "speed_kmh": "speed_kmh",
    "odo_km": "odometer_km",
    "pack_v": "pack_voltage_v",
    "pack_a": "pack_current_a",
    "soc_pct": "soc_pct",
    "insulation_kohm": "insulation_kohm",
    "cell_v_max": "cell_voltage_max_v",
    "cell_v_min": "cell_voltage_min_v",
    "temp_max_c": "cell_temp_max_degc",
    "temp_min_c": "cell_temp_min_degc",
    "alarm_level": "alarm_level",
}


def load_recording(path: Path) -> tuple[str, Rows]:
    """Return the car's name and its reports in file order, duplicates included.

    `vehicle_id` and `digest` are 0; `received_at` equals `observed_at`, for the files do not say. Cells are
    rounded to mV, probes to 0.1 °C. Raises SettingsError when pyarrow is missing or the file is no recording.
    """
    table = _read(path)
    columns = _scalars(table)
    cells = _cells(_matrix(table, "V_"))
    probes = _probes(_matrix(table, "T_"), columns["cell_temp_max_degc"])
    lists = {column.name: empty_ragged(column.item, len(columns)) for column in REPORT_LISTS}
    lists["cells_mv"] = _ragged(cells)
    lists["probes_ddegc"] = _ragged(probes)
    lists["subsystems"] = _subsystems(columns, cells.shape[1], probes.shape[1])
    return str(table["vehicle"][0].as_py()), Rows(columns, lists)


def _read(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise SettingsError(
            "recordings: reading Parquet needs pyarrow; install telltale[recordings]"
        ) from error
    table = parquet.read_table(path)
    missing = {"ts", "vehicle", "V_1"} - set(table.column_names)
    if missing or not table.num_rows:
        raise SettingsError(
            f"recordings: {path}: expected rows with the columns ts, vehicle and V_1 …, "
            f"got {table.num_rows} rows without {sorted(missing)}; pass a recorded car's Parquet file"
        )
    return table


def _scalars(table: Any) -> Array:
    columns = nulls(REPORT_COLUMNS, table.num_rows)
    for name in ("vehicle_id", "part", "source_id", "time_source", "flags", "digest"):
        columns[name] = 0
    columns["observed_at"] = table["ts"].to_numpy().astype("datetime64[us]").astype("i8") - CST_OFFSET_US
    columns["received_at"] = columns["observed_at"]
    for theirs, ours in SCALARS.items():
        if theirs in table.column_names:
            _fill(columns, ours, _floats(table, theirs))
    columns["pack_current_a"] = 0.0 - columns["pack_current_a"]  # not *= -1: that makes -0.0
    columns["odometer_km"][columns["odometer_km"] == 0] = np.nan
    return columns


def _fill(columns: Array, name: str, values: Array) -> None:
    given = ~np.isnan(values)
    columns[name][given] = values[given]


def _floats(table: Any, name: str) -> Array:
    values: Array = table[name].to_numpy(zero_copy_only=False).astype("f8")
    return values


def _matrix(table: Any, prefix: str) -> Array:
    names = sorted(
        (n for n in table.column_names if n.startswith(prefix)), key=lambda n: int(n[len(prefix) :])
    )
    return np.column_stack([_floats(table, name) for name in names]) if names else np.empty((len(table), 0))


def _cells(volts: Array) -> Array:
    millivolts = np.rint(volts * 1000)
    carried = (millivolts >= 0) & (millivolts < CELL_ABNORMAL)  # NaN compares false
    return np.where(carried, millivolts, CELL_INVALID).astype(CELL)


def _probes(degc: Array, temp_max_degc: Array) -> Array:
    present = ~np.isnan(degc) & (degc != ABSENT_PROBE)
    row_max = np.where(present, degc, -np.inf).max(axis=1, initial=-np.inf)
    known = np.isfinite(row_max) & ~np.isnan(temp_max_degc)
    excess = np.median(row_max[known] - temp_max_degc[known]) if known.any() else 0.0
    offset = WIRE_TEMPERATURE_OFFSET if excess > WIRE_TEMPERATURE_OFFSET / 2 else 0
    return np.where(present, np.rint((degc - offset) * 10), PROBE_INVALID).astype(PROBE)


def _subsystems(columns: Array, cells: int, probes: int) -> Ragged:
    rows = np.zeros((len(columns), 1), SUBSYSTEM)
    rows["no"] = rows["start_cell"] = 1
    rows["cell_total"] = rows["cells"] = cells
    rows["probes"] = probes
    for ours, theirs in (("voltage_dv", "pack_voltage_v"), ("current_da", "pack_current_a")):
        absent = np.iinfo(SUBSYSTEM[ours].newbyteorder("=")).min
        scaled = np.rint(columns[theirs].astype("f8") * 10)
        rows[ours][:, 0] = np.where(np.isnan(scaled), absent, scaled)
    return _ragged(rows)


def _ragged(matrix: Array) -> Ragged:
    rows, width = matrix.shape
    return Ragged(matrix.reshape(-1), np.arange(rows + 1, dtype=np.int64) * width)

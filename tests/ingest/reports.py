"""Reports to send in tests: frames of three vehicles, numbered by their time."""

import numpy as np

from telltale import records
from telltale.decode.gbt32960.encode import encode_reports

NOON_US = 1_773_460_800_000_000
VINS = [b"L0TTE5T15RA000101", b"L0TTE5T15RA000102", b"L0TTE5T15RA000103"]
HEADERS = [("protocol", b"gbt32960"), ("received_at", b"1773547200000000"), ("gateway", b"g1")]


def frames(
    count: int, *, cells: int = 8, command: int = 2, speed_kmh: float = 50.0
) -> list[tuple[bytes, bytes]]:
    """(key, frame) of `count` reports, one second apart, from three vehicles in turn."""
    columns = records.nulls(records.REPORT_COLUMNS, count)
    columns["observed_at"] = NOON_US + np.arange(count) * 1_000_000
    columns["vehicle_status"], columns["charging_state"], columns["run_mode"] = 1, 3, 1
    columns["speed_kmh"], columns["odometer_km"], columns["soc_pct"] = speed_kmh, 1000.0, 70
    columns["pack_voltage_v"], columns["pack_current_a"] = cells * 3.7, -10.0
    columns["dcdc_state"], columns["gear"], columns["insulation_kohm"] = 1, 14, 5000
    lists = {item.name: records.empty_ragged(item.item, count) for item in records.REPORT_LISTS}
    values = (3700 + np.arange(count * cells) % 7).astype(records.CELL)
    lists["cells_mv"] = records.Ragged(values, np.arange(count + 1) * cells)
    subsystems = np.zeros(count, records.SUBSYSTEM)
    subsystems["no"], subsystems["voltage_dv"], subsystems["current_da"] = 1, round(cells * 37), -100
    subsystems["cell_total"], subsystems["start_cell"], subsystems["cells"] = cells, 1, cells
    lists["subsystems"] = records.Ragged(subsystems, np.arange(count + 1))
    vin = np.array([VINS[i % 3] for i in range(count)], "S17")
    encoded = encode_reports(records.Rows(columns, lists), vin, command=command)
    return list(zip(vin.tolist(), encoded, strict=True))

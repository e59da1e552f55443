"""Reports for tests of the rules: healthy ones, with what a test wants changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from telltale.records import CELL, PROBE, REPORT_COLUMNS, REPORT_LISTS, Ragged, Rows, empty_ragged, nulls

HEALTHY: dict[str, Any] = {
    "vehicle_status": 1,
    "charging_state": 3,
    "run_mode": 1,
    "speed_kmh": 40.0,
    "pack_voltage_v": 370.0,
    "pack_current_a": -20.0,
    "dcdc_state": 1,
    "insulation_kohm": 5000.0,
    "cell_temp_max_degc": 25.0,
    "alarm_level": 0,
    "alarm_flags": 0,
}
CELLS = [3700] * 100


def make_rows(*given: dict[str, Any], every_s: float = 30.0) -> Rows:
    """Return healthy reports of vehicle 1 with these values changed, one every half minute."""
    columns = nulls(REPORT_COLUMNS, len(given))
    columns["part"] = columns["flags"] = 0
    cells: list[list[int]] = []
    probes: list[list[int]] = []
    for i, values in enumerate(given):
        row = {"vehicle_id": 1, "at_s": i * every_s, "cells": CELLS, "probes": [250]} | HEALTHY | values
        cells.append(row.pop("cells"))
        probes.append(row.pop("probes"))
        columns["observed_at"][i] = round(row.pop("at_s") * 1e6)
        for name, value in row.items():
            columns[name][i] = value
    lists = {column.name: empty_ragged(column.item, len(given)) for column in REPORT_LISTS}
    lists["cells_mv"] = ragged(cells, CELL)
    lists["probes_ddegc"] = ragged(probes, PROBE)
    return Rows(columns, lists)


def ragged(lists: list[list[int]], item: Any) -> Ragged:
    offsets = np.cumsum([0] + [len(one) for one in lists]).astype(np.int64)
    return Ragged(np.array([v for one in lists for v in one], item), offsets)

"""What does it cost to turn columns into binary COPY bytes? Rows of 96 cells and 24 probes, one core.

Prints µs of CPU time per row, median (range) of 15 runs of 10,000 rows, and the ratio to one uniform batch.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from telltale import records
from telltale.store import copy

ROWS, RUNS = 10_000, 15


def rows(null_share: float) -> records.Rows:
    """Reports with every section but engine and fuel; values null at random by `null_share`."""
    random = np.random.default_rng(1)
    columns = np.zeros(ROWS, records.REPORT)
    for column in records.REPORT_COLUMNS:
        columns[column.name] = random.integers(0, 100, ROWS)
    columns["observed_at"] = columns["received_at"] = 1_700_000_000_000_000 + np.arange(ROWS) * 1_000_000
    for column in records.REPORT_SCALARS:
        absent = column.name.startswith(("engine", "fuel")) | (random.random(ROWS) < null_share)
        columns[column.name][absent] = column.null
    lists = {item.name: records.empty_ragged(item.item, ROWS) for item in records.REPORT_LISTS}
    cells = random.integers(3000, 4000, ROWS * 96).astype(records.CELL)
    probes = random.integers(0, 400, ROWS * 24).astype(records.PROBE)
    lists["cells_mv"] = records.Ragged(cells, np.arange(ROWS + 1) * 96)
    lists["probes_ddegc"] = records.Ragged(probes, np.arange(ROWS + 1) * 24)
    for name, item in (("subsystems", records.SUBSYSTEM), ("motors", records.MOTOR)):
        lists[name] = records.Ragged(np.zeros(ROWS, item), np.arange(ROWS + 1))
    return records.Rows(columns, lists)


def us_per_row(batch: records.Rows, *, keep_order: bool) -> list[float]:
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        copy.pack(copy.REPORT_LAYOUT, batch, keep_order=keep_order)
        times.append((time.process_time() - start) / ROWS * 1e6)
    return times


def main() -> None:
    cases = (
        ("uniform: one layout", 0.0, False),
        ("every row its own nulls", 0.05, False),
        ("the same, in order", 0.05, True),
    )
    print("| batch | µs a row | ratio |\n|---|---|---|")
    first = 0.0
    for name, null_share, keep_order in cases:
        times = us_per_row(rows(null_share), keep_order=keep_order)
        middle = statistics.median(times)
        first = first or middle
        print(f"| {name} | {middle:.2f} ({min(times):.2f}–{max(times):.2f}) | {middle / first:.1f} |")


if __name__ == "__main__":
    main()

"""How often do the safety rules speak on recorded cars, and what does a healthy row cost?

Run: TELLTALE_TEST_DATA=<folder of recordings> python benchmarks/safety.py
Episodes are alerts raised; the recordings carry no fault labels, so each one has to be explained by hand.
Three cars and a few observed days cannot prove a low rate: the interval says how little they do prove.
A batch is 1,000 reports, as ingest would see them, and state is written and read back between batches.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np

from telltale.recordings import load_recording
from telltale.records import REPORT_LISTS, Ragged, Rows
from telltale.rules import RULES, PreviousRows, SafetyAlert, VehicleState, judge

BATCH = 1_000
DAY_US = 86_400_000_000


def judge_recording(rows: Rows) -> list[SafetyAlert]:
    """Return every alert of one car, judged batch by batch."""
    rows.columns["vehicle_id"] = 1
    previous, stored = PreviousRows(), {}
    alerts: list[SafetyAlert] = []
    for start in range(0, len(rows), BATCH):
        batch = rows.take(np.arange(start, min(start + BATCH, len(rows))))
        states = {vehicle: VehicleState.from_json(text) for vehicle, text in stored.items()}
        verdict = judge(batch, states, previous=previous)
        previous.remember(verdict.newest)
        stored = {v: t for v, t in stored.items() if v not in verdict.gone}
        stored |= {vehicle: state.to_json() for vehicle, state in verdict.states.items()}
        alerts += verdict.alerts
    return alerts


def observed_hours(rows: Rows) -> float:
    """Return the hours within reach of a report: gaps over a minute count as nothing."""
    steps = np.diff(np.sort(rows.columns["observed_at"])) / 1e6
    return float(steps[steps <= 60].sum() / 3600)


def poisson_interval(count: int, exposure: float) -> tuple[float, float]:
    """Return the exact two-sided 95 % interval (Garwood) of a rate."""

    def mean_where(seen: int, share: float) -> float:  # P(X <= seen) = share
        low, high = 0.0, 10.0 * (seen + 5)
        for _ in range(100):
            middle = (low + high) / 2
            below = sum(math.exp(-middle) * middle**k / math.factorial(k) for k in range(seen + 1))
            low, high = (middle, high) if below > share else (low, middle)
        return low

    return (mean_where(count - 1, 0.975) if count else 0.0) / exposure, mean_where(count, 0.025) / exposure


def report_car(path: Path) -> tuple[int, float, Counter[str]]:
    """Print one car's episodes, and return its days with data, its observed days and its episodes."""
    name, rows = load_recording(path)
    alerts = judge_recording(rows)
    times = rows.columns["observed_at"]
    days = len(np.unique((times + 8 * 3_600_000_000) // DAY_US))
    raised = [alert for alert in alerts if alert.kind == "raised"]
    print(
        f"{name}: {len(rows):,} reports, {days} vehicle-days with data, {observed_hours(rows):.0f} h observed"
    )
    for alert in alerts:
        at = np.datetime64(alert.happened_at, "us").astype("M8[s]")
        shown = {k: v for k, v in alert.evidence.items() if not k.startswith(("window", "since"))}
        print(f"  {at}Z {alert.kind:9} {alert.detector}/{alert.component} {alert.severity} {shown}")
    return days, observed_hours(rows) / 24, Counter(alert.detector for alert in raised)


def cost_per_healthy_row(path: Path, rows_per_batch: int = 10_000, vehicles: int = 1_000) -> float:
    """Return microseconds per row for a batch of many healthy vehicles, best of twenty."""
    _, rows = load_recording(path)
    rows = rows.take(np.arange(rows_per_batch))
    rows.columns["vehicle_id"] = np.arange(rows_per_batch) % vehicles
    lists = {c.name: rows.lists[c.name] for c in REPORT_LISTS}
    lists["cells_mv"] = Ragged(np.full(rows_per_batch * 96, 3700, ">u2"), np.arange(rows_per_batch + 1) * 96)
    rows = Rows(rows.columns, lists)
    rows.columns["alarm_level"] = rows.columns["alarm_flags"] = 0
    rows.columns["dcdc_state"] = rows.columns["vehicle_status"] = rows.columns["run_mode"] = 1
    previous = PreviousRows()
    best = np.inf
    for _ in range(20):
        began = time.perf_counter()
        verdict = judge(rows, {}, previous=previous)
        best = min(best, time.perf_counter() - began)
        assert not verdict.states
    return best / rows_per_batch * 1e6


def main() -> None:
    """Print episodes by car and rule, and the cost of a healthy row."""
    folder = os.environ.get("TELLTALE_TEST_DATA")
    if not folder:
        print("safety: skipped, TELLTALE_TEST_DATA names no folder of recordings")
        return
    cars = Path(folder) / "ev_cell_faults"
    found = [report_car(path) for path in sorted(cars.glob("*.parquet"))]
    days, observed = sum(car[0] for car in found), sum(car[1] for car in found)
    episodes = sum((car[2] for car in found), Counter[str]())
    print(
        f"\nepisodes over {days} vehicle-days with data ({observed:.1f} days observed); exact 95 % intervals"
    )
    print(f"  {'rule':18} {'episodes':>8} {'per vehicle-day':>16} {'interval':>18} {'per observed day':>17}")
    for rule in RULES:
        count = episodes[rule.detector]
        low, high = poisson_interval(count, days)
        between, rate = f"{low:.4f}-{high:.4f}", count / days
        print(f"  {rule.detector:18} {count:8} {rate:16.4f} {between:>18} {count / observed:17.3f}")
    print("\ncost of a healthy row in a batch of 10,000 (96 cells, 45 probes)")
    for vehicles in (1, 1_000, 10_000):
        cost = cost_per_healthy_row(cars / "car4.parquet", vehicles=vehicles)
        print(f"  {vehicles:6,} vehicles: {cost:.3f} µs")


if __name__ == "__main__":
    main()

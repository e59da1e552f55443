"""Does cell_fault name a leaking cell in real recordings, when, and how often does it raise work for nothing?

In each recorded car of two weeks or more, 20 cells drawn from a fixed seed are made to leak, one at a time: a
constant leak that stands 40 mV below the pack at rest on day 14, from the recording's first day. The model in
`models/` judges them as the worker would; figures of models that never saw the car stand in its card.
Run: python -m benchmarks.cell_fault [--data PATH]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from telltale import boosting
from telltale.features import FEATURES_VERSION, RANKED_BY
from telltale.fold.frames import DAY_US, day_of
from telltale.recordings import load_recording
from telltale.records import Rows
from telltale.simulate import inject_leak_deviation
from telltale.train.evaluate import Judged, judge_vehicle
from telltale.train.histories import recordings_in
from telltale.train.intervals import poisson, share

SEED, CELLS, TARGET_MV, TARGET_DAY = 2025, 20, 40.0, 14.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("TELLTALE_TEST_DATA"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("no recordings: give --data PATH or set TELLTALE_TEST_DATA")
    model = boosting.load(
        options.models / "cell_fault", features=RANKED_BY, features_version=FEATURES_VERSION
    )
    print(f"cell_fault {model.card.version}, threshold {model.card.threshold}")
    cars = [load_recording(path) for path in recordings_in(options.data)]
    untouched([judge_vehicle(name, rows, model) for name, rows in cars])
    for name, rows in cars:
        if np.ptp(rows.columns["observed_at"]) >= TARGET_DAY * DAY_US:
            leaking(name, rows, model)


def untouched(cars: Sequence[Judged]) -> None:
    """Print what the recordings give as they are."""
    print("\nuntouched recordings (no fault labels: every episode counts as false)")
    print(f"{'car':8} {'days':>5} {'with rest':>9} {'scored':>6} {'above watch':>11}  watched")
    for car in cars:
        above = [e for e in car.episodes if e.severity != "watch"]
        watched = ", ".join(
            f"cell {e.cell} ({e.newest.values['deviation_mv']:+.0f} mV)"
            for e in car.episodes
            if e.severity == "watch"
        )
        print(
            f"{car.vehicle:8} {car.days:5} {len(car.verdicts):9} {car.scored:6} {len(above):11}  "
            f"{watched or '-'}"
        )
    false = sum(e.severity != "watch" for car in cars for e in car.episodes)
    days, scored = sum(car.days for car in cars), sum(car.scored for car in cars)
    low, high = poisson(false)
    print(
        f"false episodes: {false} in {days} vehicle-days with reports ({scored} scored): "
        f"exact 95 % bounds {1000 * low / days:.1f} to {1000 * high / days:.1f} per 1,000 vehicle-days"
    )
    print(f"so few days cannot prove a low rate: one in {days / high:.0f} vehicle-days is not ruled out")


def leaking(name: str, rows: Rows, model: boosting.Model) -> None:
    """Print how the leaks put into one car are found."""
    start_us = int(rows.columns["observed_at"].min())
    cells = int(np.median(rows.lists["cells_mv"].lengths))
    chosen = np.random.default_rng([SEED, *name.encode()]).choice(cells, CELLS, replace=False) + 1
    days: list[int] = []
    others = 0
    print(
        f"\n{name}: {TARGET_MV:.0f} mV at rest by day {TARGET_DAY:.0f}, {CELLS} of {cells} cells, seed {SEED}"
    )
    for cell in chosen.tolist():
        leak = inject_leak_deviation(rows, cell, TARGET_MV, TARGET_DAY, start_us)
        work = [e for e in judge_vehicle(name, leak, model).episodes if e.severity != "watch"]
        found = [e for e in work if e.cell == cell]
        others += len(work) - len(found)
        if not found:
            print(f"  cell {cell:3}: not found")
            continue
        day, severity = next(step for step in found[0].steps if step[1] != "watch")
        days.append(day - day_of(start_us))
        print(
            f"  cell {cell:3}: day {days[-1]:2} {severity:9} -> {found[0].severity}, "
            f"then {found[0].at_opening.values['deviation_mv']:+.1f} mV from the median"
        )
    exact = share(len(days), CELLS)
    print(
        f"  found {len(days)} of {CELLS} (exact 95 % {exact['low']:.2f} to {exact['high']:.2f}), "
        f"{sum(day <= TARGET_DAY for day in days)} by day {TARGET_DAY:.0f}; "
        f"day median {median(days) if days else float('nan')}, latest {max(days, default=-1)}; "
        f"episodes above watch on other cells: {others}"
    )


if __name__ == "__main__":
    main()

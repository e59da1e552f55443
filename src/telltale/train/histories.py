"""The vehicles a model is trained and judged on: recorded and simulated, as they were or with a fault put in.

A history is the rest points of one vehicle over weeks. Faults are physics: a leak takes charge from one cell
(telltale.simulate.inject); what must not raise work is put in as well: a sensor that reads a cell low, and a
cell that holds less than its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from telltale.errors import SettingsError
from telltale.features import Floats, RestPoints, rest_points
from telltale.fold.days import day_summaries, hour_segments
from telltale.fold.frames import DAY_OFFSET_US, DAY_US, day_of, frames_of
from telltale.recordings import load_recording
from telltale.records import CELL_ABNORMAL, Ragged, Rows
from telltale.simulate import Fault, FaultKind, FleetSpec, Leak, inject_leak, simulate
from telltale.simulate.chemistry import CHEMISTRIES, NCM, Chemistry
from telltale.simulate.fleet import draw_fleet
from telltale.simulate.inject import leak_for_deviation, sag_v

RECORDED_AH: Final = 150.0  # the recordings do not say; only leak current scales with it, not the deviation
SIMULATION_START_US: Final = 1_704_038_400_000_000  # 2024-01-01 in China


@dataclass(frozen=True, slots=True)
class History:
    """One vehicle's weeks of rest, and what is wrong with it."""

    name: str
    vehicle: str  # histories of one vehicle never stand on both sides of a split
    recorded: bool
    kind: str  # clean | leak | offset | weak
    points: RestPoints
    cell: int = 0
    leak: Leak | None = None
    capacity_ah: float = RECORDED_AH
    chemistry: Chemistry = NCM

    def sag_mv(self, day: int) -> float:
        """Return how far the leaking cell stands below its neighbours at rest at the end of a day."""
        today = self.points.day == day
        if self.leak is None or not today.any():
            return 0.0
        at_us = np.full(int(today.sum()), (day + 1) * DAY_US - DAY_OFFSET_US)
        lag = self.leak.drawn_ah(at_us) / self.capacity_ah
        return float(1000 * sag_v(self.points.soc_pct[today], lag, self.chemistry).mean())


def recordings_in(path: Path) -> list[Path]:
    """Return the recorded cars under a file or folder, in order; a folder may hold `ev_cell_faults/`."""
    if path.is_file():
        return [path]
    inside = path / "ev_cell_faults"
    found = sorted((inside if inside.is_dir() else path).glob("*.parquet"))
    if not found:
        raise SettingsError(
            f"{path}: expected a recorded car (Parquet) or a folder of them, got none; "
            "see `telltale.recordings` for the format"
        )
    return found


def points_of(rows: Rows) -> RestPoints:
    """Return the rest points of one vehicle's rows, folded as the worker folds them."""
    hours = hour_segments(frames_of(rows))
    days = {(hour + 8) // 24 for hour in hours}
    return rest_points(day_summaries(hours, days))


def recorded(paths: Sequence[Path], seed: int, *, leaks: int, confounders: int) -> Iterator[History]:
    """Yield each car as it is, with leaks put in, and with constant offsets and weak cells put in."""
    for path in paths:
        name, rows = load_recording(path)
        rng = np.random.default_rng([seed, *name.encode()])
        yield History(name, name, True, "clean", points_of(rows))
        days = (int(rows.columns["observed_at"].max()) - int(rows.columns["observed_at"].min())) / DAY_US
        if days < 10:
            continue  # too short for a fault to show
        for number in range(leaks):
            yield _with_leak(f"{name}/leak{number}", name, rows, days, rng)
        for number in range(confounders):
            yield _with_offset(f"{name}/offset{number}", name, rows, rng)
            yield _with_weak_cell(f"{name}/weak{number}", name, rows, rng)


def _cells(rows: Rows) -> int:
    return int(np.median(rows.lists["cells_mv"].lengths))


def _with_leak(name: str, vehicle: str, rows: Rows, days: float, rng: np.random.Generator) -> History:
    cell = int(rng.integers(1, _cells(rows) + 1))
    start_us = int(rows.columns["observed_at"].min()) + round(rng.uniform(0, max(days - 14, 1)) * DAY_US)
    target_mv = float(np.exp(rng.uniform(np.log(10), np.log(120))))
    leak = leak_for_deviation(rows, target_mv, 14.0, start_us, capacity_ah=RECORDED_AH)
    leaking = inject_leak(rows, cell, leak, capacity_ah=RECORDED_AH)
    return History(name, vehicle, True, "leak", points_of(leaking), cell, leak)


def _with_offset(name: str, vehicle: str, rows: Rows, rng: np.random.Generator) -> History:
    cell = int(rng.integers(1, _cells(rows) + 1))
    offset = np.full(len(rows), rng.uniform(10, 60))
    return History(name, vehicle, True, "offset", points_of(lowered(rows, cell, offset)), cell)


def _with_weak_cell(name: str, vehicle: str, rows: Rows, rng: np.random.Generator) -> History:
    """A cell of less capacity, full when the others are: it runs ahead of them on the way down."""
    cell = int(rng.integers(1, _cells(rows) + 1))
    soc = rows.columns["soc_pct"]
    lag = rng.uniform(0.01, 0.06) * (1 - np.nan_to_num(soc / 100, nan=1.0))
    return History(
        name, vehicle, True, "weak", points_of(lowered(rows, cell, 1000 * sag_v(soc, lag, NCM))), cell
    )


def lowered(rows: Rows, cell: int, by_mv: Floats) -> Rows:
    """Return rows in which this cell (from 1) reads lower; nothing else changes, wire markers stay."""
    cells = rows.lists["cells_mv"]
    has = cells.lengths >= cell
    at = cells.offsets[:-1][has] + cell - 1
    values = cells.values.copy()
    before = values[at].astype(np.int64)
    after = np.maximum(before - np.rint(by_mv[has]).astype(np.int64), 0)
    values[at] = np.where(before < CELL_ABNORMAL, after, before)
    return Rows(rows.columns, rows.lists | {"cells_mv": Ragged(values, cells.offsets)})


def simulated(seed: int, vehicles: int, days: float) -> Iterator[History]:
    """Yield simulated vehicles: of every four one healthy, one leaking, one weak cell, one lying sensor."""
    spec = _fleet_spec(seed, vehicles, days)
    rows = _rows_by_vehicle(spec)
    fleet = draw_fleet(spec)
    faults = {fault.vehicle: fault for fault in spec.faults}
    kinds = {FaultKind.LEAK: "leak", FaultKind.WEAK: "weak", FaultKind.CELL_OFFSET: "offset"}
    for vehicle in sorted(rows):
        fault, variant = faults.get(vehicle), spec.variants[fleet.variant[vehicle]]
        name, points = f"sim{vehicle}", points_of(rows[vehicle])
        if fault is None:
            yield History(name, name, False, "clean", points)
            continue
        is_leak = fault.kind is FaultKind.LEAK
        leak = Leak(fault.start_us, fault.size, fault.rate_per_day) if is_leak else None
        chemistry = CHEMISTRIES[variant.chemistry]
        kind = kinds[fault.kind]
        yield History(name, name, False, kind, points, fault.cell, leak, variant.capacity_ah, chemistry)


def _fleet_spec(seed: int, vehicles: int, days: float) -> FleetSpec:
    rng = np.random.default_rng([seed, 77])
    faults = []
    for vehicle in range(vehicles):
        start_us = SIMULATION_START_US + round(rng.uniform(0, days - 12) * DAY_US)
        cell = int(rng.integers(1, 85))
        sizes = {
            FaultKind.LEAK: rng.uniform(8, 60),
            FaultKind.WEAK: rng.uniform(0.01, 0.05),
            FaultKind.CELL_OFFSET: rng.uniform(5, 40),
        }
        kind = (None, *sizes)[vehicle % 4]
        if kind is not None:
            faults.append(Fault(kind, vehicle, start_us, float(sizes[kind]), cell=cell))
    return FleetSpec(seed, vehicles, SIMULATION_START_US, days, 60, taxi_share=0.35, faults=tuple(faults))


def _rows_by_vehicle(spec: FleetSpec) -> dict[int, Rows]:
    parts: dict[int, list[Rows]] = {}
    for chunk in simulate(spec):
        for vehicle in np.unique(chunk.vehicle):
            kept = chunk.rows.take(np.flatnonzero(chunk.vehicle == vehicle))
            parts.setdefault(int(vehicle), []).append(_slim(kept))
    return {vehicle: _joined(rows) for vehicle, rows in parts.items()}


def _slim(rows: Rows) -> Rows:
    return Rows(rows.columns, {"cells_mv": rows.lists["cells_mv"]})


def _joined(parts: Sequence[Rows]) -> Rows:
    values = [part.lists["cells_mv"].values for part in parts]
    lengths = np.concatenate([part.lists["cells_mv"].lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns = np.concatenate([part.columns for part in parts])
    return Rows(columns, {"cells_mv": Ragged(np.concatenate(values), offsets)})


def leak_day(history: History) -> int:
    """Return the vehicle day on which a history's leak begins."""
    return day_of(history.leak.start_us) if history.leak is not None else 0

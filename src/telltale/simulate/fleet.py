"""The vehicles of a fleet: who they are, and how each cell differs from its neighbours.

Drawn once from the seed. Cells of one production lot share a mean; around it, capacity scatters by 0.5 %,
resistance by 3 % and the state of charge at the top of charge by 0.15 %: the order published for commercial
cells (Rumpf, Naumann, Jossen, J. Energy Storage 14 (2017) 224), somewhat wider for groups in a used pack.
Weak cells and lying cell sensors are part of a vehicle from its first day, whatever their fault's start.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telltale.simulate.chemistry import CHEMISTRIES, Chemistry
from telltale.simulate.spec import US, FaultKind, FleetSpec, Variant
from telltale.simulate.vin import synthetic_vin

CAPACITY_SPREAD, RESISTANCE_SPREAD, TOP_SPREAD = 0.005, 0.03, 0.0015
LOT_CAPACITY_SPREAD, LOT_RESISTANCE_SPREAD = 0.004, 0.04
NUMBERS = (
    "cells",
    "capacity_ah",
    "cell_mohm",
    "cell_rc_mohm",
    "heat_capacity_kj_k",
    "vehicle_kg",
    "drag_area_m2",
)
TAXI_KM_PER_YEAR, PRIVATE_KM_PER_YEAR = 90_000, 14_000


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of all vehicles of one variant; arrays are (vehicle, cell) unless told otherwise."""

    variant: Variant
    chemistry: Chemistry
    members: NDArray[np.int64]  # which vehicles of the fleet
    capacity: NDArray[np.float32]  # relative to the variant's
    ohmic: NDArray[np.float32]  # resistance relative to the variant's
    top: NDArray[np.float32]  # SOC above the pack's mean at the top of charge
    probe_offset_k: NDArray[np.float32]  # (vehicle, probe)
    cell_offset_v: NDArray[np.float32]  # constant error of the sensor


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who the vehicles are: one entry per vehicle in every array."""

    spec: FleetSpec
    vin: NDArray[np.bytes_]
    variant: NDArray[np.int64]
    region: NDArray[np.int64]
    dealer: NDArray[np.int64]
    lot: NDArray[np.int64]
    taxi: NDArray[np.bool_]
    age_years: NDArray[np.float64]  # at the start of the simulation
    odometer_km: NDArray[np.float64]
    cells: tuple[Cells, ...]  # one per variant
    numbers: dict[str, NDArray[np.float64]]  # attribute of the variant, for every vehicle

    def __len__(self) -> int:
        return len(self.vin)

    def of_variant(self, name: str) -> NDArray[np.float64]:
        """Return a numeric attribute of each vehicle's variant."""
        return self.numbers[name]


def draw_fleet(spec: FleetSpec) -> Fleet:
    """Return the fleet of this spec; the same seed draws the same fleet."""
    rng = np.random.default_rng([spec.seed, 1])
    count = spec.vehicles
    share = np.array([v.share for v in spec.variants])
    variant = rng.choice(len(share), count, p=share / share.sum())
    taxi = rng.random(count) < spec.taxi_share
    age = rng.uniform(0.3, spec.oldest_years, count)
    yearly = np.where(taxi, TAXI_KM_PER_YEAR, PRIVATE_KM_PER_YEAR) * rng.lognormal(0, 0.3, count)
    lot = rng.integers(0, spec.lots, count)
    return Fleet(
        spec,
        np.array([_vin(spec, i, age[i]) for i in range(count)], "S17"),
        variant,
        rng.integers(0, len(spec.regions), count),
        rng.integers(0, spec.dealers, count),
        lot,
        taxi,
        age,
        np.minimum(age * yearly, 600_000.0),
        tuple(_draw_cells(spec, v, np.nonzero(variant == v)[0], lot) for v in range(len(spec.variants))),
        {name: np.array([getattr(v, name) for v in spec.variants], np.float64)[variant] for name in NUMBERS},
    )


def _vin(spec: FleetSpec, index: int, age_years: float) -> str:
    return synthetic_vin((spec.seed * 7919 + index) % 1_000_000, year=_built(spec, age_years).year)


def _built(spec: FleetSpec, age_years: float) -> date:
    start = datetime.fromtimestamp(spec.start_us / US, UTC).date()
    return start - timedelta(days=round(age_years * 365.25) + 45)


def _draw_cells(spec: FleetSpec, index: int, members: NDArray[np.int64], lot: NDArray[np.int64]) -> Cells:
    rng = np.random.default_rng([spec.seed, 2, index])
    variant = spec.variants[index]
    shape = (len(members), variant.cells)
    lot_capacity = rng.normal(0, LOT_CAPACITY_SPREAD, spec.lots)[lot[members], None]
    lot_resistance = rng.normal(0, LOT_RESISTANCE_SPREAD, spec.lots)[lot[members], None]
    capacity = 1 + lot_capacity + rng.normal(0, CAPACITY_SPREAD, shape)
    ohmic = 1 + lot_resistance + rng.normal(0, RESISTANCE_SPREAD, shape)
    offset = np.zeros(shape)
    for vehicle, fault in _faults_of(spec, members):
        if fault.kind is FaultKind.WEAK:
            capacity[vehicle, fault.cell - 1] -= fault.size
        elif fault.kind is FaultKind.CELL_OFFSET:
            offset[vehicle, fault.cell - 1] -= fault.size / 1000
    return Cells(
        variant,
        CHEMISTRIES[variant.chemistry],
        members,
        capacity.astype(np.float32),
        ohmic.astype(np.float32),
        rng.normal(0, TOP_SPREAD, shape).astype(np.float32),
        rng.normal(0, 0.4, (len(members), variant.probes)).astype(np.float32),
        offset.astype(np.float32),
    )


def _faults_of(spec: FleetSpec, members: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
    place = {int(vehicle): row for row, vehicle in enumerate(members)}
    for fault in spec.faults:
        if fault.vehicle in place:
            yield place[fault.vehicle], fault


def attributes(fleet: Fleet) -> list[dict[str, str]]:
    """Return one row per vehicle as `telltale vehicles import` takes it."""
    rows = []
    for i in range(len(fleet)):
        variant, built = fleet.spec.variants[fleet.variant[i]], _built(fleet.spec, fleet.age_years[i])
        rows.append(
            {
                "vin": fleet.vin[i].decode(),
                "variant": variant.name,
                "chemistry": variant.chemistry,
                "pack_design": variant.pack_design,
                "nominal_capacity_ah": f"{variant.capacity_ah:g}",
                "build_date": built.isoformat(),
                "plant": f"T{1 + fleet.lot[i] % 2}",
                "dealer": f"D{1 + fleet.dealer[i]:02d}",
                "region": fleet.spec.regions[fleet.region[i]].name,
                "in_service_date": (built + timedelta(days=45)).isoformat(),
                "software_version": f"BMS 3.{fleet.lot[i] % 4}",
                "valid_from": built.isoformat(),
            }
        )
    return rows


def write_attributes(fleet: Fleet, path: Path) -> None:
    """Write the vehicles' attributes as CSV for `telltale vehicles import`."""
    rows = attributes(fleet)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def truth(fleet: Fleet) -> list[dict[str, Any]]:
    """Return what is really wrong with which vehicle: the injected faults, with their VINs and lots."""
    return [
        asdict(fault)
        | {"vin": fleet.vin[fault.vehicle].decode(), "lot": f"LOT{fleet.lot[fault.vehicle]:02d}"}
        for fault in fleet.spec.faults
    ]

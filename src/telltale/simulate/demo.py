"""The fleet of `telltale dev --demo`: two weeks of history in which some things go wrong, then live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from telltale.simulate.fleet import Fleet, attributes, draw_fleet, truth
from telltale.simulate.run import SimulatedFleet
from telltale.simulate.spec import COMMON_TROUBLE, DAY_S, PACK_WIDE, US, Fault, FaultKind, FleetSpec
from telltale.simulate.transit import Outgoing, Transit, start_transit

HISTORY_DAYS, HISTORY_INTERVAL_S = 15.0, 180
BAD_LOT = 3
FIRST_FIRE_AFTER_S = 15


@dataclass(slots=True)
class DemoFleet:
    """A fleet with a past and a present; the same seed and `now_us` give the same past."""

    simulated: SimulatedFleet
    transit: Transit

    @property
    def attributes(self) -> list[dict[str, str]]:
        """Return the vehicles as rows of the import CSV."""
        return attributes(self.simulated.fleet)

    @property
    def truth(self) -> list[dict[str, Any]]:
        """Return the injected faults."""
        return truth(self.simulated.fleet)

    @property
    def start_us(self) -> int:
        """Return when the past begins."""
        return self.simulated.fleet.spec.start_us

    @property
    def featured_dealer(self) -> str:
        """Return the dealer who looks after the vehicle that will catch fire."""
        fleet = self.simulated.fleet
        return self.attributes[_fire(fleet, 0).vehicle]["dealer"]

    def history(self) -> Iterator[Outgoing]:
        """Yield the frames of the past, some 550 thousand for 200 vehicles."""
        for chunk in self.simulated.history():
            yield self.transit.carry(chunk)
        yield self.transit.drain()

    def live(self, now_us: int, every_s: float = 5.0) -> Outgoing:
        """Return the frames due now: every vehicle reports once per `every_s`; call it once a second.

        The first call lives through what was not read of the past, which takes seconds, and lights a thermal
        runaway in one vehicle, to begin 15 s later.
        """
        self.simulated.skip_history()
        if not any(fault.kind is FaultKind.THERMAL for fault in self.simulated.fleet.spec.faults):
            self.simulated.add_fault(_fire(self.simulated.fleet, now_us + FIRST_FIRE_AFTER_S * US))
        out = Outgoing()
        for chunk in self.simulated.report(now_us, every_s):
            carried = self.transit.carry(chunk)
            out.live += carried.live
            out.backlog += carried.backlog
        return out


def demo_fleet(
    seed: int,
    now_us: int,
    *,
    vehicles: int = 200,
    history_days: float = HISTORY_DAYS,
    interval_s: int = HISTORY_INTERVAL_S,
) -> DemoFleet:
    """Return the demo's fleet with a history that ends now (µs).

    Reports come every `interval_s`, in the last day every 30 s: rules that ask how long something lasts take
    a silence of more than a minute for no observation. Its faults: four leaking cells of one production lot,
    rising and loose resistance, insulation lost two days ago, lost cooling; and what must not raise work:
    weak, stable cells, offsets of cell sensors, an insulation sensor that is stuck. Networks are as bad as
    `COMMON_TROUBLE`.
    """
    start_us = now_us // US * US - round(history_days * DAY_S) * US
    spec = FleetSpec(
        seed,
        vehicles,
        start_us,
        history_days,
        interval_s,
        taxi_share=0.35,
        trouble=COMMON_TROUBLE,
        closing_days=min(1.0, history_days),
    )
    faults = _demo_faults(draw_fleet(spec))
    fleet = draw_fleet(replace(spec, faults=faults))
    return DemoFleet(SimulatedFleet(fleet), start_transit(spec.trouble, seed))


def _demo_faults(fleet: Fleet) -> tuple[Fault, ...]:
    spec = fleet.spec
    ncm = np.array([v.chemistry == "NCM" for v in spec.variants])[fleet.variant]
    from_bad_lot = np.nonzero(ncm & (fleet.lot == BAD_LOT % spec.lots))[0].tolist()[:4]
    rest = iter([v for v in np.nonzero(ncm)[0].tolist() if v not in from_bad_lot])
    rng = np.random.default_rng([spec.seed, 9])
    day = DAY_S * US
    early, late = spec.start_us + day // 2, spec.end_us - 4 * day
    faults = [_fault(FaultKind.LEAK, v, early, rng, size=rng.uniform(28, 45)) for v in from_bad_lot]
    for kind, start, size, rate in (
        (FaultKind.RESISTANCE, early, 0.0, 0.12),
        (FaultKind.LOOSE, early, 1.5, 0.0),
        (FaultKind.INSULATION, late, 12.0, 3.0),
        (FaultKind.COOLING, early, 1.0, 0.0),
        (FaultKind.WEAK, early, 0.03, 0.0),
        (FaultKind.WEAK, early, 0.04, 0.0),
        (FaultKind.CELL_OFFSET, early, 12.0, 0.0),
        (FaultKind.CELL_OFFSET, early, 25.0, 0.0),
        (FaultKind.INSULATION_STUCK, spec.start_us, 5.0, 0.0),
    ):
        vehicle = next(rest, None)
        if vehicle is not None:
            faults.append(_fault(kind, vehicle, start, rng, size=size, rate=rate))
    return tuple(faults)


def _fault(
    kind: FaultKind, vehicle: int, start_us: int, rng: np.random.Generator, *, size: float, rate: float = 0.0
) -> Fault:
    return Fault(
        kind,
        vehicle,
        start_us,
        round(size, 1) if size > 1 else size,
        rate,
        0 if kind in PACK_WIDE else int(rng.integers(5, 85)),
    )


def _fire(fleet: Fleet, start_us: int) -> Fault:
    """Return a runaway in a vehicle that has no other fault."""
    faulty = {fault.vehicle for fault in fleet.spec.faults}
    healthy = [vehicle for vehicle in range(len(fleet)) if vehicle not in faulty]
    vehicle = healthy[fleet.spec.seed % len(healthy)] if healthy else 0
    return Fault(FaultKind.THERMAL, vehicle, start_us, cell=40)

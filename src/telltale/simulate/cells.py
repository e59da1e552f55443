"""From the state of packs to the true voltage of every cell and the temperature at every probe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from telltale.simulate.chemistry import ocv_v, resistance_factor
from telltale.simulate.fleet import Cells
from telltale.simulate.inject import DAY_US, Leak
from telltale.simulate.packs import DRIVING
from telltale.simulate.spec import US, Fault, FaultKind

Volts = NDArray[np.float32]

BALANCING_MA = 4.0  # what passive balancing makes up for on average; a leak beyond it pulls the cell down
LOOSE_SHARE = 0.2  # of reports while driving in which a loose connection shows
PROBE_NOISE_K, PROBE_GRADIENT = 0.25, 0.12
RUNAWAY_VOLTAGE_S, RUNAWAY_NEIGHBOUR_S = 8.0, 25.0  # decay of the cell; delay from cell to cell
RUNAWAY_K_PER_S, RUNAWAY_PEAK_K, RUNAWAY_PACK_K_PER_S = 6.0, 450.0, 0.25
RUNAWAY_ENDS_S = 240.0  # then the telematics unit is gone too


@dataclass(frozen=True, slots=True)
class Moment:
    """Reports of the vehicles of one variant: state, time and which of `cells.members` each row is of."""

    cells: Cells
    state: NDArray[np.void]  # packs.TRACE per row
    at_us: NDArray[np.int64]
    member: NDArray[np.int64]

    def of(self, faults: tuple[Fault, ...]) -> Iterator[tuple[Fault, NDArray[np.int64], NDArray[np.float64]]]:
        """Yield each begun fault of these vehicles with its rows and the seconds since it began."""
        for fault in faults:
            member = np.searchsorted(self.cells.members, fault.vehicle)
            if member < len(self.cells.members) and self.cells.members[member] == fault.vehicle:
                rows = np.nonzero((self.member == member) & (self.at_us >= fault.start_us))[0]
                if len(rows):
                    yield fault, rows, (self.at_us[rows] - fault.start_us) / US


def cell_volts(moment: Moment, faults: tuple[Fault, ...], rng: np.random.Generator) -> Volts:
    """Return the voltage of every cell, (row, cell) in V: curve at the cell's own charge, plus I times R."""
    cells, state = moment.cells, moment.state
    soc = (state["soc"] - 1).astype(np.float32)[:, None] / cells.capacity[moment.member]
    soc += 1 + cells.top[moment.member]
    ohms = cells.ohmic[moment.member]
    _fall_behind(moment, faults, soc)
    _resist(moment, faults, ohms, rng)
    volts = ocv_v(cells.chemistry, soc)
    ohms *= _overpotential_v(moment)[:, None]
    volts += ohms
    _burn(moment, faults, volts)
    return volts


def _overpotential_v(moment: Moment) -> Volts:
    """Return what current adds to a mean cell: ohmic at once, the rest through one RC element."""
    state, variant = moment.state, moment.cells.variant
    drop = state["current_a"] * variant.cell_mohm + state["slow_current_a"] * variant.cell_rc_mohm
    factor = state["resistance"] * resistance_factor(state["pack_degc"].astype(np.float64)) / 1000
    return (drop * factor).astype(np.float32)


def _fall_behind(moment: Moment, faults: tuple[Fault, ...], soc: Volts) -> None:
    for fault, rows, _ in moment.of(faults):
        if fault.kind is FaultKind.LEAK:
            drawn = Leak(fault.start_us, fault.size, fault.rate_per_day).drawn_ah(moment.at_us[rows])
            made_up = Leak(fault.start_us, BALANCING_MA).drawn_ah(moment.at_us[rows])
            capacity_ah = moment.cells.variant.capacity_ah * moment.state["capacity"][rows]
            soc[rows, fault.cell - 1] -= np.maximum(drawn - made_up, 0.0) / capacity_ah


def _resist(moment: Moment, faults: tuple[Fault, ...], ohms: Volts, rng: np.random.Generator) -> None:
    for fault, rows, seconds in moment.of(faults):
        if fault.kind is FaultKind.RESISTANCE:
            ohms[rows, fault.cell - 1] += fault.size + fault.rate_per_day * seconds / (DAY_US / US)
        elif fault.kind is FaultKind.LOOSE:
            shaken = (moment.state["mode"][rows] == DRIVING) & (rng.random(len(rows)) < LOOSE_SHARE)
            ohms[rows, fault.cell - 1] += np.where(shaken, fault.size / moment.cells.variant.cell_mohm, 0.0)


def _burn(moment: Moment, faults: tuple[Fault, ...], volts: Volts) -> None:
    """Let the cell of a thermal runaway collapse, and its neighbours after it, one by one."""
    for fault, rows, seconds in moment.of(faults):
        if fault.kind is FaultKind.THERMAL:
            distance = np.abs(np.arange(volts.shape[1]) - (fault.cell - 1))
            burning = np.maximum(seconds[:, None] - RUNAWAY_NEIGHBOUR_S * distance, 0.0)
            volts[rows] *= np.exp(-burning / RUNAWAY_VOLTAGE_S)


def probe_degc(moment: Moment, faults: tuple[Fault, ...], rng: np.random.Generator) -> Volts:
    """Return the temperature at every probe, (row, probe) in °C: the pack's mean, place, noise and faults."""
    cells, state = moment.cells, moment.state
    place = np.linspace(-0.5, 0.5, cells.variant.probes, dtype=np.float32)
    above = (state["pack_degc"] - state["ambient_degc"]).astype(np.float32)
    degc = state["pack_degc"][:, None] + PROBE_GRADIENT * above[:, None] * place
    degc += cells.probe_offset_k[moment.member]
    degc += PROBE_NOISE_K * rng.standard_normal(degc.shape, np.float32)
    for fault, rows, seconds in moment.of(faults):
        if fault.kind is FaultKind.THERMAL:
            degc[rows] += RUNAWAY_PACK_K_PER_S * seconds[:, None]
            nearest = (fault.cell - 1) * cells.variant.probes // cells.variant.cells
            degc[rows, nearest] += np.minimum(RUNAWAY_K_PER_S * seconds, RUNAWAY_PEAK_K)
    return np.asarray(degc, np.float32)

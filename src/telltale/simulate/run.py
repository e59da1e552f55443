"""Run a fleet through its days, or let it live on in step with a clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from telltale.simulate.cells import RUNAWAY_ENDS_S, Moment
from telltale.simulate.fleet import Fleet, draw_fleet
from telltale.simulate.measure import Chunk, measure
from telltale.simulate.packs import LONGEST_STEP_S, TRACE, Packs, start_packs
from telltale.simulate.spec import DAY_S, US, Fault, FaultKind, FleetSpec

BLOCK_CELLS = 40_000  # vehicles times steps taken at once: bounds memory to some 20 MB per variant


def simulate(spec: FleetSpec) -> Iterator[Chunk]:
    """Yield the reports of the whole spec, chunk by chunk, each vehicle's in time order.

    Vehicles report while they drive, charge, or were last busy within half an hour. Chunks hold vehicles of
    one variant; the chunks of one stretch of time come before those of the next.
    """
    yield from SimulatedFleet(draw_fleet(spec)).history()


@dataclass(slots=True)
class SimulatedFleet:
    """A fleet with the state of its packs: first its history, then reports in step with a clock."""

    fleet: Fleet
    packs: Packs
    blocks: int
    silent_from_us: NDArray[np.int64]
    reported_us: NDArray[np.int64]

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.packs = start_packs(fleet)
        self.blocks = 0
        self.silent_from_us = _silence(fleet)
        self.reported_us = np.full(len(fleet), np.iinfo(np.int64).min)

    def history(self) -> Iterator[Chunk]:
        """Yield every report up to the end of the spec."""
        steps = max(1, BLOCK_CELLS // len(self.fleet))
        for ends, interval_s in self._stretches():
            for first in range(0, len(ends), steps):
                yield from self._block(ends[first : first + steps], interval_s)

    def skip_history(self) -> None:
        """Live through the history without reporting it: the state is the same after."""
        for ends, _ in self._stretches():
            for end_us in ends.tolist():
                self._advance_to(end_us)

    def _stretches(self) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Yield the times of each stretch of the history that is still to come, with its interval in s."""
        spec = self.fleet.spec
        closing_us = spec.end_us - round(spec.closing_days * DAY_S * US)
        for until_us, interval_s in ((closing_us, spec.interval_s), (spec.end_us, spec.closing_interval_s)):
            step_us = interval_s * US
            yield np.arange(self.packs.at_us + step_us, until_us + 1, step_us), interval_s

    def _block(self, ends_us: NDArray[np.int64], interval_s: int) -> Iterator[Chunk]:
        trace = np.empty((len(ends_us), len(self.fleet)), TRACE)
        for row, end_us in enumerate(ends_us):
            trace[row] = self._advance_to(int(end_us))
        phase_us = np.arange(len(self.fleet)) * 7 % interval_s * US
        at_us = ends_us[:, None] - phase_us
        yield from self._reports(trace, at_us, trace["awake"])

    def report(self, now_us: int, every_s: float) -> list[Chunk]:
        """Advance to this time and return a report of each vehicle whose last one is `every_s` old.

        Parked vehicles report too. The first reports are spread over `every_s`, so that calling this once a
        second gives an even stream.
        """
        now_us -= now_us % US
        state = self._advance_to(now_us)
        phase_us = np.arange(len(self.fleet)) * 7919 % round(every_s) * US
        fresh = self.reported_us == np.iinfo(np.int64).min
        self.reported_us[fresh] = now_us - round(every_s * US) + phase_us[fresh]
        due = now_us - self.reported_us >= round(every_s * US)
        self.reported_us[due] = now_us
        return list(self._reports(state[None, :].copy(), np.full((1, len(state)), now_us), due[None, :]))

    def add_fault(self, fault: Fault) -> None:
        """Let one more fault begin: a runaway or a leak, say; not one a cell is born with."""
        spec = replace(self.fleet.spec, faults=(*self.fleet.spec.faults, fault))
        self.fleet = replace(self.fleet, spec=spec)
        self.packs.fleet = self.fleet
        self.silent_from_us = _silence(self.fleet)

    def _advance_to(self, at_us: int) -> NDArray[np.void]:
        while at_us - self.packs.at_us > LONGEST_STEP_S * US:
            self.packs.advance(LONGEST_STEP_S)
        if at_us > self.packs.at_us:
            self.packs.advance((at_us - self.packs.at_us) / US)
        return self.packs.state

    def _reports(
        self, trace: NDArray[np.void], at_us: NDArray[np.int64], wanted: NDArray[np.bool_]
    ) -> Iterator[Chunk]:
        """Yield the wanted reports, (step, vehicle), one chunk per variant, sorted by time."""
        self.blocks += 1
        wanted = (wanted | self._burning(at_us)) & (at_us < self.silent_from_us)
        for index, cells in enumerate(self.fleet.cells):
            step, member = np.nonzero(wanted[:, cells.members])
            vehicle = cells.members[member]
            order = np.argsort(at_us[step, vehicle], kind="stable")
            step, member, vehicle = step[order], member[order], vehicle[order]
            if len(step):
                rng = np.random.default_rng([self.fleet.spec.seed, 6, self.blocks, index])
                yield measure(
                    self.fleet, Moment(cells, trace[step, vehicle], at_us[step, vehicle], member), rng
                )

    def _burning(self, at_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        burning = np.zeros(at_us.shape, np.bool_)
        for fault in self.fleet.spec.faults:
            if fault.kind is FaultKind.THERMAL:
                burning[:, fault.vehicle] |= at_us[:, fault.vehicle] >= fault.start_us
        return burning


def _silence(fleet: Fleet) -> NDArray[np.int64]:
    """Return from when on each vehicle sends nothing: after its fire, or for good half-way."""
    spec = fleet.spec
    until = np.full(len(fleet), np.iinfo(np.int64).max)
    quiet = np.random.default_rng([spec.seed, 7]).random(len(fleet)) < spec.trouble.silent
    until[quiet] = spec.start_us + (spec.end_us - spec.start_us) // 2
    for fault in spec.faults:
        if fault.kind is FaultKind.THERMAL:
            until[fault.vehicle] = fault.start_us + round(RUNAWAY_ENDS_S * US)
    return until

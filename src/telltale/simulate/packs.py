"""The packs as wholes, step by step: charge, current, heat and what the vehicle is doing.

One step advances every vehicle by one interval with a constant current, so charge is conserved exactly:
the change of SOC is the sum of current times time over capacity, less self-discharge. What needs memory
lives here (state of charge, slow current, temperature, odometer); cells follow from it in `measure`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from telltale.simulate.chemistry import capacity_factor, growth_of_resistance, ocv_v, resistance_factor
from telltale.simulate.fleet import Fleet
from telltale.simulate.schedule import DayPlan, ambient_degc, local_day, plan_day, second_of_day, under_way
from telltale.simulate.spec import US, FaultKind

Floats = NDArray[np.float64]

AIR_KG_M3, ROLLING, GRAVITY = 1.2, 0.009, 9.81
DRIVE_EFFICIENCY, REGEN_EFFICIENCY = 0.87, 0.62
STANDBY_W, CLIMATE_W_PER_K, CLIMATE_MAX_W = 220.0, 55.0, 2_500.0
AC_CHARGER_W, DC_CHARGER_W = 6_600.0, 60_000.0
RC_TIME_S = 60.0
PASSIVE_W_PER_K, COOLING_W_PER_K, COOLING_FROM_DEGC, HEATER_W, HEATER_BELOW_DEGC = (
    9.0,
    120.0,
    31.0,
    1_500.0,
    5.0,
)
SELF_DISCHARGE_PER_HOUR = 0.015 / 720  # 1.5 % of capacity a month, all cells alike
AWAKE_AFTER_S = 1_800.0  # reports go on this long after power-down (the 2025 edition asks for an hour)
LONGEST_STEP_S = 300.0

PARKED, DRIVING, CHARGING = 0, 1, 2
TRACE = np.dtype(
    [
        ("mode", "i1"),
        ("awake", "?"),
        ("full", "?"),
        ("soc", "f8"),
        ("current_a", "f4"),
        ("slow_current_a", "f4"),
        ("pack_degc", "f4"),
        ("ambient_degc", "f4"),
        ("speed_kmh", "f4"),
        ("odometer_km", "f8"),
        ("drive_w", "f4"),
        ("capacity", "f4"),  # relative to new
        ("resistance", "f4"),  # relative to new at 25 °C
    ]
)


@dataclass(slots=True)
class Packs:
    """The state of every pack of a fleet at one instant; `advance` moves it on."""

    fleet: Fleet
    at_us: int
    rng: np.random.Generator
    state: NDArray[np.void]  # TRACE per vehicle
    awake_until_us: NDArray[np.int64]
    plugged: NDArray[np.bool_]
    cooling: Floats  # share of active cooling that works, now
    plans: dict[int, DayPlan] = field(default_factory=dict)

    def advance(self, dt_s: float) -> NDArray[np.void]:
        """Advance all packs by this many seconds (≤ 300) and return their state; the array is reused."""
        self.at_us += round(dt_s * US)
        plan = self._plan()
        drives, key_on, cruise = under_way(plan, second_of_day(self.at_us))
        self.state["ambient_degc"] = ambient_degc(self.fleet, plan, self.at_us)
        drives &= self.state["soc"] > 0.06
        self._choose_mode(drives)
        _drive(self, cruise, dt_s)
        self._move_charge(dt_s)
        self._move_heat(dt_s)
        self._stay_awake(key_on, dt_s)
        return self.state

    def _plan(self) -> DayPlan:
        day = local_day(self.at_us)
        if day not in self.plans:
            self.plans.clear()
            self.plans[day] = plan_day(self.fleet, day)
            age_packs(self)
        return self.plans[day]

    def _choose_mode(self, drives: NDArray[np.bool_]) -> None:
        state = self.state
        stopped = (state["mode"] == DRIVING) & ~drives
        low = np.where(self.fleet.taxi, 0.45, 0.55)
        self.plugged |= stopped & (state["soc"] < low + 0.1 * self.rng.random(len(low)))
        self.plugged |= (state["soc"] <= 0.1) & ~drives
        state["full"] |= state["soc"] >= 0.9985
        self.plugged &= ~drives & ~state["full"]
        state["full"] &= ~drives
        state["mode"] = np.where(drives, DRIVING, np.where(self.plugged, CHARGING, PARKED))

    def _move_charge(self, dt_s: float) -> None:
        state, fleet = self.state, self.fleet
        volts = pack_volts(self)
        charge = _charge_current(self, volts)
        load = np.where(state["mode"] == DRIVING, state["drive_w"], 0.0)
        standby = np.where(state["awake"] & (state["mode"] != CHARGING), STANDBY_W * 0.2, 0.0)
        climate = np.where(state["mode"] == DRIVING, self._climate_w() + STANDBY_W, standby)
        state["current_a"] = np.where(state["mode"] == CHARGING, charge, -(load + climate) / volts)
        capacity_ah = fleet.of_variant("capacity_ah") * state["capacity"]
        hours = dt_s / 3600
        state["soc"] += state["current_a"] * hours / capacity_ah - SELF_DISCHARGE_PER_HOUR * hours
        keep = np.exp(-dt_s / RC_TIME_S)
        state["slow_current_a"] = keep * state["slow_current_a"] + (1 - keep) * state["current_a"]

    def _climate_w(self) -> Floats:
        away = np.abs(self.state["ambient_degc"].astype(np.float64) - 21.0)
        return np.minimum(CLIMATE_W_PER_K * away, CLIMATE_MAX_W)

    def _move_heat(self, dt_s: float) -> None:
        state, fleet = self.state, self.fleet
        degc = state["pack_degc"].astype(np.float64)
        ohms = (
            fleet.of_variant("cells")
            * (fleet.of_variant("cell_mohm") + fleet.of_variant("cell_rc_mohm"))
            / 1000
        )
        joule = (
            state["current_a"].astype(np.float64) ** 2 * ohms * state["resistance"] * resistance_factor(degc)
        )
        active = (state["mode"] != PARKED) & (degc > COOLING_FROM_DEGC)
        cooled = np.where(active, COOLING_W_PER_K * (degc - COOLING_FROM_DEGC + 1) * self.cooling, 0.0)
        heated = np.where((state["mode"] == CHARGING) & (degc < HEATER_BELOW_DEGC), HEATER_W, 0.0)
        passive = PASSIVE_W_PER_K * (degc - state["ambient_degc"])
        state["pack_degc"] = degc + (joule + heated - passive - cooled) * dt_s / (
            fleet.of_variant("heat_capacity_kj_k") * 1000
        )

    def _stay_awake(self, key_on: NDArray[np.bool_], dt_s: float) -> None:
        busy = self.state["mode"] != PARKED
        self.awake_until_us[busy] = self.at_us + round(AWAKE_AFTER_S * US)
        self.state["awake"] = busy | key_on | (self.at_us <= self.awake_until_us)


def start_packs(fleet: Fleet) -> Packs:
    """Return all packs parked at the start of the spec, at ambient temperature, 40-95 % charged."""
    rng = np.random.default_rng([fleet.spec.seed, 5])
    state = np.zeros(len(fleet), TRACE)
    state["soc"] = rng.uniform(0.4, 0.95, len(fleet))
    state["odometer_km"] = fleet.odometer_km
    start = fleet.spec.start_us
    never, cooling = np.full(len(fleet), np.iinfo(np.int64).min), np.ones(len(fleet))
    packs = Packs(fleet, start, rng, state, never, np.zeros(len(fleet), np.bool_), cooling)
    plan = packs._plan()
    state["pack_degc"] = ambient_degc(fleet, plan, start)
    return packs


def age_packs(packs: Packs) -> None:
    """Set capacity, resistance and cooling of every pack to today's age, throughput and faults."""
    fleet, state = packs.fleet, packs.state
    years = fleet.age_years + (packs.at_us - fleet.spec.start_us) / (365.25 * 86_400 * US)
    range_km = fleet.of_variant("capacity_ah") * fleet.of_variant("cells") * 3.5 / 150  # at 15 kWh/100 km
    cycles = state["odometer_km"] / range_km
    regions = np.array([(r.january_degc + r.july_degc) / 2 for r in fleet.spec.regions])[fleet.region]
    for cells in fleet.cells:
        at = cells.members
        state["capacity"][at] = capacity_factor(
            cells.chemistry, years[at], cycles[at], np.maximum(regions[at], 10)
        )
    state["resistance"] = growth_of_resistance(state["capacity"])
    for fault in fleet.spec.faults:
        if fault.kind is FaultKind.COOLING and packs.at_us >= fault.start_us:
            packs.cooling[fault.vehicle] = 1 - fault.size


def pack_volts(packs: Packs) -> Floats:
    """Return the open-circuit voltage of each pack in V, all cells taken alike."""
    volts = np.empty(len(packs.fleet))
    for cells in packs.fleet.cells:
        volts[cells.members] = ocv_v(cells.chemistry, packs.state["soc"][cells.members]) * cells.variant.cells
    return volts


def _charge_current(packs: Packs, volts: Floats) -> Floats:
    state = packs.state
    power = np.where(packs.fleet.taxi, DC_CHARGER_W, AC_CHARGER_W)
    taper = np.clip((1.002 - state["soc"]) / 0.08, 0.04, 1.0)
    cold = np.where(state["pack_degc"] < 0, 0.3, 1.0)
    limit = 0.9 * packs.fleet.of_variant("capacity_ah")
    return np.minimum(power / volts * cold, limit * taper)


def _drive(packs: Packs, cruise_kmh: Floats, dt_s: float) -> None:
    """Let the driven vehicles' speed wander about its cruise, and set the power at the battery in W."""
    state, fleet = packs.state, packs.fleet
    driving = state["mode"] == DRIVING
    before = state["speed_kmh"].astype(np.float64)
    pull = 1 - np.exp(-dt_s / 60.0)
    noise = packs.rng.normal(0, 1, len(before)) * 0.45 * cruise_kmh * np.sqrt(pull)
    speed = np.where(driving, np.clip(before + (cruise_kmh - before) * pull + noise, 0, 150), 0.0)
    metres_s = (before + speed) / 7.2
    resistance = 0.5 * AIR_KG_M3 * fleet.of_variant("drag_area_m2") * metres_s**2
    rolling = fleet.of_variant("vehicle_kg") * GRAVITY * ROLLING
    push = fleet.of_variant("vehicle_kg") * packs.rng.normal(0, 0.35, len(before))
    watts = np.where(driving, (resistance + rolling + push) * metres_s, 0.0)
    watts = np.where(watts > 0, watts / DRIVE_EFFICIENCY, watts * REGEN_EFFICIENCY)
    watts = np.where(state["soc"] > 0.97, np.maximum(watts, 0.0), watts)  # no regeneration into a full pack
    state["drive_w"] = np.clip(watts, -50_000, 110_000)
    state["speed_kmh"] = speed
    state["odometer_km"] += metres_s * np.where(driving, dt_s, 0.0) / 1000

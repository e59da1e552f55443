"""When vehicles drive, and how warm it is outside: drawn per local day, each day by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from telltale.simulate.fleet import Fleet
from telltale.simulate.spec import DAY_S, US

LOCAL_S = 8 * 3600  # the fleet lives in UTC+8
TRIPS = 8  # most in a day
KEY_ON_S = 120.0  # awake before it moves
COLDEST_DAY, HOTTEST_HOUR = 15, 15


@dataclass(frozen=True, slots=True)
class DayPlan:
    """The trips of one local day: seconds of the day and speed, (vehicle, trip); unused trips never begin."""

    begin_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    cruise_kmh: NDArray[np.float64]
    weather_k: NDArray[np.float64]  # per region: how much warmer than usual this day is


def local_day(at_us: int) -> int:
    """Return the number of the local day (UTC+8) since 1970-01-01."""
    return (at_us // US + LOCAL_S) // DAY_S


def second_of_day(at_us: int) -> float:
    """Return the local time of day in seconds."""
    return (at_us / US + LOCAL_S) % DAY_S


def plan_day(fleet: Fleet, day: int) -> DayPlan:
    """Return the trips of this local day: two commutes or a week-end's errands, or a taxi's long shift."""
    rng = np.random.default_rng([fleet.spec.seed, 3, day])
    private, taxi = _private_trips(fleet, rng, weekend=(day + 3) % 7 >= 5), _taxi_trips(fleet, rng)
    begin = np.where(fleet.taxi[:, None], taxi[0], private[0])
    length = np.where(fleet.taxi[:, None], taxi[1], private[1])
    cruise = np.clip(rng.normal(48, 18, begin.shape), 20, 115)
    return DayPlan(begin, begin + length, cruise, rng.normal(0, 2.5, len(fleet.spec.regions)))


def _private_trips(
    fleet: Fleet, rng: np.random.Generator, *, weekend: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shape = (len(fleet), TRIPS)
    begin, length = np.full(shape, np.inf), rng.uniform(1_200, 3_000, shape)
    if weekend:
        begin[:, 0] = np.where(rng.random(len(fleet)) < 0.6, rng.uniform(9, 19, len(fleet)), np.inf) * 3600
    else:
        begin[:, 0] = rng.normal(7.6, 0.5, len(fleet)) * 3600
        begin[:, 1] = rng.normal(18.0, 0.7, len(fleet)) * 3600
    begin[:, 2] = np.where(rng.random(len(fleet)) < 0.2, rng.uniform(20, 21.5, len(fleet)), np.inf) * 3600
    return begin, length


def _taxi_trips(fleet: Fleet, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shape = (len(fleet), TRIPS)
    shift = np.random.default_rng([fleet.spec.seed, 4]).uniform(0, DAY_S, (len(fleet), 1))
    begin = (shift + np.arange(TRIPS) * 5_700 + rng.normal(0, 400, shape)) % DAY_S
    return begin, rng.uniform(3_000, 4_500, shape)


def under_way(
    plan: DayPlan, second: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Return per vehicle whether it drives, whether its key is on, and the speed it tends to in km/h."""
    in_trip = (plan.begin_s <= second) & (second < plan.end_s)
    drives: NDArray[np.bool_] = np.any(in_trip, axis=1)
    key_on = (plan.begin_s - KEY_ON_S <= second) & (second < plan.end_s)
    cruise: NDArray[np.float64] = np.where(in_trip, plan.cruise_kmh, 0.0).max(axis=1)
    switched_on: NDArray[np.bool_] = np.any(key_on, axis=1)
    return drives, switched_on, cruise


def ambient_degc(fleet: Fleet, plan: DayPlan, at_us: int) -> NDArray[np.float64]:
    """Return the outside temperature in °C at each vehicle: season, hour and the day's weather."""
    regions = fleet.spec.regions
    january = np.array([r.january_degc for r in regions])
    july = np.array([r.july_degc for r in regions])
    swing = np.array([r.swing_k for r in regions])
    season = (1 - np.cos(2 * np.pi * (local_day(at_us) % 365.25 - COLDEST_DAY) / 365.25)) / 2
    hour = np.cos(2 * np.pi * (second_of_day(at_us) / 3600 - HOTTEST_HOUR) / 24) / 2
    degc: NDArray[np.float64] = january + season * (july - january) + swing * hour + plan.weather_k
    return degc[fleet.region]

"""Report rows as frames: one per moment, in integers at the wire's resolution, with what the vehicle does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.records import Flag, Rows, TimeSource, null_of

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SECOND_US: Final = 1_000_000
HOUR_US: Final = 3_600 * SECOND_US
DAY_US: Final = 24 * HOUR_US
DAY_OFFSET_US: Final = 8 * HOUR_US  # a vehicle's day is China Standard Time's

REST_CURRENT_DA: Final = 20  # 2 A: what a parked car's DC-DC draws; some 2 mV across a cell, on all alike
MAX_GAP_US: Final = 300 * SECOND_US
CELL_RANGE_MV: Final = (500, 5000)  # outside, a reading says nothing about how far a cell has drifted


class State(IntEnum):
    """What a vehicle does in a frame."""

    REST = 0
    CHARGE = 1
    DRIVE = 2
    OTHER = 3


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal of the roll-ups: integer steps per unit, and the range outside which it is masked."""

    name: str
    steps: int
    low: float
    high: float


SIGNALS: Final = (
    Signal("soc_pct", 10, 0, 100),
    Signal("pack_voltage_v", 10, 1, 1500),
    Signal("pack_current_a", 10, -2000, 2000),
    Signal("speed_kmh", 10, 0, 300),
    Signal("odometer_km", 10, 0, 10_000_000),
    Signal("cell_voltage_max_v", 1000, 0.5, 5),
    Signal("cell_voltage_min_v", 1000, 0.5, 5),
    Signal("cell_temp_max_degc", 10, -40, 150),
    Signal("cell_temp_min_degc", 10, -40, 150),
    Signal("insulation_kohm", 1, 0, 60_000),
)
SOC, CURRENT, SPEED, TEMP_MAX = 0, 2, 3, 7
NULL: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of one vehicle, one per moment, ascending in time."""

    at_us: Ints
    signals: Ints  # frames x SIGNALS, in steps; NULL where absent or masked
    state: Ints
    cells: tuple[NDArray[np.int64], ...]  # per frame: mV, NULL where invalid or out of range; may be empty

    def __len__(self) -> int:
        return len(self.at_us)

    def part(self, first: int, past: int) -> Frames:
        """Return the frames from `first` to before `past`."""
        cut = slice(first, past)
        return Frames(self.at_us[cut], self.signals[cut], self.state[cut], self.cells[cut])


def day_of(at_us: int) -> int:
    """Return the vehicle day (UTC+8) a moment falls on, in days since 1970-01-01."""
    return (at_us + DAY_OFFSET_US) // DAY_US


def hour_of(at_us: int) -> int:
    """Return the hour since 1970-01-01T00Z a moment falls in."""
    return at_us // HOUR_US


def hours_of_day(day: int) -> range:
    """Return the hours (since 1970-01-01T00Z) of a vehicle day."""
    first = (day * DAY_US - DAY_OFFSET_US) // HOUR_US
    return range(first, first + 24)


def frames_of(rows: Rows) -> Frames:
    """Return the frames of one vehicle's report rows: the parts of a split report joined, in time order.

    Needs the columns of SIGNALS, `charging_state`, `observed_at`, `part`, `flags`, `time_source` and the list
    `cells_mv`. Rows of the same (moment, part) count once: the first.
    """
    columns = rows.columns
    trusted = (columns["time_source"] == TimeSource.VEHICLE) & (
        columns["flags"] & (Flag.TIME_INVALID | Flag.TIME_FUTURE) == 0
    )
    usable = np.flatnonzero(trusted)
    order = usable[np.lexsort((columns["part"][usable], columns["observed_at"][usable]))]
    at, part = columns["observed_at"][order], columns["part"][order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (at[1:] != at[:-1]) | (part[1:] != part[:-1])
    return _joined(rows.take(order[fresh]))


def _joined(rows: Rows) -> Frames:
    at, starts = np.unique(rows.columns["observed_at"].astype(np.int64), return_index=True)
    signals = np.column_stack([_steps(rows.columns[s.name], s) for s in SIGNALS])
    if len(at):
        signals = np.maximum.reduceat(signals, starts, axis=0)  # NULL is the smallest: the known value wins
        charging = np.maximum.reduceat(rows.columns["charging_state"].astype(np.int64), starts)
    else:
        charging = np.zeros(0, np.int64)
    ragged = rows.lists["cells_mv"]
    bounds = ragged.offsets[np.append(starts, len(rows))]
    cells = ragged.values.astype(np.int64)
    cells[(cells < CELL_RANGE_MV[0]) | (cells > CELL_RANGE_MV[1])] = NULL
    per_frame = tuple(cells[a:b] for a, b in pairwise(bounds))
    return Frames(at, signals, _state(signals, charging), per_frame)


def _steps(values: NDArray[np.floating], signal: Signal) -> Ints:
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        known = (wide >= signal.low) & (wide <= signal.high)
    return np.where(known, np.rint(np.where(known, wide, 0) * signal.steps), NULL).astype(np.int64)


def _state(signals: Ints, charging_state: Ints) -> Ints:
    current, speed = signals[:, CURRENT], signals[:, SPEED]
    unsaid = charging_state == null_of(np.dtype("i2"))
    state = np.where(speed > 0, State.DRIVE, State.OTHER)
    inward = current > REST_CURRENT_DA
    state[inward & ((charging_state == 1) | (unsaid & (speed <= 0)))] = State.CHARGE
    state[(current != NULL) & (np.abs(current) <= REST_CURRENT_DA)] = State.REST
    return state.astype(np.int64)

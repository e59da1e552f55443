"""Segments of vehicle hours and days: the roll-up tables and the mergeable summaries they are made from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from telltale.fold.frames import HOUR_US, SIGNALS, State
from telltale.fold.packed import pack, unpack
from telltale.fold.segments import COUNT, MAX, MIN, SUM, Segment
from telltale.store.pool import Connection
from telltale.store.times import date_of, day_number, microseconds, moment

_ROLLED: Final = [f"{signal.name}_{kind}" for signal in SIGNALS for kind in ("min", "mean", "max")]
_HOUR_COLUMNS: Final = ["vehicle_id", "hour_start", "frames", "first_at", "last_at", *_ROLLED, "segment"]
_DAY_COLUMNS: Final = (
    "vehicle_id", "day", "frames", "first_at", "last_at", "rest_s", "charge_s", "drive_s", "charges",
    "charged_ah", "discharged_ah", "soc_pct_min", "soc_pct_max", "odometer_km_min", "odometer_km_max",
    "cell_temp_max_degc_max", "rest_frames", "segment",
)  # fmt: skip


def _upsert(table: str, key: Sequence[str], columns: Sequence[str], touched: str) -> str:
    places = ", ".join(f"${i + 1}" for i in range(len(columns)))
    fresh = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) "  # noqa: S608 - names of this module
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {fresh}, {touched} = now()"
    )


_PUT_HOUR: Final = _upsert("vehicle_hour", ("vehicle_id", "hour_start"), _HOUR_COLUMNS, "folded_at")
_PUT_DAY: Final = _upsert("vehicle_day", ("vehicle_id", "day"), _DAY_COLUMNS, "folded_at")


def _rolled(segment: Segment) -> list[tuple[float | None, float | None, float | None]]:
    """Return (min, mean, max) of each signal in its unit; None where it was never known."""
    rolled: list[tuple[float | None, float | None, float | None]] = []
    for signal, sums in zip(SIGNALS, segment.signals.tolist(), strict=True):
        if not sums[COUNT]:
            rolled.append((None, None, None))
            continue
        mean = sums[SUM] / sums[COUNT]
        rolled.append((sums[MIN] / signal.steps, mean / signal.steps, sums[MAX] / signal.steps))
    return rolled


async def store_hours(db: Connection, hours: dict[tuple[int, int], Segment]) -> None:
    """Write the roll-up and the segment of these vehicle hours."""
    await db.executemany(
        _PUT_HOUR,
        [
            (
                vehicle,
                moment(hour * HOUR_US),
                segment.frames,
                moment(segment.first_us),
                moment(segment.last_us),
                *chain.from_iterable(_rolled(segment)),
                pack(segment),
            )
            for (vehicle, hour), segment in hours.items()
        ],
    )


async def load_hours(db: Connection, spans: Sequence[tuple[int, int, int]]) -> dict[int, dict[int, Segment]]:
    """Return segments by vehicle and hour, for spans (vehicle, first hour, end hour)."""
    found = await db.fetch(
        "SELECT h.vehicle_id, h.hour_start, h.segment "
        "FROM unnest($1::integer[], $2::timestamptz[], $3::timestamptz[]) AS s(vehicle_id, first, past) "
        "JOIN vehicle_hour h ON h.vehicle_id = s.vehicle_id "
        "AND h.hour_start >= s.first AND h.hour_start < s.past",
        [vehicle for vehicle, _, _ in spans],
        [moment(first * HOUR_US) for _, first, _ in spans],
        [moment(past * HOUR_US) for _, _, past in spans],
    )
    hours: dict[int, dict[int, Segment]] = {}
    for row in found:
        hour = microseconds(row["hour_start"]) // HOUR_US
        hours.setdefault(row["vehicle_id"], {})[hour] = unpack(row["segment"])
    return hours


async def store_days(db: Connection, days: dict[tuple[int, int], Segment]) -> None:
    """Write the summaries of these vehicle days."""
    await db.executemany(_PUT_DAY, [_day_row(*key, segment) for key, segment in days.items()])


def _day_row(vehicle: int, day: int, segment: Segment) -> tuple[Any, ...]:
    rolled = dict(zip([signal.name for signal in SIGNALS], _rolled(segment), strict=True))
    seconds = segment.state_us / 1e6
    ampere_hours = segment.charge / 10 / 1e6 / 3600
    return (
        vehicle,
        date_of(day),
        segment.frames,
        moment(segment.first_us),
        moment(segment.last_us),
        *(float(seconds[state]) for state in (State.REST, State.CHARGE, State.DRIVE)),
        segment.charges,
        float(ampere_hours[0]),
        float(ampere_hours[1]),
        rolled["soc_pct"][0],
        rolled["soc_pct"][2],
        rolled["odometer_km"][0],
        rolled["odometer_km"][2],
        rolled["cell_temp_max_degc"][2],
        sum(total.frames for total in segment.rest.values()),
        pack(segment),
    )


async def load_days(
    db: Connection, vehicles: Sequence[int], first_days: Sequence[int]
) -> dict[int, list[tuple[int, Segment]]]:
    """Return day summaries in order, of each vehicle from its first day on."""
    found = await db.fetch(
        "SELECT d.vehicle_id, d.day, d.segment "
        "FROM unnest($1::integer[], $2::date[]) AS s(vehicle_id, first) "
        "JOIN vehicle_day d ON d.vehicle_id = s.vehicle_id AND d.day >= s.first ORDER BY d.vehicle_id, d.day",
        list(vehicles),
        [date_of(day) for day in first_days],
    )
    days: dict[int, list[tuple[int, Segment]]] = {}
    for row in found:
        days.setdefault(row["vehicle_id"], []).append((day_number(row["day"]), unpack(row["segment"])))
    return days

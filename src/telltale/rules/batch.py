"""One batch of reports, sorted by vehicle and time, with what the row before each said.

Two rules need more than their own row: a step (of temperature, of voltage), and "it was plausible before".
Both are remembered in `PreviousRows`, which the caller owns, in memory. **On a restart it is empty**: a step
across the restart is not seen (the level it leads to is), a row older than what was judged before the
restart is judged again, and a vehicle whose first row is already bad counts as never seen well until a good
row, its own alarm flag, or `believe` says otherwise. Nothing that has been raised or is pending is lost: that
is in `VehicleState`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from telltale.records import CELL, Array, Ragged, Rows, empty_ragged, null_of
from telltale.rules.limits import Limits
from telltale.rules.state import VehicleState

# Signals that were seen well, as bits of Memory `believed`.
INSULATION, DCDC, INTERLOCK, HIGH_VOLTAGE = 1, 2, 4, 8
BUCKET_US: Final = 30_000_000  # steps are measured against the first row of this half minute and of the last
STEPPED: Final = ("temp_max_degc", "pack_voltage_v", "cell_min_v")
MEMORY: Final = np.dtype(
    [("observed_at", "i8"), ("believed", "u1"), ("bucket", "i8"), ("now", "f4", (3,)), ("before", "f4", (3,))]
)
_LONG_AGO: Final = int(np.iinfo(np.int64).min)


def _blank(rows: int) -> Array:
    memory = np.zeros(rows, MEMORY)
    memory["observed_at"] = memory["bucket"] = _LONG_AGO
    memory["now"] = memory["before"] = np.nan
    return memory


@dataclass(frozen=True, slots=True)
class Newest:
    """What a batch adds to `PreviousRows`; apply it once the batch is committed."""

    vehicle_ids: Array
    memory: Array


def nothing_new() -> Newest:
    """Return what a batch without judged rows adds."""
    return Newest(np.zeros(0, np.int64), _blank(0))


@dataclass(slots=True)
class PreviousRows:
    """The last judged row of every vehicle, 45 bytes each; owned by the caller, empty at start."""

    memory: Array = field(default_factory=lambda: _blank(0))

    def of(self, vehicle_ids: Array) -> Array:
        """Return a copy of what is remembered of these vehicles, blank where nothing is."""
        found = _blank(len(vehicle_ids))
        known = vehicle_ids < len(self.memory)
        found[known] = self.memory[vehicle_ids[known]]
        return found

    def remember(self, newest: Newest) -> None:
        """Take over what a committed batch has shown."""
        self._grow(int(newest.vehicle_ids.max(initial=-1)))
        self.memory[newest.vehicle_ids] = newest.memory

    def believe(self, vehicle_ids: Iterable[int]) -> None:
        """Note that these vehicles' insulation was plausible once, as the database knows."""
        for vehicle_id in vehicle_ids:
            self._grow(vehicle_id)
            self.memory["believed"][vehicle_id] |= INSULATION

    def _grow(self, vehicle_id: int) -> None:
        if vehicle_id >= len(self.memory):
            grown = _blank(max(vehicle_id + 1, 2 * len(self.memory)))
            grown[: len(self.memory)] = self.memory
            self.memory = grown


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in the order they are judged; every array has one item per row unless told.

    Column arrays carry the names of `records.REPORT_SCALARS`; `nan` stands for null in floats, the type's
    smallest value in integers.
    """

    rows: Rows  # as given, not sorted
    row: Array  # index into `rows`
    vehicle_id: Array
    observed_at: Array
    starts: Array  # per vehicle: its first row here
    memory: Array  # per vehicle: what was remembered of it
    edition: Array  # GB/T 32960 edition, 0 unknown
    chemistry: Array
    columns: Mapping[str, Array]
    limits: Limits
    late: int

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def per_row(self, of_vehicle: Array) -> Array:
        """Spread one value per vehicle over the vehicle's rows."""
        return np.repeat(of_vehicle, np.diff(self.starts, append=len(self.row)))

    def items(self, name: str, index: int) -> Array:
        """Return the list `name` of one judged row, empty when the report has none."""
        ragged = self.rows.lists.get(name)
        return ragged.row(int(self.row[index])) if ragged is not None else np.zeros(0)


# Read once into contiguous arrays: a strided view of a structured array costs more than the rule itself.
_READ: Final = (
    "vehicle_status",
    "charging_state",
    "run_mode",
    "speed_kmh",
    "pack_voltage_v",
    "pack_current_a",
    "dcdc_state",
    "insulation_kohm",
    "accelerator_pedal_pct",
    "cell_voltage_max_v",
    "cell_voltage_min_v",
    "cell_temp_max_degc",
    "alarm_level",
    "alarm_flags",
)


def arrange(
    rows: Rows,
    states: Mapping[int, VehicleState],
    previous: PreviousRows,
    limits: Limits,
    edition: Array | None = None,
    chemistry: Array | None = None,
) -> Batch:
    """Return the rows that are to be judged, sorted by vehicle, time and part, with late ones left out."""
    vehicle_id = rows.columns["vehicle_id"].astype(np.int64)
    observed_at = rows.columns["observed_at"].astype(np.int64)
    order, starts = _order(vehicle_id, observed_at, rows.columns["part"])
    vehicles = vehicle_id[order[starts]]
    memory = previous.of(vehicles)
    judged_until = memory["observed_at"].copy()
    if states:
        for at, vehicle in enumerate(vehicles.tolist()):
            if vehicle in states:
                judged_until[at] = max(judged_until[at], states[vehicle].judged_until)
    on_time = observed_at[order] >= np.repeat(judged_until, np.diff(starts, append=len(order)))
    late = len(order) - int(np.count_nonzero(on_time))
    if late:
        order = order[on_time]
        starts = _starts(vehicle_id[order])
        memory = previous.of(vehicle_id[order[starts]])
    return Batch(
        rows=rows,
        row=order,
        vehicle_id=vehicle_id[order],
        observed_at=observed_at[order],
        starts=starts,
        memory=memory,
        edition=np.zeros(len(order), np.int16) if edition is None else edition[order],
        chemistry=np.zeros(len(order), np.int16) if chemistry is None else chemistry[order],
        columns=_columns(rows, order),
        limits=limits,
        late=late,
    )


def _starts(sorted_ids: Array) -> Array:
    return np.flatnonzero(np.diff(sorted_ids, prepend=_LONG_AGO))


def _order(vehicle_id: Array, observed_at: Array, part: Array) -> tuple[Array, Array]:
    """Sort by vehicle, then by time and part only where arrival order does not do."""
    keyed = np.sort(vehicle_id << 32 | np.arange(len(vehicle_id)))  # unique keys: an unstable sort will do
    order = keyed & 0xFFFF_FFFF
    ids, times, parts = vehicle_id[order], observed_at[order], part[order]
    backward = (times[1:] < times[:-1]) | ((times[1:] == times[:-1]) & (parts[1:] < parts[:-1]))
    if np.any(backward & (ids[1:] == ids[:-1])):
        order = np.lexsort((part, observed_at, vehicle_id))
    return order, _starts(vehicle_id[order])


def _columns(rows: Rows, order: Array) -> dict[str, Array]:
    columns = {name: rows.columns[name].take(order) for name in _READ}
    cells = _native(rows.lists.get("cells_mv"), len(rows))
    probes = _native(rows.lists.get("probes_ddegc"), len(rows))
    listed_low = lowest(cells)[order] / np.float32(1000)
    listed_high = greatest(cells)[order] / np.float32(1000)
    listed_hot = greatest(probes)[order] / np.float32(10)
    whole = rows.columns["part"][order] == 0
    columns["listed_cell_min_v"], columns["listed_cell_max_v"] = listed_low, listed_high
    columns["listed_temp_max_degc"] = listed_hot
    columns["lowest_cell_v"] = np.fmin(listed_low, columns["cell_voltage_min_v"])
    columns["highest_cell_v"] = np.fmax(listed_high, columns["cell_voltage_max_v"])
    columns["temp_max_degc"] = np.fmax(listed_hot, columns["cell_temp_max_degc"])
    columns["cell_min_v"] = np.where(whole, columns["lowest_cell_v"], np.float32(np.nan))
    return columns


def _native(ragged: Ragged | None, rows: int) -> Ragged:
    """Return the lists in the machine's byte order; empty lists where the reports carry none."""
    if ragged is None:
        return empty_ragged(CELL.newbyteorder("="), rows)
    return Ragged(ragged.values.astype(ragged.values.dtype.newbyteorder("=")), ragged.offsets)


def lowest(ragged: Ragged) -> Array:
    """Return the least item of each row's list as float32, NaN where it has none.

    The wire's two markers are the two greatest values of the item's type, so that they are never the least.
    """
    most = np.iinfo(ragged.values.dtype).max
    low = _reduce(np.minimum, ragged.values, ragged, most)
    return np.where(low > most - 2, np.float32(np.nan), low.astype("f4"))


def greatest(ragged: Ragged) -> Array:
    """Return the greatest item of each row's list as float32, NaN where it has none.

    Adding two wraps the wire's two markers round to the bottom of the type, below every value.
    """
    least = np.iinfo(ragged.values.dtype).min
    high = _reduce(np.maximum, ragged.values + ragged.values.dtype.type(2), ragged, least)
    return np.where(high < least + 2, np.float32(np.nan), high.astype("f4") - 2)


def _reduce(ufunc: np.ufunc, values: Array, ragged: Ragged, nothing: int) -> Array:
    lengths = ragged.lengths
    if len(ragged.values) and (lengths == lengths[0]).all():
        matrix: Array = ufunc.reduce(values.reshape(len(lengths), -1), axis=1)
        return matrix
    out = np.full(len(lengths), nothing, values.dtype)
    filled = lengths > 0
    if filled.any():
        out[filled] = ufunc.reduceat(values, ragged.offsets[:-1][filled])
    return out


def is_null(values: Array) -> Array:
    """Return where an integer column is null."""
    nulls: Array = values == null_of(values.dtype)
    return nulls


@dataclass(frozen=True, slots=True)
class Steps:
    """How far each row has moved within the last half to whole minute; NaN where that is unknown."""

    temp_rise_degc: Array
    pack_fall_v: Array
    pack_before_v: Array
    cell_fall_v: Array


def steps(batch: Batch) -> tuple[Steps, Array]:
    """Return the steps of all rows, and per vehicle the memory after its last row (`believed` not yet set).

    Anchors are the first rows of fixed half minutes, not the last row seen: a rise of 1 °C in every second
    is seen as the rise it is, and no cut of the stream into batches changes which rows are compared.
    """
    bucket = batch.observed_at // BUCKET_US
    head = np.diff(bucket, prepend=_LONG_AGO) != 0
    head[batch.starts] = True
    heads = np.flatnonzero(head)
    group = np.cumsum(head) - 1
    first = group[batch.starts]  # per vehicle: its first half minute
    now, before = _anchors(batch, bucket[heads], heads, first)
    low = np.fmin(now, before).take(group, axis=1)
    high = np.fmax(now, before).take(group, axis=1)
    temp, pack, cell = (batch[name] for name in STEPPED)
    found = Steps(temp - low[0], high[1] - pack, high[1], high[2] - cell)
    return found, _memory_after(batch, bucket, heads, first, now, before)


def _anchors(batch: Batch, bucket: Array, heads: Array, first: Array) -> tuple[Array, Array]:
    """Return the values at the head of each half minute and of the one before it, each (3, half minutes)."""
    memory = batch.memory
    now = np.stack([batch[name].take(heads) for name in STEPPED])
    same = memory["bucket"] == bucket[first]
    now[:, first[same]] = memory["now"][same].T
    before = np.full_like(now, np.nan)
    adjacent = np.flatnonzero(np.diff(bucket, prepend=_LONG_AGO) == 1)
    before[:, adjacent] = now.take(adjacent - 1, axis=1)
    remembered = np.where(same[:, None], memory["before"], np.float32(np.nan))
    follows = memory["bucket"] == bucket[first] - 1
    before[:, first] = np.where(follows[:, None], memory["now"], remembered).T
    return now, before


def _memory_after(
    batch: Batch, bucket: Array, heads: Array, first: Array, now: Array, before: Array
) -> Array:
    last = np.append(first[1:], len(heads)) - 1
    last_row = np.append(batch.starts[1:], len(bucket)) - 1
    after = batch.memory.copy()
    after["observed_at"] = batch.observed_at[last_row]
    after["bucket"] = bucket[last_row]
    after["now"], after["before"] = now[:, last].T, before[:, last].T
    return after


def seen_before(batch: Batch, good: Array, bit: int, memory_after: Array) -> Array:
    """Return whether each row's vehicle had a good row earlier or in it, and note it in `memory_after`."""
    last_good = np.maximum.accumulate(np.where(good, np.arange(len(good)), -1))
    seen: Array = last_good >= batch.per_row(batch.starts)
    seen |= batch.per_row((batch.memory["believed"] & bit) != 0)
    last_row = np.append(batch.starts[1:], len(good)) - 1
    memory_after["believed"] |= np.where(seen[last_row], bit, 0).astype(np.uint8)
    return seen


def known_numbers(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evidence without values that are null: JSON has no NaN."""
    return {key: _plain(value) for key, value in mapping.items() if not _is_missing(value)}


def _plain(value: Any) -> Any:
    return round(float(value), 3) if isinstance(value, (float, np.floating)) else value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value))

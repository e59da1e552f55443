"""Reports of a fleet as gateways send them: what every benchmark of the running path feeds in.

A report is a whole GB/T 32960-2016 one: vehicle, one motor, position, extremes, alarm, 96 cells, 24 probes.
Values vary within what a healthy car sends, so that no safety rule speaks unless a benchmark wants it to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from telltale.broker import Producer, ensure_topics
from telltale.decode.gbt32960.encode import encode_reports
from telltale.records import (
    CELL,
    MOTOR,
    PROBE,
    REPORT_COLUMNS,
    REPORT_LISTS,
    SUBSYSTEM,
    Array,
    Ragged,
    Rows,
    empty_ragged,
    nulls,
)
from telltale.simulate.vin import synthetic_vin

CELLS, PROBES = 96, 24
VEHICLES = 2_000
PERIOD_US = 10_000_000  # one report of each vehicle in ten seconds
ON_THE_WAY_US = 300_000
GATEWAYS = 8
START_US = 1_773_460_800_000_000  # 2026-03-14T04:00Z


@dataclass(frozen=True, slots=True)
class Traffic:
    """Reports in time order, and what each became on the wire."""

    rows: Rows
    vin: Array  # S17
    frames: list[bytes]
    headers_at: list[bytes]  # header `received_at` of each

    def __len__(self) -> int:
        return len(self.frames)


def traffic(count: int, *, vehicles: int = VEHICLES, start_us: int = START_US, command: int = 2) -> Traffic:
    """Return `count` reports of a fleet in time order: every vehicle in turn, each every ten seconds."""
    rng = np.random.default_rng(7)
    turn, vehicle = np.divmod(np.arange(count), vehicles)
    columns = _columns(count, rng)
    columns["observed_at"] = start_us + turn * PERIOD_US + vehicle * PERIOD_US // vehicles // 10**6 * 10**6
    rows = Rows(columns, _lists(columns, rng))
    vin = np.array([synthetic_vin(i).encode() for i in range(vehicles)], "S17")[vehicle]
    received = columns["observed_at"] + ON_THE_WAY_US
    return Traffic(
        rows, vin, encode_reports(rows, vin, command=command), [b"%d" % at for at in received.tolist()]
    )


def _columns(count: int, rng: np.random.Generator) -> Array:
    columns = nulls(REPORT_COLUMNS, count)
    columns["part"] = 0
    columns["vehicle_status"], columns["charging_state"], columns["run_mode"] = 1, 2, 1
    columns["dcdc_state"], columns["gear"], columns["alarm_level"], columns["alarm_flags"] = 1, 15, 0, 0
    columns["speed_kmh"] = rng.integers(0, 1200, count) / 10
    columns["odometer_km"] = rng.integers(10_000, 900_000, count) / 10
    columns["pack_voltage_v"] = rng.integers(3480, 3560, count) / 10
    columns["pack_current_a"] = rng.integers(-1000, 500, count) / 10
    columns["soc_pct"], columns["insulation_kohm"] = rng.integers(20, 90, count), 5000
    columns["accelerator_pedal_pct"], columns["brake_pedal_pct"] = rng.integers(0, 60, count), 0
    for kind, low in (("max", 3700), ("min", 3630)):
        columns[f"cell_voltage_{kind}_v"] = (low + rng.integers(0, 20, count)) / 1000
        columns[f"cell_voltage_{kind}_subsystem"] = columns[f"cell_temp_{kind}_subsystem"] = 1
        columns[f"cell_voltage_{kind}_cell"] = rng.integers(1, CELLS + 1, count)
        columns[f"cell_temp_{kind}_probe"] = rng.integers(1, PROBES + 1, count)
    columns["cell_temp_max_degc"], columns["cell_temp_min_degc"] = 28, 24
    columns["longitude_deg"] = rng.integers(113_000_000, 122_000_000, count) / 1e6
    columns["latitude_deg"] = rng.integers(22_000_000, 40_000_000, count) / 1e6
    columns["position_state"] = 0
    return columns


def _lists(columns: Array, rng: np.random.Generator) -> dict[str, Ragged]:
    count = len(columns)
    lists = {item.name: empty_ragged(item.item, count) for item in REPORT_LISTS}
    subsystem, motor = np.zeros((count, 1), SUBSYSTEM), np.zeros((count, 1), MOTOR)
    subsystem["no"] = subsystem["start_cell"] = motor["seq"] = motor["status"] = 1
    subsystem["cell_total"] = subsystem["cells"] = CELLS
    subsystem["probes"] = PROBES
    volts_dv = np.rint(columns["pack_voltage_v"].astype(np.float64) * 10)[:, None]
    subsystem["voltage_dv"] = motor["controller_voltage_dv"] = volts_dv
    subsystem["current_da"] = np.rint(columns["pack_current_a"].astype(np.float64) * 10)[:, None]
    motor["controller_temp_degc"], motor["motor_temp_degc"] = 40, 50
    motor["speed_rpm"] = rng.integers(0, 9_000, (count, 1))
    motor["torque_dnm"] = rng.integers(-500, 2_000, (count, 1))
    lists["subsystems"], lists["motors"] = _ragged(subsystem), _ragged(motor)
    lists["cells_mv"] = _ragged(rng.integers(3630, 3720, (count, CELLS)).astype(CELL))
    lists["probes_ddegc"] = _ragged((rng.integers(24, 29, (count, PROBES)) * 10).astype(PROBE))
    return lists


def _ragged(table: Array) -> Ragged:
    rows, width = table.shape
    return Ragged(table.reshape(-1), np.arange(rows + 1, dtype=np.int64) * width)


def late_order(count: int, share: float) -> NDArray[np.int64]:
    """Return an order of arrival in which this share of reports comes a quarter of the whole too late."""
    rng = np.random.default_rng(11)
    arrival = np.arange(count, dtype=np.float64)
    arrival[rng.random(count) < share] += count / 4
    return np.argsort(arrival, kind="stable")


Message = tuple[bytes, bytes, Sequence[tuple[str, bytes]], None]


def messages(sent: Traffic, order: NDArray[np.int64], frames_per_value: int) -> Iterator[Message]:
    """Yield Kafka messages in this order: one frame each, keyed by VIN, or batches by gateway."""
    protocol = ("protocol", b"gbt32960")
    if frames_per_value == 1:
        gateway = ("gateway", b"bench")
        for i in order.tolist():
            received = ("received_at", sent.headers_at[i])
            yield bytes(sent.vin[i]), sent.frames[i], (protocol, received, gateway), None
        return
    waiting: list[list[int]] = [[] for _ in range(GATEWAYS)]
    _, vehicle = np.unique(sent.vin, return_inverse=True)
    for i, of in zip(order.tolist(), (vehicle % GATEWAYS)[order].tolist(), strict=True):
        waiting[of].append(i)
        if len(waiting[of]) == frames_per_value:
            yield _batch(sent, waiting[of], of)
            waiting[of] = []
    yield from (_batch(sent, rest, of) for of, rest in enumerate(waiting) if rest)


def _batch(sent: Traffic, members: list[int], gateway: int) -> Message:
    name = b"gateway-%d" % gateway
    received = ("received_at", max(sent.headers_at[i] for i in members))
    headers = (("protocol", b"gbt32960"), received, ("gateway", name))
    return name, b"".join(sent.frames[i] for i in members), headers, None


async def fill(
    kafka: str,
    topic: str,
    sent: Traffic,
    *,
    order: NDArray[np.int64] | None = None,
    frames_per_value: int = 1,
    partitions: int = 4,
) -> int:
    """Make a topic that holds this traffic; return how many records it took."""
    await ensure_topics(kafka, {topic: partitions})
    chosen = np.arange(len(sent)) if order is None else order
    async with Producer(kafka) as producer:
        return await producer.send_many(topic, messages(sent, chosen, frames_per_value))

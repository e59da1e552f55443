"""Frames to the topics, with a progress bar and a count: what `replay` and `simulate` share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from telltale.broker import Producer, ensure_topics, existing_topics
from telltale.config import Settings
from telltale.errors import SettingsError
from telltale.simulate.fleet import draw_fleet, truth, write_attributes
from telltale.simulate.run import SimulatedFleet
from telltale.simulate.spec import COMMON_TROUBLE, NO_TROUBLE, US, VARIANTS, FleetSpec, parse_fault
from telltale.simulate.transit import Frame, Outgoing, messages, start_transit

SEND_AT_ONCE = 10_000
EDITIONS = (2016, 2025)


@dataclass(frozen=True, slots=True)
class Published:
    """How many frames the topics acknowledged."""

    live: int = 0
    backlog: int = 0


def fleet_to_order(
    vehicles: int,
    days: float,
    seed: int,
    interval_s: int,
    begin: datetime,
    faults: list[str],
    *,
    edition: int = 2016,
    calm: bool = False,
) -> FleetSpec:
    """Return the fleet an operator asked for.

    Raises SettingsError when a fault fits no vehicle or cell, or the edition is none.
    """
    if edition not in EDITIONS:
        raise SettingsError(f"edition {edition}: expected one of {', '.join(map(str, EDITIONS))}")
    start_us = int(begin.timestamp()) * US
    parsed = tuple(parse_fault(text, start_us) for text in faults)
    trouble = NO_TROUBLE if calm else COMMON_TROUBLE
    variants = tuple(replace(variant, edition=edition) for variant in VARIANTS)
    spec = FleetSpec(
        seed, vehicles, start_us, days, interval_s, variants=variants, faults=parsed, trouble=trouble
    )
    smallest = min(variant.cells for variant in spec.variants)
    for fault, text in zip(parsed, faults, strict=True):
        if not (0 <= fault.vehicle < vehicles and 0 <= fault.cell <= smallest):
            limits = f"vehicle in 0..{vehicles - 1} and cell in 1..{smallest}"
            raise SettingsError(f"fault {text!r}: expected {limits}, got {fault.vehicle} and {fault.cell}")
    return spec


def write_about(spec: FleetSpec, attributes: Path | None, truth_file: Path | None) -> None:
    """Write the fleet's vehicles as CSV for import, and its faults as JSON lines, where a path is given."""
    fleet = draw_fleet(spec)
    if attributes is not None:
        write_attributes(fleet, attributes)
    if truth_file is not None:
        truth_file.write_text("".join(json.dumps(fault) + "\n" for fault in truth(fleet)))


async def publish_fleet(settings: Settings, spec: FleetSpec, partitions: int | None = None) -> Published:
    """Send the frames of a simulated fleet to the topics.

    Raises SettingsError when a topic is missing, WaitableError when Kafka does not take a batch.
    """
    fleet = draw_fleet(spec)
    await require_topics(settings, partitions)
    live = backlog = 0
    async with Producer(settings.kafka) as producer:
        with progress_bar() as progress:
            days = progress.add_task(f"{spec.vehicles} vehicles", total=spec.days, unit="days")
            for out, day in _outgoing(SimulatedFleet(fleet)):
                live += await send(producer, settings.live_topic, out.live)
                backlog += await send(producer, settings.backlog_topic, out.backlog)
                progress.update(days, completed=day)
    return Published(live, backlog)


def _outgoing(simulated: SimulatedFleet) -> Iterator[tuple[Outgoing, float]]:
    """Yield what reaches the gateway, with the days simulated so far."""
    spec = simulated.fleet.spec
    transit = start_transit(spec.trouble, spec.seed)
    for chunk in simulated.history():
        reached = int(chunk.rows.columns["observed_at"][-1]) - spec.start_us
        yield transit.carry(chunk), reached / (spec.end_us - spec.start_us) * spec.days
    yield transit.drain(), spec.days


async def send(producer: Producer, topic: str, frames: list[Frame]) -> int:
    """Send frames keyed by VIN and return how many were acknowledged."""
    sent, waiting = 0, messages(frames)
    while batch := list(islice(waiting, SEND_AT_ONCE)):
        sent += await producer.send_many(topic, batch)
    return sent


async def require_topics(settings: Settings, partitions: int | None = None) -> None:
    """Make the two topics with so many partitions where they do not exist; without a number, demand them."""
    names = (settings.live_topic, settings.backlog_topic)
    if partitions is not None:
        await ensure_topics(settings.kafka, dict.fromkeys(names, partitions))
        return
    missing = sorted(set(names) - await existing_topics(settings.kafka))
    if missing:
        raise SettingsError(
            f"kafka: {settings.kafka} has no topic {', '.join(missing)}: create it, or name a number of "
            "--partitions to have it made"
        )


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on standard error, so that standard output stays for the result."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress

"""The demo's feeder: a simulated fleet, its past and its present through the topics.

The fleet is the same whenever it is started again on the same folder: its seed and the end of its past stand
in `demo.json` there. What was delivered is counted in `sent.json`, for the accounting.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from telltale.broker import Producer
from telltale.config import Settings
from telltale.simulate.demo import DemoFleet, demo_fleet
from telltale.simulate.transit import Frame, Outgoing, messages
from telltale.store.pool import connect
from telltale.store.vehicles import import_vehicles

log = structlog.get_logger("telltale.demo")

SEED: Final = 20_260
TICK_S: Final = 1.0
PROTOCOL: Final = "gbt32960"


@dataclass(slots=True)
class Feeder:
    """Sends frames and keeps count of what was acknowledged."""

    settings: Settings
    producer: Producer
    folder: Path
    sent: Counter[str] = field(default_factory=Counter)

    async def send(self, out: Outgoing, *, past: bool = False) -> None:
        """Deliver frames and note how many; the past goes to the backlog, where it delays nobody."""
        await self._deliver(self.settings.backlog_topic if past else self.settings.live_topic, out.live)
        await self._deliver(self.settings.backlog_topic, out.backlog)
        self.note()

    def note(self) -> None:
        """Write down how many frames have been acknowledged."""
        write_json(self.folder / "sent.json", {"topics": self.topics, "sent": self.sent})

    @property
    def topics(self) -> list[str]:
        """Return the topics the counts are about."""
        return [self.settings.live_topic, self.settings.backlog_topic]

    async def _deliver(self, topic: str, frames: list[Frame]) -> None:
        if frames:
            delivered = await self.producer.send_many(topic, messages(frames))
            self.sent[PROTOCOL] += delivered  # after the await: past and present send at the same time


async def run(settings: Settings, stop: asyncio.Event, folder: Path) -> None:
    """Feed the demo's fleet until `stop` is set. Connects as telltale_owner, to import the vehicles."""
    memory = _remember(folder / "demo.json")
    fleet = demo_fleet(memory["seed"], memory["past_ends_us"])
    await _import(settings, fleet)
    async with Producer(settings.kafka) as producer, asyncio.TaskGroup() as group:
        feeder = Feeder(settings, producer, folder)
        feeder.note()
        group.create_task(_present(fleet, feeder, stop))
        if not memory["past_sent"]:
            group.create_task(_past(memory, feeder, stop))


def featured_dealer(folder: Path) -> str:
    """Return the dealer whose vehicle catches fire in the demo of this folder."""
    memory = _remember(folder / "demo.json")
    return demo_fleet(memory["seed"], memory["past_ends_us"]).featured_dealer


async def _past(memory: dict[str, Any], feeder: Feeder, stop: asyncio.Event) -> None:
    """Send the past. Told to stop on the way, it is sent as a whole next time: the same bytes count once."""
    began, frames = time.monotonic(), 0
    history = demo_fleet(memory["seed"], memory["past_ends_us"]).history()
    while (out := await asyncio.to_thread(_next, history)) is not None:
        if stop.is_set():
            return
        await feeder.send(out, past=True)
        frames += len(out)
    log.info("past_sent", frames=frames, seconds=round(time.monotonic() - began, 1))
    write_json(feeder.folder / "demo.json", memory | {"past_sent": True})


async def _present(fleet: DemoFleet, feeder: Feeder, stop: asyncio.Event) -> None:
    """Send what the fleet reports, second by second, while its past is still under way."""
    while not stop.is_set():
        began = time.monotonic()
        await feeder.send(await asyncio.to_thread(fleet.live, time.time_ns() // 1000))
        rest_s = max(0.0, TICK_S - (time.monotonic() - began))
        try:
            async with asyncio.timeout(rest_s):
                await stop.wait()
        except TimeoutError:
            continue


async def _import(settings: Settings, fleet: DemoFleet) -> None:
    connection = await connect(settings.database, role_name="demo", timeout_s=settings.database_timeout_s)
    try:
        since = datetime.fromtimestamp(fleet.start_us / 1e6, UTC)
        count = await import_vehicles(connection, fleet.attributes, origin="demo", valid_from=since)
    finally:
        await connection.close()
    log.info("vehicles_imported", vehicles=count)


def _next(history: Iterator[Outgoing]) -> Outgoing | None:
    return next(history, None)


def _remember(path: Path) -> dict[str, Any]:
    """Return the fleet's seed and the end of its past, chosen the first time."""
    if not path.exists():
        write_json(path, {"seed": SEED, "past_ends_us": time.time_ns() // 1000, "past_sent": False})
    return dict(json.loads(path.read_text()))


def write_json(path: Path, content: Any) -> None:
    """Replace a small file as a whole."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content))
    fresh.replace(path)

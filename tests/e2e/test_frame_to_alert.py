"""From a frame on Kafka to an alert that its dealer reads, every process real."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.stack import described, start

from telltale.broker import Producer
from telltale.simulate.demo import DemoFleet, demo_fleet
from telltale.simulate.transit import Outgoing, messages
from telltale.store.accounts import accounts
from telltale.store.pool import connect
from telltale.store.vehicles import import_vehicles

US = 1_000_000


@pytest.fixture
def said(kafka: str, empty_database_url: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    process = start(tmp_path / "dev", "--broker", kafka, "--database", empty_database_url)
    yield described(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def get(said: dict[str, Any], role: str, path: str) -> Any:
    request = urllib.request.Request(said["api"] + path, headers={"Authorization": f"Bearer {said[role]}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def two_minutes(fleet: DemoFleet, begin_us: int) -> Outgoing:
    """What the fleet sends in two minutes, a thermal runaway among it."""
    every = [fleet.live(begin_us + second * US) for second in range(120)]
    return Outgoing([f for out in every for f in out.live], [f for out in every for f in out.backlog])


async def test_a_runaway_on_the_topic_is_an_urgent_alert_of_its_dealer_and_all_is_accounted_for(
    said: dict[str, Any],
) -> None:
    begin_us = time.time_ns() // 1000 - 130 * US
    fleet = demo_fleet(9, begin_us, vehicles=12, history_days=0.1)
    owner = await connect(said["database"], role_name="test", timeout_s=10)
    try:
        await import_vehicles(owner, fleet.attributes, origin="test")
        assert fleet.featured_dealer == "D01", "whose key `telltale dev` hands out"
        out = two_minutes(fleet, begin_us)
        async with Producer(said["kafka"]) as producer:
            sent = await producer.send_many(said["topics"]["live"], messages(out.live))
            sent += await producer.send_many(said["topics"]["backlog"], messages(out.backlog))
        alert = await until_alert(said, "thermal_event")
        assert alert["severity"] == "urgent"
        mine = [a["id"] for a in get(said, "dealer", "/v1/alerts")["items"]]
        assert alert["id"] in mine
        ledger = await until_read(owner, list(said["topics"].values()), sent)
        assert ledger.adds_up
        assert ledger.sent == sent
        assert ledger.stored == await owner.fetchval("SELECT count(*) FROM report")
    finally:
        await owner.close()


async def until_alert(said: dict[str, Any], detector: str, wait_s: float = 30) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        for alert in get(said, "quality", "/v1/alerts")["items"]:
            if alert["detector"] == detector:
                return dict(alert)
        await asyncio.sleep(0.2)
    raise AssertionError(f"no {detector} within {wait_s} s")


async def until_read(owner: Any, topics: list[str], sent: int, wait_s: float = 30) -> Any:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        ledger = await accounts(owner, topics)
        if ledger and ledger[0].sent >= sent:
            break
        await asyncio.sleep(0.2)
    return ledger[0]

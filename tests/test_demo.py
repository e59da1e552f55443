"""The demo's feeder keeps count of what it sends from two tasks at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from telltale.broker import Producer
from telltale.config import Settings
from telltale.demo import Feeder
from telltale.simulate.transit import Frame, Outgoing

pytestmark = pytest.mark.unit


class SlowProducer:
    """Takes its time to acknowledge, as a broker does."""

    async def send_many(self, topic: str, messages: Iterable[Any]) -> int:
        count = len(list(messages))
        await asyncio.sleep(0.001 * count)
        return count


async def test_no_count_is_lost_when_past_and_present_are_sent_at_once(tmp_path: Path) -> None:
    feeder = Feeder(Settings(), cast("Producer", SlowProducer()), tmp_path)
    frame = Frame(b"L0TESTVEHCLE00001", b"##", 0)
    past, present = Outgoing([frame] * 20), Outgoing([frame] * 3, [frame])
    await asyncio.gather(
        feeder.send(past, past=True), feeder.send(present), feeder.send(past, past=True), feeder.send(present)
    )
    assert feeder.sent == {"gbt32960": 48}
    assert json.loads((tmp_path / "sent.json").read_text())["sent"] == {"gbt32960": 48}

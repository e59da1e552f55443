"""/v1/events over a real socket: nothing is lost, nobody sees another dealer's events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2
import pytest

from telltale.api import stream
from telltale.store.feed import AlertFeed


@dataclass
class Message:
    event: str
    id: str
    data: dict[str, Any] = field(default_factory=dict)


async def messages(response: httpx2.Response) -> AsyncIterator[Message]:
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line == "" and "event" in found:
            yield Message(found["event"], found["id"], json.loads(found["data"]))
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


@asynccontextmanager
async def listening(
    server: str, token: str, last_id: str | None = None
) -> AsyncIterator[AsyncIterator[Message]]:
    headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last_id} if last_id else {})
    async with (
        httpx2.AsyncClient(base_url=server, timeout=20) as client,
        client.stream("GET", "/v1/events", headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield messages(response)


async def take(source: AsyncIterator[Message], count: int = 1) -> list[Message]:
    return [await asyncio.wait_for(anext(source), 10) for _ in range(count)]


async def silent(source: AsyncIterator[Message], seconds: float = 0.6) -> bool:
    waiting = asyncio.ensure_future(anext(source))
    done, _ = await asyncio.wait({waiting}, timeout=seconds)
    waiting.cancel()
    return not done


async def test_an_alert_arrives_at_its_dealer_and_the_fleet_but_not_elsewhere(
    server: str, world: Any
) -> None:
    async with (
        listening(server, world.keys["same"]) as same,
        listening(server, world.keys["other"]) as other,
        listening(server, world.keys["quality"]) as quality,
    ):
        for source in (same, other, quality):
            assert [m.event for m in await take(source)] == ["ready"]
        alert = await world.raise_alert("D1", component="cell:9")
        for source in (same, quality):
            (found,) = await take(source)
            assert (found.event, found.data["alert"], found.data["kind"]) == ("alert", str(alert), "raised")
            assert "vin" not in found.data
        assert await silent(other)


async def second_writer(world: Any) -> asyncpg.Connection:
    return await asyncpg.connect(world.urls.ingest, timeout=10, server_settings={"search_path": "telltale"})


async def test_an_event_that_commits_after_a_younger_one_is_not_hidden(server: str, world: Any) -> None:
    slow, fast = await second_writer(world), await second_writer(world)
    async with listening(server, world.keys["same"]) as source:
        await take(source)
        held = slow.transaction()
        await held.start()
        first = await world.raise_alert(
            "D1", component="cell:1", connection=slow
        )  # the lower id, not committed
        second = await world.raise_alert(
            "D1", component="cell:2", connection=fast
        )  # the higher id, committed
        assert await silent(source), "an event was shown although an older one could still commit"
        # anext was cancelled above: a client that resumes must get both, in order
    async with listening(server, world.keys["same"]) as source:
        (ready,) = await take(source)
        await held.commit()
        found = await take(source, 2)
        assert {m.data["alert"] for m in found} == {str(first), str(second)}
    async with listening(server, world.keys["same"], ready.id) as source:
        again = await take(source, 2)
        assert [m.id for m in again] == [m.id for m in found]
    await slow.close()
    await fast.close()


async def test_resuming_after_any_event_gives_exactly_the_ones_behind_it(server: str, world: Any) -> None:
    async with listening(server, world.keys["same"]) as source:
        (ready,) = await take(source)
        raised = [str(await world.raise_alert("D1", component=f"cell:{i}")) for i in range(5)]
        found = await take(source, 5)
    assert [m.data["alert"] for m in found] == raised
    for index, last_id in enumerate([ready.id, *(m.id for m in found)]):
        async with listening(server, world.keys["same"], last_id) as source:
            behind = await take(source, 5 - index + 1)
            assert [m.data.get("alert") for m in behind] == [*raised[index:], None]
            assert behind[-1].event == "ready"


async def test_a_rolled_back_event_is_never_shown(server: str, world: Any) -> None:
    async with listening(server, world.keys["same"]) as source:
        await take(source)
        attempt = world.ingest.transaction()
        await attempt.start()
        await world.raise_alert("D1", component="cell:1")
        await attempt.rollback()
        kept = await world.raise_alert("D1", component="cell:2")
        assert (await take(source))[0].data["alert"] == str(kept)


@pytest.mark.parametrize("last_id", ["nonsense", "1-1", "999999999999-7", "999999999999999999-0", "-", "1"])
async def test_an_unknown_place_is_answered_with_resync_and_then_goes_on(
    server: str, world: Any, last_id: str
) -> None:
    async with listening(server, world.keys["same"], last_id) as source:
        assert [m.event for m in await take(source, 2)] == ["resync", "ready"]
        alert = await world.raise_alert("D1", component="cell:1")
        assert (await take(source))[0].data["alert"] == str(alert)


async def test_a_place_too_far_back_is_answered_with_resync(
    server: str, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telltale.store.feed.REPLAY_LIMIT", 3)
    async with listening(server, world.keys["same"]) as source:
        (ready,) = await take(source)
        for number in range(5):
            await world.raise_alert("D1", component=f"cell:{number}")
        last = await take(source, 5)
    async with listening(server, world.keys["same"], ready.id) as source:
        assert (await take(source))[0].event == "resync"
    async with listening(server, world.keys["same"], last[2].id) as source:
        assert [m.event for m in await take(source, 3)] == ["alert", "alert", "ready"]


async def test_another_dealers_event_id_is_an_unknown_place(server: str, world: Any) -> None:
    async with listening(server, world.keys["other"]) as source:
        await take(source)
        await world.raise_alert("D2", component="cell:1")
        (theirs,) = await take(source)
    async with listening(server, world.keys["same"], theirs.id) as source:
        assert (await take(source))[0].event == "resync"


async def test_an_acknowledgement_reaches_other_readers(server: str, world: Any) -> None:
    async with (
        listening(server, world.keys["quality"]) as source,
        httpx2.AsyncClient(base_url=server) as client,
    ):
        await take(source)
        headers = {"Authorization": f"Bearer {world.keys['same']}", "If-Match": "1"}
        answer = await client.post(f"/v1/alerts/{world.alerts['D1']}/acknowledge", headers=headers)
        assert answer.status_code == 200
        (found,) = await take(source)
        assert (found.data["kind"], found.data["actor"], found.data["version"]) == ("acknowledged", "same", 2)


async def test_a_stream_of_a_revoked_key_ends(
    server: str, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)
    admin = await asyncpg.connect(world.urls.admin, timeout=10)
    async with listening(server, world.keys["same"]) as source:
        await take(source)
        await admin.execute(
            "UPDATE telltale.api_key SET revoked_at = now() WHERE id = $1", world.key_ids["same"]
        )
        with pytest.raises(StopAsyncIteration):
            await take(source)
    await admin.close()


async def test_the_feed_comes_back_after_its_connection_is_cut(server: str, world: Any) -> None:
    admin = await asyncpg.connect(world.urls.admin, timeout=10)
    async with listening(server, world.keys["same"]) as source:
        await take(source)
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'telltale-api-feed' AND datname = current_database()"
        )
        assert await admin.fetchval(cut)
        alert = await world.raise_alert("D1", component="cell:1")
        assert (await take(source))[0].data["alert"] == str(alert)
    await admin.close()


async def test_streams_of_strangers_are_refused(server: str, world: Any) -> None:
    async with httpx2.AsyncClient(base_url=server) as client:
        for headers in ({}, {"Authorization": f"Bearer {world.keys['revoked']}"}):
            assert (await client.get("/v1/events", headers=headers)).status_code == 401


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_the_reader_of_the_feed_ends_when_a_wake_up_and_the_end_come_together(turns: int) -> None:
    feed = AlertFeed(None)

    async def forever() -> None:
        while True:
            await feed.wait(60)

    reader = asyncio.create_task(forever())
    for _ in range(2):  # until it waits
        await asyncio.sleep(0)
    feed._on_notify()
    for _ in range(turns):
        await asyncio.sleep(0)
    reader.cancel()
    done, _ = await asyncio.wait({reader}, timeout=1)
    reader.cancel()
    assert done


async def test_every_living_key_may_listen(server: str, world: Any) -> None:
    for who in ("same", "other", "quality", "ops"):
        async with listening(server, world.keys[who]) as source:
            assert [m.event for m in await take(source)] == ["ready"]


async def test_a_client_that_left_is_forgotten(server: str, app: Any, world: Any) -> None:
    async with listening(server, world.keys["same"]) as source:
        await take(source)
        assert app.state.hub.clients == 1
    for _ in range(100):
        if app.state.hub.clients == 0:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the hub still holds a client that closed its connection")

"""An API under test: the real application in this process, on a real database, as role telltale_api."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from telltale.api.app import create_app
from telltale.api.serve import bind
from telltale.config import Settings
from telltale.store.keys import create_key, revoke_key

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


@dataclass
class World:
    """A little fleet: two dealers with one vehicle and one open alert each, and a key per role."""

    urls: Any
    ingest: asyncpg.Connection
    keys: dict[str, str]
    key_ids: dict[str, str]
    vehicles: dict[str, tuple[int, uuid.UUID]]  # dealer → (id, public id)
    alerts: dict[str, uuid.UUID]  # dealer → alert

    async def raise_alert(
        self,
        dealer: str,
        *,
        detector: str = "insulation_low",
        component: str = "pack",
        severity: str = "urgent",
        connection: asyncpg.Connection | None = None,
        raised_at: datetime | None = None,
        evidence: dict[str, Any] | None = None,
        happened_at: datetime = NOW,
    ) -> uuid.UUID:
        """Insert an alert and its event, as `ingest` does."""
        on, alert_id, vehicle = connection or self.ingest, uuid.uuid4(), self.vehicles[dealer][0]
        await on.execute(
            "INSERT INTO alert (id, vehicle_id, dealer, detector, detector_version, component, severity, "
            "happened_at, seen_at, raised_at, evidence) "
            "VALUES ($1,$2,$3,$4,'1',$5,$6,$7,$8,coalesce($9,now()),$10)",
            alert_id, vehicle, dealer, detector, component, severity,
            happened_at, happened_at + timedelta(seconds=1), raised_at,
            json.dumps(evidence or {"value": 1.5}),
        )  # fmt: skip
        await on.execute(
            "INSERT INTO alert_event (alert_id, vehicle_id, dealer, kind, seen_at, actor) "
            "VALUES ($1,$2,$3,'raised',$4,'ingest')",
            alert_id, vehicle, dealer, happened_at,
        )  # fmt: skip
        return alert_id

    async def store_reports(self, dealer: str, cells: list[bytes], *, start: datetime = NOW) -> None:
        """Store one report every ten seconds with these packed cells, and a voltage that counts up."""
        times = [start + timedelta(seconds=10 * i) for i in range(len(cells))]
        await self.ingest.execute("SELECT ensure_partitions($1)", times)
        await self.ingest.executemany(
            "INSERT INTO report (vehicle_id, observed_at, part, received_at, source_id, time_source, flags, "
            "digest, pack_voltage_v, soc_pct, pack_current_a, cells_mv) "
            "VALUES ($1,$2,0,$2,1,0,0,0,$3,50,-12,$4)",
            [
                (self.vehicles[dealer][0], at, 300.0 + i, c)
                for i, (at, c) in enumerate(zip(times, cells, strict=True))
            ],
        )


async def _connect(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        url, timeout=10, command_timeout=20, server_settings={"search_path": "telltale"}
    )


@pytest.fixture
async def world(database_urls: Any) -> AsyncIterator[World]:
    ingest = await _connect(database_urls.ingest)
    vehicles = {}
    for index, dealer in enumerate(("D1", "D2")):
        row = await ingest.fetchrow(
            "INSERT INTO vehicle (vin, vin_valid, variant, dealer) VALUES ($1, true, 'V1', $2) "
            "RETURNING id, public_id",
            f"LTELLTALE0000000{index + 1}", dealer,
        )  # fmt: skip
        vehicles[dealer] = (row["id"], row["public_id"])
    owner = await _connect(database_urls.admin)
    wanted = {"same": ("dealer", "D1"), "other": ("dealer", "D2"), "quality": ("quality", None),
              "ops": ("ops", None), "revoked": ("dealer", "D1")}  # fmt: skip
    made = {who: await create_key(owner, role, dealer, who) for who, (role, dealer) in wanted.items()}
    assert await revoke_key(owner, made["revoked"].id)
    await owner.close()
    keys = {who: key.token for who, key in made.items()}
    found = World(database_urls, ingest, keys, {w: k.id for w, k in made.items()}, vehicles, {})
    for dealer in vehicles:
        found.alerts[dealer] = await found.raise_alert(dealer)
    yield found
    await ingest.close()


@pytest.fixture
async def app(world: World) -> AsyncIterator[FastAPI]:
    made = create_app(Settings(database=world.urls.api, database_timeout_s=10))
    async with made.router.lifespan_context(made):
        for _ in range(200):
            if made.state.hub.ready:
                break
            await asyncio.sleep(0.02)
        yield made


@dataclass
class Api:
    """Requests to the application, as one of the world's callers."""

    client: httpx2.AsyncClient
    world: World

    async def __call__(self, who: str, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = dict(options.pop("headers", {}))
        if who in self.world.keys:
            headers.setdefault("Authorization", f"Bearer {self.world.keys[who]}")
        return await self.client.request(method, path, headers=headers, **options)


@pytest.fixture
async def api(app: FastAPI, world: World) -> AsyncIterator[Api]:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://telltale.test") as client:
        yield Api(client, world)


@pytest.fixture
async def server(app: FastAPI) -> AsyncIterator[str]:
    """Address of the application behind a real socket."""
    listener = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(config)
    running.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(running.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    app.state.hub.close()
    running.should_exit = True
    await task
